"""Normalisation with statistics of whole images (or datasets), gathered block by block.

The statistics never come from a single tile: all tiles of an image get the same shift and scale, in
training and in prediction. ``NORMALIZE_METHODS`` maps the name of a method
(`unet.config.choices.NORMALIZATION_TABLE`) to the function that computes shift and scale from a
channel's statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from unet.config.sections import NormalizeSection

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]
Summary = dict[str, Floats]
F = TypeVar("F", npt.NDArray[np.float32], npt.NDArray[np.float64])

# Elements processed at once, which limits temporary arrays to some tens of megabytes.
BATCH_VALUES = 1 << 20
HISTOGRAM_BINS = 1 << 16
# Limit for 64-bit values, so that their squares and sums stay far within float64.
LARGEST_VALUE = 1e100


class ImageStatistics:
    """Per-channel statistics of any number of blocks [C, ...], in constant memory.

    Integers of up to 16 bits are counted value by value, so one pass gives exact results. Wider
    types need two passes (:attr:`passes`): the first counts the upper 16 bits of a 32-bit key that
    sorts like the values, and streams mean and variance (Chan, Golub & LeVeque 1983, eq. 2.1);
    after :meth:`select` the second (:meth:`refine`) counts the lower 16 bits within the few bins
    that contain the requested percentiles. Percentiles are exact up to 32 bits per value. For
    64-bit values the key keeps 20 bits of the mantissa, a relative error below 2**-20, even with
    extreme outliers. NaN and infinities are left out (:attr:`non_finite`); values beyond +-1e100,
    which no microscope measures, count as +-1e100.

    Args:
        channels: C, the length of the blocks' first axis.
        dtype: type that represents every block without loss (for a dataset the common type).

    Raises:
        ValueError: the type is neither boolean, integer nor real.
    """

    def __init__(self, channels: int, dtype: npt.DTypeLike) -> None:
        self.dtype = _native(dtype)
        self.channels = channels
        self.passes = 1 if self.dtype.kind in "iu" and self.dtype.itemsize <= 2 else 2
        self.non_finite = 0
        bins = 1 << (8 * self.dtype.itemsize) if self.passes == 1 else HISTOGRAM_BINS
        self._counts = np.zeros((channels, bins), np.int64)
        self._mean = np.zeros(channels)
        self._m2 = np.zeros(channels)
        self._min = np.full(channels, np.inf)
        self._max = np.full(channels, -np.inf)
        self._lower: list[dict[int, npt.NDArray[np.int64]]] = [{} for _ in range(channels)]

    @property
    def count(self) -> npt.NDArray[np.int64]:
        """Number of finite values per channel."""
        total: npt.NDArray[np.int64] = self._counts.sum(axis=1)
        return total

    def update(self, block: Array) -> None:
        """Adds a block [C, ...] to the first pass."""
        for c, values in self._batches(block):
            if self.passes == 1:
                keys = values.astype(np.intp)
                keys -= np.iinfo(self.dtype).min
            else:
                finite = _finite(values)
                self.non_finite += values.size - finite.size
                if not finite.size:
                    continue
                self._merge_moments(c, *_moments(finite))
                keys = (_keys(finite) >> 16).astype(np.intp)
            self._counts[c] += np.bincount(keys, minlength=self._counts.shape[1])

    def select(self, *percents: float) -> None:
        """Chooses the percentiles that the second pass makes exact."""
        for c in range(self.channels if self.passes == 2 else 0):
            total = int(self._counts[c].sum())
            for percent in percents if total else ():
                for rank in _ranks(total, percent)[:2]:
                    found = _bin_of(self._counts[c], rank)[0]
                    self._lower[c].setdefault(found, np.zeros(HISTOGRAM_BINS, np.int64))

    def refine(self, block: Array) -> None:
        """Adds a block [C, ...] to the second pass, which needs all blocks of the first, once."""
        for c, values in self._batches(block) if any(self._lower) else ():
            keys = _keys(_finite(values))
            upper = keys >> 16
            for found, counts in self._lower[c].items():
                lower = (keys[upper == found] & 0xFFFF).astype(np.intp)
                counts += np.bincount(lower, minlength=HISTOGRAM_BINS)

    def blank(self) -> ImageStatistics:
        """Empty statistics of the same type and selection, to fill elsewhere and then merge."""
        other = ImageStatistics(self.channels, self.dtype)
        other._lower = [{key: np.zeros_like(n) for key, n in d.items()} for d in self._lower]
        return other

    def merge(self, other: ImageStatistics) -> None:
        """Adds the counts of ``other``, as if its blocks had been added here."""
        if (self.channels, self.dtype) != (other.channels, other.dtype):
            raise ValueError("statistics of different types or channel numbers cannot be merged")
        for c in range(self.channels if self.passes == 2 else 0):
            if n := int(other._counts[c].sum()):
                ends = other._min[c], other._max[c]
                self._merge_moments(c, n, other._mean[c], other._m2[c], *ends)
            for found, counts in other._lower[c].items():
                self._lower[c][found] = self._lower[c].get(found, 0) + counts
        self._counts += other._counts
        self.non_finite += other.non_finite

    def percentile(self, percent: float) -> Floats:
        """Percentiles [C] with linear interpolation, as :func:`numpy.percentile` (0 if empty)."""
        result = np.zeros(self.channels)
        for c in range(self.channels):
            total = int(self._counts[c].sum())
            if total:
                first, second, share = _ranks(total, percent)
                a, b = self._value(c, first), self._value(c, second)
                # NumPy's own two-sided formula, so that the results agree to the last bit.
                result[c] = a + (b - a) * share if share < 0.5 else b - (b - a) * (1 - share)
        return result

    def summary(self, low: float, high: float) -> Summary:
        """``low``, ``high`` (percentiles), ``mean``, ``sd`` (n, not n - 1), ``min``, ``max``: [C].

        All are finite; a channel without any finite value has zeros.
        """
        mean, m2, least, most = self._all_moments()
        count = np.maximum(self.count, 1)
        return {
            "low": self.percentile(low),
            "high": self.percentile(high),
            "mean": mean,
            "sd": np.sqrt(m2 / count),
            "min": least,
            "max": most,
        }

    def _batches(self, block: Array) -> Iterator[tuple[int, Array]]:
        if block.shape[0] != self.channels:
            raise ValueError(f"block has {block.shape[0]} channels, not {self.channels}")
        if not np.can_cast(block.dtype, self.dtype):
            raise ValueError(f"block of {block.dtype} does not fit statistics of {self.dtype}")
        for c in range(self.channels):
            flat = block[c].reshape(-1)
            for start in range(0, flat.size, BATCH_VALUES):
                yield c, flat[start : start + BATCH_VALUES].astype(self.dtype, copy=False)

    def _merge_moments(
        self, c: int, n: int, mean: float, m2: float, least: float, most: float
    ) -> None:
        before = int(self._counts[c].sum())
        delta = mean - self._mean[c]
        self._mean[c] += delta * (n / (before + n))
        self._m2[c] += m2 + delta**2 * (before * (n / (before + n)))
        self._min[c] = min(self._min[c], least)
        self._max[c] = max(self._max[c], most)

    def _all_moments(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Mean, sum of squared deviations, minimum, maximum, each [C]."""
        empty = self.count == 0
        if self.passes == 2:
            found = self._mean, self._m2, self._min, self._max
            return tuple(np.where(empty, 0.0, x) for x in found)  # type: ignore[return-value]
        values = np.arange(self._counts.shape[1], dtype=np.int64) + np.iinfo(self.dtype).min
        mean = (self._counts @ values) / np.maximum(self.count, 1)
        m2 = (self._counts * (values - mean[:, None]) ** 2).sum(axis=1)
        filled = self._counts > 0
        least = np.where(empty, 0.0, values[filled.argmax(axis=1)])
        most = np.where(empty, 0.0, values[-1 - filled[:, ::-1].argmax(axis=1)])
        return mean, m2, least, most

    def _value(self, c: int, rank: int) -> float:
        """The value of a rank (0 = smallest) in channel ``c``."""
        found, rest = _bin_of(self._counts[c], rank)
        if self.passes == 1:
            return float(found + np.iinfo(self.dtype).min)
        if found not in self._lower[c] or not self._lower[c][found].any():
            raise ValueError("percentile requested before its second pass (select, refine)")
        lower, _ = _bin_of(self._lower[c][found], rest)
        value = _value_of((found << 16) | lower, self.dtype)
        return float(np.clip(value, self._min[c], self._max[c]))


