"""Merges labels of neighbouring blocks: contacts across block borders, and union-find."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unet.data.blocks import Grid, Index
from unet.data.tiling import Slices

Connectivity = Literal["face", "full"]
Ids = NDArray[np.int64]


def roots(number: int, pairs: Ids) -> Ids:
    """The smallest member of each member's set, where each pair says that two are in one set.

    All pairs are hooked at once, the larger root to the smaller one, and paths are halved until
    nothing changes (Shiloach & Vishkin, J. Algorithms 3, 1982).

    Args:
        number: the members are 0 .. number - 1.
        pairs: int64 [P, 2].

    Returns:
        int64 [number].
    """
    root = np.arange(number, dtype=np.int64)
    while len(pairs):
        pairs = np.sort(root[pairs], axis=1)
        pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
        np.minimum.at(root, pairs[:, 1], pairs[:, 0])
        while not np.array_equal(above := root[root], root):
            root = above
    return root


class Seams:
    """Finds contacts between blocks, which must be added in raster order.

    It keeps only the far faces that a later block can still touch: about one row (2D) or one
    layer (3D) of blocks.
    """

    def __init__(self, grid: Grid, connectivity: Connectivity) -> None:
        self._grid = grid
        self._full = connectivity == "full"
        dims = len(grid.shape)
        # Earlier neighbours are at `index - step`; along the first axis that differs they come
        # before this block.
        self._steps = [
            step
            for step in product((-1, 0, 1), repeat=dims)
            if step > (0,) * dims and (self._full or sum(map(abs, step)) == 1)
        ]
        self._far: dict[Index, dict[int, Ids]] = {}

    def add(self, index: Index, labels: NDArray[Any], offset: int) -> Ids:
        """Contacts of a block with the blocks before it.

        Args:
            index: index of the block.
            labels: the block's local labels [(Z,) Y, X], 0 = none.
            offset: added to a local label to make it unique in the image.

        Returns:
            int64 [P, 2]: each pair of labels that touch once, with their offsets added.
        """
        found = [np.empty((0, 2), np.int64)]
        for step in self._steps:
            before = tuple(i - s for i, s in zip(index, step, strict=True))
            if before not in self._far:
                continue
            axis = next(a for a, s in enumerate(step) if s)
            there = self._far[before][axis][_ends(step, axis)]
            here = _face(labels, axis, 0, offset)[_ends(tuple(-s for s in step), axis)]
            found += _touching(there, here, self._full)
        self._keep(index, labels, offset)
        pairs = np.concatenate(found)
        return np.unique(pairs, axis=0) if len(pairs) else pairs

    def _keep(self, index: Index, labels: NDArray[Any], offset: int) -> None:
        self._far[index] = {
            axis: _face(labels, axis, -1, offset)
            for axis, count in enumerate(self._grid.counts)
            if index[axis] + 1 < count
        }
        # The last block that touches a block is one step further along every axis.
        for old in list(self._far):
            beyond = tuple(min(i + 1, n - 1) for i, n in zip(old, self._grid.counts, strict=True))
            if beyond > index:
                break
            del self._far[old]


def _ends(step: Index, axis: int) -> Slices:
    """Far end (1), near end (-1) or all (0) of a block along each axis except ``axis``, which the
    face does not have."""
    ends = {1: slice(-1, None), -1: slice(0, 1), 0: slice(None)}
    return tuple(ends[s] for i, s in enumerate(step) if i != axis)


def _face(labels: NDArray[Any], axis: int, end: int, offset: int) -> Ids:
    face: Ids = np.take(labels, end, axis=axis).astype(np.int64)
    face[face > 0] += offset
    return face


def _touching(there: Ids, here: Ids, full: bool) -> Iterator[Ids]:
    """Pairs of labels at the same position of two faces; with ``full`` also one position apart."""
    for shift in product((-1, 0, 1) if full else (0,), repeat=there.ndim):
        a, b = there[_shifted(shift, there.shape)], here[_shifted(shift, here.shape, -1)]
        both = (a > 0) & (b > 0)
        if both.any():
            yield np.unique(np.stack([a[both], b[both]], axis=1), axis=0)


def _shifted(shift: Index, shape: tuple[int, ...], sign: int = 1) -> Slices:
    """The positions that have a partner ``sign * shift`` back."""
    moved = [sign * s for s in shift]
    return tuple(slice(max(0, s), max(0, n + min(0, s))) for s, n in zip(moved, shape, strict=True))
