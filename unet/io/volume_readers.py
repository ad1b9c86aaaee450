"""Readers for volumes: NRRD and NIfTI, with the packages of the extra ``formats``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.errors import UserError
from unet.io.axes import Raw
from unet.io.pixel_size import Declared, read_sizes
from unet.io.raw import (
    DEFLATE_RATIO,
    OTHER_RATIO,
    Decoded,
    check_claim,
    check_pixels,
    lazily,
    needed,
)

Array = NDArray[Any]

# Kinds of an NRRD axis that are not space; the others are, or are not declared.
_NRRD_KINDS = {"time": "T", "list": "C", "vector": "C", "rgb-color": "S", "rgba-color": "S"}
_NRRD_KINDS |= {"scalar": "C", "color": "S"}
_SPACE = ("domain", "space")


def _checked(path: Path, shape: tuple[int, ...], dtype: Any, ratio: int = OTHER_RATIO) -> None:
    if np.dtype(dtype).kind not in "buif":
        raise UserError(f"{path}: pixels of type {dtype}; save them as numbers")
    check_pixels(path, shape)
    check_claim(path, shape, np.dtype(dtype).itemsize, ratio)


# NRRD


def _decode_nrrd(path: Path) -> Array:
    """Pixels in the order of C: the last axis of the result varies fastest in the file."""
    nrrd = needed(path, "nrrd", "pynrrd")
    return np.asarray(nrrd.read(str(path), index_order="C")[0])


def read_nrrd(path: Path) -> Raw:
    """Opens an NRRD file whose pixels are in the same file; it is decoded as a whole."""
    nrrd = needed(path, "nrrd", "pynrrd")
    header = nrrd.read_header(str(path))
    if "data file" in header or "datafile" in header:
        raise UserError(f"{path}: its pixels are in another file; save it with the header attached")
    shape = tuple(int(n) for n in reversed(header["sizes"]))
    dtype = np.dtype(nrrd.reader._determine_datatype(header))
    kinds = header.get("kinds", shape)
    if not len(shape) == len(kinds) == int(header.get("dimension", -1)):
        raise UserError(f"{path}: its header counts its axes in several ways; it is damaged")
    _checked(path, shape, dtype)
    axes = _nrrd_axes(header, len(shape))
    sizes, told = read_sizes(_nrrd_sizes(header, axes), axes)
    source = Decoded(path, shape, dtype, _decode_nrrd)
    return Raw(lazily(source, shape), axes, sizes, size_warnings=told, together=True)


def _nrrd_axes(header: Any, count: int) -> str:
    """Letters in the order of C. Axes of space are X, Y, Z in the file's order."""
    kinds = [str(kind).lower() for kind in header.get("kinds", ["???"] * count)]
    space = iter("XYZ")
    declared = "kinds" in header or "space directions" in header or "space" in header
    letters = ""
    for kind in kinds:
        plain = kind in _SPACE or (kind not in _NRRD_KINDS and declared and "-" not in kind)
        letters += next(space, "?") if plain else _NRRD_KINDS.get(kind, "?")
    if not declared and count == 2:
        letters = "XY"  # a picture: nothing else is possible
    return letters[::-1]


def _nrrd_sizes(header: Any, axes: str) -> list[Declared]:
    units = [str(unit) for unit in header.get("units", header.get("space units", []))]
    steps: list[float] = []
    if "space directions" in header:
        rows = np.atleast_2d(np.asarray(header["space directions"], float))
        steps = [float(np.linalg.norm(row)) for row in rows]
    elif "spacings" in header:
        steps = [float(step) for step in header["spacings"]]
    letters = axes[::-1]
    if len(steps) != len(letters):
        return []
    if len(units) != len(letters):
        # "space units" has one for each axis of space.
        spatial = [letter for letter in letters if letter in "ZYX"]
        found = dict(zip(spatial, units, strict=False))
        units = [found.get(letter, "") for letter in letters]
    return [
        Declared(letter, None if np.isnan(step) else step, unit)
        for letter, step, unit in zip(letters, steps, units, strict=True)
        if letter in "ZYX"
    ]


# NIfTI


def _nifti(path: Path) -> Any:
    nibabel = needed(path, "nibabel", "nibabel")
    # Without a memory map, so that a file that is changed meanwhile cannot end the program.
    return nibabel.load(str(path), mmap=False)


def _decode_nifti(path: Path) -> Array:
    """Pixels [X, Y, Z, ...], scaled as the header says."""
    image = _nifti(path)
    return np.asarray(image.dataobj, _nifti_type(image))


def _nifti_type(image: Any) -> Any:
    scaled = (image.dataobj.slope, image.dataobj.inter) != (1.0, 0.0)
    return np.dtype(np.float32 if scaled else image.get_data_dtype())


def read_nifti(path: Path) -> Raw:
    """Opens a NIfTI file (1 or 2), packed or not; it is decoded as a whole."""
    image = _nifti(path)
    shape = tuple(int(n) for n in image.shape)
    stored = image.get_data_dtype()
    packed = path.suffix.lower() == ".gz"
    _checked(path, shape, stored, DEFLATE_RATIO if packed else 1)
    # The standard fixes the meaning of the axes: space, time, values of a voxel.
    axes = "XYZTC"[: len(shape)] if len(shape) <= 5 else "XYZTC" + "?" * (len(shape) - 5)
    unit = str(image.header.get_xyzt_units()[0]).replace("unknown", "")
    steps = zip("XYZ", map(float, image.header.get_zooms()), strict=False)
    sizes, told = read_sizes([Declared(axis, step, unit) for axis, step in steps], axes)
    source = Decoded(path, shape, _nifti_type(image), _decode_nifti)
    return Raw(lazily(source, shape), axes, sizes, size_warnings=told, together=True)