def _native(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """The type for computing: native byte order; booleans as 0 and 1; 64 bits as float64."""
    given = np.dtype(dtype)
    if given.kind == "b":
        return np.dtype(np.uint8)
    if given.kind not in "iuf" or given.itemsize > 8:
        raise ValueError(f"pixels of type {given}: only booleans, integers and reals are supported")
    if given.itemsize == 8:
        return np.dtype(np.float64)
    return np.dtype(np.float32) if given.kind == "f" else given.newbyteorder("=")


def _finite(values: Array) -> Array:
    """A copy of the finite values, clipped to ``LARGEST_VALUE``."""
    finite: Array = values[np.isfinite(values)]
    if finite.dtype == np.float64:
        np.clip(finite, -LARGEST_VALUE, LARGEST_VALUE, out=finite)
    return finite


def _moments(values: Array) -> tuple[int, float, float, float, float]:
    """Number, mean, sum of squared deviations, minimum, maximum of finite values."""
    exact = values.astype(np.float64)
    least, most = float(exact.min()), float(exact.max())
    mean = float(exact.mean())
    exact -= mean
    return values.size, mean, float(np.dot(exact, exact)), least, most


def _keys(values: Array) -> npt.NDArray[np.uint32]:
    """32-bit keys that sort like the values (for 64-bit values the upper half)."""
    if values.dtype.kind == "u":
        return values
    if values.dtype.kind == "i":
        return values.view(np.uint32) ^ np.uint32(1 << 31)
    # IEEE 754: flipping the sign bit (all bits of negatives) makes the bits sort like the numbers.
    # Adding zero turns -0.0 into 0.0.
    bits = 8 * values.dtype.itemsize
    raw = (values + values.dtype.type(0)).view(f"u{bits // 8}")
    sign = raw.dtype.type(1 << (bits - 1))
    ordered = np.where(raw & sign, ~raw, raw ^ sign) >> raw.dtype.type(bits - 32)
    keys: npt.NDArray[np.uint32] = ordered.astype(np.uint32, copy=False)
    return keys


def _value_of(key: int, dtype: np.dtype[Any]) -> float:
    """The value of a key (for 64-bit values with the lower half of the bits zero)."""
    if dtype.kind == "u":
        return float(key)
    if dtype.kind == "i":
        return float(key - (1 << 31))
    bits = 8 * dtype.itemsize
    wide, sign = key << (bits - 32), 1 << (bits - 1)
    raw = wide ^ sign if wide & sign else wide ^ ((1 << bits) - 1)
    return float(np.array(raw, f"u{bits // 8}").view(dtype))


def _ranks(total: int, percent: float) -> tuple[int, int, float]:
    """The two ranks around a percentile of ``total`` values, and the weight of the second."""
    position = (total - 1) * (percent / 100)
    first = min(int(position), total - 1)
    return first, min(first + 1, total - 1), position - first


def _bin_of(counts: npt.NDArray[np.int64], rank: int) -> tuple[int, int]:
    """The bin that contains a rank, and the rank within that bin."""
    until = np.cumsum(counts)
    found = int(np.searchsorted(until, rank, side="right"))
    return found, rank - (int(until[found - 1]) if found else 0)


# Registry: the config's name of a method -> (shift [C], scale [C]) from a summary.
NORMALIZE_METHODS: dict[str, Callable[[Summary], tuple[Floats, Floats]]] = {
    "percentile": lambda s: (s["low"], s["high"] - s["low"]),
    "zscore": lambda s: (s["mean"], s["sd"]),
    "minmax": lambda s: (s["min"], s["max"] - s["min"]),
    "none": lambda s: (np.zeros_like(s["min"]), np.ones_like(s["min"])),
}


def statistics_to_params(method: str, summary: Summary) -> dict[str, list[float]]:
    """``{"shift": [..C], "scale": [..C]}``; scale is never 0.

    A constant channel becomes 0 (shift = its value, scale = 1). If the method's scale is 0 but the
    channel is not constant (sparse signal: both percentiles are background), the scale is the whole
    range. Method none leaves every value as it is.
    """
    shift, scale = NORMALIZE_METHODS[method](summary)
    if method != "none":
        least, most = summary["min"], summary["max"]
        scale = np.where(scale > 0, scale, most - least)
        shift = np.where(least == most, least, shift)
        scale = np.where((least == most) | (scale == 0), 1.0, scale)
    return {"shift": [float(x) for x in shift], "scale": [float(x) for x in scale]}


def describe(statistics: ImageStatistics, section: NormalizeSection) -> dict[str, Any]:
    """The parameters that are stored with an image and in a model (for JSON, lists per channel).

    Keys: method, shift, scale, and low, high (the section's percentiles), mean, sd, min, max of
    the raw values.
    """
    summary = statistics.summary(section.low, section.high)
    values = {name: [float(x) for x in value] for name, value in summary.items()}
    return {"method": section.method, **statistics_to_params(section.method, summary), **values}


def apply(block: Array, params: dict[str, Any]) -> npt.NDArray[np.float32]:
    """(x - shift) / scale of a block [C, ...] as float32, finite everywhere.

    NaN and infinities in the block become 0 after normalisation (with method none, too); values
    outside the range of float32 become its largest value.

    Raises:
        ValueError: ``params`` is for another number of channels.
    """
    if len(params["shift"]) != block.shape[0]:
        raise ValueError(f"{len(params['shift'])} channels in params, {block.shape[0]} in block")
    # Narrow integers are exact in float32. Wider types would lose small differences between large
    # values if they were rounded before the shift is subtracted.
    if block.dtype.kind in "biu" and block.dtype.itemsize <= 2:
        return _shifted_and_scaled(block.astype(np.float32), params)
    exact = block.astype(np.float64)
    exact[~np.isfinite(exact)] = np.nan
    np.clip(exact, -LARGEST_VALUE, LARGEST_VALUE, out=exact)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.nan_to_num(_shifted_and_scaled(exact, params).astype(np.float32), copy=False)


def _shifted_and_scaled(values: F, params: dict[str, Any]) -> F:
    """(values - shift) / scale in place, in the values' own precision."""
    axes = (-1,) + (1,) * (values.ndim - 1)
    values -= np.asarray(params["shift"], values.dtype).reshape(axes)
    values /= np.asarray(params["scale"], values.dtype).reshape(axes)
    return values
