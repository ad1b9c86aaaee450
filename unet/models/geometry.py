"""Receptive field, halo and accepted sizes, derived from an architecture. Torch-free.

An interval ``[a, b)`` of output pixels is carried backwards through the layers: a 3x3 convolution
widens it by a pixel a side, a 2x2 pooling doubles it, a 2x2 up-convolution halves it (rounded
outwards), a skip connection takes the hull of both ways. What arrives at the input is what the
output depends on. Since pooling ties pixels to a grid of ``2 ** depth``, the answer depends on the
interval's phase on that grid; windows that start on it and keep the halo are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

from unet.models.presets import Architecture

CONVS_PER_LEVEL = 2
Interval = tuple[int, int]


@dataclass(frozen=True)
class Footprint:
    """How a network sits on the pixel grid; all in pixels, the same for every spatial axis.

    Attributes:
        grid: windows must start on multiples of this (``2 ** depth``).
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


def _crop(arch: Architecture, level: int) -> int:
    """Pixels cropped off each side of the skip connection at ``level`` (unpadded networks)."""
    crop = 0
    for _ in range(arch.depth - level):
        crop = 2 * crop + 2 * CONVS_PER_LEVEL
    return crop


def _convs(arch: Architecture, interval: Interval) -> Interval:
    a, b = interval
    if arch.padding == "same":
        return a - CONVS_PER_LEVEL, b + CONVS_PER_LEVEL
    return a, b + 2 * CONVS_PER_LEVEL


def _encoder(arch: Architecture, level: int, interval: Interval) -> Interval:
    a, b = _convs(arch, interval)
    return (a, b) if level == 0 else _encoder(arch, level - 1, (2 * a, 2 * b))


def _decoder(arch: Architecture, level: int, interval: Interval) -> Interval:
    if level == arch.depth:
        return _encoder(arch, level, interval)
    a, b = _convs(arch, interval)
    crop = _crop(arch, level) if arch.padding == "valid" else 0
    skip = _encoder(arch, level, (a + crop, b + crop))
    below = _decoder(arch, level + 1, (a // 2, -(-b // 2)))
    return min(skip[0], below[0]), max(skip[1], below[1])


def input_interval(arch: Architecture, interval: Interval) -> Interval:
    """Input pixels that the output pixels ``[a, b)`` depend on, in the input's coordinates.

    For unpadded networks output pixel 0 lies ``margin`` pixels inside the input, so the interval
    that comes back begins near the given one; for padded networks it may begin below 0.
    """
    return _decoder(arch, 0, interval)


def footprint(arch: Architecture) -> Footprint:
    """The architecture's place on the pixel grid (see :class:`Footprint`)."""
    grid = 2**arch.depth
    # The size of an unpadded network whose deepest level puts out `deepest` pixels.
    margin, remainder, smallest = 0, 0, grid
    if arch.padding == "valid":
        shrink = 2 * CONVS_PER_LEVEL
        deepest = 1
        while True:
            size, out = deepest + shrink, deepest
            for _ in range(arch.depth):
                size, out = 2 * size + shrink, 2 * out - shrink
            if out >= 1:
                break
            deepest += 1
        margin, remainder, smallest = (size - out) // 2, size % grid, size
    a, b = input_interval(arch, (0, grid))
    halo = 0 if arch.padding == "valid" else -(-max(-a, b - grid) // grid) * grid
    spans = [input_interval(arch, (phase, phase + 1)) for phase in range(grid)]
    return Footprint(
        grid=grid,
        halo=halo,
        margin=margin,
        remainder=remainder,
        smallest=smallest,
        receptive_field=max(b - a for a, b in spans),
    )
