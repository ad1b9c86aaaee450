"""Receptive field, halo and accepted sizes, derived from an architecture. Torch-free.

Along each axis an interval ``[a, b)`` of output pixels is carried backwards through the layers: a
convolution of size k widens it by (k - 1) / 2 a side, a pooling multiplies it by its factor, an
up-convolution divides it (rounded outwards), a skip connection takes the hull of both ways. What
arrives at the input is what the output depends on. Since pooling ties pixels to a grid, the answer
depends on the interval's phase on that grid; windows that start on it and keep the halo are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from unet.config.presets import AnyArchitecture, Architecture, WindowArchitecture

Interval = tuple[int, int]


@dataclass(frozen=True)
class Footprint:
    """How a network sits on the pixel grid along one axis; all in pixels.

    Attributes:
        grid: windows must start on multiples of this (the product of the poolings).
        halo: context that a window needs on each side so that its core, on the grid, is exact
            (a multiple of ``grid``; 0 for unpadded networks, whose ``margin`` is their context).
        margin: what an unpadded network's output is smaller by on each side (0 when padded).
        remainder: accepted input sizes are ``remainder`` modulo ``grid``.
        smallest: the smallest accepted input size.
        receptive_field: the widest input interval that one output pixel depends on.
    """

    grid: int
    halo: int
    margin: int
    remainder: int
    smallest: int
    receptive_field: int

    def accepts(self, size: int) -> bool:
        """Whether an input of this many pixels along an axis fits the network."""
        return size >= self.smallest and size % self.grid == self.remainder

    def fit(self, size: int) -> int:
        """The smallest accepted input size that is not below ``size``."""
        size = max(size, self.smallest)
        return size + (self.remainder - size) % self.grid

    def fit_below(self, size: int) -> int:
        """The largest accepted input size that is not above ``size`` (but at least smallest)."""
        return max(self.smallest, size - (size - self.remainder) % self.grid)

    @property
    def least_tile(self) -> int:
        """The smallest window that has anything to keep when an image takes several."""
        return self.smallest + self.grid if self.margin else 2 * self.halo + self.grid


Footprints = tuple[Footprint, ...]


def sizes_for(size: int | Sequence[int], footprints: Footprints) -> tuple[int, ...]:
    """One size per axis, from one for all or from a sequence.

    Raises:
        ValueError: a sequence of another length.
    """
    if isinstance(size, int):
        return (size,) * len(footprints)
    if len(size) != len(footprints):
        raise ValueError(f"got {list(size)}, needs one number or {len(footprints)}")
    return tuple(size)


@dataclass(frozen=True)
class _Axis:
    """A U-Net's layers along one axis."""

    padded: bool
    convs: int
    kernels: tuple[int, ...]
    pools: tuple[int, ...]

    @property
    def depth(self) -> int:
        return len(self.pools)

    def shrink(self, level: int) -> int:
        """Pixels by which an unpadded level's convolutions shorten an axis, both sides together."""
        return self.convs * (self.kernels[level] - 1)

    def crop(self, level: int) -> int:
        """Pixels cropped off each side of the skip connection at ``level`` (unpadded networks)."""
        crop = 0
        for below in range(self.depth, level, -1):
            # Through the level below, down and up again; a level between is passed twice.
            passes = 1 if below == self.depth else 2
            crop = self.pools[below - 1] * (crop + passes * self.shrink(below) // 2)
        return crop

    def through(self, level: int, interval: Interval) -> Interval:
        """Back through the convolutions of a level."""
        a, b = interval
        if self.padded:
            return a - self.shrink(level) // 2, b + self.shrink(level) // 2
        return a, b + self.shrink(level)

    def encoder(self, level: int, interval: Interval) -> Interval:
        a, b = self.through(level, interval)
        if level == 0:
            return a, b
        pool = self.pools[level - 1]
        return self.encoder(level - 1, (pool * a, pool * b))

    def decoder(self, level: int, interval: Interval) -> Interval:
        if level == self.depth:
            return self.encoder(level, interval)
        a, b = self.through(level, interval)
        crop = 0 if self.padded else self.crop(level)
        skip = self.encoder(level, (a + crop, b + crop))
        pool = self.pools[level]
        below = self.decoder(level + 1, (a // pool, -(-b // pool)))
        return min(skip[0], below[0]), max(skip[1], below[1])

    def sizes(self, deepest: int) -> tuple[int, int]:
        """(input, output) size of an unpadded network whose deepest level puts out ``deepest``."""
        size, out = deepest + self.shrink(self.depth), deepest
        for level in reversed(range(self.depth)):
            size = self.pools[level] * size + self.shrink(level)
            out = self.pools[level] * out - self.shrink(level)
        return size, out

    @property
    def grid(self) -> int:
        product = 1
        for pool in self.pools:
            product *= pool
        return product

    def footprint(self) -> Footprint:
        grid = self.grid
        margin, remainder, smallest = 0, 0, grid
        if not self.padded:
            deepest = 1
            while self.sizes(deepest)[1] < 1:
                deepest += 1
            size, out = self.sizes(deepest)
            margin, remainder, smallest = (size - out) // 2, size % grid, size
        a, b = self.decoder(0, (0, grid))
        halo = -(-max(-a, b - grid) // grid) * grid if self.padded else 0
        spans = [self.decoder(0, (phase, phase + 1)) for phase in range(grid)]
        return Footprint(
            grid=grid,
            halo=halo,
            margin=margin,
            remainder=remainder,
            smallest=smallest,
            receptive_field=max(b - a for a, b in spans),
        )


def _axis(arch: Architecture, axis: int) -> _Axis:
    return _Axis(
        padded=arch.padding == "same",
        convs=arch.convs,
        kernels=tuple(arch.kernel(level)[axis] for level in range(arch.depth + 1)),
        pools=tuple(arch.pool(level)[axis] for level in range(arch.depth)),
    )


def input_interval(arch: Architecture, interval: Interval, axis: int = -1) -> Interval:
    """Input pixels that the output pixels ``[a, b)`` depend on, in the input's coordinates.

    For unpadded networks output pixel 0 lies ``margin`` pixels inside the input, so the interval
    that comes back begins near the given one; for padded networks it may begin below 0.
    """
    return _axis(arch, axis).decoder(0, interval)


@lru_cache(maxsize=256)
def footprint(arch: AnyArchitecture) -> Footprints:
    """The architecture's place on the pixel grid, per spatial axis ((Z) Y X)."""
    if isinstance(arch, WindowArchitecture):
        # Run densely, every layer keeps each pixel of its input: there is no grid.
        one = Footprint(
            grid=1,
            halo=0,
            margin=arch.window // 2,
            remainder=0,
            smallest=arch.window,
            receptive_field=arch.window,
        )
        return (one,) * arch.dims
    return tuple(_axis(arch, axis).footprint() for axis in range(arch.dims))
