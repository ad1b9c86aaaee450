"""Reader of OME-Zarr 0.3 to 0.5."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.data.axes import Raw, block_shape
from unet.data.readers import check_pixels, lazily, micrometres
from unet.errors import UserError

Array = NDArray[Any]


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr group or array (version 2 or 3)."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray", ".zattrs"))


def zarr_attributes(path: Path) -> dict[str, Any]:
    """A zarr group's OME attributes: those of 0.5 (under "ome") or those of 0.4 (beside it)."""
    attributes: Any = {}
    for name in ("zarr.json", ".zattrs"):
        if (path / name).is_file():
            try:
                attributes = json.loads((path / name).read_text(encoding="utf-8"))
            except (ValueError, OSError) as error:
                raise UserError(f"{path / name}: not valid JSON ({error})") from None
            break
    if not isinstance(attributes, dict):
        return {}
    attributes = attributes.get("attributes", attributes)
    attributes = attributes.get("ome", attributes)
    return dict(attributes)


def read_ome_zarr(path: Path) -> Raw:
    """Level 0 of an OME-Zarr image or label (0.3 to 0.5), axes and scale from its metadata."""
    import zarr

    attributes = zarr_attributes(path)
    scales = attributes.get("multiscales")
    if not scales:
        hint = "; it is a plate or a collection: name the images in it" if attributes else ""
        raise UserError(f"{path}: not an OME-Zarr image (no multiscales in its metadata){hint}")
    scale = scales[0]
    if "axes" not in scale:
        version = scale.get("version", "unknown")
        raise UserError(f"{path}: OME-Zarr of version {version} declares no axes; convert to 0.4")
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in scale["axes"]]
    level = scale["datasets"][0]
    array = zarr.open_array(str(path / level["path"]), mode="r")
    letters = "".join(_axis_letter(axis) for axis in axes)
    if len(letters) != array.ndim:
        raise UserError(f"{path}: {len(letters)} axes declared for an array of {array.ndim}")
    check_pixels(path, array.shape)
    factors = np.ones(array.ndim)
    for source in (level, scale):
        for step in source.get("coordinateTransformations", ()):
            if step.get("type") == "scale" and len(step.get("scale", ())) == array.ndim:
                factors = factors * np.asarray(step["scale"], float)
    sizes = {
        letter: size
        for letter, axis, factor in zip(letters, axes, factors, strict=True)
        if letter in "ZYX" and (size := micrometres(float(factor), axis.get("unit"))) is not None
    }
    named = attributes.get("omero", {}).get("channels", ())
    return Raw(
        array=lazily(ZarrSource(path, array), block_shape(array.chunks, array.shape, letters)),
        axes=letters,
        pixel_size=sizes,
        names=tuple(str(channel.get("label", "")) for channel in named),
    )


def _axis_letter(axis: Mapping[str, Any]) -> str:
    """The letter of an OME-Zarr axis: by its name where that is a known one, else by its type."""
    name = str(axis.get("name", "")).upper()
    if re.fullmatch(r"[TCZYX]", name):
        return name
    return {"time": "T", "channel": "C"}.get(str(axis.get("type")), "?")


class ZarrSource:
    """A zarr array whose read errors name the file."""

    def __init__(self, path: Path, array: Any) -> None:
        self.path, self.array = path, array
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, region: Any) -> Array:
        try:
            return np.asarray(self.array[region])
        except MemoryError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"{self.path}: cannot be decoded ({text})") from error
