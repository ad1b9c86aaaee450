"""Confidence intervals of means over images, by the bootstrap."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Random numbers drawn at once (32 MiB of int64): a million images need not fit n times.
_DRAWS = 2**22


class Interval(NamedTuple):
    """A mean, the two ends of its confidence interval, and the number of values behind it."""

    mean: float
    low: float
    high: float
    n: int


def bootstrap_interval(
    values: Sequence[float] | NDArray[Any],
    groups: Sequence[Hashable] | NDArray[Any] | None = None,
    confidence: float = 0.95,
    n: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of ``values`` with its percentile bootstrap interval (Efron 1979).

    values: one per image, [N]; NaN means "not defined" and is dropped. groups: [N], what each
    image belongs to (slide, animal, video): whole groups are then resampled, because images of
    one group are not independent, and the mean stays that over images. n: resamplings.

    The same arguments give the same result. Of a single value or group the ends are NaN; of no
    value everything is. Raises ValueError for lengths or numbers that make no sense.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    if n < 1:
        raise ValueError(f"the number of resamplings must be positive, got {n}")
    data = np.asarray(values, np.float64)
    if data.ndim != 1 or (groups is not None and len(groups) != len(data)):
        raise ValueError(f"need one value and one group per image, got shape {data.shape}")
    defined = ~np.isnan(data)
    data = data[defined]
    if not data.size:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    index = np.arange(len(data))
    if groups is not None:
        index = _group_index([group for group, keep in zip(groups, defined, strict=True) if keep])
    sums = np.bincount(index, data).astype(np.float64)
    sizes = np.bincount(index).astype(np.float64)
    mean = float(data.mean())
    if len(sums) < 2:
        return Interval(mean, float("nan"), float("nan"), len(data))
    tail = (1 - confidence) / 2
    low, high = np.quantile(_resampled_means(sums, sizes, n, seed), [tail, 1 - tail])
    return Interval(mean, float(low), float(high), len(data))


def _resampled_means(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], n: int, seed: int
) -> NDArray[np.float64]:
    """Means [n] over groups drawn with replacement, given each group's sum and size [G]."""
    rng = np.random.default_rng(seed)
    means = np.empty(n)
    step = max(1, _DRAWS // len(sums))
    for start in range(0, n, step):
        stop = min(n, start + step)
        drawn = rng.integers(0, len(sums), (stop - start, len(sums)))
        means[start:stop] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return means


def _group_index(groups: Sequence[Hashable]) -> NDArray[np.intp]:
    """Number the groups 0, 1, .. in order of appearance: [N]."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], np.intp)
