"""Reads a trained network from a file of any known format.

To add a format: a function that turns a path into a :class:`ModelFile` and a line in ``READERS``,
and its suffix in ``START_FORMATS`` of :mod:`unet.config.start_keys`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from unet.errors import UserError
from unet.models.model_file import ModelFile, load_model
from unet.models.zoo_reading import package_to_apply, package_to_start

READERS: dict[str, Callable[[Path], ModelFile]] = {
    ".pt": load_model,
    ".zip": package_to_start,
}
# Formats that are read in another way to be applied than to start a training from.
APPLIED = {**READERS, ".zip": package_to_apply}


def read_model(path: Path) -> ModelFile:
    """The network in a file; nothing in the file is ever executed.

    Raises:
        UserError: the format is unknown, or the file is missing, damaged or no model.
    """
    reader = READERS.get(path.suffix)
    if reader is None:
        raise UserError(f"{path}: no model file ({', '.join(READERS)} can be read)")
    return reader(path)


def applied_model(path: Path) -> ModelFile:
    """The network in a file, to be applied to images; a file of an unknown suffix is read as
    ``model.pt``.

    Raises:
        UserError: the file is missing, damaged or no model, or its network cannot be applied.
    """
    if path.suffix == ".onnx":
        raise UserError(
            f"{path}: an .onnx file is for other programs; give the model.pt or the package (.zip) "
            "of the same model"
        )
    return APPLIED.get(path.suffix, load_model)(path)
