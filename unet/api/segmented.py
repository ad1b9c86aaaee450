"""The result of a prediction."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unet.errors import ArgumentError
from unet.io.axes import DaskArray
from unet.prediction.stitch import segmentation as stitched

if TYPE_CHECKING:
    import pandas as pd

# Longer side of the picture in a notebook, in pixels.
THUMBNAIL = 320


class Temporary:
    """A temporary folder, removed when nothing refers to this object any more, or at exit."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="unet-"))
        self._finalizer = weakref.finalize(self, shutil.rmtree, self.path, True)

    def remove(self) -> None:
        """Removes it now."""
        self._finalizer()


class StoredArray:
    """A zarr array that keeps its temporary folder; an object that dask reads from."""

    def __init__(self, array: Any, folder: Temporary | None) -> None:
        self.array, self.folder = array, folder
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, region: Any) -> NDArray[Any]:
        return np.asarray(self.array[region])

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process reads the same files, but does not remove them.
        return StoredArray, (self.array, None)


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """What a model found in an image.

    NumPy arrays if the image was one; otherwise dask arrays over zarr files in ``folder``. A
    temporary folder stays as long as this object or one of its arrays.

    Attributes:
        labels: [(Z,) Y, X]: objects, uint32, numbered from 1, 0 = background. Task semantic: the
            value of each pixel's class in the label files of the training.
        probabilities: float16 or float32 [K, (Z,) Y, X], K as in ``channels``.
        objects: one row per object (task semantic: per class); columns as in ``objects.csv``.
        task: "instances" or "semantic".
        channels: names of the probabilities' channels.
        classes: name -> value in ``labels``, for task semantic; empty for objects.
        pixel_size_um: micrometres along (Z) Y X, None = unknown.
        threshold: the minimum foreground probability that was used.
        folder: with the files, as of ``unet predict``; None if they were temporary.
        image: the image, C (Z) Y X.
    """

    labels: NDArray[Any] | DaskArray
    probabilities: NDArray[Any] | DaskArray
    objects: pd.DataFrame
    task: str
    channels: tuple[str, ...]
    classes: dict[str, int]
    pixel_size_um: tuple[float, ...] | None
    threshold: float
    folder: Path | None
    image: NDArray[Any] | DaskArray = field(default=None)

    @property
    def axes(self) -> str:
        """Axes of ``labels``: "YX" or "ZYX"."""
        return "ZYX"[-self.labels.ndim :]

    def overlay(self, side: int = 2048, z: int | None = None) -> NDArray[np.uint8]:
        """A picture to look at: the image in grey (two or more channels: in colours) with the
        outlines of objects, or the classes after the first in colours.

        Args:
            side: longest side of the picture; larger images are reduced.
            z: which plane of a volume; None = the one with the most foreground.

        Returns:
            uint8 [Y, X, 3].

        Raises:
            ArgumentError: no such plane, ``z`` for an image without planes, or ``side`` is not a
                whole number above 0.
        """
        from unet.api.arguments import whole
        from unet.report.overlays import OverlayView, marked

        longest = whole("side", side, 1) or 1
        z = whole("z", z, 0)
        image, labels = self.image, self.labels
        if labels.ndim == 3:
            plane = self._fullest() if z is None else z
            if not 0 <= plane < labels.shape[0]:
                raise ArgumentError(f"z: got {z}; write 0 to {labels.shape[0] - 1}")
            image, labels = image[:, plane], labels[plane]
        elif z is not None:
            raise ArgumentError(f"z: got {z}, but the image has no planes; leave z out")
        # Whole steps: a lazy array of any size is reduced while it is read.
        step = -(-max(labels.shape) // longest)
        shown = np.asarray(image[:3, ::step, ::step]), self._indices(labels[::step, ::step])
        view = OverlayView(*shown, shown[1], np.zeros(shown[1].shape, bool), step, labelled=False)
        return marked(view, self.task, max(shown[1].shape)).together(self.task)

    def _indices(self, labels: Any) -> NDArray[Any]:
        """Labels as ids, or as indices of the classes."""
        found = np.asarray(labels)
        if self.task == "instances":
            return found
        values = np.array(list(self.classes.values()))
        order = np.argsort(values)
        return np.asarray(order[np.searchsorted(values[order], found)])

    def _fullest(self) -> int:
        ground = next(iter(self.classes.values()), 0)
        counts = (self.labels != ground).sum(axis=(1, 2))
        return int(np.asarray(counts).argmax())

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.labels.shape))
        return f"<Segmentation {self.axes} {size}: {self._summary()}>"

    def _summary(self) -> str:
        if self.task == "instances":
            return f"{len(self.objects)} objects at threshold {self.threshold:g}"
        return f"classes {', '.join(self.classes)}"

    def _repr_html_(self) -> str:
        """A small picture and a line, for notebooks."""
        from PIL import Image

        from unet.report.figures import image_uri

        picture = image_uri(Image.fromarray(self.overlay(THUMBNAIL)), "PNG")
        text = escape(repr(self)[1:-1])
        return f'<figure><img src="{picture}" alt="{text}"><figcaption>{text}</figcaption></figure>'


@dataclass(frozen=True)
class Stored:
    """Where the stages wrote the results of an image, and what is known about them."""

    folder: Path
    name: str
    values: NDArray[Any] | None
    temporary: Temporary | None


def arrays_of(stored: Stored, *, lazy: bool) -> tuple[Any, Any]:
    """The labels and the probabilities of an image.

    Args:
        lazy: whether as dask arrays over the files, not in memory.
    """
    found = stitched.Segmentation(stored.folder / "segmentation.zarr")
    instances = found.instances(stored.name)
    classes = stored.values is not None or instances is None
    labels = found.classes(stored.name) if classes else instances
    probabilities = found.probabilities(stored.name)
    if lazy:
        ids, scores = (_lazy(array, stored.temporary) for array in (labels, probabilities))
        if stored.values is not None:
            values = stored.values
            ids = ids.map_blocks(lambda block: values[block], dtype=values.dtype)
        return ids, scores
    pixels = np.asarray(labels[...]) if labels is not None else np.empty(0)
    return pixels if stored.values is None else stored.values[pixels], np.asarray(
        probabilities[...]
    )


def _lazy(array: Any, folder: Temporary | None) -> DaskArray:
    import dask.array as da

    from_array: Any = da.from_array
    source, chunks = StoredArray(array, folder), array.shards or array.chunks
    meta = np.empty((0,) * array.ndim, array.dtype)
    return from_array(source, chunks=chunks, asarray=False, fancy=False, name=False, meta=meta)


def names_of(names: Sequence[str], values: NDArray[Any] | None) -> dict[str, int]:
    """Class name -> value in the labels; empty for objects."""
    return {} if values is None else dict(zip(names, map(int, values), strict=True))
