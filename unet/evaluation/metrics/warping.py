"""Warping error: counts the changes of topology that turn the truth into the prediction.

Jain et al. 2010 (doi 10.1109/CVPR.2010.5539950): the true map is warped towards the prediction by
flipping simple points: pixels whose flip does not join, split, create or remove a component. Pixels
that still differ afterwards are topological errors. Cells are 4-connected, membranes 8-connected;
the outside of the image is membrane. 2D.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# The eight neighbours (y, x) of a pixel in circular order; those at even positions share a side.
RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


class Warping(NamedTuple):
    """Pixels that still differ after warping (``mismatches``); those among them where the
    prediction joins cells (``mergers``) or cuts one (``splits``)."""

    mismatches: int
    mergers: int
    splits: int


@cache
def crossing_numbers() -> tuple[int, ...]:
    """For each of the 256 rings (bit k: neighbour RING[k] is a cell) the number of 4-connected
    pieces of cell in the ring that touch the centre; 0 if all eight neighbours are cells.

    Sum over the side neighbours k of x_k - x_k x_(k+1) x_(k+2) (the crossing number
    of Yokoi, Toriwaki and Fukumura 1975). A point is simple exactly where it is 1.
    """
    numbers = []
    for code in range(256):
        x = [code >> k & 1 for k in range(8)]
        numbers.append(sum(x[k] - x[k] * x[k + 1] * x[(k + 2) % 8] for k in (0, 2, 4, 6)))
    return tuple(numbers)


def warp(
    truth: NDArray[np.bool_],
    probability: NDArray[Any],
    threshold: float,
    valid: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """The truth [Y, X] after all simple flips towards ``probability > threshold``.

    probability: float [Y, X], of being inside a cell. valid: bool [Y, X], pixels that may flip.
    The order of flips affects the result; it is that of the challenge's own code: sweeps over the
    pixels that differ, the most certain predictions (farthest from the threshold) first, ties
    column by column, until a sweep flips none.
    """
    width = truth.shape[1] + 2
    cells = np.pad(truth, 1)
    differ = truth != (probability > threshold)
    if valid is not None:
        differ &= valid
    # Transposed, so that points come column by column; the stable sort keeps that order in ties.
    x, y = np.nonzero(differ.T)
    sureness = np.abs(probability[y, x].astype(np.float64) - threshold)
    order = np.argsort(-sureness, kind="stable")
    points: list[int] = ((y + 1) * width + x + 1)[order].tolist()
    # Plain Python on a bytearray: each flip affects its neighbours, so this cannot be vectorised,
    # and indexing single elements of NumPy arrays is ten times slower.
    s = bytearray(cells.tobytes())
    simple = bytes(number == 1 for number in crossing_numbers())
    up, down = -width, width
    while True:
        kept = []
        for i in points:
            n, m = i + up, i + down
            code = (
                s[n] | s[n + 1] << 1 | s[i + 1] << 2 | s[m + 1] << 3
                | s[m] << 4 | s[m - 1] << 5 | s[i - 1] << 6 | s[n - 1] << 7
            )  # fmt: skip
            if simple[code]:
                s[i] ^= 1
            else:
                kept.append(i)
        if len(kept) == len(points):
            break
        points = kept
    warped = np.frombuffer(s, np.bool_).reshape(cells.shape)
    return warped[1:-1, 1:-1].copy()


def warping(
    truth: NDArray[np.bool_],
    probability: NDArray[Any],
    threshold: float,
    valid: NDArray[np.bool_] | None = None,
) -> Warping:
    """Counts the pixels that still differ after `warp`, by kind.

    The rules are those of the challenge's code (Trainable Weka Segmentation). A membrane pixel of
    the warped truth that is predicted as cell is a merger if its eight neighbours belong to two or
    more objects. A cell pixel that is predicted as membrane is a split in that case, or if removing
    it cuts its object. The other pixels create or remove holes and objects.
    """
    if truth.shape != probability.shape or truth.ndim != 2:
        raise ValueError(f"need equal [Y, X], got {truth.shape} and {probability.shape}")
    warped = warp(truth, probability, threshold, valid)
    differ = warped != (probability > threshold)
    if valid is not None:
        differ &= valid
    y, x = np.nonzero(differ)
    merger, split = _kinds(warped, y, x)
    return Warping(len(y), int(merger.sum()), int(split.sum()))


def _kinds(
    warped: NDArray[np.bool_], y: NDArray[np.intp], x: NDArray[np.intp]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of the points are mergers, and which splits: two bool [N]."""
    from scipy.ndimage import label

    cells = np.pad(warped, 1)
    objects, _ = label(cells)
    ground, _ = label(~cells, np.ones((3, 3)))
    around = np.stack([objects[y + 1 + dy, x + 1 + dx] for dy, dx in RING], axis=1)
    outside = np.stack([ground[y + 1 + dy, x + 1 + dx] for dy, dx in RING], axis=1)
    code = ((around > 0) << np.arange(8)).sum(axis=1)
    pieces = np.array(crossing_numbers())[code]
    several = _different(around) >= 2
    # Removing a pixel joins the pieces of ground around it. If two of them were one component
    # already, a closed path of ground now surrounds a part of the object, which is cut off.
    cuts = pieces > _different(outside)
    inside = warped[y, x]
    return ~inside & several, inside & (several | cuts)


def _different(ids: NDArray[Any]) -> NDArray[np.int64]:
    """Number of distinct ids other than 0 in each row of [N, 8]."""
    ordered = np.sort(ids, axis=1)
    new = np.diff(ordered, axis=1, prepend=0) != 0
    number: NDArray[np.int64] = new.sum(axis=1, dtype=np.int64)
    return number
