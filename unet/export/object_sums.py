"""Sums over the pixels of labelled objects, block by block. All measures are computed from them.

The sums of parts of an image add up to those of the whole image, so memory holds one block and a
few numbers per object. Counts are exact: coordinates and their products are whole numbers below
2**53 for objects of any usual size, with any blocks. Beyond that, and for intensities, sums of
floats differ only by rounding. No difference of two large numbers is used: positions are squared
from the corner of the object's own box, and intensities from their own mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.data.tiling import Slices

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Pixels processed at once, which limits temporary arrays to some tens of megabytes.
_SLAB = 1 << 20


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums for each label in a part of an image; the sums of parts that do not overlap add up.

    Attributes:
        labels: int64 [L], sorted, without 0.
        size: int64 [L], pixels.
        positions: int64 [L, D], sums of the coordinates along the spatial axes.
        low, high: int64 [L, D], first and last pixel along each axis.
        products: float64 [L, P], sums of the products of two coordinates, counted from ``low``,
            for the pairs of axes of :func:`pairs`.
        faces: int64 [L, K], how often a step from pixel to pixel along each of
            :func:`directions` leads into the label or out of it.
        total: float64 [L, C], sum of each channel.
        spread: float64 [L, C], sums of the squared differences from each channel's mean.
        least, most: float64 [L, C], smallest and largest value of each channel.
    """

    labels: Ints
    size: Ints
    positions: Ints
    low: Ints
    high: Ints
    products: Floats
    faces: Ints
    total: Floats
    spread: Floats
    least: Floats
    most: Floats


def pairs(dims: int) -> list[tuple[int, int]]:
    """The pairs of axes (0, 0), (0, 1), ..; the first is never larger than the second."""
    return list(combinations_with_replacement(range(dims), 2))


def directions(dims: int) -> list[tuple[int, ...]]:
    """The steps along which ``faces`` are counted: the axes, and in 2D also the two diagonals."""
    axes = [tuple(int(i == axis) for i in range(dims)) for axis in range(dims)]
    return [*axes, (1, 1), (1, -1)] if dims == 2 else axes


