"""Decodes one image and its label, block by block, and reports what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.data.label_statistics import LabelScan, LabelStatistics
from unet.errors import UserError
from unet.io.axes import DaskArray, LazyImage
from unet.io.images import open_image
from unet.io.mask_files import open_label_of

Array = NDArray[Any]

LARGEST_ID = 2**32 - 1
LISTED_VALUES = 5
# Pixels whose values are counted at a time.
COUNTED = 1 << 22
# Not a label: more values than MANY, and a smaller share of equal neighbours than RARE.
MANY, RARE = 16, 0.2


@dataclass(frozen=True)
class Expected:
    """What the config says about a dataset's images.

    Attributes:
        task: "semantic" or "instances".
        values: label value of each class (semantic).
        classes: the same by class name, in order; empty for numbered objects.
        binary: whether the label is a mask whose connected components are the objects (instances).
        ignore: label value of ignored pixels.
        sparse: whether pixels without a label (instances: of value 0) are unknown.
        background: label value of background pixels beside 0 (instances).
        axes, channels, pixel_size_um: override those of the files.
        learned: whether a network is trained on them. An image with a single value is useless for
            training, but fine for prediction (an empty well has no objects).
    """

    task: str
    values: frozenset[int] = frozenset()
    classes: Mapping[str, int] = field(default_factory=dict)
    binary: bool = False
    ignore: int | None = None
    sparse: bool = False
    background: int | None = None
    axes: str | None = None
    channels: tuple[int | str, ...] | None = None
    pixel_size_um: float | tuple[float, ...] | None = None
    learned: bool = True


@dataclass(frozen=True)
class ImageFacts:
    """What the manifest keeps of an image and its label; ``statistics``: for the checks of all
    labels together."""

    axes: str
    shape: tuple[int, ...]
    dtype: str
    pixel_size_um: tuple[float, ...] | None
    channels: tuple[str, ...]
    objects: int | None
    class_shares: Mapping[str, float] | None = None
    inverted: bool = False
    warnings: tuple[str, ...] = ()
    statistics: LabelStatistics | None = None


def inspect(image: Path, label: Path | None, page: int | None, expected: Expected) -> ImageFacts:
    """Decodes both files once, block by block.

    Raises:
        UserError: "<file>: <what is wrong>".
    """
    opened = open_image(image, axes=expected.axes, channels=expected.channels, page=page)
    size = _pixel_size(image, opened, expected.pixel_size_um)
    scan = LabelScan(
        opened.shape[1:], expected.classes, expected.ignore, expected.binary,
        expected.sparse, expected.background,
    )  # fmt: skip
    blank = _one_value(image, opened, scan)
    if blank and expected.learned:
        raise UserError(f"{image}: {blank}")
    objects, statistics = None, None
    warnings = [*opened.warnings, *([blank] if blank else [])]
    if expected.pixel_size_um is None:
        warnings += opened.size_warnings
    if label is not None:
        marked = open_label_of(
            image, label, opened.shape[1:], axes=expected.axes, page=page,
            classes=expected.classes or None,
        )  # fmt: skip
        shape = tuple(map(int, marked.array.shape))
        if shape != opened.shape[1:]:
            raise UserError(
                f"{label}: has {_times(shape)} pixels, but its image has {_times(opened.shape[1:])}"
            )
        found, neighbours = _values(label, marked.array, scan)
        objects = _check_label(label, found, neighbours, expected)
        if expected.task == "instances":
            _check_objects(label, objects, neighbours)
        statistics = scan.statistics()
        objects = statistics.objects if expected.binary else objects
        warnings += _unused_values(found, expected)
        if (dtype := marked.array.dtype).kind == "f":
            warnings.append(f"label: values of type {dtype}; save labels as integers")
        warnings += [f"label: {text}" for text in marked.warnings()]
    return ImageFacts(
        axes=opened.axes,
        shape=opened.shape,
        dtype=str(opened.dtype),
        pixel_size_um=size,
        channels=opened.channel_names,
        objects=objects,
        class_shares=None if statistics is None else statistics.shares,
        inverted=opened.inverted,
        warnings=tuple(warnings),
        statistics=statistics,
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
    """The chunks of a dask array and their starts, computed one at a time in this thread."""
    starts = [np.cumsum((0, *sizes)).tolist() for sizes in array.chunks]
    for index in product(*map(range, array.numblocks)):
        block = np.asarray(array.blocks[index].compute(scheduler="synchronous"))
        yield tuple(places[k] for places, k in zip(starts, index, strict=True)), block


def _one_value(path: Path, opened: LazyImage, scan: LabelScan) -> str:
    """A text about the value that all pixels have; "" if they differ.

    Raises:
        UserError: pixels that are not finite numbers.
    """
    if opened.dtype.kind not in "uif":
        raise UserError(f"{path}: pixels of type {opened.dtype}; save them as numbers")
    lowest, highest = np.inf, -np.inf
    for start, block in blocks_of(opened.array):
        low, high = float(block.min()), float(block.max())
        # Minimum and maximum are NaN if any value is NaN.
        if not (np.isfinite(low) and np.isfinite(high)):
            raise UserError(f"{path}: NaN or infinite pixels")
        lowest, highest = min(lowest, low), max(highest, high)
        scan.add_image(start, block)
    return f"all pixels have the value {lowest:g}" if lowest == highest else ""


@dataclass
class Neighbours:
    """Number of pairs of labelled pixels next to each other along X, and how many are equal."""

    pairs: int = 0
    equal: int = 0

    def add(self, block: Array) -> None:
        # In parts, because a file that is a single strip is a single block.
        rows = max(1, COUNTED * len(block) // max(1, block.size))
        for start in range(0, len(block), rows):
            part = block[start : start + rows]
            left, right = part[..., :-1], part[..., 1:]
            both = (left != 0) & (right != 0)
            self.pairs += int(np.count_nonzero(both))
            self.equal += int(np.count_nonzero(both & (left == right)))


def like_image(values: int, found: Neighbours) -> bool:
    """Whether values vary as in an image: in a label, neighbouring pixels mostly belong to the same
    object, while in an image they rarely have exactly the same value."""
    return values > MANY and found.pairs > 100 * MANY and found.equal < RARE * found.pairs


def _check_objects(path: Path, objects: int, neighbours: Neighbours) -> None:
    """Refuses a label whose values vary as in an image."""
    if like_image(objects, neighbours):
        share = 100 * neighbours.equal // neighbours.pairs
        raise UserError(
            f"{path}: {objects} values, and only {share} % of neighbouring pixels are equal: it "
            "looks like an image, not like numbered objects; are images and labels swapped?"
        )


def _values(path: Path, labels: DaskArray, scan: LabelScan) -> tuple[Array, Neighbours]:
    """The distinct values of a label, sorted, as int64; and how many neighbours are equal."""
    if labels.dtype.kind not in "uif":
        raise UserError(f"{path}: values of type {labels.dtype}; save them as integers")
    found, neighbours = np.empty(0, np.int64), Neighbours()
    for start, block in blocks_of(labels):
        values, counts = _distinct(block)
        if values.dtype.kind == "f" and not (np.isfinite(values) & (values % 1 == 0)).all():
            raise UserError(f"{path}: values that are not integers")
        if values.size and (values.max() > 2**62 or values.min() < -(2**62)):
            raise UserError(f"{path}: values beyond 2^62; number them from 1")
        found = np.union1d(found, values.astype(np.int64))
        neighbours.add(block)
        scan.add_label(start, block, values, counts)
    return found, neighbours


def _distinct(block: Array) -> tuple[Array, Array]:
    """The distinct values of a block, sorted, and how often each occurs."""
    if block.dtype.kind == "u" and block.dtype.itemsize <= 2:
        # Counting is many times faster than sorting, and most labels have these types.
        # In parts, because a copy with 8 bytes for each pixel is made of what is counted.
        flat = block.ravel()
        counts = np.zeros(int(flat.max(initial=0)) + 1, np.int64)
        for start in range(0, flat.size, COUNTED):
            counts += np.bincount(flat[start : start + COUNTED], minlength=counts.size)
        values = np.flatnonzero(counts)
        return values, counts[values]
    return np.unique(block, return_counts=True)


def _check_classes(
    path: Path, values: list[int], neighbours: Neighbours, expected: Expected
) -> None:
    """Refuses values that belong to no class."""
    unknown = [v for v in values if v not in expected.values]
    if not unknown:
        return
    more = f" and {len(unknown) - LISTED_VALUES} more" if len(unknown) > LISTED_VALUES else ""
    listed = ", ".join(map(str, unknown[:LISTED_VALUES])) + more
    known = ", ".join(map(str, sorted(expected.values)))
    advice = "add them to classes, or name one as ignore"
    if len(unknown) > MANY:
        swapped = "are images and labels swapped?"
        numbers = "do they number objects? then write task: instances, without classes; or "
        advice = swapped if like_image(len(values), neighbours) else numbers + swapped
    raise UserError(f"{path}: values {listed} belong to no class (classes have {known}); {advice}")


def _unused_values(found: Array, expected: Expected) -> list[str]:
    """A warning about values that only unlabelled: ignore allows, besides 0; they may be slips."""
    if expected.task != "semantic" or not expected.sparse:
        return []
    known = {0, expected.ignore, *expected.values}
    unused = [int(v) for v in found if int(v) not in known]
    if not unused:
        return []
    more = f" and {len(unused) - LISTED_VALUES} more" if len(unused) > LISTED_VALUES else ""
    listed = ", ".join(map(str, unused[:LISTED_VALUES])) + more
    return [f"label: values {listed} belong to no class and count as unlabelled"]


def _check_label(path: Path, found: Array, neighbours: Neighbours, expected: Expected) -> int:
    """Number of classes present (semantic) or of objects (instances)."""
    values = [int(v) for v in found if int(v) not in (expected.ignore, expected.background)]
    if expected.task == "semantic":
        if expected.sparse:
            return len(expected.values.intersection(values))
        _check_classes(path, values, neighbours, expected)
        return len(values)
    if values and values[0] < 0:
        raise UserError(f"{path}: a negative instance id ({values[0]}); write ignore: or number "
                        "the objects from 1")  # fmt: skip
    objects = [v for v in values if v != 0]
    if expected.binary and len(objects) > 1:
        raise UserError(
            f"{path}: {len(objects)} different values besides 0, but label_kind: binary; write "
            "label_kind: instances, or name one of them as ignore"
        )
    if expected.sparse and values and values[-1] == LARGEST_ID:
        raise UserError(f"{path}: no object can have the id {LARGEST_ID} with unlabelled: ignore")
    if values and values[-1] > LARGEST_ID:
        raise UserError(
            f"{path}: instance id {values[-1]} does not fit into 32 bits; number them from 1"
        )
    return len(objects)
