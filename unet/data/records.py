"""Rows of the manifest and of the splits: a dataclass for each, and how to read and write them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from unet.tables import read_table, write_table

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
# Where an image is on a plate, in the order of the columns of tables; the first and the last two
# only if they are known.
WELL_KEYS = ("plate", "well", "row", "column", "field", "z", "t")
_WELL = frozenset({"well", "row", "column", "field"})


@dataclass(frozen=True)
class ImageRecord:
    """One image in the manifest; each slice of a stack is an image.

    Attributes:
        id: unique within the dataset, safe as a folder name.
        image, label: paths relative to the dataset's root folder ("" = no label).
        page: index of the slice in a stack of images, otherwise None; also applies to the label if
            that is a stack.
        axes: of the array that the reader returns: CYX or CZYX.
        shape: in the order of ``axes``.
        dtype: of the pixels as stored.
        pixel_size_um: micrometres along the spatial axes ((Z,) Y, X), None = unknown.
        channels: names, "" for unnamed channels.
        objects: number of instances (task instances) or of classes present (semantic).
        class_shares: share of the pixels that are not ignored, by class (task instances: background
            and foreground); None without a label, or in tables of older versions.
        sha256, label_sha256: of the raw files.
        group: images of a group always share the same part of a split.
        part: fixed part of the split from a sheet, otherwise "".
        status: "ok", or "quarantined" with the reason.
        warnings: about things that look wrong but are used anyway, one line each.
        inverted: whether its values are inverted, because the file says that zero is white; always
            False in manifests of older versions, which read values as stored.
        well: for an image of a plate: see :data:`WELL_KEYS`; None for any other image, and in
            manifests of older versions.
    """

    id: str
    image: str
    label: str = ""
    page: int | None = None
    axes: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = ""
    pixel_size_um: tuple[float, ...] | None = None
    channels: tuple[str, ...] = ()
    objects: int | None = None
    sha256: str = ""
    label_sha256: str = ""
    group: str = ""
    part: str = ""
    status: Literal["ok", "quarantined"] = "ok"
    reason: str = ""
    class_shares: Mapping[str, float] | None = field(default=None, hash=False)
    warnings: tuple[str, ...] = ()
    inverted: bool = False
    well: Mapping[str, str] | None = field(default=None, hash=False)


@dataclass(frozen=True)
class SplitRecord:
    """The part that an image has in one fold."""

    image: str
    fold: int
    part: Part


SPLIT_COLUMNS = ("image", "fold", "part")
_JSON_FIELDS = {"page", "shape", "pixel_size_um", "channels", "objects", "class_shares", "well"}
# Empty cells for images without any, which are most.
_TEXTS_FIELDS = {"warnings"}
_FLAGS = {"inverted"}


def write_manifest(path: Path, records: Iterable[ImageRecord]) -> None:
    """Writes the rows as CSV; tuples and numbers that may be missing are written as JSON."""
    found = list(records)
    names = [f.name for f in fields(ImageRecord)]
    if all(record.well is None for record in found):
        names.remove("well")
    rows = []
    for record in found:
        row = {name: getattr(record, name) for name in names}
        for name in _JSON_FIELDS.intersection(names):
            value = row[name]
            row[name] = "" if value is None else json.dumps(value)
        for name in _TEXTS_FIELDS:
            row[name] = json.dumps(row[name], ensure_ascii=False) if row[name] else ""
        for name in _FLAGS:
            row[name] = "yes" if row[name] else ""
        rows.append(tuple(row.values()))
    write_table(path, names, rows)


def read_manifest(path: Path) -> list[ImageRecord]:
    """Reads a file of :func:`write_manifest`, also from older versions with fewer columns."""
    records = []
    for row in read_table(path, "manifest", ["id"]).to_dict("records"):
        values: dict[str, Any] = {str(name): cell for name, cell in row.items()}
        for name in _JSON_FIELDS:
            value = json.loads(row[name]) if row.get(name) else None
            values[name] = tuple(value) if isinstance(value, list) else value
        for name in _TEXTS_FIELDS:
            values[name] = tuple(json.loads(row[name])) if row.get(name) else ()
        for name in _FLAGS:
            values[name] = row.get(name) == "yes"
        records.append(ImageRecord(**values))
    return records


def well_of(columns: Mapping[str, str]) -> dict[str, str] | None:
    """Where an image is on a plate, from the columns of its sheet or layout; None if they do not
    say it."""
    if not columns.keys() >= _WELL or not (columns["row"] and columns["column"]):
        return None
    return {key: columns[key] for key in WELL_KEYS if key in columns}


def wells_in(path: Path) -> dict[str, dict[str, str]]:
    """Image id -> where it is on its plate, for the images of a manifest that are on one.

    Light, since most manifests have no such column.
    """
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as handle:
        if "well" not in next(csv.reader(handle), ()):
            return {}
    return {r.id: dict(r.well) for r in read_manifest(path) if r.well is not None}


def write_splits(path: Path, rows: Iterable[SplitRecord]) -> None:
    write_table(path, SPLIT_COLUMNS, ((row.image, row.fold, row.part) for row in rows))


def read_splits(path: Path) -> list[SplitRecord]:
    found = read_table(path, "splits", SPLIT_COLUMNS)
    rows = zip(*(found[name] for name in SPLIT_COLUMNS), strict=True)
    return [SplitRecord(image, int(fold), part) for image, fold, part in rows]


def ids_of(rows: Iterable[SplitRecord], fold: int, part: Part) -> list[str]:
    """Sorted ids of the images that have this part in this fold."""
    return sorted(row.image for row in rows if row.fold == fold and row.part == part)
