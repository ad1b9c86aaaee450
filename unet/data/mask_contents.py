"""What the pixels of some masks of another tool say about all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.config.dataset_sections import DatasetSection
from unet.data.blocks import grid_of
from unet.data.connected_components import ConnectedComponents
from unet.data.label_maps import instance_maps, semantic_classes
from unet.data.records import ImageRecord
from unet.errors import UserError
from unet.io.mask_files import open_label_of, open_mask

# Number of masks that are read as a whole, and the most pixels of one.
LOOKED_AT = 5
MOST_PIXELS = 1 << 24
# Binary masks: so few values in all masks, each in at least so many pieces.
_FEW_VALUES = 3
_PIECES = 3
# Side of the blocks whose content is hashed; part of the hash.
_BLOCK = 1024


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


def content_of(array: Any) -> str:
    """A hash of an array's pixels, however it is stored; "" if all are 0."""
    sha, empty = hashlib.sha256(repr(array.shape).encode()), True
    for region in grid_of(array.shape, _BLOCK).regions():
        pixels = np.ascontiguousarray(np.asarray(array[region]).astype(np.uint32))
        empty = empty and not pixels.any()
        sha.update(pixels.tobytes())
    return "" if empty else sha.hexdigest()


def copies_of(masks: Mapping[str, str], labels: Mapping[str, str]) -> int:
    """How many masks are exactly the labels of their images, if all are; else 0.

    Args:
        masks, labels: image -> :func:`content_of`; masks without a pixel say nothing.
    """
    filled = [image for image, content in masks.items() if content]
    return len(filled) if all(masks[image] == labels.get(image) for image in filled) else 0


def scored_maps(values: NDArray[Any], classes: Mapping[str, int] | None) -> dict[str, NDArray[Any]]:
    """A mask of another tool [(Z,) Y, X] as it is scored: ``classes`` and, without declared
    classes (task instances), ``instances``.

    Args:
        classes: name -> value, of task semantic.

    Raises:
        UserError: a value is neither an id nor one of the classes.
    """
    try:
        if classes is None:
            return dict(zip(("classes", "instances"), instance_maps(values, None), strict=True))
        return {"classes": semantic_classes(values, dict(classes), None)}
    except UserError as error:
        # The advice for labels (such as `ignore`) does not help with another tool's masks.
        found = str(error).partition("; ")[0]
    advice = "write a whole number for each object, 0 for the background"
    if classes is not None:
        advice = "let the tool write the values of classes"
    raise UserError(f"{found.partition('; ignore:')[0]}; {advice}")


@dataclass(frozen=True)
class LookedAt:
    """Some masks that were read as a whole.

    Attributes:
        masks: image -> pixels [(Z,) Y, X] as stored.
        contents: image -> what is scored, see :func:`content_of`.
        unfit: image -> why its mask cannot be scored.
    """

    masks: Mapping[str, NDArray[Any]]
    contents: Mapping[str, str]
    unfit: Mapping[str, str]


def masks_of(
    records: Iterable[ImageRecord], pairs: Mapping[str, Path], data: DatasetSection
) -> LookedAt:
    """Reads the masks of the first images that are not large.

    Args:
        pairs: image -> file.
    """
    masks: dict[str, NDArray[Any]] = {}
    contents: dict[str, str] = {}
    unfit: dict[str, str] = {}
    several = list(pairs.values())
    for record in records:
        if len(masks) + len(unfit) == LOOKED_AT:
            break
        shape, path = record.shape[1:], pairs[record.id]
        if np.prod(shape, dtype=np.int64) > MOST_PIXELS:
            continue
        # The mask of a stack of images is a stack; otherwise each image has a file of its own.
        page = record.page if several.count(path) > 1 else None
        try:
            mask = open_mask(path, shape, axes=data.axes, page=page, classes=data.classes)
            pixels = np.asarray(mask.array)
            maps = scored_maps(pixels, data.classes if data.task == "semantic" else None)
        except UserError as error:
            text = str(error)
            unfit[record.id] = text if str(path) in text else f"{path}: {text}"
            continue
        masks[record.id] = pixels
        contents[record.id] = content_of(maps.get("instances", maps["classes"]))
    return LookedAt(masks, contents, unfit)


def label_content(record: ImageRecord, root: Path, data: DatasetSection) -> str:
    """The :func:`content_of` of an image's label as the prepare stage stores it; "" if it cannot be
    read.

    Args:
        root: folder of the record's paths.
    """
    try:
        label = open_label_of(
            root / record.image, root / record.label, record.shape[1:],
            axes=data.axes, page=record.page, classes=data.classes,
        )  # fmt: skip
        pixels = np.asarray(label.array)
        if data.task == "semantic":
            return content_of(
                semantic_classes(pixels, data.classes or {}, data.ignore, sparse=data.sparse)
            )
        ids = instance_maps(pixels, data.ignore, background=data.background)[1]
        if data.label_kind == "binary":
            numbering = ConnectedComponents(ids.shape)
            ids = numbering.add(tuple(slice(0, side) for side in ids.shape), ids > 0)
            numbering.settle(ids)
        return content_of(ids)
    except (UserError, OSError):
        return ""
