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


def _jpeg(path: Path, page: int | None, label: bool) -> Raw:
    from unet.io.jpeg_reader import read_jpeg

    return read_jpeg(path, label=label)


def _jpeg2000(path: Path, page: int | None, label: bool) -> Raw:
    from unet.io.jpeg2000_reader import read_jpeg2000

    return read_jpeg2000(path, label=label)


def _zarr(path: Path, page: int | None, label: bool) -> Raw:
    from unet.io.ome_zarr_reader import read_ome_zarr

    return read_ome_zarr(path, label=label)


def _npy(path: Path, page: int | None, label: bool) -> Raw:
    from unet.io.npy_reader import read_npy

    return read_npy(path)


def _nrrd(path: Path, page: int | None, label: bool) -> Raw:
    from unet.io.volume_readers import read_nrrd

    return read_nrrd(path)


def _nifti(path: Path, page: int | None, label: bool) -> Raw:
    from unet.io.volume_readers import read_nifti

    return read_nifti(path)


READERS: dict[str, Reader] = {
    ".tif": _tiff,
    ".tiff": _tiff,
    ".png": _png,
    ".zarr": _zarr,
    ".jpg": _jpeg,
    ".jpeg": _jpeg,
    ".jp2": _jpeg2000,
    ".j2k": _jpeg2000,
    ".lsm": _tiff,
    ".stk": _tiff,
    ".svs": _tiff,
    ".ndpi": _tiff,
    ".scn": _tiff,
    ".bif": _tiff,
    ".nrrd": _nrrd,
    ".nii": _nifti,
    ".nii.gz": _nifti,
}
SUFFIXES = frozenset(READERS)
# Formats that cannot store a label, whose values must be exact.
INEXACT = frozenset({".jpg", ".jpeg"})
# Formats of labels only: a folder of images may hold such files, which are no images.
LABEL_READERS: dict[str, Reader] = {".npy": _npy}
# Outlines, from which labels are drawn (`unet.io.mask_files`).
OUTLINES = frozenset({".geojson", ".roi", ".zip"})


def format_of(path: Path) -> str:
    """The suffix in ``READERS`` that the file's name has; "" if it has none of them."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        suffix = "".join(path.suffixes[-2:]).lower()
    return suffix if suffix in SUFFIXES else ""


def stem(path: Path) -> str:
    """The file's name without the suffix of its format (``.ome.tif`` counts as one suffix)."""
    name, suffix = path.name, format_of(path)
    if suffix:
        name = name[: -len(suffix)]
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
