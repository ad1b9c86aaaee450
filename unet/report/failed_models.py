"""Models whose main score on the test images is near 0: lines for the top of the pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from unet.errors import how_many
from unet.evaluation.quality.poor_scores import NEAR_ZERO
from unet.evaluation.quality.quality_table import MAIN_SCORES, SCORE_NAMES
from unet.paths import origin_of
from unet.report.score_tables import ReportRow

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
        what = "objects" if kind == "instances" else "pixels"
        lines.append(
            f"{model}: hardly anything that it predicts is right: mean {SCORE_NAMES[kind]} of "
            f"{row.mean:.2f} over {how_many(row.n, 'test image')}. Do not use its masks, and do "
            f"not trust numbers of {what}, or what is compared with it; "
            f"{_TRAINED if origin_of(model) is None else _APPLIED}"
        )
    return lines
