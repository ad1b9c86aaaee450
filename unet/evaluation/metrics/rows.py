"""The rows of ``metrics.csv``, which evaluate writes and the report reads."""

from __future__ import annotations

from typing import NamedTuple

NAN = float("nan")
METRIC_COLUMNS = (
    "dataset", "model", "fold", "image", "group", "class", "metric", "value", "weight",
)  # fmt: skip
# Of the whole image (class ""), 1 = no seam: unet/prediction/stitch/seams.py.
SEAM_SCORE = "seam_score"


class MetricRow(NamedTuple):
    """One row of ``metrics.csv``: a metric of one class in one test image.

    ``weight`` is the denominator of a ratio (pixels, objects, pairs), so that the mean of the
    values weighted by it is the ratio of the sums: the metric of all images pooled. NaN where
    pooling is another thing than that (unet/report/pooling.py) or means nothing.
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


class Score(NamedTuple):
    """What a family of metrics says of one image: the last four columns of `MetricRow`."""

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
