"""Opens labels, and the masks that other tools write: label images, ``_seg.npy``, outlines.

Heavy packages are imported inside functions, so that listing files stays fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from unet.errors import UserError
from unet.io.axes import DaskArray, LazyImage
from unet.io.formats import (
    INEXACT,
    LABEL_OUTLINES,
    LABEL_READERS,
    OUTLINES,
    WHOLE,
    format_of,
)

MASK_SUFFIXES = WHOLE - INEXACT | LABEL_READERS.keys() | OUTLINES


@dataclass(frozen=True)
class MaskFile:
    """A mask, not yet read.

    Attributes:
        array: dask array [(Z,) Y, X] of the shape that was asked for.
        warnings: after the array was read: what looked wrong in the file, one line each.
    """

    array: DaskArray
    warnings: Callable[[], list[str]]


def mask_format(path: Path) -> str:
    """The suffix in ``MASK_SUFFIXES`` that the file's name has; "" if it has none of them."""
    suffix = format_of(path) or path.suffix.lower()
    return suffix if suffix in MASK_SUFFIXES else ""


def open_mask(
    path: Path,
    shape: tuple[int, ...],
    *,
    axes: str | None = None,
    page: int | None = None,
    classes: Mapping[str, int] | None = None,
) -> MaskFile:
    """Opens a mask of any format for an image of the spatial shape (Z,) Y, X.

    Args:
        axes: of files that do not declare theirs.
        page: of a stack of images, from 0.
        classes: name -> label value, for outlines of task semantic.

    Raises:
        UserError: it cannot be read, or does not have the image's pixels.
    """
    if path.suffix.lower() in OUTLINES:
        from unet.io.drawn_labels import open_outlines

        array, drawing = open_outlines(path, shape, classes)
        return MaskFile(array, drawing.warnings)
    label = _opened(path, shape, axes, page)
    if label.shape != shape:
        raise UserError(
            f"{path}: {' x '.join(map(str, label.shape))} pixels, but the image has "
            f"{' x '.join(map(str, shape))}"
        )
    if label.array.dtype.kind not in "biuf":
        raise UserError(f"{path}: pixels of type {label.array.dtype}; write whole numbers")
    return MaskFile(label.array, lambda: list(label.warnings))


def open_label_of(
    image: Path,
    path: Path,
    shape: tuple[int, ...],
    *,
    axes: str | None = None,
    page: int | None = None,
    classes: Mapping[str, int] | None = None,
) -> MaskFile:
    """Opens a dataset's label of any format.

    Args:
        image, path: files of the image and of the label, which may be that of many images.
        shape: of the image, (Z,) Y, X; outlines are drawn on it, other labels may differ.
        axes, page, classes: as for :func:`open_mask`.

    Raises:
        UserError: it cannot be read, or has no label of this image.
    """
    if path.suffix.lower() in LABEL_OUTLINES:
        from unet.io.drawn_labels import open_outlines

        if page is not None:
            raise UserError(f"{path}: outlines cannot label a stack of images; write one TIFF each")
        array, drawing = open_outlines(path, shape, classes, image=image)
        return MaskFile(array, drawing.warnings)
    from unet.io.images import open_label

    label = open_label(path, axes=axes, page=page)
    return MaskFile(label.array, lambda: list(label.warnings))


def _opened(path: Path, shape: tuple[int, ...], axes: str | None, page: int | None) -> LazyImage:
    from unet.io.images import open_label

    try:
        return open_label(path, axes=axes, page=page)
    except UserError:
        # Many tools declare no axes. If the file has the image's own shape, they are the image's.
        plain = "ZYX"[-len(shape) :]
        try:
            found = open_label(path, axes=plain)
        except UserError:
            found = None
        if found is None or found.shape != shape or page is not None:
            raise
        return found
