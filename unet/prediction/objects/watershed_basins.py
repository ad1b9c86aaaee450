"""One block's part of a watershed: its basins, and where they touch those of other blocks.

A *fragment* is the part of a basin that lies in a block, or of several basins that are certain to
be joined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unet.data.blocks import Grid, Index, within
from unet.data.tiling import Slices
from unet.prediction.objects.components import LabelArray, Mask, sizes_of
from unet.prediction.objects.merge_labels import Connectivity, Ids
from unet.prediction.objects.watershed_merge import Saddles, end_of_path, merge_basins
from unet.prediction.objects.watershed_order import (
    Ranks,
    heights,
    highest_neighbour,
    later_neighbours,
    pairs_of_pixels,
    positions,
)

# Reads the ranks of a region [(Z,) Y, X].
ReadRanks = Callable[[Slices], Ranks]


@dataclass(frozen=True, eq=False)
class Block:
    """The fragments 1 .. n of one block.

    Attributes:
        index: index of the block.
        peaks: float32 [n], height of the highest peak in each; 0 if it has none.
        exits: int64 [E]; the last E fragments continue in another block: the raster position in
            the image of the pixel that they lead to.
        sizes: int64 [n], in pixels.
        first: int64 [n], raster position in the image of the first pixel.
        saddles: contacts between fragments within the block.
    """

    index: Index
    peaks: NDArray[np.float32]
    exits: Ids
    sizes: Ids
    first: Ids
    saddles: Saddles


def fragments_of(
    read: ReadRanks, grid: Grid, index: Index, connectivity: Connectivity, h: float
) -> tuple[Block, NDArray[np.uint32]]:
    """The fragments of a block, and their labels 1 .. n (uint32 [(Z,) Y, X], 0 = none).

    Shallow basins that do not touch other blocks are joined here already. So about one fragment
    per object is left to process for the whole image, plus those at block borders.
    """
    core = grid.region(index)
    halo = _with_halo(core, grid)
    inner = within(core, halo)
    ranks = read(halo)
    labels, peaks, exits = _trees(ranks, inner, connectivity)
    steps = later_neighbours(len(core), connectivity)
    inside = ranks[inner]
    pairs = (pairs_of_pixels(_everything(inside.shape), step, inside.shape) for step in steps)
    saddles = _contacts(labels, inside, pairs, halo, grid)
    tops = np.concatenate([np.zeros(1, np.float32), peaks, np.zeros(len(exits), np.float32)])
    root = merge_basins(tops, saddles, h, _interior(labels, len(tops), core, grid))
    np.maximum.at(tops, root, tops)
    # Keep the order of the roots: fragments that leave the block join nothing here and stay last.
    kept = root == np.arange(len(root))
    label = (np.cumsum(kept) - 1)[root]
    labels = label.astype(np.uint32)[labels]
    sizes, first = sizes_of(labels, int(kept.sum()) - 1, core, grid.shape)
    exits = _moved(exits, halo, _everything(grid.shape))
    return Block(index, tops[kept][1:], exits, sizes, first, saddles.highest_between(label)), labels


def border_contacts(
    read: ReadRanks, fragments: LabelArray, block: Block, connectivity: Connectivity
) -> tuple[Ids, Saddles]:
    """The fragments that a block's exits lead to, and the contacts of its pixels with later pixels
    (in raster order) in other blocks.

    Args:
        fragments: the number of each fragment in the image.
    """
    grid = fragments.grid
    core = grid.region(block.index)
    halo = _with_halo(core, grid)
    inner = within(core, halo)
    ids, ranks = fragments.read(halo), read(halo)
    onto = ids.reshape(-1)[_moved(block.exits, _everything(grid.shape), halo)].astype(np.int64)
    pairs = (
        pairs_of_pixels(_face(inner, axis, move), step, ids.shape)
        for step in later_neighbours(len(core), connectivity)
        for axis, move in enumerate(step)
        if move
    )
    return onto, _contacts(ids, ranks, pairs, halo, grid)


def _trees(
    ranks: Ranks, inner: Slices, connectivity: Connectivity
) -> tuple[NDArray[np.uint32], NDArray[np.float32], Ids]:
    """Labels of the trees of pointers in a block; the heights of the peaks of those that end in
    the block (they come first); and for the others the pixels outside the block that they lead to,
    as raster positions in the region."""
    inside = ranks[inner]
    pixels = np.flatnonzero(inside)
    top = highest_neighbour(ranks, connectivity)[inner].reshape(-1)[pixels]
    # Number of each pixel within the block's mask; -1 outside the block.
    number = np.full(ranks.shape, -1, np.int64)
    number[inner][inside > 0] = np.arange(len(pixels))
    goal = positions(top, ranks.size)
    target = number.reshape(-1)[goal]
    leaving = np.flatnonzero(target < 0)
    peaks = np.flatnonzero(target == np.arange(len(pixels)))
    # All pointers that leave the block to the same pixel form one fragment.
    exits, to = np.unique(goal[leaving], return_inverse=True)
    label = np.zeros(len(pixels), np.uint32)
    label[peaks] = np.arange(1, len(peaks) + 1)
    label[leaving] = len(peaks) + 1 + to
    target[leaving] = leaving
    labels = np.zeros(inside.shape, np.uint32)
    labels.reshape(-1)[pixels] = label[end_of_path(target)]
    return labels, heights(top[peaks]), exits


def _interior(labels: NDArray[np.uint32], count: int, core: Slices, grid: Grid) -> Mask:
    """Which labels 0 .. count - 1 have all their contacts within the block."""
    out = np.ones(count, np.bool_)
    for axis, (s, size) in enumerate(zip(core, grid.shape, strict=True)):
        if s.start > 0:
            out[np.take(labels, 0, axis=axis)] = False
        if s.stop < size:
            out[np.take(labels, -1, axis=axis)] = False
    return out


def _contacts(
    ids: NDArray[np.unsignedinteger],
    ranks: Ranks,
    slabs: Iterable[tuple[Slices, Slices]],
    region: Slices,
    grid: Grid,
) -> Saddles:
    """The highest contact between each two touching fragments, among the given pairs of pixels.

    Args:
        region: the region whose pixel positions the ranks contain.
    """
    size = math.prod(s.stop - s.start for s in region)
    parts = []
    for here, there in slabs:
        a, b = ids[here], ids[there]
        touch = np.nonzero((a != b) & (a > 0) & (b > 0))
        pairs = np.stack([a[touch], b[touch]]).astype(np.int64)
        pixels = np.stack([ranks[here][touch], ranks[there][touch]])
        parts.append(_highest(np.sort(pairs, axis=0), np.sort(pixels, axis=0)))
    pairs, (low, high) = _highest(
        np.concatenate([pairs for pairs, _ in parts], axis=1),
        np.concatenate([pixels for _, pixels in parts], axis=1),
    )
    low_at, high_at = (
        _moved(positions(pixel, size), region, _everything(grid.shape)) for pixel in (low, high)
    )
    return Saddles(pairs.T, heights(low), heights(high), low_at, high_at)


def _highest(pairs: Ids, pixels: Ranks) -> tuple[Ids, Ranks]:
    """The highest contact between each two fragments.

    Args:
        pairs: int64 [2, P], the two fragments, the smaller number first.
        pixels: uint64 [2, P], the lower and the higher pixel.
    """
    order = np.lexsort((pixels[1], pixels[0], pairs[1], pairs[0]))
    pairs = pairs[:, order]
    last = np.ones(len(order), np.bool_)
    last[:-1] = (pairs[:, 1:] != pairs[:, :-1]).any(axis=0)
    return pairs[:, last], pixels[:, order[last]]


def _moved(position: Ids, region: Slices, other: Slices) -> Ids:
    """Converts raster positions in ``region`` to raster positions in ``other``."""
    place = np.unravel_index(position, [s.stop - s.start for s in region])
    moved = tuple(p + (s.start - o.start) for p, s, o in zip(place, region, other, strict=True))
    found: Ids = np.ravel_multi_index(moved, [o.stop - o.start for o in other]).astype(np.int64)
    return found


def _everything(shape: Index) -> Slices:
    return tuple(slice(0, n) for n in shape)


def _with_halo(core: Slices, grid: Grid) -> Slices:
    """A block and one pixel around it, within the image."""
    return tuple(
        slice(max(0, s.start - 1), min(n, s.stop + 1))
        for s, n in zip(core, grid.shape, strict=True)
    )


def _face(inner: Slices, axis: int, move: int) -> Slices:
    """The pixels of a block from which a step of ``move`` along ``axis`` leaves it."""
    s = inner[axis]
    end = slice(s.stop - 1, s.stop) if move > 0 else slice(s.start, s.start + 1)
    return (*inner[:axis], end, *inner[axis + 1 :])
