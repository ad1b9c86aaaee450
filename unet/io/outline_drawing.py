"""Outlines of objects, and labels that are drawn from them where they are read.

A pixel belongs to an object if its centre lies inside its outline. Coordinates are corners of
pixels, as in ImageJ and QuPath: the pixel at x = 3 reaches from 3 to 4.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]


@dataclass(frozen=True)
class Outline:
    """An object, or a piece of one.

    Attributes:
        rings: each [N, 2] as x, y; a pixel inside an odd number of them is drawn.
        kind: name of its class, "" if it has none.
        whole: outlines with the same text are pieces of one object; "": it is an object by itself.
        mask: bool [Y, X] instead of rings, whose first pixel is at ``corner`` (x, y).
    """

    rings: tuple[Ring, ...] = ()
    kind: str = ""
    whole: str = ""
    mask: NDArray[np.bool_] | None = None
    corner: tuple[int, int] = (0, 0)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Lowest and highest x and y: x0, y0, x1, y1."""
        if self.mask is not None:
            (x, y), (height, width) = self.corner, self.mask.shape
            return float(x), float(y), float(x + width), float(y + height)
        corners = np.concatenate(self.rings)
        low, high = corners.min(axis=0), corners.max(axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


class Drawing:
    """Outlines as labels [Y, X] uint32, drawn where they are read. Where outlines overlap, the
    first one in the file has the pixel.

    Args:
        values: the label of each outline.
        skipped: number of entries of the file that are no outlines.
    """

    def __init__(
        self,
        outlines: Sequence[Outline],
        values: Sequence[int],
        shape: tuple[int, int],
        skipped: int = 0,
    ) -> None:
        self.shape, self.dtype, self.ndim = shape, np.dtype(np.uint32), 2
        self._outlines, self._values, self._skipped = outlines, values, skipped
        self._boxes = np.array([outline.box for outline in outlines]).reshape(-1, 4)
        self._lock = threading.Lock()
        self._drawn: set[int] = set()
        self._overlapping: set[int] = set()

    def __getitem__(self, region: tuple[slice, slice]) -> NDArray[np.uint32]:
        rows, columns = (range(*s.indices(n)) for s, n in zip(region, self.shape, strict=True))
        labels = np.zeros((len(rows), len(columns)), np.uint32)
        if labels.size == 0:
            return labels
        x0, y0, x1, y1 = self._boxes.T
        near = (x1 > columns[0]) & (x0 <= columns[-1] + 1) & (y1 > rows[0]) & (y0 <= rows[-1] + 1)
        for number in np.flatnonzero(near):
            self._draw(int(number), labels, rows[0], columns[0])
        return labels

    def _draw(self, number: int, labels: NDArray[np.uint32], top: int, left: int) -> None:
        outline = self._outlines[number]
        if outline.mask is None:
            inside = _filled(outline.rings, labels.shape, top, left)
        else:
            inside = _placed(outline.mask, outline.corner, labels.shape, top, left)
        if inside is None:
            return
        window, mask = inside
        part = labels[window]
        taken = mask & (part != 0) & (part != self._values[number])
        part[mask & (part == 0)] = self._values[number]
        with self._lock:
            self._drawn.add(number)
            if taken.any():
                self._overlapping.add(number)

    def warnings(self) -> list[str]:
        """What looked wrong in the parts that were read."""
        total, found = len(self._outlines), []
        if self._skipped:
            found.append(
                f"{self._skipped} of {total + self._skipped} entries are no outlines of objects "
                "and left out"
            )
        if self._overlapping:
            found.append(
                f"{len(self._overlapping)} of {total} outlines overlap others; pixels that two "
                "share belong to the first"
            )
        if lost := total - len(self._drawn):
            found.append(f"{lost} of {total} outlines cover no pixel of the image")
        return found


def _filled(
    rings: Sequence[Ring], shape: tuple[int, ...], top: int, left: int
) -> tuple[tuple[slice, slice], NDArray[np.bool_]] | None:
    """The pixels of a part of the image inside the rings, and where they are in it."""
    from skimage import draw

    polygon: Any = draw.polygon
    corners = np.concatenate(rings) - (left, top)
    # Clipped before they become integers, which hold less than coordinates may be.
    low = np.clip(np.floor(corners.min(axis=0)), 0, shape[::-1]).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)), 0, shape[::-1]).astype(int)
    x, y = low
    width, height = high - low
    if width <= 0 or height <= 0:
        return None
    mask = np.zeros((height, width), bool)
    for ring in rings:
        # Coordinates of the centres of pixels are half a pixel smaller.
        rows, columns = ring[:, 1] - 0.5 - top - y, ring[:, 0] - 0.5 - left - x
        inside = polygon(rows, columns, mask.shape)
        mask[inside] = ~mask[inside]
    return ((slice(y, y + height), slice(x, x + width)), mask) if mask.any() else None


def _placed(
    mask: NDArray[np.bool_], corner: tuple[int, int], shape: tuple[int, ...], top: int, left: int
) -> tuple[tuple[slice, slice], NDArray[np.bool_]] | None:
    """The same for a mask."""
    x, y = corner[0] - left, corner[1] - top
    rows = slice(max(0, y), min(shape[0], y + mask.shape[0]))
    columns = slice(max(0, x), min(shape[1], x + mask.shape[1]))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    part = mask[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
    return ((rows, columns), part) if part.any() else None
