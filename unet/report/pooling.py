"""Pools a metric over all test images, in addition to its mean over images.

The mean gives every image the same weight, the pooled value every pixel or object. A ratio is
pooled as the ratio of the sums, which is the mean weighted by the denominators
(`MetricRow.weight`). Metrics in `DERIVED` are computed from the pooled values of others. Counts are
added up. The rest (percentiles, scores of single slices) has no pooled value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from unet.evaluation.metrics.boundary import f1
from unet.evaluation.metrics.instance import INSTANCES, IOU_THRESHOLDS, Detection
from unet.evaluation.metrics.pixel import ALL, FOREGROUND_MEAN, mean_of_defined
from unet.evaluation.metrics.rows import NAN, MetricRow

BINS_OF = ("reliability_", "confidence_")
DETECTION = ("det_missed", "det_false", "det_merged")
COUNTS = frozenset(
    {"n_true", "n_pred", "n_split", "n_merged", "n_missed", "n_added", *DETECTION}
)  # fmt: skip


class Pooled(NamedTuple):
    """A pooled value and the pixels, objects or pairs behind it."""

    value: float
    weight: float


# (class, metric) -> its pooled value, of one model.
Table = Mapping[tuple[str, str], Pooled]


def pool(metrics: Iterable[MetricRow]) -> dict[tuple[str, str], Pooled]:
    """Pooled values of one model in one dataset, by class and metric; NaN if there is none."""
    above: dict[tuple[str, str], float] = {}
    below: dict[tuple[str, str], float] = {}
    for row in metrics:
        key = row.class_, row.metric
        above.setdefault(key, 0.0)
        below.setdefault(key, 0.0)
        if math.isnan(row.value):
            continue
        if row.metric in COUNTS:
            above[key] += row.value
        elif row.weight > 0:  # not NaN
            above[key] += row.value * row.weight
            below[key] += row.weight
    table = {key: _pooled(key[1], total, below[key]) for key, total in above.items()}
    for class_, metric in table:
        if metric in DERIVED:
            table[class_, metric] = Pooled(DERIVED[metric](table, class_), NAN)
    # Means over classes last, because they may use derived values.
    for class_, metric in table:
        if class_ == FOREGROUND_MEAN:
            table[class_, metric] = Pooled(_foreground_mean(table, metric), NAN)
    return table


def _pooled(metric: str, above: float, below: float) -> Pooled:
    if metric in COUNTS:
        return Pooled(above, NAN)
    return Pooled(above / below, below) if below else Pooled(NAN, 0.0)


def _value(table: Table, class_: str, metric: str) -> float:
    found = table.get((class_, metric))
    return found.value if found else NAN


def _foreground_mean(table: Table, metric: str) -> float:
    """Mean over the classes after the first one, which is the first class with a precision."""
    ground = next((c for c, m in table if m == "precision"), None)
    others = (ground, ALL, FOREGROUND_MEAN, INSTANCES)
    classes = dict.fromkeys(c for c, m in table if m == metric and c not in others)
    return mean_of_defined([_value(table, c, metric) for c in classes])


def _ap_mean(table: Table, class_: str) -> float:
    return mean_of_defined([_value(table, class_, f"ap_{t:.2f}") for t in IOU_THRESHOLDS])


def _det(table: Table, class_: str) -> float:
    missed, false, merged = (_value(table, class_, name) for name in DETECTION)
    n_true = _value(table, class_, "n_true")
    if any(map(math.isnan, (missed, false, merged, n_true))):
        return NAN
    return Detection(int(missed), int(false), int(merged)).score(int(n_true))


def _boundary_f1(table: Table, class_: str) -> float:
    pred = table.get((class_, "boundary_precision"), Pooled(NAN, 0.0))
    true = table.get((class_, "boundary_recall"), Pooled(NAN, 0.0))
    hits = [0.0 if math.isnan(p.value) else p.value * p.weight for p in (pred, true)]
    return f1(hits[0], pred.weight, hits[1], true.weight)


def _ece(table: Table, class_: str) -> float:
    """ECE of the pooled bins: errors of images in opposite directions may cancel out."""
    bins = reliability_bins(table, class_)
    total = sum(b.pixels for b in bins)
    return sum(b.pixels * abs(b.right - b.confidence) for b in bins) / total if total else NAN


# Metric -> function that computes it from the pooled values of a class.
DERIVED: dict[str, Callable[[Table, str], float]] = {
    "ap_mean": _ap_mean,
    "det": _det,
    "boundary_f1": _boundary_f1,
    "ece": _ece,
}


class Bin(NamedTuple):
    """A bin of a reliability table: mean confidence, share that is right, pixels."""

    confidence: float
    right: float
    pixels: float


def reliability_bins(table: Table, class_: str) -> list[Bin]:
    """The bins of a class that contain pixels, by rising confidence; [] if none was measured."""
    bins = []
    for (row_class, metric), pooled in table.items():
        if row_class == class_ and metric.startswith(BINS_OF[0]) and pooled.weight > 0:
            number = metric.removeprefix(BINS_OF[0])
            confidence = _value(table, class_, BINS_OF[1] + number)
            bins.append(Bin(confidence, pooled.value, pooled.weight))
    return sorted(bins)
