"""Grows seeds until they meet, for models that learn the border between objects."""

from __future__ import annotations

from functools import partial
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from unet.config.sections import StitchSection
from unet.data.blocks import Grid, Index, ordered, within
from unet.data.tiling import Slices
from unet.prediction.objects.components import (
    LabelArray,
    Mask,
    ReadMask,
    components,
    numbered,
    runs_of_labels,
)
from unet.prediction.objects.merge_labels import Ids
from unet.prediction.objects.probabilities import Probabilities
from unet.prediction.objects.temporary_arrays import Scratch

FOREGROUND_ABOVE = 0.5
# High 32 bits: distance; low 32 bits: id.
Keys = NDArray[np.uint64]
_SHIFT, _ONE, _ID = np.uint64(32), np.uint64(1), np.uint64(0xFFFFFFFF)


def segment_grow(
    probabilities: Probabilities,
    grid: Grid,
    scratch: Scratch,
    section: StitchSection,
    threshold: float,
    threads: int,
) -> LabelArray:
    """Grows the components of p[inside] > threshold, with holes filled, into the pixels where
    1 - p[background] > 0.5."""
    inside = probabilities.channel("inside")
    seeds = components(
        lambda region: inside(region) > threshold,
        grid,
        scratch,
        connectivity=section.connectivity,
        fill_holes=section.fill_holes,
        threads=threads,
    )
    return grow(
        seeds,
        probabilities.foreground(FOREGROUND_ABOVE),
        scratch,
        grow_px=section.grow_px,
        min_size=section.min_size,
        threads=threads,
    )


def grow(
    seeds: LabelArray,
    read: ReadMask,
    scratch: Scratch,
    *,
    grow_px: int,
    min_size: int = 0,
    threads: int = 1,
) -> LabelArray:
    """Grows each seed into the mask, to the pixels that are nearer to it than to any other seed.

    Like ``skimage.segmentation.expand_labels`` within the mask, except that pixels equally near to
    several seeds go to the lowest seed id, so the result does not depend on the blocks. Growth is
    bounded, so a block with a halo of ``grow_px`` contains all the seeds it needs.

    Args:
        read: returns the mask of a region; seeds may lie outside the mask.
        grow_px: largest distance that a seed grows, in pixels (Euclidean).
        min_size: objects with fewer pixels after growing are dropped.
    """
    grid, local = seeds.grid, scratch.array()

    def one(index: Index) -> tuple[Ids, Ids, Ids]:
        core = grid.region(index)
        halo = tuple(
            slice(max(0, s.start - grow_px), min(n, s.stop + grow_px))
            for s, n in zip(core, grid.shape, strict=True)
        )
        around = seeds.read(halo)
        inner = within(core, halo)
        labels = around[inner]
        if around.any():
            wanted = (labels == 0) & read(core)
            labels = labels.copy()
            labels[wanted] = nearest_seed(around, wanted, grow_px, inner)
        local[core] = labels
        return runs_of_labels(labels, core, grid.shape)

    sizes = np.zeros(seeds.count + 1, np.int64)
    first = np.full(seeds.count + 1, np.iinfo(np.int64).max, np.int64)
    runs = ordered(one, grid, threads, what="growing blocks", total=len(grid))
    for ids, lengths, starts in runs:
        np.add.at(sizes, ids, lengths)
        np.minimum.at(first, ids, starts)
    kept = sizes >= max(1, min_size)
    kept[0] = False
    lookup, count = numbered(kept, first)
    return LabelArray(count, grid, local, np.zeros(len(grid), np.int64), lookup)


def nearest_seed(
    seeds: NDArray[np.uint32], wanted: Mask, reach: int, inner: Slices
) -> NDArray[np.uint32]:
    """The nearest seed of each wanted pixel: the lowest id if several are equally near, 0 if there
    is none within ``reach`` pixels.

    Squared distance and id form one key, and the smallest key wins. The squared distance is a sum
    over axes, so it is minimised one axis after the other (Felzenszwalb & Huttenlocher, Theory of
    Computing 8, 2012). This is exact because only integers are compared.

    Args:
        seeds: ids [(Z,) Y, X], 0 = none.
        wanted: bool, the pixels of ``inner`` to find seeds for.
        inner: region of ``seeds``.

    Returns:
        uint32 [n], in raster order.
    """
    from scipy.ndimage import maximum_filter1d

    far = np.uint64(reach + 1)
    key = np.where(seeds > 0, seeds, far << _SHIFT)
    # Along the first axis only seeds count, so the distance grows by one from row to row.
    for before, row in chain(pairwise(key), pairwise(key[::-1])):
        np.minimum(row, before + (_ONE << _SHIFT), out=row)
    key = key[inner[0]]
    for axis in range(1, key.ndim - 1):
        # Later axes need this one up to ``reach`` pixels around the wanted ones.
        needed = np.zeros((*wanted.shape[: axis + 1], *key.shape[axis + 1 :]), np.bool_)
        needed[(slice(None),) * (axis + 1) + inner[axis + 1 :]] = wanted
        for later in range(axis + 1, key.ndim):
            needed = maximum_filter1d(needed, 2 * reach + 1, later, mode="constant")
        found = np.full(needed.shape, far * far << _SHIFT)
        to_end = partial(np.moveaxis, source=axis, destination=-1)
        to_end(found)[to_end(needed)] = _nearest_along(
            to_end(key), to_end(needed), reach, inner[axis], squared=axis > 1
        )
        key = found
    best = _nearest_along(key, wanted, reach, inner[-1], squared=key.ndim > 2)
    return np.where(best >> _SHIFT <= reach * reach, best & _ID, 0).astype(np.uint32)


def _nearest_along(keys: Keys, needed: Mask, reach: int, inner: slice, *, squared: bool) -> Keys:
    """The smallest key of the needed pixels [.., inner], with the squared distance along the last
    axis of ``keys`` [.., n] added to all keys within ``reach``.

    Args:
        squared: whether the distances in ``keys`` are squared.
    """
    ends = [(0, 0)] * (keys.ndim - 1)
    far = np.uint64((reach + 1) ** 2)
    flat = np.pad(keys, [*ends, (reach, reach)], constant_values=far << _SHIFT).reshape(-1)
    outside = (inner.start + reach, keys.shape[-1] + reach - inner.stop)
    at = np.flatnonzero(np.pad(needed, [*ends, outside]))

    def square(found: Keys) -> Keys:
        # Few pixels are needed, so it is faster here than in the whole array.
        distance = np.minimum(found >> _SHIFT, np.uint64(reach + 1))
        return found if squared else distance * distance << _SHIFT | found & _ID

    best = square(flat[at])
    active = np.arange(len(at))
    for k in range(1, reach + 1):
        step = np.uint64(k * k) << _SHIFT
        # The others have a seed nearer than this step.
        active = active[best[active] >= step]
        if not len(active):
            break
        here = at[active]
        near = square(np.minimum(flat[here - k], flat[here + k])) + step
        best[active] = np.minimum(best[active], near)
    return best
