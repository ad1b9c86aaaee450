"""Measures the training images for preset ``auto``: sizes, spacing, intensities and objects.

This is the "dataset fingerprint" of nnU-Net (Isensee et al. 2021, Nature Methods 18:203). Sizes are
those of all training images. Intensities, objects and class shares come from evenly spaced windows
of a few megapixels, so that time and memory do not grow with the dataset.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from unet.data.store import Prepared

# Pixels to read in total, which takes some seconds, and per window, which contains whole objects.
PIXELS_IN_ALL = 1 << 24
PIXELS_AT_ONCE = 1 << 22
# Intensities sampled per window and channel.
INTENSITIES = 1 << 16
# Smaller components are specks in the labels, not objects.
MIN_OBJECT_PIXELS = 4
# Labels with larger ids are renumbered.
MAX_ID = 1 << 20
PERCENTS = (0.5, 50.0, 99.5)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Objects:
    """Sizes of the objects of a kind: instances, or the connected components of a class.

    Attributes:
        name: ``instances``, or the class.
        number: number of measured objects.
        median, common, largest: extent of the bounding box per axis in pixels: median, 95th
            percentile, maximum.
        spanning: number of components that reach from one edge of an image to the opposite edge in
            Y or X; the image limits their extent, so they are not measured.
    """

    name: str
    number: int
    median: tuple[int, ...]
    common: tuple[int, ...]
    largest: tuple[int, ...]
    spanning: int = 0


@dataclass(frozen=True)
class Fingerprint:
    """Measurements of a dataset's training images.

    Attributes:
        images: number of images.
        channels: C.
        classes: names of the classes.
        shape_min, shape_median, shape_max: spatial shape ((Z,) Y, X), per axis.
        pixels: of all images together.
        spacing: micrometres per pixel and axis, the median; None = unknown.
        intensities: the percentiles ``PERCENTS`` of each channel, of normalised intensities.
        shares: share of each class among the labelled pixels.
        objects: sizes, for each kind of object.
        seen: share of the pixels that intensities, shares and objects were measured on.
    """

    images: int
    channels: int
    classes: tuple[str, ...]
    shape_min: tuple[int, ...]
    shape_median: tuple[int, ...]
    shape_max: tuple[int, ...]
    pixels: int
    spacing: tuple[float, ...] | None
    intensities: tuple[tuple[float, ...], ...]
    shares: tuple[float, ...]
    objects: tuple[Objects, ...]
    seen: float = 1.0

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.shape_median)


def fingerprint_of(
    store: Prepared, prepared: Mapping[str, Any], train: Sequence[str]
) -> Fingerprint:
    """Measures the images ``train`` of a prepared store; no other image is read.

    Args:
        prepared: the store's sentinel.

    Raises:
        ValueError: no images, or one without labels.
    """
    if not train:
        raise ValueError("there are no images to measure")
    infos = [prepared["images"][name] for name in train]
    shapes = np.array([info["shape"][1:] for info in infos], dtype=np.int64)
    sizes = [info["pixel_size_um"] for info in infos if info["pixel_size_um"] is not None]
    classes = tuple(prepared["class_names"])
    measured = _Measured(classes)
    windows = [
        (name, w) for name, shape in zip(train, shapes, strict=True) for w in _windows(shape)
    ]
    for name, window in _spread(windows):
        measured.take(store, name, window)
    pixels = int(shapes.prod(axis=1).sum())
    return Fingerprint(
        images=len(train),
        channels=int(infos[0]["shape"][0]),
        classes=classes,
        shape_min=_ints(shapes.min(axis=0)),
        # The size of an actual image, not a mean of two.
        shape_median=_ints(np.percentile(shapes, 50, axis=0, method="lower")),
        shape_max=_ints(shapes.max(axis=0)),
        pixels=pixels,
        spacing=tuple(float(s) for s in np.median(np.array(sizes), axis=0)) if sizes else None,
        intensities=measured.intensities(),
        shares=measured.shares(),
        objects=measured.objects(),
        seen=measured.pixels / pixels,
    )


Window = tuple[slice, ...]
# Per axis: start and end of a window, size of the image.
Place = Sequence[tuple[int, int, int]]


def _windows(shape: Ints) -> list[Window]:
    """Regions of at most ``PIXELS_AT_ONCE`` that cover an image of this spatial shape."""
    parts = [1] * len(shape)
    size = [int(n) for n in shape]
    while math.prod(size) > PIXELS_AT_ONCE:
        axis = int(np.argmax(size))
        parts[axis] *= 2
        size[axis] = -(-int(shape[axis]) // parts[axis])
    starts = [range(0, int(n), s) for n, s in zip(shape, size, strict=True)]
    return [
        tuple(slice(a, min(a + s, int(n))) for a, s, n in zip(at, size, shape, strict=True))
        for at in product(*starts)
    ]


def _spread(windows: list[tuple[str, Window]]) -> list[tuple[str, Window]]:
    """Evenly spaced windows with ``PIXELS_IN_ALL`` pixels in total (at least one window)."""
    total = sum(_pixels(window) for _, window in windows)
    number = max(1, min(len(windows), int(len(windows) * PIXELS_IN_ALL / total)))
    # The middle of each of ``number`` equal parts.
    return [windows[int((i + 0.5) * len(windows) / number)] for i in range(number)]


class _Measured:
    """Sums over the windows measured so far."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.pixels = 0
        self._counts = np.zeros(256, dtype=np.int64)
        self._values: list[npt.NDArray[np.float32]] = []
        self._extents: dict[str, list[Ints]] = {}
        self._spanning: dict[str, int] = {}

    def take(self, store: Prepared, name: str, window: Window) -> None:
        image, classes, instances = store.image(name), store.classes(name), store.instances(name)
        if classes is None:
            raise ValueError(f"{name} has no labels")
        labels = np.asarray(classes[window])
        self.pixels += labels.size
        self._counts += np.bincount(labels.ravel(), minlength=256)
        values = np.asarray(image[(slice(None), *window)]).reshape(image.shape[0], -1)
        self._values.append(values[:, :: max(1, values.shape[1] // INTENSITIES)].copy())
        place = [(w.start, w.stop, n) for w, n in zip(window, classes.shape, strict=True)]
        if instances is not None:
            self._objects("instances", np.asarray(instances[window]), place, True)
            return
        for value, label in enumerate(self.classes):
            if (labels == value).any():
                self._objects(label, ndimage.label(labels == value)[0], place, False)

    def _objects(
        self, name: str, labels: npt.NDArray[Any], place: Place, spanning_counts: bool
    ) -> None:
        """Measures the objects of a window.

        Args:
            labels: 0 = no object.
            spanning_counts: whether objects that span the image count: instances do, components of
                a class do not.
        """
        compact = _compact(labels)
        counts = np.bincount(compact.ravel())
        found = self._extents.setdefault(name, [])
        extents = []
        for index, box in enumerate(ndimage.find_objects(compact), start=1):
            if box is None or counts[index] < MIN_OBJECT_PIXELS:
                continue
            ends = [
                (b.start == 0, b.stop == stop - start, start > 0, stop < size)
                for b, (start, stop, size) in zip(box, place, strict=True)
            ]
            # Objects that the window cuts would be measured too small.
            if any((low and inner) or (high and more) for low, high, inner, more in ends):
                continue
            if not spanning_counts and any(low and high for low, high, _, _ in ends[-2:]):
                self._spanning[name] = self._spanning.get(name, 0) + 1
                continue
            extents.append([b.stop - b.start for b in box])
        found.append(np.array(extents, dtype=np.int64).reshape(len(extents), len(place)))

    def intensities(self) -> tuple[tuple[float, ...], ...]:
        values = np.concatenate(self._values, axis=1)
        percentiles = np.percentile(values, PERCENTS, axis=1)
        return tuple(tuple(float(v) for v in channel) for channel in percentiles.T)

    def shares(self) -> tuple[float, ...]:
        counts = self._counts[: len(self.classes)]
        return tuple(float(n) / max(1, int(counts.sum())) for n in counts)

    def objects(self) -> tuple[Objects, ...]:
        every = []
        for name, parts in self._extents.items():
            extents = np.concatenate(parts)
            if not len(extents):
                none = (0,) * extents.shape[1]
                sizes = (none, none, none)
            else:
                middle, common = np.percentile(extents, (50, 95), axis=0, method="higher")
                sizes = (_ints(middle), _ints(common), _ints(extents.max(axis=0)))
            every.append(Objects(name, len(extents), *sizes, self._spanning.get(name, 0)))
        return tuple(every)


def _compact(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The labels, renumbered if their ids are so high that an array indexed by id is wasteful."""
    if int(labels.max()) <= MAX_ID:
        return labels.astype(np.int32)
    names, compact = np.unique(labels, return_inverse=True)
    return compact.reshape(labels.shape) + int(names[0] != 0)


def _pixels(window: Window) -> int:
    return math.prod(s.stop - s.start for s in window)


def _ints(values: npt.NDArray[Any]) -> tuple[int, ...]:
    return tuple(int(v) for v in values)
