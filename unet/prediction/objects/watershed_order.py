"""A strict order of a landscape's pixels, and what follows from it for neighbouring pixels."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from unet.data.blocks import Index
from unet.data.tiling import Slices
from unet.prediction.objects.merge_labels import Connectivity, Ids

# The bits of a pixel's value, which rise with the value for floats of 0 and more, and below them
# its place in the region, counted from the region's end; 0 where there is no pixel of the mask.
Ranks = NDArray[np.uint64]
_SHIFT = np.uint64(32)
_PLACE = np.uint64(0xFFFFFFFF)


def ranks_of(mask: NDArray[np.bool_], landscape: NDArray[np.float32]) -> Ranks:
    """uint64 [(Z,) Y, X]: larger for a higher pixel and, among equals, for the earlier one in
    raster order; 0 outside the mask.

    As the raster order within a region is that of the whole image, so is the order of the ranks.
    Negative values, and what is no number, count as 0.

    Raises:
        ValueError: the region has more than 2**32 - 1 pixels.
    """
    if mask.size >= 2**32:
        raise ValueError(f"a block of {mask.size} pixels; places of 32 bits do not suffice")
    # Adding 0 makes 0 of -0, which has other bits.
    height = np.fmax(landscape, 0).astype(np.float32) + np.float32(0)
    ranks = height.view(np.uint32).astype(np.uint64) << _SHIFT
    ranks |= np.arange(mask.size, 0, -1, dtype=np.uint64).reshape(mask.shape)
    ranks[~mask] = 0
    return ranks


def heights(ranks: Ranks) -> NDArray[np.float32]:
    """The values of ranked pixels."""
    return (ranks >> _SHIFT).astype(np.uint32).view(np.float32)


def positions(ranks: Ranks, size: int) -> Ids:
    """Raster positions of ranked pixels in their region of ``size`` pixels."""
    return size - (ranks & _PLACE).astype(np.int64)


def highest_neighbour(ranks: Ranks, connectivity: Connectivity) -> Ranks:
    """The highest rank among each pixel and its neighbours, [(Z,) Y, X]."""
    out = ranks.copy()
    source = ranks
    for axis in range(ranks.ndim):
        if connectivity == "full":
            # Starting from what the axes before have found, corners are reached too.
            source = out.copy()
        given, best = np.moveaxis(source, axis, 0), np.moveaxis(out, axis, 0)
        np.maximum(best[:-1], given[1:], out=best[:-1])
        np.maximum(best[1:], given[:-1], out=best[1:])
    return out


def later_neighbours(dims: int, connectivity: Connectivity) -> list[Index]:
    """The steps to those neighbours of a pixel that follow it in raster order."""
    return [
        step
        for step in product((-1, 0, 1), repeat=dims)
        if step > (0,) * dims and (connectivity == "full" or sum(map(abs, step)) == 1)
    ]


def pairs_of_pixels(inner: Slices, step: Index, shape: Index) -> tuple[Slices, Slices]:
    """The pixels of ``inner`` that have another one a ``step`` away in a region of this shape,
    and these others."""
    here, there = [], []
    for s, move, n in zip(inner, step, shape, strict=True):
        start, stop = max(s.start, -move), min(s.stop, n - move)
        here.append(slice(start, stop))
        there.append(slice(start + move, stop + move))
    return tuple(here), tuple(there)
