"""The colours of truth, prediction and errors: colour-blind readers can tell them apart."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from unet.export.mark_colours import COLOURS, OUTLINES
from unet.report.check_thumbnails import legend
from unet.report.overlays import CLASS_COLOURS, GROUND, class_colour, mark_colour

# Machado, Oliveira and Fernandes (2009), IEEE TVCG 15(6): full dichromacy, for linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
# Pairs in one picture. A difference (CIEDE2000) of 2.3 is just noticeable.
TOGETHER = [
    *combinations(("truth", "prediction", "both"), 2),
    *combinations(("truth", "prediction", "missed", "false"), 2),
    *combinations(("missed", "false", "swapped"), 2),
]
CLEAR = 12.0


def linear(colour: Any) -> Any:
    part = np.array(colour) / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def seen(colour: Any, vision: str) -> Any:
    """CIELAB of a colour as someone with this vision sees it."""
    part = np.clip(np.array(VISION[vision]) @ linear(colour), 0, 1)
    rgb = np.where(part <= 0.0031308, 12.92 * part, 1.055 * part ** (1 / 2.4) - 0.055)
    return rgb2lab(rgb[None, None])[0, 0]


@pytest.mark.parametrize("vision", VISION)
def test_colours_differ_clearly_for_everyone(vision: str) -> None:
    for one, other in TOGETHER:
        pair = (seen(COLOURS[one], vision), seen(COLOURS[other], vision))
        assert deltaE_ciede2000(*pair) > CLEAR, (one, other)


def contrast(one: Any, other: Any) -> float:
    """Contrast ratio of WCAG 2, 1 to 21."""
    light = sorted(float(linear(c) @ (0.2126, 0.7152, 0.0722)) for c in (one, other))
    return (light[1] + 0.05) / (light[0] + 0.05)


def test_lines_stand_out_from_their_ground() -> None:
    for name in ("truth", "prediction", "both", "missed", "false", "swapped"):
        assert contrast(COLOURS[name], (20, 20, 20)) > 3, name
    for dark, bright in OUTLINES.values():
        assert contrast(dark, (20, 20, 20)) > 3
        assert contrast(bright, (240, 240, 240)) > 4.5


def test_labels_and_predictions_differ_where_only_one_is_drawn() -> None:
    """`unet check` draws labels, `unet predict` and `unet annotate` draw predictions."""
    assert legend("instances", ("background", "cell")) == {
        "outline of a labelled object": COLOURS["truth"]
    }
    assert mark_colour("instances", 1) == (COLOURS["prediction"], 1.0)
    assert mark_colour("instances", 2, "truth") == (OUTLINES["truth"][1], 1.0)


def test_labels_and_predictions_of_classes_differ_too() -> None:
    """The labels that `unet check` shows are blue, and what a model predicts is orange."""
    names = ("background", "cell", "edge")
    assert legend("semantic", names)["cell"] == COLOURS["truth"]
    assert mark_colour("semantic", 1) == (COLOURS["prediction"], 0.4)
    assert legend("semantic", names)["edge"] == mark_colour("semantic", 2)[0]


def test_no_class_has_the_colour_of_a_mark() -> None:
    """The legends of classes and of errors are one above the other."""
    for vision in VISION:
        least = CLEAR if vision == "normal" else 10
        marks = {name: seen(colour, vision) for name, colour in COLOURS.items()}
        for colour in (GROUND, *CLASS_COLOURS):
            for name, mark in marks.items():
                assert deltaE_ciede2000(seen(colour, vision), mark) > least, (vision, colour, name)


def test_classes_differ_from_one_another() -> None:
    shown = [class_colour(k) for k in range(1 + len(CLASS_COLOURS))]
    for one, other in combinations(shown, 2):
        assert deltaE_ciede2000(seen(one, "normal"), seen(other, "normal")) > CLEAR, (one, other)
    # On images one of the first two colours is that of the labels or of the prediction.
    for side in ("truth", "prediction"):
        drawn = [mark_colour("semantic", k, side)[0] for k in range(1, 9)]
        assert len(set(drawn)) == 8
        for one, other in combinations(drawn, 2):
            assert deltaE_ciede2000(seen(one, "normal"), seen(other, "normal")) > CLEAR
