"""Objects from masks, block by block, in bounded memory, with the same ids as on the whole image.

Each block is labelled on its own into a temporary array. Labels that touch across block borders
are then joined, and a lookup turns a block's local labels into the final ids whenever a region is
read. Ids are uint32 1..n in raster order of each object's first pixel, so they do not depend on
the blocks or the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.data.blocks import Grid, Index, ordered, within
from unet.data.tiling import Slices
from unet.prediction.objects.merge_labels import Connectivity, Ids, Seams, roots
from unet.prediction.objects.temporary_arrays import Scratch, Store

Mask = NDArray[np.bool_]
# Reads a region [(Z,) Y, X] of a mask.
ReadMask = Callable[[Slices], Mask]


@dataclass(frozen=True, eq=False)
class LabelArray:
    """Labelled blocks, and the lookup from their local labels to the final values.

    Attributes:
        count: number of objects; their ids are 1 .. count.
        grid: the blocks.
        local: uint32 [(Z,) Y, X], labels within each block, 0 = none.
        offsets: int64 [blocks], added to a block's labels (0 stays 0) before the lookup.
        lookup: [fragments + 1], final value of each fragment; entry 0 is that of "none".
    """

    count: int
    grid: Grid
    local: Store
    offsets: Ids
    lookup: NDArray[Any]

    def read(self, region: Slices) -> NDArray[Any]:
        """The final values of a region [(Z,) Y, X], in the lookup's dtype."""
        out = np.empty([s.stop - s.start for s in region], self.lookup.dtype)
        for index in self.grid.touching(region):
            block = self.grid.region(index)
            local = np.asarray(self.local[_common(region, block)])
            offset = int(self.offsets[self.grid.number(index)])
            # This block's part of the lookup, with "none" in front.
            part = self.lookup[offset : offset + int(local.max()) + 1].copy()
            part[:1] = self.lookup[:1]
            # Clipping changes nothing, but is faster than checking the indices.
            out[within(block, region)] = part.take(local, mode="clip")
        return out


@dataclass(frozen=True, eq=False)
class _Found:
    """Labels 1..n of one block: size in pixels, raster position in the image of the first pixel,
    and whether they touch the image's border (each [n])."""

    index: Index
    sizes: Ids
    first: Ids
    at_border: Mask


@dataclass(frozen=True, eq=False)
class _Fragments:
    """All labels of all blocks, numbered from 1 in block order; entry 0 stands for "none".

    ``root``: the smallest fragment of the same object. ``sizes``, ``first`` and ``at_border``
    describe the whole object, at the index of its root (undefined elsewhere).
    """

    offsets: Ids
    root: Ids
    sizes: Ids
    first: Ids
    at_border: Mask


def components(
    read: ReadMask,
    grid: Grid,
    scratch: Scratch,
    *,
    connectivity: Connectivity,
    min_size: int = 0,
    fill_holes: int = 0,
    threads: int = 1,
) -> LabelArray:
    """Connected components of a mask.

    Args:
        read: returns the mask of a region; called for whole blocks, from several threads.
        connectivity: "face": pixels that share a face are connected; "full": also those that share
            an edge or a corner. The background uses the other one.
        min_size: components with fewer pixels are dropped (after holes are filled).
        fill_holes: background components with at most this many pixels are filled if they do not
            touch the image's border.

    Raises:
        ValueError: more than 2**32 - 1 components.
    """
    if fill_holes:
        read = filled(read, grid, scratch, connectivity, fill_holes, threads)
    local = scratch.array()
    found = _label(read, grid, local, connectivity, threads, "labelling blocks")
    is_root = found.root == np.arange(len(found.root))
    is_root[0] = False
    kept = is_root & (found.sizes >= min_size)
    ids, count = numbered(kept, found.first)
    return LabelArray(count, grid, local, found.offsets, ids[found.root])


def filled(
    read: ReadMask,
    grid: Grid,
    scratch: Scratch,
    connectivity: Connectivity,
    largest: int,
    threads: int,
) -> ReadMask:
    """The mask with holes of at most ``largest`` pixels filled."""
    local = scratch.array()
    dual: Connectivity = "full" if connectivity == "face" else "face"
    found = _label(lambda r: ~read(r), grid, local, dual, threads, "finding holes in blocks")
    hole = ~found.at_border & (found.sizes <= largest)
    # What is no background is in the mask already.
    hole[0] = True
    return LabelArray(0, grid, local, found.offsets, hole[found.root]).read


