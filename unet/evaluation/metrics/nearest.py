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

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.int32]
Floats = NDArray[np.float64]

# Largest distance in a column, and the columns on each side of a point, by the number of axes.
_ALONG = 64
_COLUMNS = {2: 64, 3: 4}
# Points for which a tree is as fast to build as one more column is to look at.
_PER_COLUMN = 64
# Most pixels of a map for each point: the tree is faster for few points.
_SPARSE = 128
# Relative difference of squared distances that are equal but for rounding.
_ROUNDING = 1e-9


def nearest(points: Points, others: Points, scale: Floats) -> Floats:
    """Distance of each point to the nearest of the others, float64 [N]; inf without any.

    Args:
        points, others: [N, axes] and [M, axes], in pixels.
        scale: size of a pixel along each axis. The distance is the one between the scaled points,
            to the last digit, however it is found.
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
    steps, squares = _columns(tuple(scale.tolist()))
    margin = np.array([_ALONG, *np.abs(steps).max(axis=0)])
    low = points.min(axis=0) - margin
    shape = points.max(axis=0) + margin + 1 - low
    if int(shape.prod()) > _SPARSE * (len(points) + len(others)):
        return left
    column = _distance_in_column(others - low, shape)
    strides = np.append(np.cumprod(shape[:0:-1])[::-1], 1)
    at = _flat(points - low, strides)
    square_of = (np.arange(_ALONG + 1) * scale[0]) ** 2
    square_of[_ALONG] = np.inf
    # Sums of squares of these have no rounding errors, so only the shortest one matters.
    exact = bool((np.frexp(scale)[0] == 0.5).all())
    best = np.full(len(points), np.inf)
    rounded = best if exact else best.copy()
    for k in range(min(len(steps), 8 + len(others) // _PER_COLUMN)):
        there = at + int(strides[1:] @ steps[k])
        near = column.take(there)
        square = square_of.take(near)
        square += squares[k]
        if not exact:
            same = np.flatnonzero((square <= best * (1 + _ROUNDING)) & (near < _ALONG))
            nearer = square[same] < best[same] * (1 - _ROUNDING)
            rounded[same[nearer]] = np.inf
            for sign in (-1, 1):
                along = sign * near[same].astype(np.int32)
                hit = column.take(there[same] + along * int(strides[0])) == 0
                here, pixel = same[hit], points[left[same[hit]]]
                length = _length(pixel, [along[hit], *steps[k]], scale)
                rounded[here] = np.minimum(rounded[here], length)
        np.minimum(best, square, out=best)
        if squares[k + 1] > squares[k]:
            open_ = best * (1 + _ROUNDING) >= squares[k + 1]
            closed = ~open_
            found[left[closed]] = np.sqrt(best[closed]) if exact else rounded[closed]
            left, at, best = left[open_], at[open_], best[open_]
            rounded = best if exact else rounded[open_]
            if not len(left):
                break
    return left


@lru_cache(maxsize=16)
def _columns(scale: tuple[float, ...]) -> tuple[NDArray[np.int64], list[float]]:
    """The columns to look at, the nearest first: steps along the axes after the first [K, axes - 1]
    and their squared lengths [K + 1], the last of which is that of columns that are not listed."""
    side = _COLUMNS[len(scale)]
    # No longer than the distances that columns contain.
    limit = min(_ALONG * scale[0], *((side + 1) * size for size in scale[1:])) ** 2
    steps = [
        (sum((n * size) ** 2 for n, size in zip(step, scale[1:], strict=True)), step)
        for step in product(range(-side, side + 1), repeat=len(scale) - 1)
    ]
    kept = sorted(each for each in steps if each[0] < limit * (1 - _ROUNDING))
    return np.array([step for _, step in kept]), [*(square for square, _ in kept), limit]


def _distance_in_column(others: NDArray[np.int64], shape: NDArray[np.int64]) -> NDArray[np.uint8]:
    """For each pixel of a map of this shape the distance along the first axis to the nearest of the
    others, at most ``_ALONG``; others outside the map do not count."""
    column = np.full(shape, _ALONG, np.uint8)
    column[tuple(others[((others >= 0) & (others < shape)).all(axis=1)].T)] = 0
    farther = np.empty(column.shape[1:], np.uint8)
    for rows in (column, column[::-1]):
        for before, row in pairwise(rows):
            np.minimum(row, np.add(before, 1, out=farther), out=row)
    return column


def _flat(points: NDArray[np.int64], strides: NDArray[np.int64]) -> NDArray[np.int64]:
    at: NDArray[np.int64] = points[:, 0] * strides[0]
    for axis in range(1, len(strides)):
        at += points[:, axis] * strides[axis]
    return at


def _length(pixels: Points, steps: list[NDArray[np.int32] | int], scale: Floats) -> Floats:
    """Distance of each pixel to the one that is ``steps`` away."""
    total = np.zeros(len(pixels))
    for axis, (step, size) in enumerate(zip(steps, scale, strict=True)):
        total += (pixels[:, axis] * size - (pixels[:, axis] + step) * size) ** 2
    return np.sqrt(total)
