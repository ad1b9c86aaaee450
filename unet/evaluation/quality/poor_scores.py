"""When a main score is so low that the result must not pass for a good one, whatever the others.

Both limits follow from what the scores mean; no images were used to choose them. AP@0.5 is
TP / (TP + FP + FN) over objects, IoU the same over pixels, and a = AP or IoU is worth F1 (Dice) =
2 a / (1 + a), the share of the predicted and true objects (pixels) together that match. F1 grows
less than in proportion to ``a``, so a mean of ``a`` below a limit is a mean of F1 below the limit's
F1, too (Jensen's inequality).
"""

from __future__ import annotations

# F1 is below 0.5: more is wrong than right.
POOR = 0.33
# F1 is below 0.2 (0.18): hardly anything is right.
NEAR_ZERO = 0.1
