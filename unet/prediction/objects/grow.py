"""Grows seeds until they meet, for models that learn the border between objects."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unet.config.sections import StitchSection
from unet.data.blocks import Grid, Index, ordered, within
from unet.data.tiling import Slices
from unet.prediction.objects.components import (
    LabelArray,
    ReadMask,
    components,
    numbered,
    runs_of_labels,
)
from unet.prediction.objects.merge_labels import Ids
from unet.prediction.objects.probabilities import Probabilities
from unet.prediction.objects.temporary_arrays import Scratch

FOREGROUND_ABOVE = 0.5
_FAR = np.uint64(1 << 62)
_SHIFT = np.uint64(32)


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
            near = nearest_seed(around, grow_px, inner)
            labels = np.where((labels == 0) & read(core), near, labels)
        local[core] = labels
        ids, sizes, first = runs_of_labels(labels, core, grid.shape)
        return ids, sizes, first

    sizes = np.zeros(seeds.count + 1, np.int64)
    first = np.full(seeds.count + 1, np.iinfo(np.int64).max, np.int64)
    for ids, size, start in ordered(one, grid, threads, what="growing blocks", total=len(grid)):
        sizes[ids] += size
        first[ids] = np.minimum(first[ids], start)
    kept = sizes >= max(1, min_size)
    kept[0] = False
    lookup, count = numbered(kept, first)
    return LabelArray(count, grid, local, np.zeros(len(grid), np.int64), lookup)


def nearest_seed(seeds: NDArray[np.uint32], reach: int, inner: Slices) -> NDArray[np.uint32]:
    """The nearest seed of each pixel of ``inner``: the lowest id if several are equally near, 0 if
    there is none within ``reach`` pixels.

    Squared distance and id form one key, and the smallest key wins. The squared distance is a sum
    over axes, so it is minimised one axis after the other (Felzenszwalb & Huttenlocher, Theory of
    Computing 8, 2012). This is exact because only integers are compared.
    """
    key = np.where(seeds > 0, seeds.astype(np.uint64), _FAR)
    for axis in range(seeds.ndim):
        key = np.moveaxis(key, axis, 0)
        best = key.copy()
        for k in range(1, min(reach, len(key) - 1) + 1):
            farther = key + (np.uint64(k * k) << _SHIFT)
            np.minimum(best[k:], farther[:-k], out=best[k:])
            np.minimum(best[:-k], farther[k:], out=best[:-k])
        # Later axes need only the inner part of this one.
        key = np.moveaxis(best[inner[axis]], 0, axis)
    close = (key >> _SHIFT) <= np.uint64(reach * reach)
    return np.where(close, key & np.uint64(0xFFFFFFFF), 0).astype(np.uint32)
