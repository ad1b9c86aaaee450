"""Receptive field, halo and accepted sizes, derived from an architecture. Torch-free.

Along each axis an interval ``[a, b)`` of output pixels is traced back through the layers: a
convolution of size k widens it by (k - 1) / 2 on each side, a pooling multiplies it by its factor,
an up-convolution divides it (rounded outwards), a skip connection takes the hull of both paths. The
interval that arrives at the input is what the output depends on. Because poolings tie pixels to a
grid, the result depends on where the interval starts on that grid; windows that start on the grid
and keep the halo are exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from unet.config.layers import Interval, Layers, layers_of
from unet.config.presets import AnyArchitecture, Architecture


@dataclass(frozen=True)
class Footprint:
    """Grid, halo and sizes of a network along one axis; all in pixels.

    Attributes:
        grid: windows must start on multiples of this (the product of the poolings).
        halo: context that a window needs on each side so that its core is exact (a multiple of
            ``grid``; 0 for unpadded networks, whose ``margin`` is their context).
        margin: how much smaller an unpadded network's output is on each side (0 if padded).
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
        """The smallest window that still has a core if an image needs several windows."""
        return self.smallest + self.grid if self.margin else 2 * self.halo + self.grid


Footprints = tuple[Footprint, ...]


def common(footprints: Sequence[Footprints]) -> Footprints:
    """What windows need so that each of several networks can predict them: a footprint per axis.

    Windows on a multiple of a padded network's grid, with more than its halo, are exact, too.

    Raises:
        ValueError: the numbers of axes differ, or the footprints differ and one is of an unpadded
            network, whose outputs have another size.
    """
    if len({len(each) for each in footprints}) != 1:
        raise ValueError(f"networks of different axes: {[len(each) for each in footprints]}")
    return tuple(_common(set(axis)) for axis in zip(*footprints, strict=True))


def _common(found: set[Footprint]) -> Footprint:
    if len(found) == 1:
        return found.pop()
    if any(fp.margin or fp.remainder for fp in found):
        raise ValueError(f"networks of different footprints, not all of them padded: {found}")
    grid = math.lcm(*(fp.grid for fp in found))

    def on_grid(size: int) -> int:
        return -(-size // grid) * grid

    return Footprint(
        grid=grid,
        halo=on_grid(max(fp.halo for fp in found)),
        margin=0,
        remainder=0,
        smallest=on_grid(max(fp.smallest for fp in found)),
        receptive_field=max(fp.receptive_field for fp in found),
    )


def sizes_for(size: int | Sequence[int], footprints: Footprints) -> tuple[int, ...]:
    """One size per axis, from a single number or a sequence.

    Raises:
        ValueError: the sequence has a different length.
    """
    if isinstance(size, int):
        return (size,) * len(footprints)
    if len(size) != len(footprints):
        raise ValueError(f"got {list(size)}, needs one number or {len(footprints)}")
    return tuple(size)


def _fitting(layers: Layers, axis: int) -> tuple[list[int], list[int]]:
    """Along an axis, for the smallest input that fits every layer: the size of each map, and the
    input pixels from one of its pixels to the next."""
    sizes, steps = [1], [1]
    while len(sizes) < len(layers):
        layer = layers[len(sizes)]
        source, stride = layer.sources[0], layer.stride[axis]
        size, rest = layer.size(sizes[source], axis)
        # A stride drops the last row of a size that it does not divide, and no other tile would
        # have it.
        short = max((1 - size) * stride - rest, -sizes[source] % stride)
        if short > 0:
            sizes, steps = [sizes[0] + short * steps[source]], [1]
        else:
            sizes.append(size)
            steps.append(steps[source] * stride // layer.scale[axis])
    return sizes, steps


def _dependence(layers: Layers, sizes: list[int], interval: Interval, axis: int) -> Interval:
    """Input pixels that the output pixels ``[a, b)`` depend on."""
    needed = {len(layers) - 1: interval}
    for place in range(len(layers) - 1, 0, -1):
        if place not in needed:  # used only in training
            continue
        layer = layers[place]
        a, b = layer.reach(needed.pop(place), axis)
        for source in layer.sources:
            crop = (sizes[source] - sizes[layer.sources[0]]) // 2
            low, high = needed.get(source, (a + crop, b + crop))
            needed[source] = min(low, a + crop), max(high, b + crop)
    return needed[0]


def _along(layers: Layers, axis: int) -> Footprint:
    sizes, steps = _fitting(layers, axis)
    smallest, grid = sizes[0], max(steps)
    a, b = _dependence(layers, sizes, (0, grid), axis)
    padded = any(layer.padding[axis] for layer in layers)
    spans = [_dependence(layers, sizes, (phase, phase + 1), axis) for phase in range(grid)]
    return Footprint(
        grid=grid,
        halo=-(-max(-a, b - grid) // grid) * grid if padded else 0,
        margin=(smallest - sizes[-1]) // 2,
        remainder=smallest % grid,
        smallest=smallest,
        receptive_field=max(b - a for a, b in spans),
    )


def input_interval(arch: Architecture, interval: Interval, axis: int = -1) -> Interval:
    """Input pixels that the output pixels ``[a, b)`` depend on, in the input's coordinates.

    For unpadded networks output pixel 0 is ``margin`` pixels inside the input, so the returned
    interval starts near the given one; for padded networks it may start below 0.
    """
    layers = layers_of(arch)
    return _dependence(layers, _fitting(layers, axis)[0], interval, axis)


@lru_cache(maxsize=256)
def footprint(arch: AnyArchitecture) -> Footprints:
    """The architecture's footprint per spatial axis ((Z) Y X)."""
    return tuple(_along(layers_of(arch), axis) for axis in range(arch.dims))
