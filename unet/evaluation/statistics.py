"""Confidence intervals of means over images, and a test of differences between models.

Both are designed for few images: `benchmarks/coverage.py` measures how often the intervals contain
the true mean, and how often equal models seem to differ, from 3 images on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Up to this many units all sign flips are tried (2048, half of 2^12: the other half mirrors them).
EXACT = 12
# Numbers drawn at once (32 MiB of float64), so that memory stays bounded for a million images.
_DRAWS = 2**22
# A value with a larger modified z-score is an outlier (Iglewicz & Hoaglin 1993).
_OUTLIER = 3.5
# With fewer images, or groups of them, a mean is uncertain: pages and warnings say that they are
# few.
FEW_UNITS = 10
# With this many outliers, their share is known well enough for the interval to be right.
_MANY_OUTLIERS = 10


class Interval(NamedTuple):
    """A mean, the ends of its confidence interval, and the data behind it.

    ``n`` values in ``units`` independent units (groups, or images if there are no groups);
    ``far``: how many units are far from the rest, see `far_apart`.
    """

    mean: float
    low: float
    high: float
    n: int
    units: int = 0
    far: int = 0


def mean_interval(
    values: Sequence[float] | NDArray[Any],
    groups: Sequence[Hashable] | NDArray[Any] | None = None,
    confidence: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """Mean of ``values`` with its t interval, on a scale that keeps it within ``bounds``.

    values: one per image, [N]; NaN means "not defined" and is dropped. groups: [N], the slide,
    animal or video of each image. Images of one group are not independent, so the groups are the
    units. bounds: of the metric; see `_ends`.

    The standard error is that of a weighted mean of the units' means, assuming equal variances:
    sd(means) sqrt(sum of w^2), w the share of the images. For units of equal size that is the usual
    sd / sqrt(n). It has n - 1 degrees of freedom for n units.

    For a single unit, or if all units are equal, the ends are NaN, because the data do not tell how
    much another image may differ. Without values everything is NaN. Raises ValueError for
    confidence levels or lengths that make no sense.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    data = np.asarray(values, np.float64)
    if data.ndim != 1 or (groups is not None and len(groups) != len(data)):
        raise ValueError(f"need one value and one group per image, got shape {data.shape}")
    defined = ~np.isnan(data)
    data = data[defined]
    if not data.size:
        return Interval(math.nan, math.nan, math.nan, 0)
    index = np.arange(len(data))
    if groups is not None:
        index = group_index([group for group, keep in zip(groups, defined, strict=True) if keep])
    sizes = np.bincount(index)
    means = np.bincount(index, data) / sizes
    mean, units = float(data.mean()), len(means)
    if units < 2 or np.ptp(means) <= 1e-12 * np.abs(means).max():
        return Interval(mean, math.nan, math.nan, len(data), units)
    from scipy.special import stdtrit

    error = means.std(ddof=1) * math.sqrt(float(np.square(sizes / len(data)).sum()))
    margin = float(stdtrit(units - 1, (1 + confidence) / 2) * error)
    return Interval(mean, *_ends(mean, margin, *bounds), len(data), units, far_apart(means))


def _ends(mean: float, margin: float, low: float, high: float) -> tuple[float, float]:
    """Ends of the interval mean +- margin, computed on the logit scale between two finite bounds,
    on the log scale above a single one (delta method).

    Scores near a bound are skewed away from it, so the interval reaches further on that side. A
    plain t interval covers too little there, and crosses the bound.
    """
    if not low < mean < high or math.isinf(low):
        return mean - margin, mean + margin
    with np.errstate(over="ignore"):
        if math.isinf(high):
            factor = float(np.exp(margin / (mean - low)))
            return low + (mean - low) / factor, low + (mean - low) * factor
        width = high - low
        factor = float(np.exp(margin * width / ((mean - low) * (high - mean))))
    odds = (mean - low) / (high - mean)
    return low + width * odds / (odds + factor), high - width / (1 + odds * factor)


def far_apart(values: NDArray[np.float64]) -> int:
    """How many of the values [N] are so far from the rest that the mean depends on them; 0 if there
    are ten or more, because their share is known then.

    A value is far if it is an outlier by its modified z-score (0.6745 |x - median| /
    median |x - median| > 3.5, Iglewicz & Hoaglin 1993), and further from the median than half the
    median. The first condition alone finds some in every fifth set of ordinary scores.
    """
    centre = np.median(values)
    distance = np.abs(values - centre)
    typical = np.median(distance) / 0.6745
    far = int(((distance > _OUTLIER * typical) & (distance > abs(centre) / 2)).sum())
    return far if far < _MANY_OUTLIERS else 0


