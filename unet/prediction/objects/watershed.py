"""Objects as watershed basins, block by block, with the same result as on the whole image.

The heights are the distances to the object's edge that a model predicts. Within the mask each pixel
points to its highest neighbour. The trees of pointers, one per local maximum, are the basins.
Shallow basins are then joined to a neighbour (`unet.prediction.objects.watershed_merge`). Among
equal heights the earlier pixel in raster order counts as higher, so the result on a plateau is
well defined.

The pointers of a block need a halo of one pixel. Each block yields fragments of basins
(`unet.prediction.objects.watershed_basins`). A fragment that points into another block is joined
to the fragment it points to.
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
from unet.prediction.objects.watershed_basins import Block, border_contacts, fragments_of
from unet.prediction.objects.watershed_merge import Saddles, end_of_path, merge_basins
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
    read_heights: ReadMap,
    grid: Grid,
    scratch: Scratch,
    *,
    connectivity: Connectivity,
    h: float,
    min_size: int = 0,
    threads: int = 1,
) -> LabelArray:
    """Splits a mask along the valleys of a height map.

    Args:
        read_mask: returns the mask of a region; called from several threads.
        read_heights: returns the heights of a region, at least 0 (negative values and NaN count
            as 0).
        h: above 0; two basins are joined if the lower of their peaks rises less than this above
            the highest saddle between them.
        min_size: objects with fewer pixels are dropped.
    """
    local = scratch.array()

    def ranks(region: Slices) -> Ranks:
        return ranks_of(read_mask(region), read_heights(region))

    def climb(index: Index) -> Block:
        block, labels = fragments_of(ranks, grid, index, connectivity, h)
        local[grid.region(index)] = labels
        return block

    blocks = list(ordered(climb, grid, threads, what="basins of blocks", total=len(grid)))
    offsets = np.cumsum([0, *(len(block.sizes) for block in blocks)]).astype(np.int64)
    ids = np.arange(offsets[-1] + 1, dtype=np.min_scalar_type(int(offsets[-1])))
    fragments = LabelArray(0, grid, local, offsets[:-1], ids)

    def meet(block: Block) -> tuple[Ids, Saddles]:
        return border_contacts(ranks, fragments, block, connectivity)

    target = np.arange(len(ids), dtype=np.int64)
    saddles = [b.saddles.shifted(int(n)) for b, n in zip(blocks, offsets[:-1], strict=True)]
    meeting = ordered(meet, blocks, threads, what="borders of blocks", total=len(grid))
    for stop, (onto, found) in zip(offsets[1:].tolist(), meeting, strict=True):
        target[stop + 1 - len(onto) : stop + 1] = onto
        saddles.append(found)
    basin = end_of_path(target)
    peaks = np.concatenate([np.zeros(1, np.float32), *(block.peaks for block in blocks)])
    np.maximum.at(peaks, basin, peaks)
    root = merge_basins(peaks, Saddles.joined(saddles).highest_between(basin), h)[basin]
    return _objects(blocks, root, fragments, min_size)


def _objects(blocks: list[Block], root: Ids, fragments: LabelArray, min_size: int) -> LabelArray:
    """Numbers the sets of fragments; ``root``: for each fragment the root of its set."""
    sizes = np.zeros(len(root), np.int64)
    first = np.full(len(root), np.iinfo(np.int64).max, np.int64)
    np.add.at(sizes, root[1:], np.concatenate([block.sizes for block in blocks]))
    np.minimum.at(first, root[1:], np.concatenate([block.first for block in blocks]))
    # Only roots have a size; entry 0 stands for "none".
    ids, count = numbered(sizes >= max(1, min_size), first)
    return LabelArray(count, fragments.grid, fragments.local, fragments.offsets, ids[root])
