"""Rows of ``quality.csv``: how far the result of a model can be believed on each new image."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from unet.evaluation.metrics.rows import NAN
from unet.tables import read_table, write_table

# Task -> class and name of the main score: the first of unet.report.score_tables.HEADLINE.
MAIN_SCORES = {"instances": ("instances", "ap_0.50"), "semantic": ("foreground-mean", "iou")}
SCORE_NAMES = {"instances": "AP@0.5", "semantic": "IoU"}
# Family of metrics (``evaluate.metrics``) that measures them, and the counts.
MAIN_FAMILIES = {"instances": "instance", "semantic": "pixel"}
COUNTS = ("instances", "n_true"), ("instances", "n_pred")


class QualityRow(NamedTuple):
    """One row of ``quality.csv``.

    Attributes:
        predicted_score: main score (AP@0.5 for task instances, IoU for semantic) that the image
            probably has; NaN = not predicted.
        predicted_low, predicted_high: its interval at the level ``report.confidence``.
        count_: number of predicted objects; NaN for task semantic.
        count_low, count_high: interval for the true number of objects at the same level.
        drift: how unlike the training images, 1 = at the limit of what is usual; NaN = unknown.
        drift_reasons: how it differs, in words.
        doubt: 0 to 1; images with the highest one need a look first.
        flagged: whether the image needs a look.
        why: the reasons, in words.
    """

    image: str
    predicted_score: float = NAN
    predicted_low: float = NAN
    predicted_high: float = NAN
    count_: float = NAN
    count_low: float = NAN
    count_high: float = NAN
    drift: float = NAN
    drift_reasons: str = ""
    doubt: float = NAN
    flagged: bool = False
    why: str = ""


QUALITY_COLUMNS = tuple(name.rstrip("_") for name in QualityRow._fields)
_TEXTS = ("image", "drift_reasons", "flagged", "why")
_NUMBERS = tuple(name for name in QUALITY_COLUMNS if name not in _TEXTS)


def write_quality(path: Path, rows: Iterable[QualityRow]) -> None:
    """Writes ``quality.csv`` atomically; undefined values are empty cells."""
    named = (row._replace(flagged="yes" if row.flagged else "no") for row in rows)  # type: ignore[arg-type]
    write_table(path, QUALITY_COLUMNS, named, digits=4)


def read_quality(path: Path) -> list[QualityRow]:
    """Reads ``quality.csv``; empty cells are NaN.

    Raises:
        UserError: it is missing or not such a table.
    """
    found = read_table(path, "quality", QUALITY_COLUMNS, numbers=_NUMBERS)
    found["flagged"] = found["flagged"] == "yes"
    return [QualityRow(*row) for row in found[list(QUALITY_COLUMNS)].itertuples(index=False)]