def flip_test(differences: NDArray[np.float64], draws: int, seed: int) -> NDArray[np.float64]:
    """p-values [P] of "the mean difference is 0", corrected for their number (max-T).

    differences: [N, P], N independent units in P comparisons; 0 where a comparison lacks a unit.

    Sign-flip test: if two models are equal, each unit's difference could just as well have the
    other sign. A unit's sign is flipped in all comparisons together. p is the share of flips in
    which the largest statistic of *all* comparisons is at least that of this one (Westfall & Young
    1993; |sum of d| / sqrt(sum of d^2), which gives the same order as t). So the chance to find any
    difference among equal models is at most the level, however many models there are. Up to 12
    units all flips are tried, else ``draws`` random ones from ``seed``.
    """
    if differences.ndim != 2 or draws < 1:
        raise ValueError(f"need [unit, comparison], got {differences.shape}, {draws} draws")
    n, comparisons = differences.shape
    norms = np.sqrt(np.square(differences).sum(axis=0))
    scaled = differences / np.where(norms > 0, norms, 1)
    # Statistics that are equal except for rounding count as reached.
    observed = np.abs(scaled.sum(axis=0)) * (1 - 1e-9) - 1e-12
    if not comparisons or not n:
        return np.ones(comparisons)
    total = 2 ** (n - 1) if n <= EXACT else draws
    rng = np.random.default_rng(seed)
    reached = np.zeros(comparisons, np.int64)
    step = max(1, _DRAWS // max(n, comparisons))
    for start in range(0, total, step):
        rows = np.arange(start, min(total, start + step))
        if n <= EXACT:
            bits = (rows[:, None] >> np.arange(n) & 1).astype(np.uint8)
        else:
            raw = rng.integers(0, 256, (len(rows), -(-n // 8)), np.uint8)
            bits = np.unpackbits(raw, axis=1, count=n)
        largest = np.abs((1.0 - 2.0 * bits) @ scaled).max(axis=1)
        reached += (largest[:, None] >= observed).sum(axis=0)
    # Random flips leave out the original data, which must count so that p keeps its level.
    extra = 0 if n <= EXACT else 1
    return np.asarray((reached + extra) / (total + extra), np.float64)


def of_all_pairs(
    table: Mapping[str, NDArray[np.float64]],
    test: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> dict[frozenset[str], float]:
    """The p-value of each pair of models, corrected for all of them.

    The best model is chosen by the same scores: among equal models it is the one that chance
    favours most. Tests of the pairs with it alone would find too much; those of all pairs do not.

    Args:
        table: model -> its scores [N]; NaN where it has none.
        test: differences [N, P] of P pairs -> p-values [P], corrected for their number.
    """
    pairs = list(combinations(table, 2))
    if not pairs:
        return {}
    p = test(np.stack([table[a] - table[b] for a, b in pairs], axis=1))
    return {frozenset(pair): float(value) for pair, value in zip(pairs, p, strict=True)}


def group_index(groups: Sequence[Hashable]) -> NDArray[np.intp]:
    """Numbers the groups 0, 1, .. in order of appearance: [N]."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], np.intp)


def repeated_split_test(
    differences: NDArray[np.float64], held_out: float = 0.0
) -> NDArray[np.float64]:
    """p-values [P] of "the mean difference over repeated trainings is 0", corrected for their
    number by Holm's method; NaN for fewer than two trainings, and where the difference is the same
    in all of them: then its variance is not known.

    differences: [N, P], N trainings (folds) in P comparisons. held_out: scored images per training
    image.

    The t test of paired differences with the variance of Nadeau & Bengio (2003, "Inference for the
    generalization error", Machine Learning 52), s^2 (1 / N + held_out) in place of s^2 / N: the
    trainings share images, so they differ less from each other than from one on new images. N - 1
    degrees of freedom. Raises ValueError for shapes that make no sense.
    """
    if differences.ndim != 2 or held_out < 0:
        raise ValueError(f"need [training, comparison], got {differences.shape}, {held_out}")
    n, comparisons = differences.shape
    if n < 2 or not comparisons:
        return np.full(comparisons, math.nan)
    from scipy.special import stdtr

    means = differences.mean(axis=0)
    errors = differences.std(axis=0, ddof=1) * math.sqrt(1 / n + held_out)
    # Differences that are equal except for rounding. Without any difference nothing speaks for one.
    same = errors <= 1e-12 * np.maximum(np.abs(means), 1e-3)
    t = np.abs(means) / np.where(same, 1, errors)
    alone = np.where(same, 1, 2 * stdtr(n - 1, -t))
    return np.where(same & (np.abs(means) > 1e-12), math.nan, _holm(alone))


def _holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p-values [P] corrected for their number (Holm 1979): the smallest times P, the next times
    P - 1, ...; never below a smaller one."""
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    corrected = np.minimum(1, np.maximum.accumulate(p[order] * factors))
    found = np.empty_like(corrected)
    found[order] = corrected
    return found
