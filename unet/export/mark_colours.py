"""The colours of truth, prediction and errors in all pictures and outline files.

The hues of Okabe and Ito (2008, https://jfly.uni-koeln.de/color/), which colour-blind readers can
tell apart. Truth and what a model missed are blue, prediction and what it added orange: the lighter
colour is an outline, the darker one an error.
"""

from __future__ import annotations

Rgb = tuple[int, int, int]

TRUTH: Rgb = (86, 180, 233)
PREDICTION: Rgb = (230, 159, 0)
# Where the outlines of truth and prediction are the same, and objects found if drawn once.
BOTH: Rgb = (0, 158, 115)
MISSED: Rgb = (0, 114, 178)
FALSE: Rgb = (213, 94, 0)
# One class instead of another, none of them the first.
SWAPPED: Rgb = (204, 121, 167)
# Pixels that no score counts.
IGNORED: Rgb = (120, 120, 120)
COLOURS: dict[str, Rgb] = {
    "truth": TRUTH,
    "prediction": PREDICTION,
    "both": BOTH,
    "missed": MISSED,
    "false": FALSE,
    "swapped": SWAPPED,
    "ignored": IGNORED,
}
# Outlines on dark images and on bright ones, where they must be darker to be seen.
OUTLINES: dict[str, tuple[Rgb, Rgb]] = {
    "truth": (TRUTH, (0, 84, 148)),
    "prediction": (PREDICTION, (156, 84, 0)),
}
