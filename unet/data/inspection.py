"""Decodes one image and its label, block by block, and says what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.data.label_statistics import Look, Looking
from unet.errors import UserError
from unet.io.axes import LazyImage
from unet.io.images import open_image, open_label

Array = NDArray[Any]

LARGEST_ID = 2**32 - 1
LISTED_VALUES = 5
# A label with more values than this, of which fewer neighbours than this share are equal, is none.
MANY, RARE = 16, 0.2


@dataclass(frozen=True)
class Wanted:
    """What the config says of a dataset's images.

    Attributes:
        task: "semantic" or "instances".
        values: label value of each class (semantic).
        classes: the same by name, in their order; of numbered objects none.
        binary: whether the label is a mask whose connected pieces are the objects (instances).
        ignore: label value of pixels that count nowhere.
        axes, channels, pixel_size_um: over the files' own.
        learned: whether a network is trained on them. An image of one value teaches nothing, but
            is a result where it is predicted (an empty well has no objects).
    """

    task: str
    values: frozenset[int] = frozenset()
    classes: Mapping[str, int] = field(default_factory=dict)
    binary: bool = False
    ignore: int | None = None
    axes: str | None = None
    channels: tuple[int | str, ...] | None = None
    pixel_size_um: float | tuple[float, ...] | None = None
    learned: bool = True


@dataclass(frozen=True)
class ImageFacts:
    """What the manifest keeps of an image and its label; ``look``: for what all images say
    together."""

    axes: str
    shape: tuple[int, ...]
    dtype: str
    pixel_size_um: tuple[float, ...] | None
    channels: tuple[str, ...]
    objects: int | None
    class_shares: Mapping[str, float] | None = None
    inverted: bool = False
    warnings: tuple[str, ...] = ()
    look: Look | None = None


def inspect(
    image: Path,
    label: Path | None,
    page: int | None,
    wanted: Wanted,
) -> ImageFacts:
    """Decodes both files once, one block after the other.

    Raises:
        UserError: "<file>: <what is wrong>".
    """
    opened = open_image(image, axes=wanted.axes, channels=wanted.channels, page=page)
    size = _pixel_size(image, opened, wanted.pixel_size_um)
    looking = Looking(opened.shape[1:], wanted.classes, wanted.ignore, wanted.binary)
    blank = _one_value(image, opened, looking)
    if blank and wanted.learned:
        raise UserError(f"{image}: {blank}")
    objects, look = None, None
    warnings = [*opened.warnings, *([blank] if blank else [])]
    if wanted.pixel_size_um is None:
        warnings += opened.size_warnings
    if label is not None:
        marked = open_label(label, axes=wanted.axes, page=page)
        if marked.shape != opened.shape[1:]:
            raise UserError(
                f"{label}: has {_times(marked.shape)} pixels, its image {_times(opened.shape[1:])}"
            )
        found, pieces = _values(label, marked, looking)
        objects = _check_label(label, found, pieces, wanted)
        if wanted.task == "instances":
            _check_objects(label, objects, pieces)
        look = looking.done()
        objects = look.objects if wanted.binary else objects
        if marked.dtype.kind == "f":
            warnings.append(f"label: values of type {marked.dtype}; save labels as integers")
        warnings += [f"label: {text}" for text in marked.warnings]
    return ImageFacts(
        axes=opened.axes,
        shape=opened.shape,
        dtype=str(opened.dtype),
        pixel_size_um=size,
        channels=opened.channel_names,
        objects=objects,
        class_shares=None if look is None else look.shares,
        inverted=opened.inverted,
        warnings=tuple(warnings),
        look=look,
    )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _pixel_size(
    path: Path, opened: LazyImage, override: float | tuple[float, ...] | None
) -> tuple[float, ...] | None:
    count = len(opened.shape) - 1
    if override is None:
        return opened.pixel_size_um
    sizes = (float(override),) * count if isinstance(override, int | float) else tuple(override)
    if len(sizes) != count:
        raise UserError(
            f"pixel_size_um: {len(sizes)} numbers for the {count} spatial axes of {path}; write "
            f"one number, or one for each of {', '.join(opened.axes[1:])}"
        )
    return sizes


def blocks_of(array: Any) -> Iterator[tuple[tuple[int, ...], Array]]:
    """The chunks of a dask array and where they begin, computed one at a time in this thread."""
    starts = [np.cumsum((0, *sizes)).tolist() for sizes in array.chunks]
    for index in product(*map(range, array.numblocks)):
        block = np.asarray(array.blocks[index].compute(scheduler="synchronous"))
        yield tuple(places[k] for places, k in zip(starts, index, strict=True)), block


def _one_value(path: Path, opened: LazyImage, looking: Looking) -> str:
    """Which value all pixels have; "" where they differ.

    Raises:
        UserError: pixels that are no finite numbers.
    """
    if opened.dtype.kind not in "uif":
        raise UserError(f"{path}: pixels of type {opened.dtype}; save them as numbers")
    lowest, highest = np.inf, -np.inf
    for start, block in blocks_of(opened.array):
        low, high = float(block.min()), float(block.max())
        # The minimum of what holds a NaN is NaN; so is the maximum.
        if not (np.isfinite(low) and np.isfinite(high)):
            raise UserError(f"{path}: NaN or infinite pixels")
        lowest, highest = min(lowest, low), max(highest, high)
        looking.image(start, block)
    return f"all pixels have the value {lowest:g}" if lowest == highest else ""


@dataclass
class Neighbours:
    """Pixels that are next to another along X, both of them labelled, and how many of these pairs
    have one value."""

    pairs: int = 0
    equal: int = 0

    def add(self, block: Array) -> None:
        left, right = block[..., :-1], block[..., 1:]
        both = (left != 0) & (right != 0)
        self.pairs += int(np.count_nonzero(both))
        self.equal += int(np.count_nonzero(both & (left == right)))


def _like_image(values: int, pieces: Neighbours) -> bool:
    """In a label a pixel's neighbour mostly is of the same object, in an image it hardly ever has
    the very same value."""
    return values > MANY and pieces.pairs > 100 * MANY and pieces.equal < RARE * pieces.pairs


def _check_objects(path: Path, objects: int, pieces: Neighbours) -> None:
    """Refuses what has as many values as an image has."""
    if _like_image(objects, pieces):
        share = 100 * pieces.equal // pieces.pairs
        raise UserError(
            f"{path}: {objects} values, and only {share} % of neighbouring pixels have the same "
            "one: it looks like an image, not like numbered objects; are images and labels swapped?"
        )


def _values(path: Path, opened: LazyImage, looking: Looking) -> tuple[Array, Neighbours]:
    """The distinct values of a label, sorted, as int64; and how its pixels hang together."""
    if opened.dtype.kind not in "uif":
        raise UserError(f"{path}: values of type {opened.dtype}; save them as integers")
    found, pieces = np.empty(0, np.int64), Neighbours()
    for start, block in blocks_of(opened.array):
        values, counts = _distinct(block)
        if values.dtype.kind == "f" and not (np.isfinite(values) & (values % 1 == 0)).all():
            raise UserError(f"{path}: values that are no integers")
        if values.size and (values.max() > 2**62 or values.min() < -(2**62)):
            raise UserError(f"{path}: values beyond 2^62; number them from 1")
        found = np.union1d(found, values.astype(np.int64))
        pieces.add(block)
        looking.label(start, block, values, counts)
    return found, pieces


def _distinct(block: Array) -> tuple[Array, Array]:
    """The distinct values of a block, sorted, and how often each occurs."""
    if block.dtype.kind == "u" and block.dtype.itemsize <= 2:
        # Counting is many times as fast as sorting, and most labels are of these types.
        counts = np.bincount(block.ravel())
        values = np.flatnonzero(counts)
        return values, counts[values]
    return np.unique(block, return_counts=True)


def _check_classes(path: Path, values: list[int], pieces: Neighbours, wanted: Wanted) -> None:
    """Refuses values that belong to no class."""
    unknown = [v for v in values if v not in wanted.values]
    if not unknown:
        return
    more = f" and {len(unknown) - LISTED_VALUES} more" if len(unknown) > LISTED_VALUES else ""
    listed = ", ".join(map(str, unknown[:LISTED_VALUES])) + more
    known = ", ".join(map(str, sorted(wanted.values)))
    advice = "add them to classes, or name one as ignore"
    if len(unknown) > MANY:
        swapped = "are images and labels swapped?"
        numbers = "do they number objects? then write task: instances, without classes; or "
        advice = swapped if _like_image(len(values), pieces) else numbers + swapped
    raise UserError(f"{path}: values {listed} belong to no class (classes have {known}); {advice}")


def _check_label(path: Path, found: Array, pieces: Neighbours, wanted: Wanted) -> int:
    """Number of classes present (semantic) or of objects (instances)."""
    values = [int(v) for v in found if int(v) != wanted.ignore]
    if wanted.task == "semantic":
        _check_classes(path, values, pieces, wanted)
        return len(values)
    if values and values[0] < 0:
        raise UserError(f"{path}: a negative instance id ({values[0]}); write ignore: or number "
                        "the objects from 1")  # fmt: skip
    objects = [v for v in values if v != 0]
    if wanted.binary and len(objects) > 1:
        raise UserError(
            f"{path}: {len(objects)} different values beside 0, but label_kind: binary; write "
            "label_kind: instances, or name one of them as ignore"
        )
    if values and values[-1] > LARGEST_ID:
        raise UserError(f"{path}: instance id {values[-1]} is beyond 32 bits; number them from 1")
    return len(objects)
