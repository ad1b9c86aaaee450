"""What arrays without a format of their own (in HDF5 or Zarr) declare about their axes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unet.errors import UserError
from unet.io.axes import block_shape
from unet.io.pixel_size import Declared

# Names of axes, in lower case.
_NAMES = {
    "t": "T", "time": "T", "frame": "T", "c": "C", "channel": "C", "channels": "C",
    "z": "Z", "depth": "Z", "y": "Y", "height": "Y", "x": "X", "width": "X",
}  # fmt: skip


def declared_letters(
    path: Path, attributes: Mapping[str, Any], labels: Sequence[str], ndim: int
) -> str:
    """A letter for each axis: from the tags of ilastik and vigra, or from the labels of the axes.

    An array of two axes is a picture; with more axes and no declaration, nothing is known.

    Args:
        labels: of the axes, as the file has them ("" for none).

    Raises:
        UserError: the tags are not those of an array with ``ndim`` axes.
    """
    tags = attributes.get("axistags")
    if tags is not None:
        try:
            labels = [str(axis["key"]) for axis in json.loads(tags)["axes"]]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: its axistags cannot be read; write axes") from None
    if any(labels) and len(labels) != ndim:
        raise UserError(f"{path}: {len(labels)} axes declared for an array of {ndim}; write axes")
    letters = "".join(_NAMES.get(label.strip().lower(), "?") for label in labels)
    if set(letters) <= {"?"}:
        return "YX" if ndim == 2 else "?" * ndim
    return letters


def declared_steps(attributes: Mapping[str, Any]) -> list[Declared]:
    """Pixel sizes along Z, Y, X from ``element_size_um`` (of Fiji's HDF5 plug-in, PlantSeg)."""
    value = attributes.get("element_size_um")
    if value is None:
        return []
    steps = [float(step) for step in np.ravel(value)]
    # An unknown size is 0.
    found = zip("ZYX"[-len(steps) :], steps[-3:], strict=False)
    return [Declared(axis, step, "um") for axis, step in found if step]


def kept_together(
    chunks: tuple[int, ...] | None, shape: tuple[int, ...], letters: str
) -> tuple[int, ...]:
    """The block that is read at once: chunks of the file, or lines of it, side by side."""
    if not {"Y", "X"} <= set(letters):
        # The meaning of the axes comes later, from the config; planes are usually the last two.
        letters = "?" * (len(shape) - 2) + "YX"
    lines = tuple(size if axis == "X" else 1 for axis, size in zip(letters, shape, strict=True))
    return block_shape(chunks or lines, shape, letters)