def sums(around: NDArray[Any], image: NDArray[Any], region: Slices) -> Sums:
    """Sums of one block.

    Args:
        around: integer ids [(Z,) Y, X] of the block with one extra pixel on each side (0 outside
            the image), 0 = background.
        image: [C, (Z,) Y, X], the block without extra pixels.
        region: position of the block in the image.

    Raises:
        ValueError: labels and image differ in shape.
    """
    dims = len(region)
    shape = tuple(n - 2 for n in around.shape)
    if image.shape[1:] != shape:
        raise ValueError(f"labels {shape} without their border do not fit {image.shape}")
    labels = around[(slice(1, -1),) * dims]
    rows = max(1, _SLAB // max(1, labels[0].size))
    slabs = []
    for start in range(0, shape[0], rows):
        cut = slice(start, min(start + rows, shape[0]))
        corner = [region[0].start + start, *(s.start for s in region[1:])]
        slabs.append(_grouped(_runs(labels[cut], image[:, cut], corner)))
    found = add(slabs, dims, len(image))
    return _with_faces(found, around)


def add(parts: Iterable[Sums], dims: int, channels: int) -> Sums:
    """The sums of all parts together; without parts, an empty table for these axes and channels."""
    found = [_empty(dims, channels), *parts]
    names = Sums.__dataclass_fields__
    return _grouped(Sums(*(np.concatenate([getattr(p, name) for p in found]) for name in names)))


def read_around(
    read: Callable[[Slices], NDArray[Any]], shape: Sequence[int], region: Slices
) -> NDArray[Any]:
    """A region of an image [(Z,) Y, X] with one extra pixel per side, 0 outside the image."""
    wanted = [slice(s.start - 1, s.stop + 1) for s in region]
    there = tuple(
        slice(max(w.start, 0), min(w.stop, n)) for w, n in zip(wanted, shape, strict=True)
    )
    beyond = [(t.start - w.start, w.stop - t.stop) for w, t in zip(wanted, there, strict=True)]
    return np.pad(np.asarray(read(there)), beyond)


def _empty(dims: int, channels: int) -> Sums:
    none, ints = np.empty(0, np.int64), np.empty((0, dims), np.int64)
    floats = np.empty((0, channels))
    products = np.empty((0, len(pairs(dims))))
    faces = np.empty((0, len(directions(dims))), np.int64)
    return Sums(none, none, ints, ints, ints, products, faces, floats, floats, floats, floats)


def _runs(labels: NDArray[Any], image: NDArray[Any], corner: list[int]) -> Sums:
    """One entry per run of equal labels along a row; ``corner``: position of the first pixel."""
    flat, dims = labels.reshape(-1), labels.ndim
    change = flat[1:] != flat[:-1]
    # A run ends with its row, so its pixels differ only in x.
    change[labels.shape[-1] - 1 :: labels.shape[-1]] = True
    starts = np.concatenate([[0], np.flatnonzero(change) + 1])
    lengths = np.diff(starts, append=flat.size)
    some = flat[starts] > 0
    starts, count = starts[some], lengths[some]
    if not len(starts):
        return _empty(dims, len(image))
    low = np.stack(np.unravel_index(starts, labels.shape), axis=1) + np.array(corner)
    high = low.copy()
    high[:, -1] += count - 1
    # Within a run only x changes, and its sum is n * (first + last) / 2.
    positions = low * count[:, None]
    positions[:, -1] = (low[:, -1] + high[:, -1]) * count // 2
    # Counted from the run's first pixel: 0, 1, .. n - 1 along x, 0 along the other axes.
    products = np.zeros((len(starts), len(pairs(dims))))
    products[:, -1] = (count - 1) * count * (2 * count - 1) // 6
    faces = np.zeros((len(starts), len(directions(dims))), np.int64)
    channels = _run_intensities(image, np.repeat(some, lengths), count)
    ids = flat[starts].astype(np.int64)
    return Sums(ids, count, positions, low, high, products, faces, *channels)


def _run_intensities(
    image: NDArray[Any], inside: NDArray[np.bool_], count: Ints
) -> tuple[Floats, Floats, Floats, Floats]:
    """total, spread, least, most [R, C] of runs; ``inside``: which pixels (flat) are in runs."""
    found = np.empty((4, len(count), len(image)))
    starts = np.cumsum(count) - count
    for c, channel in enumerate(image):
        values = channel.reshape(-1)[inside].astype(np.float64)
        found[0, :, c] = np.add.reduceat(values, starts)
        found[2, :, c] = np.minimum.reduceat(values, starts)
        found[3, :, c] = np.maximum.reduceat(values, starts)
        values -= np.repeat(found[0, :, c] / count, count)
        found[1, :, c] = np.add.reduceat(values * values, starts)
    return found[0], found[1], found[2], found[3]


def _grouped(rows: Sums) -> Sums:
    """Adds up the entries of each label."""
    if not len(rows.labels):
        return rows
    order = np.argsort(rows.labels, kind="stable")
    rows = Sums(*(getattr(rows, name)[order] for name in Sums.__dataclass_fields__))
    starts = np.flatnonzero(np.diff(rows.labels, prepend=-1))
    at = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))

    def added(values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(np.add.reduceat(values, starts))

    size, total = added(rows.size), added(rows.total)
    low = np.minimum.reduceat(rows.low, starts)
    # Squares around another mean: those around the own mean, plus the distance of the means.
    mean = total / size[:, None]
    away = rows.total / rows.size[:, None] - mean[at]
    return Sums(
        labels=rows.labels[starts],
        size=size,
        positions=added(rows.positions),
        low=low,
        high=np.maximum.reduceat(rows.high, starts),
        products=added(_moved(rows, rows.low - low[at])),
        faces=added(rows.faces),
        total=total,
        spread=added(rows.spread + rows.size[:, None] * away * away),
        least=np.minimum.reduceat(rows.least, starts),
        most=np.maximum.reduceat(rows.most, starts),
    )


def _moved(rows: Sums, by: Ints) -> Floats:
    """The products, counted from a corner that is ``by`` pixels [L, D] before ``low``."""
    first = (rows.positions - rows.size[:, None] * rows.low).astype(np.float64)
    size, far = rows.size.astype(np.float64), by.astype(np.float64)
    moved = rows.products.copy()
    for k, (i, j) in enumerate(pairs(rows.low.shape[1])):
        moved[:, k] += far[:, i] * first[:, j] + far[:, j] * first[:, i]
        moved[:, k] += size * far[:, i] * far[:, j]
    return moved


def _with_faces(found: Sums, around: NDArray[Any]) -> Sums:
    """Counts the steps into and out of the labels, for the pixels in the block."""
    flat = np.ascontiguousarray(around).reshape(-1)
    # Zeros around the block, so that the extra pixels are not counted themselves.
    inside = (slice(1, -1),) * around.ndim
    own = np.zeros_like(around)
    own[inside] = around[inside]
    own = own.reshape(-1)
    strides = np.cumprod([1, *around.shape[:0:-1]])[::-1]
    for k, step in enumerate(directions(around.ndim)):
        # Some steps wrap around the ends of rows, from one extra pixel to another.
        apart = int(np.dot(step, strides))
        changes = np.flatnonzero(flat[apart:] != flat[:-apart])
        for where in (changes, changes + apart):
            found.faces[:, k] += _counts(own[where], found.labels)
    return found


def _counts(ids: NDArray[Any], labels: Ints) -> Ints:
    """How often each label occurs among ``ids``, which contain no others except 0."""
    ids = ids[ids > 0].astype(np.int64)
    if not len(ids):
        return np.zeros(len(labels), np.int64)
    first = int(labels[0])
    if labels[-1] - first < len(ids) + len(labels):
        # A block has most of the labels between its first and its last one.
        return np.bincount(ids - first, minlength=int(labels[-1]) + 1 - first)[labels - first]
    return np.bincount(np.searchsorted(labels, ids), minlength=len(labels))
