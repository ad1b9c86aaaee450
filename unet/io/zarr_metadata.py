"""Metadata of OME-Zarr: groups, plates and collections of images. Light: it opens no array."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unet.errors import UserError

# Largest size of metadata in bytes. No real file needs as much, and parsing more takes long.
MAX_METADATA = 1 << 24


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr group or array (version 2 or 3)."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray", ".zattrs"))


def zarr_attributes(path: Path) -> dict[str, Any]:
    """A zarr group's OME attributes, of version 0.5 (under "ome") or 0.4 (at the top level)."""
    attributes: Any = {}
    for name in ("zarr.json", ".zattrs"):
        if (path / name).is_file():
            attributes = read_metadata(path / name)
            break
    if not isinstance(attributes, dict):
        return {}
    attributes = attributes.get("attributes", attributes)
    attributes = attributes.get("ome", attributes)
    return dict(attributes)


def read_metadata(path: Path) -> Any:
    """The JSON in a file.

    Raises:
        UserError: it is damaged.
    """
    try:
        if path.stat().st_size > MAX_METADATA:
            raise UserError(f"{path}: {path.stat().st_size} bytes of metadata; the file is damaged")
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None


@dataclass(frozen=True)
class SubImage:
    """One image of a plate or a collection.

    Attributes:
        path: its group.
        name: unique within the plate ("A1-f0") or collection ("s0").
        well: "A1" in a plate, otherwise "".
        columns: row, column, well and field, like the columns of a sheet; only in a plate.
    """

    path: Path
    name: str
    well: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


def images_inside(path: Path) -> list[SubImage] | None:
    """The images of an OME-Zarr plate or collection (``bioformats2raw.layout``); None for anything
    else, such as an image, and if it cannot be read (opening it then says why).

    Raises:
        UserError: the metadata of a plate are damaged, or refer to a path outside of it.
    """
    try:
        attributes = zarr_attributes(path)
    except UserError:
        return None
    try:
        if "plate" in attributes:
            return list(_fields(path, attributes["plate"]))
        if "bioformats2raw.layout" in attributes and "multiscales" not in attributes:
            return _series(path)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: the metadata of this plate or collection are damaged ({type(error).__name__})"
        ) from None
    return None


def _fields(plate: Path, metadata: Any) -> Iterator[SubImage]:
    for entry in metadata["wells"]:
        place = str(entry["path"])
        row, _, column = place.partition("/")
        well = _inside(plate, place)
        try:
            found = zarr_attributes(well).get("well", {}).get("images", [])
        except UserError:
            found = []
        if not found:
            # Opening it as an image fails and gives the reason.
            yield SubImage(well, row + column, row + column)
        for image in found:
            name = str(image["path"])
            number = name if not name.isdecimal() else f"f{name}"
            yield SubImage(
                _inside(well, name),
                f"{row}{column}-{number}",
                row + column,
                {"well": row + column, "row": row, "column": column, "field": name},
            )


def _series(path: Path) -> list[SubImage]:
    try:
        names = zarr_attributes(path / "OME").get("series")
    except UserError:
        names = None
    if not names:
        # Without the list the images are numbered.
        names = sorted((p.name for p in path.iterdir() if p.name.isdecimal()), key=int)
    return [
        SubImage(_inside(path, str(name)), f"s{name}" if str(name).isdecimal() else str(name))
        for name in names
    ]


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{folder}: refused, its metadata refer to a place outside of it ({name[:100]!r})"
        )
    return path
