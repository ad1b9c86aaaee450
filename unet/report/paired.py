"""Compares models on the images that they share."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unet.data.tested_units import enough
from unet.evaluation.metrics.rows import NAN, MetricRow
from unet.evaluation.statistics import (
    Interval,
    flip_test,
    group_index,
    mean_interval,
    of_all_pairs,
)

BEST, YES, NO, FEW = "best", "yes", "no", "few"
UNBOUNDED = (-math.inf, math.inf)


@dataclass(frozen=True)
class Statistics:
    """Settings of intervals and tests: confidence level, random sign flips, and their seed."""

    confidence: float = 0.95
    draws: int = 2000
    seed: int = 0

    def interval(
        self, rows: Sequence[MetricRow], bounds: tuple[float, float] = UNBOUNDED
    ) -> Interval:
        """Mean over the rows (one per image) with its interval.

        If the rows name at least two groups, the groups are the units, and an image without a group
        is a unit of its own. bounds: of the metric.
        """
        # Sorted, so that sums do not depend on the order in which images were evaluated.
        rows = sorted(rows, key=lambda row: (row.image, row.fold))
        return mean_interval([row.value for row in rows], units(rows), self.confidence, bounds)


def units(rows: Sequence[MetricRow]) -> list[tuple[str, str]]:
    """The unit of each row: its group, or the image itself."""
    grouped = len({row.group for row in rows if row.group}) >= 2
    return [("group", r.group) if grouped and r.group else ("image", r.image) for r in rows]


class Versus(NamedTuple):
    """A model compared with the best one by a metric.

    ``difference``: mean of (best - this) over the shared images, with the interval of this one
    comparison; ``p``: of the test that they are equal, corrected for all pairs of models;
    ``clear``: "best", or whether the difference is more than chance: "yes" (p is at most 1 -
    confidence), "no", "few" (too few images or groups to tell); "" if nothing is compared.
    """

    best: str = ""
    difference: float = NAN
    low: float = NAN
    high: float = NAN
    n: int = 0
    clear: str = ""
    p: float = NAN


def versus_best(
    rows_of: Mapping[str, Sequence[MetricRow]],
    sign: int,
    statistics: Statistics,
    bounds: tuple[float, float] = UNBOUNDED,
) -> dict[str, Versus]:
    """Compares each model with the one that has the best mean.

    The models see the same images, and images that are hard for one are hard for the other. So the
    differences per image vary far less than the scores. Images that only one of the two has, or
    with an undefined score, are left out. The test is corrected for all pairs of models, not only
    those with the best one, because the best one is chosen on the same images.

    Args:
        rows_of: model -> its rows of one class and metric.
        sign: 1 if higher is better, -1 if lower is better, 0: do not compare.
        bounds: of the metric.
    """
    values = {m: {(r.image, r.fold): r for r in rows} for m, rows in rows_of.items()}
    any_row = {key: row for own in values.values() for key, row in own.items()}
    keys = sorted(any_row)
    table = {m: np.array([own[k].value if k in own else NAN for k in keys])
             for m, own in values.items()}  # fmt: skip
    measured = [m for m, scores in table.items() if not np.isnan(scores).all()]
    if len(measured) < 2 or not sign:
        return {model: Versus() for model in rows_of}
    groups = units([any_row[key] for key in keys])
    best = _best({m: sign * table[m] for m in measured}, groups, statistics)
    p_of = _tested({m: table[m] for m in measured}, groups, statistics)
    width = bounds[1] - bounds[0]
    found = {best: Versus(best, clear=BEST)}
    for model in rows_of:
        if model == best:
            continue
        change = mean_interval(
            table[best] - table[model], groups, statistics.confidence, (-width, width)
        )
        if not change.n:
            found[model] = Versus(best)
            continue
        p = p_of[frozenset((best, model))]
        if not enough(change.units, statistics.confidence):
            clear = FEW
        else:
            clear = YES if p <= 1 - statistics.confidence + 1e-12 else NO
        found[model] = Versus(best, *change[:4], clear, p)
    return {model: found[model] for model in rows_of}


def _tested(
    table: Mapping[str, NDArray[np.float64]], groups: Sequence[Hashable], statistics: Statistics
) -> dict[frozenset[str], float]:
    """The corrected p of each pair of models.

    table: model -> scores [N], NaN if missing. The differences of a group's images are summed to
    one unit, so that the mean over images is tested.
    """
    index = group_index(groups)

    def test(change: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.zeros((index.max() + 1, change.shape[1]))
        np.add.at(sums, index, np.where(np.isnan(change), 0, change))
        return flip_test(sums, statistics.draws, statistics.seed)

    return of_all_pairs(table, test)


def _best(
    table: Mapping[str, NDArray[np.float64]], groups: Sequence[Hashable], statistics: Statistics
) -> str:
    """The model with the highest mean; of two that were not scored on the same images, the one
    with the higher mean over the images that both have.

    A model that shares too few images for a test is only best if no other pair could be tested:
    else it would leave the others without a verdict.

    Args:
        table: model -> its score of each image, NaN where it has none.
        groups: the unit of each image.
    """
    index = group_index(groups)

    def testable(used: NDArray[np.bool_]) -> bool:
        return enough(len(set(index[used].tolist())), statistics.confidence)

    there = {model: ~np.isnan(scores) for model, scores in table.items()}
    number = {model: np.count_nonzero(used) for model, used in there.items()}
    most = max(number.values())
    whole = [model for model in table if number[model] == most]
    best = max(whole, key=lambda model: float(np.nanmean(table[model])))
    tested = any(testable(there[best] & used) for model, used in there.items() if model != best)
    for model, scores in table.items():
        both = there[model] & there[best]
        if number[model] < most and both.any() and (testable(both) or not tested):
            best = model if scores[both].mean() > table[best][both].mean() else best
    return best
