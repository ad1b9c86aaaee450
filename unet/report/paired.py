"""Comparison of models on the images that they share, by the paired bootstrap."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from unet.evaluation.rows import NAN, MetricRow
from unet.evaluation.statistics import Interval, bootstrap_interval

# With fewer pairs even a difference that has the same sign in all of them is no evidence: the sign
# test gives 2 / 2^5 = 0.06 for five. Of grouped images the groups count.
FEW_PAIRS = 6

BEST, YES, NO, FEW = "best", "yes", "no", "few"


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: confidence level, resamplings, seed."""

    confidence: float = 0.95
    n: int = 2000
    seed: int = 0

    def interval(self, rows: Sequence[MetricRow]) -> Interval:
        """Mean over the rows (one per image) with its interval.

        Whole groups are resampled where the rows name at least two; an image without a group then
        stands for itself.
        """
        # Sorted, so that the draws do not depend on the order in which images were evaluated.
        rows = sorted(rows, key=lambda row: (row.image, row.fold))
        return bootstrap_interval(
            [row.value for row in rows], units(rows), self.confidence, self.n, self.seed
        )


def units(rows: Sequence[MetricRow]) -> list[tuple[str, str]] | None:
    """What is resampled: the group (or the image without one) of each row; None: each image."""
    if len({row.group for row in rows if row.group}) < 2:
        return None
    return [("group", r.group) if r.group else ("image", r.image) for r in rows]


class Versus(NamedTuple):
    """A model beside the best one of a metric.

    ``difference``: mean of (best - this) over the shared images, with its paired interval;
    ``clear``: "best", or whether the difference is more than chance: "yes" (the interval excludes
    0), "no", "few" (too few images or groups to tell); "" where nothing is compared.
    """

    best: str = ""
    difference: float = NAN
    low: float = NAN
    high: float = NAN
    n: int = 0
    clear: str = ""


def versus_best(
    rows_of: Mapping[str, Sequence[MetricRow]], sign: int, bootstrap: Bootstrap
) -> dict[str, Versus]:
    """Each model beside the one with the best mean.

    Two models see the same images, so what is hard for one is hard for the other: images are drawn
    once for both, which makes the interval of the difference far narrower than the two intervals
    of the means suggest. Images that only one of the two has, or where either is not defined, are
    left out. The intervals are those of single comparisons, not corrected for their number.

    Args:
        rows_of: model -> its rows of one class and metric.
        sign: 1 if higher is better, -1 if lower, 0: nothing is compared.
    """
    values = {
        model: {(r.image, r.fold): r for r in rows if not math.isnan(r.value)}
        for model, rows in rows_of.items()
    }
    means = {m: fmean(r.value for r in v.values()) for m, v in values.items() if v}
    if len(means) < 2 or not sign:
        return {model: Versus() for model in rows_of}
    best = max(means, key=lambda model: sign * means[model])
    found = {}
    for model in rows_of:
        shared = [key for key in values[best] if key in values[model]]
        change = [
            values[best][key]._replace(value=values[best][key].value - values[model][key].value)
            for key in shared
        ]
        if model == best:
            found[model] = Versus(best, clear=BEST)
        elif not change:
            found[model] = Versus(best)
        else:
            interval = bootstrap.interval(change)
            drawn = units(change)
            number = len(set(drawn)) if drawn else len(change)
            found[model] = Versus(best, *interval, clear=_clear(interval, number))
    return found


def _clear(interval: Interval, number: int) -> str:
    if number < FEW_PAIRS or math.isnan(interval.low):
        return FEW
    return YES if interval.low > 0 or interval.high < 0 else NO
