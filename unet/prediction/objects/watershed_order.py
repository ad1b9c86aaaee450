"""A strict order of pixels by height, and what follows from it for neighbouring pixels."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from unet.data.blocks import Index
from unet.data.tiling import Slices
from unet.prediction.objects.merge_labels import Connectivity, Ids

# High 32 bits: the bits of the pixel's value, which grow with the value for floats >= 0. Low 32
# bits: its position in the region, counted from the end. 0 outside the mask.
Ranks = NDArray[np.uint64]
_SHIFT = np.uint64(32)
_PLACE = np.uint64(0xFFFFFFFF)


def ranks_of(mask: NDArray[np.bool_], height: NDArray[np.float32]) -> Ranks:
    """uint64 [(Z,) Y, X]: larger for higher pixels and, among equal ones, for the earlier one in
    raster order; 0 outside the mask.

    The raster order within a region is the same as in the whole image, so the order of the ranks
    is, too. Negative values and NaN count as 0.

    Raises:
        ValueError: the region has more than 2**32 - 1 pixels.
    """
    if mask.size >= 2**32:
        raise ValueError(f"a block of {mask.size} pixels; 32-bit positions are not enough")
    # Adding 0 turns -0, which has different bits, into 0.
    height = np.fmax(height, 0).astype(np.float32) + np.float32(0)
    ranks = height.view(np.uint32).astype(np.uint64) << _SHIFT
    ranks |= np.arange(mask.size, 0, -1, dtype=np.uint64).reshape(mask.shape)
    ranks[~mask] = 0
    return ranks


def heights(ranks: Ranks) -> NDArray[np.float32]:
    """The values of pixels, from their ranks."""
    return (ranks >> _SHIFT).astype(np.uint32).view(np.float32)


def positions(ranks: Ranks, size: int) -> Ids:
    """Raster positions of pixels in their region of ``size`` pixels, from their ranks."""
    return size - (ranks & _PLACE).astype(np.int64)


def highest_neighbour(ranks: Ranks, connectivity: Connectivity) -> Ranks:
    """The highest rank among each pixel and its neighbours, [(Z,) Y, X]."""
    out = ranks.copy()
    source = ranks
    for axis in range(ranks.ndim):
        if connectivity == "full":
            # Start from the result of the axes before, so that corners are reached, too.
            source = out.copy()
        given, best = np.moveaxis(source, axis, 0), np.moveaxis(out, axis, 0)
        np.maximum(best[:-1], given[1:], out=best[:-1])
        np.maximum(best[1:], given[:-1], out=best[1:])
    return out


def later_neighbours(dims: int, connectivity: Connectivity) -> list[Index]:
    """The steps to the neighbours of a pixel that come after it in raster order."""
    return [
        step
        for step in product((-1, 0, 1), repeat=dims)
        if step > (0,) * dims and (connectivity == "full" or sum(map(abs, step)) == 1)
    ]


def pairs_of_pixels(inner: Slices, step: Index, shape: Index) -> tuple[Slices, Slices]:
    """The pixels of ``inner`` that have a neighbour one ``step`` away in a region of this shape,
    and these neighbours."""
    here, there = [], []
    for s, move, n in zip(inner, step, shape, strict=True):
        start, stop = max(s.start, -move), min(s.stop, n - move)
        here.append(slice(start, stop))
        there.append(slice(start + move, stop + move))
    return tuple(here), tuple(there)
