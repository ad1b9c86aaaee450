"""Metadata of OME-Zarr: groups, plates and collections of images. Light: it opens no array."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unet.errors import UserError

# Bytes of metadata: nothing needs as much, and a parser would take long.
MAX_METADATA = 1 << 24


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr group or array (version 2 or 3)."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray", ".zattrs"))


def zarr_attributes(path: Path) -> dict[str, Any]:
    """A zarr group's OME attributes: those of 0.5 (under "ome") or those of 0.4 (beside it)."""
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
        name: what tells it from the others: "A1-f0" in a plate, "s0" in a collection.
        well: "A1" in a plate, else "".
        columns: row, column, well and field, as a sheet would have them; in a plate only.
    """

    path: Path
    name: str
    well: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


def members(path: Path) -> list[SubImage] | None:
    """The images of an OME-Zarr plate or collection (``bioformats2raw.layout``); None of what is
    neither, such as an image, or cannot be read (whoever opens it is told why).

    Raises:
        UserError: a plate whose metadata are damaged, or name what lies outside of it.
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
            f"{path}: its metadata of a plate or collection are damaged ({type(error).__name__})"
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
            # Opened as an image it is set aside, with the reason.
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
            f"{folder}: refused, its metadata name a place outside of it ({name[:100]!r})"
        )
    return path
