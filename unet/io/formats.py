"""The readers, by file suffix.

``READERS`` maps a suffix to its reader. To add a format, write a function and add one line there
and one in `unet.config.choices.FORMAT_TABLE`. Heavy packages are imported inside functions, so that
listing files stays fast.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from unet.errors import UserError
from unet.io.axes import Raw

# A reader takes the path, the requested page, and whether the file is a label.
Reader = Callable[[Path, int | None, bool], Raw]
# An image with one file per channel: "case_????.tif" (nnU-Net).
CHANNEL_FILES = re.compile(r"_\?{4}(?=\.)")


def _tiff(path: Path, page: int | None, label: bool) -> Raw:
    from unet.io.tiff_reader import read_tiff

    return read_tiff(path, page, label=label)


def _png(path: Path, page: int | None, label: bool) -> Raw:
    from unet.io.png_reader import read_png

    return read_png(path, label=label)


def _zarr(path: Path, page: int | None, label: bool) -> Raw:
    from unet.io.ome_zarr_reader import read_ome_zarr

    return read_ome_zarr(path, label=label)


def _npy(path: Path, page: int | None, label: bool) -> Raw:
    from unet.io.npy_reader import read_npy

    return read_npy(path)


READERS: dict[str, Reader] = {".tif": _tiff, ".tiff": _tiff, ".png": _png, ".zarr": _zarr}
SUFFIXES = frozenset(READERS)
# Formats of labels only: a folder of images may hold such files, which are no images.
LABEL_READERS: dict[str, Reader] = {".npy": _npy}
# Outlines, from which labels are drawn (`unet.io.drawn_labels`).
OUTLINES = frozenset({".geojson", ".roi", ".zip"})
# Outlines that only labels of a dataset may be: other tools write tables and settings with these
# endings beside their masks.
LABEL_OUTLINES = OUTLINES | {".json", ".xml", ".csv"}
# Formats of which one file may hold the labels of many images.
OF_MANY_IMAGES = frozenset({".json", ".xml"})


def label_stem(path: Path) -> str:
    """The same for a label, which may be of more formats."""
    others = LABEL_OUTLINES | LABEL_READERS.keys()
    return path.stem if path.suffix.lower() in others else stem(path)


def stem(path: Path) -> str:
    """The file's name without the suffix of its format (``.ome.tif`` counts as one suffix)."""
    name = path.name
    if path.suffix.lower() in SUFFIXES:
        name = name[: -len(path.suffix)]
        if name.lower().endswith(".ome"):
            name = name[:-4]
    return name


def channel_files(path: Path) -> list[Path]:
    """The files that ``case_????.tif`` stands for, in channel order."""
    found: list[Path] = []
    while (file := path.with_name(path.name.replace("????", f"{len(found):04d}"))).exists():
        found.append(file)
    if not found:
        raise UserError(f"{path}: no such files")
    return found
