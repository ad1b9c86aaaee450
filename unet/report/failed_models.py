"""Models whose main score on the test images is near 0: lines for the top of the pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from unet.errors import how_many
from unet.evaluation.quality.poor_scores import NEAR_ZERO, below, few_note
from unet.evaluation.quality.quality_table import MAIN_SCORES, SCORE_NAMES
from unet.paths import origin_of
from unet.report.score_tables import ReportRow

# From this mean IoU of the foreground on, the pixels are right: Dice is above two thirds.
RIGHT_PIXELS = 0.5
_TRAINED = (
    "train longer (train.epochs, train.steps_per_epoch), look at the curves under Training, and "
    "check that the labels fit the images"
)
_APPLIED = (
    "look at the images; if the pixel size or the channel is wrong, give the dataset pixel_size_um "
    "or channels; otherwise train a model on images like these"
)


def failed_lines(rows: Iterable[ReportRow], task: str, models: Sequence[str]) -> list[str]:
    """A warning for each model that finds hardly anything right.

    Masks from elsewhere are not trained here, so they are not meant.

    Args:
        rows: of ``report.csv``.
        models: those that this run trained.
    """
    found = {(row.model, row.class_, row.metric): row for row in rows}
    lines = []
    for model in models:
        # Without the metrics of objects, their pixels tell.
        for kind in (task, "semantic"):
            row = found.get((model, *MAIN_SCORES[kind]))
            if row is not None and row.n:
                break
        if row is None or not row.mean < NEAR_ZERO:
            continue
        pixels = found.get((model, *MAIN_SCORES["semantic"]))
        if kind == "instances" and pixels is not None and pixels.mean >= RIGHT_PIXELS:
            lines.append(f"{model}: {_merged(row, pixels)}")
            continue
        numbers = "do not trust numbers of objects, or" if task == "instances" else "do not trust"
        lines.append(
            f"{model}: hardly anything that it predicts is right: {_mean(row, kind)}. Do not use "
            f"its masks, and {numbers} what is compared with it; "
            f"{_TRAINED if origin_of(model) is None else _APPLIED}"
        )
    return lines


def _mean(row: ReportRow, kind: str) -> str:
    images = how_many(row.n, "test image")
    few = few_note(row.n, row.units)
    return f"mean {SCORE_NAMES[kind]} of {below(row.mean, NEAR_ZERO)} over {images}{few}"


def _merged(row: ReportRow, pixels: ReportRow) -> str:
    """Of a model that tells objects from the background, but not from one another."""
    return (
        f"its pixels are right (mean IoU of {pixels.mean:.2f}), but hardly any object is: "
        f"{_mean(row, 'instances')}. Most likely objects that touch are one in its masks, or "
        "one is cut into several. Do not trust numbers and sizes of objects; look at the images: "
        "head border or distance keeps objects that touch apart (docs/prediction.md)"
    )
