"""The seam score: how much probabilities jump across tile borders, compared with elsewhere.

A *line* x of an axis is the border between the pixels x - 1 and x (in a volume it is a plane). Its
jump is |p[x] - p[x - 1]|, summed over the line's pixels and all channels. Each line on which a tile
starts or ends is compared with the mean of the nearest lines on both sides that are not tile
borders and have the same position modulo the network's grid, because poolings and up-convolutions
give a U-Net's output a period of its own even without tiles. Lines nearby cross the same objects,
and avoid the frame of the image, where padded networks jump. The score is the ratio of the two sums
over all borders.

1 means no seam. Above 1 the tiles do not fit together. Below 1 there is a seam, too: the padding of
windows without a halo can make both sides of a border alike.

Only two numbers per line are kept (its sum, and whether it is a border), so memory grows only with
the side of the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from unet.data.tiling import Slices

Lines = NDArray[np.int64]
Sums = NDArray[np.float64]
# Per axis: the lines of a region that are used, and the jump of each.
Jumps = list[tuple[Lines, Sums]]
# Mean jump added to numerator and denominator, so that an image with constant probabilities does
# not divide by 0. It is far smaller than the steps of float16, in which probabilities are stored.
LEAST_JUMP = 1e-6
# Number of lines on each side that a border is compared with.
BESIDE = 4


class Seam(TypedDict):
    """The score of one image, and the number of border lines behind it."""

    score: float
    borders: int


class SeamScore:
    """Collects the jumps of one image, region by region.

    A pair of pixels belongs to the region of its second pixel. To include the first pixel, a
    region is read with one more pixel at the near end (:meth:`around`) of each axis on which it
    starts with a used line. Regions that cover the image once count every pair once.

    Args:
        shape: the image's spatial shape ((Z,) Y, X).
        cores: positions of the tiles' cores; they may overlap.
        grid: the network's grid in pixels, per axis.
    """

    def __init__(self, shape: Sequence[int], cores: Sequence[Slices], grid: Sequence[int]) -> None:
        self._shape = tuple(shape)
        self._borders: list[Lines] = []
        self._lines: list[Lines] = []
        self._period = tuple(grid)
        for axis, (size, period) in enumerate(zip(shape, grid, strict=True)):
            ends = {end for core in cores for end in (core[axis].start, core[axis].stop)}
            borders = np.array(sorted(ends - {0, size}), np.int64)
            lines = np.arange(1, size, dtype=np.int64)
            self._borders.append(borders)
            self._lines.append(lines[np.isin(lines % period, borders % period)])
        self._sums: list[Sums] = [np.zeros(size) for size in shape]

    @classmethod
    def of(cls, attrs: dict[str, Any]) -> SeamScore:
        """From the attributes of tiles (:meth:`unet.prediction.tiles.tile_store.Tiles.attrs`)."""
        shape = attrs["shape"]
        cores = [tuple(slice(a, b) for a, b in core) for core in attrs.get("cores", ())]
        return cls(shape, cores, attrs.get("grid", [1] * len(shape)))

    def around(self, region: Slices) -> Slices:
        """What to read for a region of the image: the region, plus the pixel before its first line
        along the axes on which that line is used."""
        return tuple(
            slice(s.start - int(len(lines) > 0 and s.start in lines), s.stop)
            for s, lines in zip(region, self._lines, strict=True)
        )

    def jumps(self, region: Slices, read: NDArray[np.floating]) -> Jumps:
        """Per axis: the region's used lines and their sums. Changes no state, so any thread may
        call it.

        Args:
            read: float [C, *around(region)].
        """
        found: Jumps = []
        # Half precision would round the jumps.
        kind = np.result_type(read, np.float32)
        before = [s.start - a.start for s, a in zip(region, self.around(region), strict=True)]
        inner = [slice(b, None) for b in before]
        for axis, (s, lines) in enumerate(zip(region, self._lines, strict=True)):
            mine = lines[(lines >= s.start) & (lines < s.stop)]
            # Move this axis to the front; cut the others to the region itself.
            own = [*inner[:axis], slice(None), *inner[axis + 1 :]]
            pixels = np.moveaxis(read[(slice(None), *own)], axis + 1, 0)
            sums = np.zeros(len(mine))
            # Line by line: no copy of the region.
            for i, x in enumerate((mine - s.start + before[axis]).tolist()):
                here, there = (pixels[k].astype(kind, copy=False) for k in (x, x - 1))
                sums[i] = np.abs(here - there).sum(dtype=np.float64)
            found.append((mine, sums))
        return found

    def add(self, jumps: Jumps) -> None:
        """Adds the jumps of a region (in the order of regions, so that sums are reproducible)."""
        for total, (lines, sums) in zip(self._sums, jumps, strict=True):
            total[lines] += sums

    def result(self, channels: int) -> Seam | None:
        """The score of an image with this many channels; None if no border has a line to compare
        with, as in an image of one tile."""
        at_borders = expected = pixels = 0.0
        count = 0
        for axis, (period, sums) in enumerate(zip(self._period, self._sums, strict=True)):
            borders = self._borders[axis]
            others = np.setdiff1d(self._lines[axis], borders)
            per_line = channels * math.prod(self._shape) / self._shape[axis]
            for x in borders.tolist():
                alike = others[others % period == x % period]
                at = int(np.searchsorted(alike, x))
                beside = alike[max(0, at - BESIDE) : at + BESIDE]
                if len(beside):
                    at_borders += float(sums[x])
                    expected += float(sums[beside].mean())
                    pixels += per_line
                    count += 1
        if not count:
            return None
        score = (at_borders / pixels + LEAST_JUMP) / (expected / pixels + LEAST_JUMP)
        return {"score": score, "borders": count}
