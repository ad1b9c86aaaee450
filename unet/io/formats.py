"""The readers, by file suffix.

``READERS`` maps a suffix to its reader. To add a format, write a function and add one line there
and one in `unet.config.choices.FORMAT_TABLE`. Heavy packages are imported inside functions, so that
listing files stays fast.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from unet.io.axes import Raw

# A reader takes the path, the requested page, and whether the file is a label.
Reader = Callable[[Path, int | None, bool], Raw]


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
# Outlines, from which labels are drawn (`unet.io.mask_files`).
OUTLINES = frozenset({".geojson", ".roi", ".zip"})


def stem(path: Path) -> str:
    """The file's name without the suffix of its format (``.ome.tif`` counts as one suffix)."""
    name = path.name
    if path.suffix.lower() in SUFFIXES:
        name = name[: -len(path.suffix)]
        if name.lower().endswith(".ome"):
            name = name[:-4]
    return name
