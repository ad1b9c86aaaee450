"""The rows of ``metrics.csv``, written by evaluate and read by the report."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from unet.paths import fold_number
from unet.tables import read_table

NAN = float("nan")
METRIC_COLUMNS = (
    "dataset", "model", "fold", "image", "group", "class", "metric", "value", "weight",
)  # fmt: skip
# For the whole image (class ""), 1 = no seam: unet/prediction/stitch/seams.py.
SEAM_SCORE = "seam_score"


class MetricRow(NamedTuple):
    """One row of ``metrics.csv``: a metric of one class in one test image.

    ``weight`` is the denominator of a ratio (pixels, objects, pairs). The mean of the values with
    these weights is the ratio of the sums: the metric of all images pooled. NaN if the metric is
    pooled in another way (unet/report/pooling.py) or cannot be pooled.
    """

    dataset: str
    model: str
    fold: int
    image: str
    group: str
    class_: str
    metric: str
    value: float
    weight: float = NAN


def read_metrics(path: Path) -> list[MetricRow]:
    """Reads ``metrics.csv``; empty cells are NaN. Raises UserError if it is not such a file."""
    found = read_table(path, "evaluate", METRIC_COLUMNS, numbers=("value", "weight"))
    found["fold"] = found["fold"].map(fold_number)
    return [MetricRow(*row) for row in found[list(METRIC_COLUMNS)].itertuples(index=False)]


class Score(NamedTuple):
    """One score of an image by a family of metrics: the last four columns of `MetricRow`."""

    class_: str
    metric: str
    value: float
    weight: float = NAN


def ratio(class_: str, metric: str, above: float, below: float) -> Score:
    """``above / below`` with ``below`` as its weight; 0/0 (and anything / 0) is NaN."""
    return Score(class_, metric, float(above / below) if below else NAN, float(below))


def error(class_: str, metric: str, above: float, below: float) -> Score:
    """``1 - above / below`` with ``below`` as its weight; NaN for a denominator of 0."""
    return ratio(class_, metric, below - above, below)


def count(class_: str, metric: str, number: float) -> Score:
    """A number of things, which pools by its sum."""
    return Score(class_, metric, float(number))
