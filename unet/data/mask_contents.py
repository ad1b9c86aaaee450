"""What the pixels of some masks of another tool say about all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.config.dataset_sections import DatasetSection
from unet.data.records import ImageRecord
from unet.errors import UserError
from unet.io.images import open_label
from unet.io.mask_files import open_mask

# Number of masks that are read as a whole, and the most pixels of one.
LOOKED_AT = 5
MOST_PIXELS = 1 << 24
# Binary masks: so few values in all masks, each in at least so many pieces.
_FEW_VALUES = 3
_PIECES = 3


def shared_values(masks: Iterable[NDArray[Any]], ignore: int | None) -> list[int]:
    """The few values that all masks share, if each is in several pieces; else nothing."""
    from scipy import ndimage

    seen: set[int] = set()
    in_pieces = False
    for mask in masks:
        values = np.unique(mask)
        values = values[(values != 0) & (values != (0 if ignore is None else ignore))]
        seen |= {int(value) for value in values[: _FEW_VALUES + 1]}
        if len(seen) > _FEW_VALUES:
            return []
        pieces: Any = ndimage.label(np.isin(mask, values))[1]
        in_pieces |= pieces >= _PIECES * len(values) > 0
    return sorted(seen) if in_pieces else []


def digest(pixels: NDArray[Any]) -> str:
    """A hash of a mask's values [(Z,) Y, X], whatever their type; "" if all are 0."""
    if not pixels.any():
        return ""
    text = repr(pixels.shape).encode()
    return hashlib.sha256(text + pixels.astype(np.int64).tobytes()).hexdigest()


def masks_of(
    records: Iterable[ImageRecord], pairs: Mapping[str, Path], data: DatasetSection
) -> dict[str, NDArray[Any]]:
    """Image -> its mask [(Z,) Y, X], for the first images whose mask can be read and is not large.

    Args:
        pairs: image -> file.
    """
    found: dict[str, NDArray[Any]] = {}
    several = list(pairs.values())
    for record in records:
        if len(found) == LOOKED_AT:
            break
        shape, path = record.shape[1:], pairs[record.id]
        if np.prod(shape, dtype=np.int64) > MOST_PIXELS:
            continue
        # The mask of a stack of images is a stack; otherwise each image has a file of its own.
        page = record.page if several.count(path) > 1 else None
        try:
            mask = open_mask(path, shape, axes=data.axes, page=page, classes=data.classes)
            found[record.id] = np.asarray(mask.array)
        except UserError:
            continue  # said elsewhere
    return found


def label_digest(record: ImageRecord, root: Path, data: DatasetSection) -> str:
    """The :func:`digest` of an image's label; "" if it cannot be read.

    Args:
        root: folder of the record's paths.
    """
    try:
        label = open_label(root / record.label, axes=data.axes, page=record.page)
        return digest(np.asarray(label.array))
    except (UserError, OSError):
        return ""
