"""Resamples images to another pixel grid, region by region; results do not depend on the regions.

Both grids cover the same extent, so pixel i of the target lies at (i + 0.5) * source / target - 0.5
in the source. Its value is the linear interpolation there. If the target is coarser, the image is
first smoothed against aliasing with a Gaussian of sigma = (source / target - 1) / 2 px, cut off at
4 sigma (as in scikit-image's ``resize``). Beyond its ends the image is mirrored, including the
border pixel. Sums are computed tap by tap in float32, one axis after the other, so that they do not
depend on which pixels are computed together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from unet.data.blocks import Grid, within
from unet.data.tiling import Slices

Floats = npt.NDArray[np.float32]
# Reads a region ((Z,) Y, X) of the source as [C, *region].
Read = Callable[[Slices], npt.NDArray[Any]]

# Pixel sizes with a smaller relative difference count as equal: they are not known more precisely.
SAME_PIXEL_SIZE = 0.01
# Largest number of source values in memory (unless a single pixel needs more).
SOURCE_VALUES = 1 << 22
CUT_OFF = 4


@dataclass(frozen=True)
class Axis:
    """One axis, resampled from ``source`` to ``target`` pixels.

    ``smooth``: whether to apply the Gaussian against aliasing if the target is coarser.
    """

    source: int
    target: int
    smooth: bool = True

    @property
    def step(self) -> float:
        """Pixels of the source per pixel of the target."""
        return self.source / self.target

    @cached_property
    def kernel(self) -> npt.NDArray[np.float64]:
        """The Gaussian's values, from -radius to radius; a single 1 if there is no Gaussian."""
        sigma = (self.step - 1) / 2 if self.smooth else 0.0
        if sigma <= 0:
            return np.ones(1)
        radius = max(1, int(CUT_OFF * sigma + 0.5))
        values = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
        return np.asarray(values / values.sum())

    def taps(self, start: int, stop: int) -> tuple[npt.NDArray[np.int64], Floats]:
        """Which source pixels contribute to the target pixels from ``start`` to ``stop``.

        Returns:
            positions and weights, both [tap, pixel]; the weights of a pixel sum to 1.
        """
        pixel = np.arange(start, stop, dtype=np.int64)
        if self.source == self.target:
            return pixel[None], np.ones((1, len(pixel)), np.float32)
        where = (pixel + 0.5) * self.step - 0.5
        base = np.floor(where).astype(np.int64)
        share = where - base
        # Linear interpolation of the smoothed image, combined into one kernel with one more tap.
        radius = len(self.kernel) // 2
        first, second = np.append(self.kernel, 0), np.insert(self.kernel, 0, 0)
        weights = first[:, None] * (1 - share) + second[:, None] * share
        offsets = np.arange(-radius, radius + 2)
        position = (base + offsets[:, None]) % (2 * self.source)
        mirrored = np.minimum(position, 2 * self.source - 1 - position)
        return mirrored, weights.astype(np.float32)


@dataclass(frozen=True)
class Resampling:
    """All spatial axes ((Z,) Y, X) of an image, from its own grid to another."""

    axes: tuple[Axis, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The target's shape in pixels."""
        return tuple(axis.target for axis in self.axes)

    @property
    def back(self) -> Resampling:
        """From the target's grid to the source's: only linear interpolation."""
        return Resampling(tuple(Axis(a.target, a.source, smooth=False) for a in self.axes))

    def read(self, source: Read, region: Slices) -> Floats:
        """A region of the target.

        Args:
            source: reads regions of the source.
            region: one slice with start and stop per spatial axis, within the target.

        Returns:
            [C, *region] float32.
        """
        out: Floats | None = None
        for part in self._parts(region):
            values = self._computed(source, part)
            if out is None:
                out = np.empty((len(values), *(s.stop - s.start for s in region)), np.float32)
            out[(slice(None), *within(part, region))] = values
        if out is None:
            raise ValueError(f"region {region} has no pixels")
        return out

    def _parts(self, region: Slices) -> Iterator[Slices]:
        """Splits the region into parts that need at most ``SOURCE_VALUES`` of the source."""
        step = [s.stop - s.start for s in region]
        while math.prod(map(self._needed, self.axes, step)) > SOURCE_VALUES and max(step) > 1:
            cost = [n * axis.step * (n > 1) for n, axis in zip(step, self.axes, strict=True)]
            longest = cost.index(max(cost))
            step[longest] = -(-step[longest] // 2)
        for part in Grid(tuple(s.stop - s.start for s in region), tuple(step)).regions():
            yield tuple(
                slice(r.start + p.start, r.start + p.stop)
                for p, r in zip(part, region, strict=True)
            )

    @staticmethod
    def _needed(axis: Axis, size: int) -> float:
        """Number of source pixels needed for ``size`` target pixels."""
        return min(axis.source, size * axis.step + len(axis.kernel) + 1)

    def _computed(self, source: Read, region: Slices) -> Floats:
        taps = [axis.taps(s.start, s.stop) for axis, s in zip(self.axes, region, strict=True)]
        lows = [int(positions.min()) for positions, _ in taps]
        highs = [int(positions.max()) + 1 for positions, _ in taps]
        window = tuple(slice(low, high) for low, high in zip(lows, highs, strict=True))
        values: Floats = np.asarray(source(window)).astype(np.float32, copy=False)
        for number, (axis, low) in enumerate(zip(self.axes, lows, strict=True)):
            if axis.source == axis.target:
                continue
            positions, weights = taps[number]
            along = (-1,) + (1,) * (len(self.axes) - 1 - number)
            done: Floats | None = None
            for position, weight in zip(positions - low, weights, strict=True):
                term = values.take(position, axis=1 + number)
                term *= weight.reshape(along)
                done = term if done is None else np.add(done, term, out=done)
            if done is not None:
                values = done
        return values


def peak_bytes(found: Resampling, region: Sequence[int], channels: int) -> int:
    """Upper bound in bytes of the memory for reading a region of that shape and writing it to a
    store."""
    source = min(SOURCE_VALUES, math.prod(axis.source for axis in found.axes))
    return 4 * channels * (3 * math.prod(region) + 4 * source)


def resampling(
    shape: Sequence[int], pixel_size_um: Sequence[float], wanted_um: Sequence[float]
) -> Resampling | None:
    """The resampling to another pixel size; None if both are equal (within ``SAME_PIXEL_SIZE``).

    Args:
        shape: spatial shape ((Z,) Y, X) in pixels.
        pixel_size_um, wanted_um: per spatial axis. The extent is preserved, so the new pixel size
            differs from the wanted one by up to half a pixel over the whole axis.
    """
    axes = []
    for size, has, wants in zip(shape, pixel_size_um, wanted_um, strict=True):
        equal = abs(has / wants - 1) <= SAME_PIXEL_SIZE
        axes.append(Axis(size, size if equal else max(1, round(size * has / wants))))
    return None if all(a.source == a.target for a in axes) else Resampling(tuple(axes))


def pixel_sizes(found: Resampling, pixel_size_um: Sequence[float]) -> list[float]:
    """The pixel sizes of the target, given the source's."""
    return [size * axis.step for size, axis in zip(pixel_size_um, found.axes, strict=True)]
