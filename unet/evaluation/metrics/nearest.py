"""The distance of each pixel of an outline to the nearest pixel of another outline.

Most pixels of a useful prediction are a few pixels away from the true outline. They are searched in
a map of the other outline. Its columns run along the first axis; each of their pixels contains the
distance to the nearest point in the column. A point looks at its own column and at those around it,
the nearest first, until no other column can contain a nearer point. Points that are farther away
are searched in a k-d tree.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.int32]
Floats = NDArray[np.float64]

# Largest distance in a column, a power of two, and the columns on each side of a point, by the
# number of axes.
_ALONG = 64
_COLUMNS = {2: 64, 3: 4}
# Points for which a tree is as fast to build as one more set of columns is to look at.
_PER_COLUMN = 128
# Most pixels of a map for each point: the tree is faster for few points.
_SPARSE = 128


def nearest(points: Points, others: Points, scale: Floats) -> Floats:
    """Distance of each point to the nearest of the others, float64 [N]; inf without any.

    Args:
        points, others: [N, axes] and [M, axes], in pixels.
        scale: size of a pixel along each axis.
    """
    found = np.full(len(points), np.inf)
    if not len(points) or not len(others):
        return found
    far = _in_columns(points, others, scale, found)
    if len(far):
        from scipy.spatial import cKDTree

        # Unbalanced trees are much faster to build for points on a grid.
        tree = cKDTree(others * scale, leafsize=32, balanced_tree=False, compact_nodes=False)
        found[far] = tree.query(points[far] * scale)[0]
    return found


def _in_columns(points: Points, others: Points, scale: Floats, found: Floats) -> NDArray[np.intp]:
    """Writes the distances of the points that are near enough, and returns the other points."""
    left = np.arange(len(points))
    columns = _columns(tuple(scale.tolist()))
    margin = np.array([_ALONG, *np.vstack([each.steps for each in columns]).max(axis=0)])
    low = np.array([axis.min() for axis in points.T]) - margin
    shape = np.array([axis.max() for axis in points.T]) + margin + 1 - low
    if int(shape.prod()) > _SPARSE * (len(points) + len(others)):
        return left
    strides = np.append(np.cumprod(shape[:0:-1])[::-1], 1)
    inside = [
        (start <= axis) & (axis < start + size)
        for axis, start, size in zip(others.T, low, shape, strict=True)
    ]
    source = _place(others, low, strides)[np.logical_and.reduce(inside)]
    along = _distance_in_column(source, shape).reshape(-1)
    at = _place(points, low, strides)
    square_of = (np.arange(_ALONG + 1) * scale[0]) ** 2
    square_of[_ALONG] = np.inf
    best = np.full(len(points), np.inf)
    for square, steps, complete in columns[: 4 + len(others) // _PER_COLUMN]:
        near = np.minimum.reduce([along.take(at + step) for step in steps @ strides[1:]])
        np.minimum(best, square_of.take(near) + square, out=best)
        closed = best <= complete
        found[left[closed]] = np.sqrt(best[closed])
        open_ = np.flatnonzero(~closed)
        left, at, best = left.take(open_), at.take(open_), best.take(open_)
        if not len(left):
            break
    return left


class _Columns(NamedTuple):
    """The columns at one distance.

    Attributes:
        square: the squared distance.
        steps: to the columns along the axes after the first, int64 [K, axes - 1].
        complete: the squared distance of the next columns.
    """

    square: float
    steps: NDArray[np.int64]
    complete: float


@lru_cache(maxsize=16)
def _columns(scale: tuple[float, ...]) -> list[_Columns]:
    """The columns to look at, the nearest first."""
    side = _COLUMNS[len(scale)]
    # No farther than columns that are not listed, and than the distances that columns contain.
    limit = min(_ALONG * scale[0], *((side + 1) * size for size in scale[1:])) ** 2
    steps: dict[float, list[tuple[int, ...]]] = {}
    for step in product(range(-side, side + 1), repeat=len(scale) - 1):
        square = sum((n * size) ** 2 for n, size in zip(step, scale[1:], strict=True))
        if square < limit:
            steps.setdefault(square, []).append(step)
    squares = [*sorted(steps), limit]
    return [_Columns(this, np.array(steps[this]), after) for this, after in pairwise(squares)]


def _place(points: Points, low: NDArray[np.int64], strides: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of points in a flat map that starts at ``low``."""
    at = np.full(len(points), -(low @ strides))
    for axis, stride in zip(points.T, strides, strict=True):
        at += axis * stride
    return at


def _distance_in_column(at: NDArray[np.int64], shape: NDArray[np.int64]) -> NDArray[np.uint8]:
    """For each pixel of a map of this shape the distance along the first axis to the nearest of the
    pixels ``at``, at most ``_ALONG``."""
    column = np.full(shape, _ALONG, np.uint8)
    column.reshape(-1)[at] = 0
    step = 1
    while step < _ALONG:  # each distance is a sum of these steps
        for this, before in ((column[step:], column[:-step]), (column[:-step], column[step:])):
            np.minimum(this, before + np.uint8(step), out=this)
        step *= 2
    return column
