"""The rows of ``metrics.csv``, which evaluate writes and the report reads."""

from __future__ import annotations

from typing import NamedTuple

METRIC_COLUMNS = ("dataset", "model", "fold", "image", "group", "class", "metric", "value")


class MetricRow(NamedTuple):
    """One row of ``metrics.csv``: a metric of one class in one test image."""

    dataset: str
    model: str
    fold: int
    image: str
    group: str
    class_: str
    metric: str
    value: float
