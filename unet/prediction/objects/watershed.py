"""Objects as the basins of a landscape, block by block: the same as for the whole image.

The landscape is the distance to the object's edge that a model predicts. Within the mask each pixel
points to the highest of its neighbours; the trees of pointers, one for each local maximum, are the
basins, of which shallow ones are then joined (`unet.prediction.objects.watershed_merge`). Among
equal values the earlier pixel in raster order counts as higher, so every plateau has one answer.

A pointer needs no more than one pixel around a block. Each block yields fragments of basins
(`unet.prediction.objects.watershed_basins`); one that leads into the next block is joined to what
it leads to.
"""

from __future__ import annotations

import numpy as np

from unet.config.sections import StitchSection
from unet.data.blocks import Grid, Index, ordered
from unet.data.tiling import Slices
from unet.prediction.objects.components import LabelArray, ReadMask, filled, numbered
from unet.prediction.objects.merge_labels import Connectivity, Ids
from unet.prediction.objects.probabilities import Probabilities, ReadMap
from unet.prediction.objects.temporary_arrays import Scratch
from unet.prediction.objects.watershed_basins import Block, climbed, met
from unet.prediction.objects.watershed_merge import Saddles, ends, merge_basins
from unet.prediction.objects.watershed_order import Ranks, ranks_of


def segment_watershed(
    probabilities: Probabilities,
    grid: Grid,
    scratch: Scratch,
    section: StitchSection,
    threshold: float,
    threads: int,
) -> LabelArray:
    """Basins of the predicted distance where 1 - p[background] > threshold, with holes filled."""
    mask = probabilities.foreground(threshold)
    if section.fill_holes:
        mask = filled(mask, grid, scratch, section.connectivity, section.fill_holes, threads)
    return watershed(
        mask,
        probabilities.channel("distance"),
        grid,
        scratch,
        connectivity=section.connectivity,
        h=section.watershed_h,
        min_size=section.min_size,
        threads=threads,
    )


def watershed(
    read_mask: ReadMask,
    read_landscape: ReadMap,
    grid: Grid,
    scratch: Scratch,
    *,
    connectivity: Connectivity,
    h: float,
    min_size: int = 0,
    threads: int = 1,
) -> LabelArray:
    """Splits a mask along the valleys of a landscape.

    Args:
        read_mask: gives the mask of a region; called from several threads.
        read_landscape: gives the landscape of a region, 0 and above (less, and what is no number,
            counts as 0).
        h: above 0; two basins are one when the lower of their peaks rises less than this above
            the highest saddle between them.
        min_size: objects of fewer pixels are dropped.
    """
    local = scratch.array()

    def ranks(region: Slices) -> Ranks:
        return ranks_of(read_mask(region), read_landscape(region))

    def climb(index: Index) -> Block:
        block, labels = climbed(ranks, grid, index, connectivity, h)
        local[grid.region(index)] = labels
        return block

    blocks = list(ordered(climb, grid, threads, what="basins of blocks", total=len(grid)))
    offsets = np.cumsum([0, *(len(block.sizes) for block in blocks)]).astype(np.int64)
    ids = np.arange(offsets[-1] + 1, dtype=np.min_scalar_type(int(offsets[-1])))
    fragments = LabelArray(0, grid, local, offsets[:-1], ids)

    def meet(block: Block) -> tuple[Ids, Saddles]:
        return met(ranks, fragments, block, connectivity)

    target = np.arange(len(ids), dtype=np.int64)
    saddles = [b.saddles.after(int(n)) for b, n in zip(blocks, offsets[:-1], strict=True)]
    meeting = ordered(meet, blocks, threads, what="borders of blocks", total=len(grid))
    for stop, (onto, found) in zip(offsets[1:].tolist(), meeting, strict=True):
        target[stop + 1 - len(onto) : stop + 1] = onto
        saddles.append(found)
    basin = ends(target)
    peaks = np.concatenate([np.zeros(1, np.float32), *(block.peaks for block in blocks)])
    np.maximum.at(peaks, basin, peaks)
    root = merge_basins(peaks, Saddles.joined(saddles).between(basin), h)[basin]
    return _objects(blocks, root, fragments, min_size)


def _objects(blocks: list[Block], root: Ids, fragments: LabelArray, min_size: int) -> LabelArray:
    """Numbers the sets of fragments; ``root``: the one that stands for each one's set."""
    sizes = np.zeros(len(root), np.int64)
    first = np.full(len(root), np.iinfo(np.int64).max, np.int64)
    np.add.at(sizes, root[1:], np.concatenate([block.sizes for block in blocks]))
    np.minimum.at(first, root[1:], np.concatenate([block.first for block in blocks]))
    # Only those that stand for a set have a size; 0 stands for "none".
    ids, count = numbered(sizes >= max(1, min_size), first)
    return LabelArray(count, fragments.grid, fragments.local, fragments.offsets, ids[root])