def _label(
    read: ReadMask,
    grid: Grid,
    local: Store,
    connectivity: Connectivity,
    threads: int,
    what: str,
) -> _Fragments:
    """Labels each block into ``local`` and joins labels that touch across blocks."""
    # cc3d is a little faster, but its 8-connected labels of bool arrays are wrong (4.1.1).
    from scipy import ndimage

    dims = len(grid.shape)
    around = ndimage.generate_binary_structure(dims, 1 if connectivity == "face" else dims)

    def one(index: Index) -> tuple[_Found, NDArray[np.uint32]]:
        region = grid.region(index)
        labels, count = ndimage.label(read(region), around, output=np.uint32)
        local[region] = labels
        sizes, first = sizes_of(labels, count, region, grid.shape)
        return _Found(index, sizes, first, _at_border(labels, count, region, grid)), labels

    seams = Seams(grid, connectivity)
    blocks: list[_Found] = []
    pairs: list[Ids] = []
    total = 0
    for found, labels in ordered(one, grid, threads, what=what, total=len(grid)):
        pairs.append(seams.add(found.index, labels, total))
        blocks.append(found)
        total += len(found.sizes)
    return _joined(blocks, roots(total + 1, np.concatenate(pairs)))


def _joined(blocks: list[_Found], root: Ids) -> _Fragments:
    counts = [len(found.sizes) for found in blocks]
    offsets = np.cumsum([0, *counts[:-1]]).astype(np.int64)
    owner = root[1:]
    sizes = np.zeros(len(root), np.int64)
    np.add.at(sizes, owner, np.concatenate([found.sizes for found in blocks]))
    first = np.full(len(root), np.iinfo(np.int64).max, np.int64)
    np.minimum.at(first, owner, np.concatenate([found.first for found in blocks]))
    at_border = np.zeros(len(root), np.bool_)
    np.logical_or.at(at_border, owner, np.concatenate([found.at_border for found in blocks]))
    at_border[0] = True
    return _Fragments(offsets, root, sizes, first, at_border)


def run_starts(values: NDArray[Any]) -> NDArray[np.int64]:
    """Where runs of equal values start in a flat, non-empty array (int64, from 0)."""
    return np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1]).astype(np.int64)


def numbered(kept: Mask, first: Ids) -> tuple[NDArray[np.uint32], int]:
    """Ids 1..n for the kept entries in the order of their first pixels, 0 for the others."""
    entries = np.flatnonzero(kept)
    if len(entries) >= 2**32:
        raise ValueError(f"{len(entries)} objects in one image; 32-bit ids are not enough")
    ids = np.zeros(len(kept), np.uint32)
    ids[entries[np.argsort(first[entries])]] = np.arange(1, len(entries) + 1, dtype=np.uint32)
    return ids, len(entries)


def runs_of_labels(
    labels: NDArray[np.unsignedinteger], region: Slices, shape: tuple[int, ...]
) -> tuple[Ids, Ids, Ids]:
    """The runs of labelled pixels in a block: their labels, their lengths in pixels, and the raster
    position in the image of their first pixel (int64 each)."""
    flat = labels.reshape(-1)
    starts = run_starts(flat)
    lengths = np.diff(starts, append=flat.size)
    labelled = flat[starts] > 0
    starts = starts[labelled]
    position = np.unravel_index(starts, labels.shape)
    first = np.ravel_multi_index(
        tuple(p + s.start for p, s in zip(position, region, strict=True)), shape
    )
    return flat[starts].astype(np.int64), lengths[labelled], first.astype(np.int64)


def sizes_of(
    labels: NDArray[np.unsignedinteger], count: int, region: Slices, shape: tuple[int, ...]
) -> tuple[Ids, Ids]:
    """Sizes in pixels of the labels 1..count in a block, all of which are there, and the raster
    position in the image of their first pixel (int64 [count] each)."""
    ids, lengths, starts = runs_of_labels(labels, region, shape)
    sizes, first = np.zeros(count, np.int64), np.full(count, np.iinfo(np.int64).max)
    np.add.at(sizes, ids - 1, lengths)
    np.minimum.at(first, ids - 1, starts)
    return sizes, first


def _at_border(labels: NDArray[np.uint32], count: int, region: Slices, grid: Grid) -> Mask:
    """Which labels 1..count touch the image's border."""
    out = np.zeros(count + 1, np.bool_)
    for axis, (s, size) in enumerate(zip(region, grid.shape, strict=True)):
        if s.start == 0:
            out[np.take(labels, 0, axis=axis)] = True
        if s.stop == size:
            out[np.take(labels, -1, axis=axis)] = True
    return out[1:]


def _common(a: Slices, b: Slices) -> Slices:
    return tuple(
        slice(max(i.start, j.start), min(i.stop, j.stop)) for i, j in zip(a, b, strict=True)
    )
