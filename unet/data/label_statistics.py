"""A look at an image and its label while both are decoded: do the label's values mean what the
config says? What the looks of all images of a dataset say together is in
:mod:`unet.data.label_doubts`.

Shares of classes are exact. Intensities and pieces are those of a thinned copy, every n-th pixel
of the image, so that memory and time are bounded whatever the image's size.
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

# Pixels of a thinned copy; of a binary mask more, since its pieces are the objects.
THINNED, COUNTED = 1 << 18, 1 << 22
# Thinned pixels of a piece that counts: fewer are specks, or what thinning leaves of a thread.
SPECK = 4
# Numbers of one label that are looked at.
MOST = 500


class Thinned:
    """Every n-th pixel along each axis [(Z,) Y, X] of an array that comes block by block.

    Args:
        most: pixels that are kept, about.
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
    """How a label's numbers lie in the image.

    Attributes:
        numbers: distinct ids.
        pieces: connected pieces of equal pixels, specks left out.
        scattered: ids of which two pieces lie apart: further than the smaller one is long.
    """

    numbers: int = 0
    pieces: int = 0
    scattered: int = 0


@dataclass(frozen=True)
class Look:
    """What was seen of one image and its label.

    Attributes:
        shares: of the pixels that are not ignored, by class, in the order of the classes.
        intensity: sum and number of the thinned pixels of the first channel, by class.
        pieces: of numbered objects; empty for classes.
        objects: pieces of a binary mask, None where the mask is too large to count them here.
        copy: whether the label has the very pixels of an image of more than one value.
    """

    shares: Mapping[str, float]
    intensity: Mapping[str, tuple[float, int]]
    pieces: Numbering = Numbering()
    objects: int | None = None
    copy: bool = False


@dataclass
class Looking:
    """Takes the blocks of an image and of its label.

    Attributes:
        shape: [(Z,) Y, X].
        classes: name -> label value; empty: numbered objects.
        ignore: label value of pixels that count nowhere.
        binary: whether any value but 0 is an object's.
    """

    shape: tuple[int, ...]
    classes: Mapping[str, int]
    ignore: int | None = None
    binary: bool = False
    _counts: Counter[int] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        self._image, self._label = (Thinned(self.shape, THINNED) for _ in range(2))
        self._mask = Thinned(self.shape, COUNTED) if self.binary else None

    def image(self, start: Sequence[int], block: Array) -> None:
        """``block``: [C, (Z,) Y, X]; the first channel is kept."""
        if start[0] == 0:
            self._image.add(start[1:], block[0])

    def label(self, start: Sequence[int], block: Array, values: Array, counts: Array) -> None:
        """``block``: [(Z,) Y, X]; its distinct values and how often each occurs."""
        self._label.add(start, block)
        if self._mask is not None:
            self._mask.add(start, self._foreground(block))
        # Of numbered objects only 0 and what is ignored: there may be a million others.
        wanted = {0, *self.classes.values()} | ({self.ignore} if self.ignore is not None else set())
        for value in wanted:
            self._counts[value] += int(counts[values == value].sum())

    def done(self) -> Look:
        """After all blocks of both."""
        image, label = self._image.pixels, self._label.pixels
        total = math.prod(self.shape) - (0 if self.ignore is None else self._counts[self.ignore])
        numbers = {name: self._counts[value] for name, value in self.classes.items()}
        if not self.classes:
            numbers = {"background": self._counts[0], "foreground": total - self._counts[0]}
        # Six digits, of small shares too: what occurs at all is never 0.
        shares = {name: float(f"{n / max(total, 1):.6g}") for name, n in numbers.items()}
        return Look(
            shares,
            self._intensity(image, label),
            self._pieces(label),
            self._objects(),
            # Where both are one value everywhere (an empty well), that is no sign of a mistake.
            copy=bool(np.array_equal(image, label) and image.min() < image.max()),
        )

    def _intensity(self, image: Array, label: Array) -> dict[str, tuple[float, int]]:
        masks = {name: label == value for name, value in self.classes.items()}
        if not self.classes:
            masks = {"background": label == 0, "foreground": self._foreground(label)}
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
        return marked if self.ignore is None else marked & (label != self.ignore)

    def _pieces(self, label: Array) -> Numbering:
        from scipy import ndimage
        from skimage import measure

        label_of: Any = measure.label
        if self.classes or self.binary:
            return Numbering()
        # Ranks: float labels, and numbers near 2^32, are no matter then.
        values, ranks = np.unique(np.where(self._foreground(label), label, 0), return_inverse=True)
        ids = (ranks.reshape(label.shape) + int(values[0] != 0)).astype(np.int32)
        pieces = label_of(ids, background=0, connectivity=label.ndim)
        places = ndimage.find_objects(pieces)
        sizes = np.bincount(pieces.ravel(), minlength=len(places) + 1)
        owner = np.zeros(len(places) + 1, np.int32)
        owner[pieces] = ids
        kept = [k for k in range(1, len(places) + 1) if sizes[k] >= SPECK]
        by_id: dict[int, list[int]] = {}
        for k in kept:
            by_id.setdefault(int(owner[k]), []).append(k)
        scattered = 0
        for members in list(by_id.values())[:MOST]:
            first, *others = sorted(members, key=lambda k: -int(sizes[k]))
            if others and _apart(places[first - 1], places[others[0] - 1]):
                scattered += 1
        return Numbering(len(by_id), len(kept), scattered)


def _apart(first: tuple[slice, ...], second: tuple[slice, ...]) -> bool:
    """Whether the gap between two boxes is wider than the smaller one is long."""
    both = list(zip(first, second, strict=True))
    gap = max(max(a.start, b.start) - min(a.stop, b.stop) for a, b in both)
    return bool(gap >= min(max(s.stop - s.start for s in box) for box in (first, second)))
