"""Converts the values of a label file to class indices and instance ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from unet.config.heads import IGNORE
from unet.errors import UserError

Array = npt.NDArray[Any]
# Class index for undeclared values; no class has it (the config allows 200 classes).
UNDECLARED = 254


def semantic_classes(
    block: Array, classes: dict[str, int], ignore: int | None
) -> npt.NDArray[np.uint8]:
    """Label values -> class indices (the order of ``classes``), ``ignore`` -> 255.

    Raises:
        UserError: a value that is neither a class nor ``ignore`` (the caller adds the file name).
    """
    indices = np.full(block.shape, UNDECLARED, np.uint8)
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
    block: Array, ignore: int | None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32]]:
    """Instance labels -> classes (0 background, 1 foreground, 255 where ``ignore``) and ids.

    Ids stay as they are; ignored pixels get id 0.

    Raises:
        UserError: a value that is not an id: negative, not an integer, beyond uint32 (the caller
            adds the file name).
    """
    ids = block
    if ignore is not None:
        ignored = block == ignore
        ids = np.where(ignored, block.dtype.type(0), block)
    if block.dtype.kind != "u" or block.dtype.itemsize > 4:
        _check_ids(ids)
    instances = ids.astype(np.uint32)
    classes = (instances > 0).astype(np.uint8)
    if ignore is not None:
        classes[ignored] = IGNORE
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
