"""Distances between outlines in images of any size, block by block, in bounded memory.

The points of the outlines are in files, one per block of the image. For a block's points, the
nearest point of the other outline is searched in their own block, then in the ring of blocks around
it, and in further rings as long as a nearer point is possible. So the distances are the same as
with all points at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unet.data.blocks import Grid, Index, ordered
from unet.evaluation.metrics.boundary import Distances
from unet.evaluation.metrics.nearest import Points, nearest


@dataclass(frozen=True, eq=False)
class PointFiles:
    """The points of all kinds of outlines, by block.

    Attributes:
        counts: int64 [blocks, kinds].
    """

    folder: Path
    grid: Grid
    counts: NDArray[np.int64]

    def read(self, index: Index, kind: int) -> Points:
        """The points of a kind in a block, int32 [N, axes]."""
        number = self.grid.number(index)
        if not self.counts[number, kind]:
            return np.empty((0, len(self.grid.shape)), np.int32)
        points: Points = np.load(_file(self.folder, number, kind))
        return points


def _file(folder: Path, number: int, kind: int) -> Path:
    return folder / f"{number}-{kind}.npy"


def save_points(folder: Path, number: int, kinds: Sequence[Points]) -> list[int]:
    """Writes the points of all kinds of a block, whose number in raster order is given, and returns
    how many there are."""
    for kind, points in enumerate(kinds):
        if len(points):
            np.save(_file(folder, number, kind), points)
    return [len(points) for points in kinds]


@dataclass(frozen=True, eq=False)
class BlockOutlines:
    """The true and the predicted outlines of one class, in the form of :class:`boundary.Surfaces`.

    Attributes:
        truth, pred: the kinds of points in the files.
    """

    files: PointFiles
    truth: int
    pred: int
    threads: int = 1

    @property
    def sizes(self) -> tuple[int, int]:
        """Points of the true and of the predicted outlines."""
        total = self.files.counts.sum(axis=0)
        return int(total[self.truth]), int(total[self.pred])

    def distances(self, spacing: Sequence[float] | None) -> tuple[Distances, Distances]:
        """Distances from each predicted point to the nearest true one, and the other way round."""
        if not all(self.sizes):
            return Distances.merged([]), Distances.merged([])
        scale = np.asarray(spacing or (1.0,) * len(self.files.grid.shape), np.float64)
        return self._to(self.pred, self.truth, scale), self._to(self.truth, self.pred, scale)

    def _to(self, kind: int, other: int, scale: NDArray[np.float64]) -> Distances:
        def one(index: Index) -> Distances:
            return Distances.of(_block(self.files, index, kind, other, scale))

        merged = Distances.merged([])
        for found in ordered(one, self.files.grid, self.threads):
            merged = Distances.merged([merged, found])
        return merged


def _block(
    files: PointFiles, index: Index, kind: int, other: int, scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distances from one block's points of a kind to the nearest of the other kind in the image."""
    pixels = files.read(index, kind)
    points = pixels * scale
    best = np.full(len(points), np.inf)
    if not len(points):
        return best
    grid = files.grid
    for radius in range(max(grid.counts)):
        open_ = np.flatnonzero(best > _reach(points, grid, index, radius - 1, scale))
        if not len(open_):
            break
        for near in _ring(grid, index, radius):
            if not files.counts[grid.number(near), other]:
                continue
            others = files.read(near, other)
            # Only points of this block that can be nearer than the nearest one found so far.
            low = (points[open_] - best[open_, None]).min(axis=0)
            high = (points[open_] + best[open_, None]).max(axis=0)
            place = others * scale
            inside = ((place >= low) & (place <= high)).all(axis=1)
            found = nearest(pixels[open_], others[inside], scale)
            best[open_] = np.minimum(best[open_], found)
    return best


def _ring(grid: Grid, index: Index, radius: int) -> Iterator[Index]:
    """Blocks that are exactly ``radius`` blocks away, along the axis on which they are farthest."""
    steps = range(-radius, radius + 1)
    for step in product(steps, repeat=len(index)):
        if max(map(abs, step)) == radius:
            found = tuple(i + s for i, s in zip(index, step, strict=True))
            if all(0 <= f < n for f, n in zip(found, grid.counts, strict=True)):
                yield found


def _reach(
    points: NDArray[np.float64],
    grid: Grid,
    index: Index,
    radius: int,
    scale: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The distance around each point that is completely searched when all blocks up to ``radius``
    were: unseen points are farther away. Minus infinity before the first block."""
    if radius < 0:
        return np.full(len(points), -np.inf)
    reach = np.full(len(points), np.inf)
    for axis, (i, block, size) in enumerate(zip(index, grid.block, grid.shape, strict=True)):
        low, high = (i - radius) * block, (i + radius + 1) * block
        if low > 0:  # the nearest pixel that was not searched is low - 1
            reach = np.minimum(reach, points[:, axis] - (low - 1) * scale[axis])
        if high < size:
            reach = np.minimum(reach, high * scale[axis] - points[:, axis])
    return reach
