"""Chooses the planes of a volume to show: the section with the most foreground, and a side view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.config.heads import IGNORE
from unet.data.blocks import Grid


@dataclass(frozen=True)
class Cut:
    """A plane of a volume [Z, Y, X].

    Attributes:
        axis: the axis it is perpendicular to, 0 (a section) or 1 (rows are Z, columns are X).
        index: position along that axis.
        note: describes the plane.
        aspect: height of its pixels divided by their width.
    """

    axis: int
    index: int
    note: str
    aspect: float = 1.0

    def of(self, array: Any, lead: tuple[slice, ...], where: tuple[slice, slice]) -> NDArray[Any]:
        """The plane of a stored array [.., Z, Y, X], with square pixels: [.., rows, columns].

        Args:
            lead: slices of the axes before Z.
            where: slices of rows and columns, before the pixels are made square.
        """
        rows, columns = where
        inner = (self.index, rows, columns) if self.axis == 0 else (rows, self.index, columns)
        plane = np.asarray(array[(*lead, *inner)])
        if self.aspect == 1:
            return plane
        height = max(1, round(plane.shape[-2] * self.aspect))
        nearest = (np.arange(height) + 0.5) * plane.shape[-2] / height
        return plane[..., nearest.astype(int), :]


def cuts_of(classes: Any, pixel_size_um: Sequence[float] | None) -> list[Cut | None]:
    """The planes of an image to show: [None] for a 2D image; for a volume the section (one Z) and
    the cut (one Y) with the most foreground, in a tie the ones nearest to the middle.

    Args:
        classes: stored class indices uint8 [(Z,) Y, X], read block by block.
        pixel_size_um: per spatial axis, None = unknown (then voxels are shown as cubes).
    """
    if classes.ndim == 2:
        return [None]
    counts = [np.zeros(size, np.int64) for size in classes.shape[:2]]
    shards = getattr(classes, "shards", None) or classes.chunks
    for region in Grid(classes.shape, shards).regions():
        block = np.asarray(classes[region])
        inside = (block > 0) & (block != IGNORE)
        counts[0][region[0]] += inside.sum(axis=(1, 2))
        counts[1][region[1]] += inside.sum(axis=(0, 2))
    z, y = (_fullest(count) for count in counts)
    aspect = pixel_size_um[0] / pixel_size_um[2] if pixel_size_um else 1.0
    depth, height = classes.shape[:2]
    return [
        Cut(0, z, f"section z = {z} of {depth}, the one with the most foreground"),
        Cut(1, y, f"cut at y = {y} of {height}, Z downwards", aspect),
    ]


def _fullest(counts: NDArray[np.int64]) -> int:
    middle = (len(counts) - 1) / 2
    return min(range(len(counts)), key=lambda i: (-counts[i], abs(i - middle)))
