"""Where windows lie and which part of each is kept: pure geometry, without arrays or models.

A *window* is what the network sees, and its *core* is the part of its output that is kept. Windows
start on the network's pooling grid and include the halo around the core (except at the image
border, where they are shifted inwards). So the cores together equal the network applied to the
whole image.

Padded networks: the image is mirrored at its far end up to the next multiple of the grid.
Unpadded networks: the image is mirrored by the margin on every side, and at the far end up to the
next accepted size; the output of a window is its core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from unet.config.geometry import Footprint, Footprints, sizes_for

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Span:
    """One window along one axis, in image pixels (``start`` may lie outside the image).

    Attributes:
        start, stop: what the network sees; pixels outside the image are mirrored.
        core_start, core_stop: what is kept, within the image.
        offset: position of ``core_start`` in the window's output.
    """

    start: int
    stop: int
    core_start: int
    core_stop: int
    offset: int


@dataclass(frozen=True)
class Tile:
    """One window over all spatial axes, in their order ((Z) Y X)."""

    index: int
    spans: tuple[Span, ...]

    @property
    def window(self) -> tuple[tuple[int, int], ...]:
        return tuple((s.start, s.stop) for s in self.spans)

    @property
    def core(self) -> Slices:
        """The kept part, as slices of the image."""
        return tuple(slice(s.core_start, s.core_stop) for s in self.spans)

    @property
    def inner(self) -> Slices:
        """The kept part, as slices of the network's output for this window."""
        return tuple(slice(s.offset, s.offset + s.core_stop - s.core_start) for s in self.spans)


@dataclass(frozen=True)
class WindowPlan:
    """All tiles of one image; their cores cover it once, without gap or overlap.

    Attributes:
        shape: the image's spatial shape ((Z,) Y, X) in pixels.
        padded: shape of the image with its mirrored parts.
        window: shape of the windows, the same for all tiles.
        core: shape of the largest core.
    """

    shape: tuple[int, ...]
    padded: tuple[int, ...]
    window: tuple[int, ...]
    core: tuple[int, ...]
    tiles: tuple[Tile, ...]

    @property
    def overhead(self) -> float:
        """Computed pixels divided by pixels of the image (1 = none is computed twice)."""
        computed = float(np.prod(self.window)) * len(self.tiles)
        return computed / float(np.prod(self.shape))

    @property
    def halo_of_cuts(self) -> float:
        """The part of :attr:`overhead` that is from axes which several windows share: the halo of
        an axis that one window covers stays, however large windows may be."""
        found = 1.0
        for axis, (size, side) in enumerate(zip(self.shape, self.window, strict=True)):
            count = len({tile.spans[axis].start for tile in self.tiles})
            found *= side * count / size if count > 1 else 1.0
        return found


def padded_size(size: int, fp: Footprint) -> tuple[int, int]:
    """(before, after): mirrored pixels on each side if a network is applied to ``size`` pixels."""
    total = fp.fit(size + 2 * fp.margin)
    return fp.margin, total - size - fp.margin


