"""Statistics of a label, gathered while it and its image are decoded.

:mod:`unet.data.label_warnings` uses those of all images in a dataset to find labels whose values do
not mean what the config says. Class shares are exact. Intensities and regions come from a
subsampled copy, every n-th pixel, so that memory and time are limited for images of any size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Pixels of a subsampled copy, and of a binary mask, whose components are counted as objects.
SAMPLED_PIXELS, MASK_PIXELS = 1 << 18, 1 << 22
# Smaller regions (in sampled pixels) are ignored: specks, or threads broken up by subsampling.
MIN_REGION = 4
# How many numbers of one label are checked for scattered regions.
MAX_NUMBERS = 500


class Subsampled:
    """Every n-th pixel along each axis [(Z,) Y, X] of an array that comes block by block.

    Args:
        most: the largest number of pixels to keep.
    """

    def __init__(self, shape: Sequence[int], most: int) -> None:
        step = 1
        while math.prod(-(-size // step) for size in shape) > most:
            step += 1
        self.step = step
        self._shape = tuple(-(-size // step) for size in shape)
        self._kept: Array | None = None

    def add(self, start: Sequence[int], block: Array) -> None:
        if self._kept is None:
            self._kept = np.zeros(self._shape, block.dtype)
        first = [-a % self.step for a in start]
        part = block[tuple(slice(f, None, self.step) for f in first)]
        where = [(a + f) // self.step for a, f in zip(start, first, strict=True)]
        self._kept[tuple(slice(a, a + n) for a, n in zip(where, part.shape, strict=True))] = part

    @property
    def pixels(self) -> Array:
        return np.zeros(self._shape, np.uint8) if self._kept is None else self._kept


@dataclass(frozen=True)
class Numbering:
    """How a label numbers its objects.

    Attributes:
        numbers: how many distinct ids there are.
        regions: number of connected regions of equal pixels, without specks.
        scattered: number of ids with two regions that are further apart than the smaller is long.
    """

    numbers: int = 0
    regions: int = 0
    scattered: int = 0


@dataclass(frozen=True)
class LabelStatistics:
    """Statistics of one label and its image.

    Attributes:
        shares: of the pixels that are not ignored or unknown, by class, in the order of the
            classes.
        intensity: sum and number of the sampled pixels of the first channel, by class.
        numbering: of numbered objects; empty for classes.
        objects: number of components of a binary mask, None if the mask is too large to count them.
        copy: whether the label is identical to the image, which has more than one value.
        labelled: share of the pixels that have a label, if the others are unknown; None: all have.
    """

    shares: Mapping[str, float]
    intensity: Mapping[str, tuple[float, int]]
    numbering: Numbering = Numbering()
    objects: int | None = None
    copy: bool = False
    labelled: float | None = None


@dataclass
class LabelScan:
    """Gathers the statistics from the blocks of an image and its label.

    Attributes:
        shape: [(Z,) Y, X].
        classes: name -> label value; empty for numbered objects.
        ignore: label value of ignored pixels.
        binary: whether all values except 0 mean foreground.
        sparse: whether pixels without a label are unknown.
        background: label value of background pixels, if they are not those of value 0.
    """

    shape: tuple[int, ...]
    classes: Mapping[str, int]
    ignore: int | None = None
    binary: bool = False
    sparse: bool = False
    background: int | None = None
    _counts: Counter[int] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        self._image, self._label = (Subsampled(self.shape, SAMPLED_PIXELS) for _ in range(2))
        self._mask = Subsampled(self.shape, MASK_PIXELS) if self.binary else None

    def add_image(self, start: Sequence[int], block: Array) -> None:
        """``block``: [C, (Z,) Y, X]; only the first channel is used."""
        if start[0] == 0:
            self._image.add(start[1:], block[0])

    def add_label(self, start: Sequence[int], block: Array, values: Array, counts: Array) -> None:
        """``block``: [(Z,) Y, X]; ``values``, ``counts``: its distinct values and their numbers."""
        self._label.add(start, block)
        if self._mask is not None:
            self._mask.add(start, self._foreground(block))
        # For numbered objects only those that mean no object: there may be a million others.
        wanted = {0, *self.classes.values(), *self._no_objects}
        for value in wanted:
            self._counts[value] += int(counts[values == value].sum())

    def statistics(self) -> LabelStatistics:
        """The result, after all blocks were added."""
        image, label = self._image.pixels, self._label.pixels
        pixels = math.prod(self.shape)
        numbers = {name: self._counts[value] for name, value in self.classes.items()}
        if not self.classes:
            of_none = {0, *self._no_objects}
            foreground = pixels - sum(self._counts[value] for value in of_none)
            ground = self.background if self.sparse else 0
            numbers = {
                "background": 0 if ground is None else self._counts[ground],
                "foreground": foreground,
            }
        total = pixels - (0 if self.ignore is None else self._counts[self.ignore])
        if self.sparse:
            total = sum(numbers.values())
        # Six significant digits, so that the share of a class that occurs is never 0.
        shares = {name: float(f"{n / max(total, 1):.6g}") for name, n in numbers.items()}
        return LabelStatistics(
            shares,
            self._intensity(image, label),
            self._numbering(label),
            self._objects(),
            # If both have a single value (an empty well), equality does not mean a mistake.
            copy=bool(np.array_equal(image, label) and image.min() < image.max()),
            labelled=total / pixels if self.sparse else None,
        )

    def _intensity(self, image: Array, label: Array) -> dict[str, tuple[float, int]]:
        masks = {name: label == value for name, value in self.classes.items()}
        if not self.classes:
            ground = self.background if self.sparse else 0
            none = np.zeros(label.shape, bool)
            masks = {
                "background": none if ground is None else label == ground,
                "foreground": self._foreground(label),
            }
        return {
            name: (float(image[mask].sum(dtype=np.float64)), int(mask.sum()))
            for name, mask in masks.items()
        }

    def _objects(self) -> int | None:
        from scipy import ndimage

        if self._mask is None or self._mask.step > 1:
            return None
        return int(ndimage.label(self._mask.pixels, np.ones((3,) * len(self.shape), bool))[1])

    def _foreground(self, label: Array) -> NDArray[np.bool_]:
        marked: NDArray[np.bool_] = label != 0
        for value in self._no_objects:
            marked &= label != value
        return marked

    @property
    def _no_objects(self) -> list[int]:
        """Values besides 0 that mean no object."""
        return [value for value in (self.ignore, self.background) if value is not None]

    def _numbering(self, label: Array) -> Numbering:
        from scipy import ndimage
        from skimage import measure

        label_of: Any = measure.label
        if self.classes or self.binary:
            return Numbering()
        # Ranks, so that float labels and numbers near 2^32 work, too.
        values, ranks = np.unique(np.where(self._foreground(label), label, 0), return_inverse=True)
        ids = (ranks.reshape(label.shape) + int(values[0] != 0)).astype(np.int32)
        regions = label_of(ids, background=0, connectivity=label.ndim)
        boxes = ndimage.find_objects(regions)
        sizes = np.bincount(regions.ravel(), minlength=len(boxes) + 1)
        owner = np.zeros(len(boxes) + 1, np.int32)
        owner[regions] = ids
        kept = [k for k in range(1, len(boxes) + 1) if sizes[k] >= MIN_REGION]
        by_id: dict[int, list[int]] = {}
        for k in kept:
            by_id.setdefault(int(owner[k]), []).append(k)
        scattered = 0
        for same_id in list(by_id.values())[:MAX_NUMBERS]:
            first, *others = sorted(same_id, key=lambda k: -int(sizes[k]))
            if others and _far_apart(boxes[first - 1], boxes[others[0] - 1]):
                scattered += 1
        return Numbering(len(by_id), len(kept), scattered)


def _far_apart(first: tuple[slice, ...], second: tuple[slice, ...]) -> bool:
    """Whether the gap between two boxes is wider than the smaller one is long."""
    both = list(zip(first, second, strict=True))
    gap = max(max(a.start, b.start) - min(a.stop, b.stop) for a, b in both)
    return bool(gap >= min(max(s.stop - s.start for s in box) for box in (first, second)))
