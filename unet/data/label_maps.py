"""Converts the values of a label file to class indices and instance ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from unet.config.heads import IGNORE
from unet.errors import UserError

Array = npt.NDArray[Any]
# Class indices that no class has (the config allows 200 classes): of undeclared values, and of
# unlabelled pixels of which some become background (`unet.data.background_rings`).
UNDECLARED, UNLABELLED = 254, 253


def semantic_classes(
    block: Array, classes: dict[str, int], ignore: int | None, *, sparse: bool = False
) -> npt.NDArray[np.uint8]:
    """Label values -> class indices (the order of ``classes``), ``ignore`` -> 255.

    Args:
        sparse: whether values that belong to no class are unlabelled pixels, which become 255.

    Raises:
        UserError: a value that is neither a class nor ``ignore`` (the caller adds the file name).
    """
    indices = np.full(block.shape, IGNORE if sparse else UNDECLARED, np.uint8)
    for index, value in enumerate(classes.values()):
        indices[block == value] = index
    if ignore is not None:
        indices[block == ignore] = IGNORE
    unknown = indices == UNDECLARED
    if unknown.any():
        value = block[unknown][0].item()
        declared = ", ".join(f"{name}: {v}" for name, v in classes.items())
        raise UserError(
            f"label value {value:g} is not declared (classes: {declared}; ignore: {ignore}); add "
            "it to classes, or write it as ignore"
        )
    return indices


def instance_maps(
    block: Array, ignore: int | None, *, unlabelled: int = 0, background: int | None = None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32]]:
    """Instance labels -> classes (0 background, 1 foreground, 255 where ``ignore``) and ids.

    Ids stay as they are; ignored pixels and those of value ``background`` get id 0.

    Args:
        unlabelled: class index of pixels of value 0: the background, 255, or UNLABELLED.
        background: value of pixels that are background besides.

    Raises:
        UserError: a value that is not an id: negative, not an integer, beyond uint32 (the caller
            adds the file name).
    """
    no_objects = {value: block == value for value in (ignore, background) if value is not None}
    ids = block
    for marked in no_objects.values():
        ids = np.where(marked, block.dtype.type(0), ids)
    if block.dtype.kind != "u" or block.dtype.itemsize > 4:
        _check_ids(ids)
    instances = ids.astype(np.uint32)
    classes = np.where(instances > 0, np.uint8(1), np.uint8(unlabelled))
    if background is not None:
        classes[no_objects[background]] = 0
    if ignore is not None:
        classes[no_objects[ignore]] = IGNORE
    return classes, instances


def _check_ids(ids: Array) -> None:
    wrong = (ids < 0) | (ids > np.iinfo(np.uint32).max)
    if ids.dtype.kind == "f":
        wrong |= ids != np.floor(ids)
    if wrong.any():
        raise UserError(
            f"label value {ids[wrong][0].item():g} is not an instance id (whole numbers from 0 to "
            "4294967295); write it as ignore, or task: semantic"
        )