def _padded_spans(size: int, tile: int, fp: Footprint) -> list[Span]:
    """Windows of a padded network: equal sizes, on the grid, shifted inwards at the border."""
    total = fp.fit(size)
    halo, grid = fp.halo, fp.grid
    # Ours are never smaller than the halo needs; networks of other programs may be.
    tile = max(tile // grid * grid, 2 * halo + grid, fp.smallest)
    if tile >= total:
        return [Span(0, total, 0, size, 0)]
    # The fewest windows of at most `tile`, then the smallest window that needs no more of them.
    count = -(-(total - 2 * halo) // (tile - 2 * halo))
    window = max(-(-(total + (count - 1) * 2 * halo) // (count * grid)) * grid, fp.smallest)
    # A set, since rounding the window up to the grid can make the last window redundant.
    starts = sorted({min(i * (window - 2 * halo), total - window) for i in range(count)})
    edges = [0, *(start + halo for start in starts[1:]), size]
    return [
        Span(start, start + window, a, b, a - start)
        for start, a, b in zip(starts, edges[:-1], edges[1:], strict=True)
    ]


def _valid_spans(size: int, tile: int, fp: Footprint) -> list[Span]:
    """Windows of an unpadded network: outputs on the grid, the last one cut at the image's end."""
    window = fp.fit_below(tile)
    if window - 2 * fp.margin < fp.grid:
        window = fp.fit(fp.grid + 2 * fp.margin)
    whole = fp.fit(size + 2 * fp.margin)
    if window >= whole:
        return [Span(-fp.margin, whole - fp.margin, 0, size, 0)]
    stride = (window - 2 * fp.margin) // fp.grid * fp.grid
    count = -(-size // stride)
    # The same number of windows, but no larger than needed.
    stride = -(-size // (count * fp.grid)) * fp.grid
    window = min(window, fp.fit(stride + 2 * fp.margin))
    count = -(-size // stride)
    return [
        Span(
            i * stride - fp.margin,
            i * stride - fp.margin + window,
            i * stride,
            min((i + 1) * stride, size),
            0,
        )
        for i in range(count)
    ]


def plan(shape: Sequence[int], tile: int | Sequence[int], footprints: Footprints) -> WindowPlan:
    """Plans the windows of an image.

    Args:
        shape: spatial shape ((Z,) Y, X) in pixels.
        tile: size of the largest window along each axis, or along all axes, in pixels (rounded down
            to what the network accepts, and up to the smallest window that its halo allows).
        footprints: of the network, one per spatial axis.

    Raises:
        ValueError: an axis is empty, or the numbers of axes differ.
    """
    check_shape(shape, footprints)
    axes = [
        _spans(size, largest, fp)
        for size, largest, fp in zip(shape, sizes_for(tile, footprints), footprints, strict=True)
    ]
    padded = [size + sum(padded_size(size, fp)) for size, fp in zip(shape, footprints, strict=True)]
    return plan_of(shape, padded, axes)


def check_shape(shape: Sequence[int], footprints: Footprints) -> None:
    """Raises ValueError if an axis is empty, or the network has another number of axes."""
    if any(size < 1 for size in shape):
        raise ValueError(f"an image of shape {tuple(shape)} has no pixels")
    if len(shape) != len(footprints):
        raise ValueError(
            f"an image of shape {tuple(shape)} for a network of {len(footprints)} spatial axes"
        )


def plan_of(
    shape: Sequence[int], padded: Sequence[int], axes: Sequence[Sequence[Span]]
) -> WindowPlan:
    """Combines the spans of each axis to windows, in raster order."""
    return WindowPlan(
        shape=tuple(shape),
        padded=tuple(padded),
        window=tuple(axis[0].stop - axis[0].start for axis in axes),
        core=tuple(max(s.core_stop - s.core_start for s in axis) for axis in axes),
        tiles=tuple(Tile(i, spans) for i, spans in enumerate(product(*axes))),
    )


def cheapest_tile(shape: Sequence[int], footprints: Footprints, largest: float) -> tuple[int, ...]:
    """The size of the windows, per axis, with which the fewest pixels are computed.

    An axis that is not cut needs no halo, which in volumes is most of a window.

    Args:
        shape: spatial shape ((Z,) Y, X) in pixels.
        footprints: of the network, one per spatial axis.
        largest: pixels that a window may have, unless the halo needs more.
    """
    axes = []
    for size, fp in zip(shape, footprints, strict=True):
        spans = [_spans(size, tile, fp) for tile in _tiles_to_try(size, fp)]
        axes.append(sorted({(found[0].stop - found[0].start, len(found)) for found in spans}))
    best: tuple[float, float, tuple[int, ...]] | None = None
    least = min(float(np.prod([window for window, _ in choice])) for choice in product(*axes))
    for choice in product(*axes):
        window = tuple(size for size, _ in choice)
        pixels = float(np.prod(window))
        if pixels > max(largest, least):
            continue
        cost = pixels * float(np.prod([count for _, count in choice]))
        if best is None or (cost, pixels, window) < best:
            best = (cost, pixels, window)
    if best is None:
        raise ValueError(f"an image of shape {tuple(shape)} has no pixels")
    return best[2]


def _spans(size: int, tile: int, fp: Footprint) -> list[Span]:
    return (_valid_spans if fp.margin else _padded_spans)(size, tile, fp)


def _tiles_to_try(size: int, fp: Footprint) -> list[int]:
    """Window sizes from the smallest to the whole axis, in steps of about 10 %."""
    whole = fp.fit(size + 2 * fp.margin)
    tiles = [whole]
    tile = fp.least_tile
    while tile < whole:
        tiles.append(tile)
        tile = fp.fit(max(tile + 1, round(1.1 * tile)))
    return tiles


def mirror_index(start: int, stop: int, size: int) -> np.ndarray:
    """Image positions from ``start`` to ``stop``, mirrored at both ends as often as needed, without
    repeating the border pixel (int64, each in ``[0, size)``)."""
    if size == 1:
        return np.zeros(stop - start, dtype=np.int64)
    period = 2 * size - 2
    position = np.arange(start, stop, dtype=np.int64) % period
    return np.where(position < size, position, period - position)


def read_window(array: object, window: Sequence[tuple[int, int]]) -> np.ndarray:
    """Reads one window of an array whose last axes are spatial; it is mirrored outside its borders.

    Args:
        array: a NumPy, zarr or dask array, or anything with ``shape`` and NumPy slicing
            ([C, (Z,) Y, X] or without C). Only the part that the window touches is read.
        window: (start, stop) per spatial axis; may reach beyond the array.
    """
    shape: tuple[int, ...] = array.shape  # type: ignore[attr-defined]
    lead = len(shape) - len(window)
    indices = [mirror_index(a, b, n) for (a, b), n in zip(window, shape[lead:], strict=True)]
    lows = [int(index.min()) for index in indices]
    region = tuple(
        slice(low, int(index.max()) + 1) for low, index in zip(lows, indices, strict=True)
    )
    block = np.asarray(array[(slice(None),) * lead + region])  # type: ignore[index]
    for axis, (low, index) in enumerate(zip(lows, indices, strict=True)):
        if len(index) != block.shape[lead + axis] or index[0] != low or index[-1] < index[0]:
            block = np.take(block, index - low, axis=lead + axis)
    return block
