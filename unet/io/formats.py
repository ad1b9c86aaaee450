"""The readers, by file suffix.

``READERS`` maps a suffix to its reader. To add a format, write a function and add one line there
and one in `unet.config.choices.FORMAT_TABLE`. Heavy packages are imported inside functions, so that
listing files stays fast.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from unet.io.array_paths import MARK, split_inside
from unet.io.axes import Raw

# A reader takes the path, the requested page, and whether the file is a label.
Reader = Callable[[Path, int | None, bool], Raw]


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
    if split_inside(path)[1]:
        from unet.io.zarr_arrays import read_zarr_array

        return read_zarr_array(path, label=label)
    from unet.io.ome_zarr_reader import read_ome_zarr

    return read_ome_zarr(path, label=label)


def _npy(path: Path, page: int | None, label: bool) -> Raw:
    from unet.io.npy_reader import read_npy

    return read_npy(path)


def _czi(path: Path, page: int | None, label: bool) -> Raw:
    from unet.io.czi_reader import read_czi

    return read_czi(path, page)


def _nd2(path: Path, page: int | None, label: bool) -> Raw:
    from unet.io.nd2_reader import read_nd2

    return read_nd2(path, page)


def _lif(path: Path, page: int | None, label: bool) -> Raw:
    from unet.io.lif_reader import read_lif

    return read_lif(path, page)


def _oib(path: Path, page: int | None, label: bool) -> Raw:
    from unet.io.oib_reader import read_oib

    return read_oib(path, page)


def _hdf5(path: Path, page: int | None, label: bool) -> Raw:
    from unet.io.hdf5_reader import read_hdf5

    return read_hdf5(path, label=label)


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
    ".czi": _czi,
    ".nd2": _nd2,
    ".lif": _lif,
    ".oib": _oib,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".nrrd": _nrrd,
    ".nii": _nifti,
    ".nii.gz": _nifti,
}
SUFFIXES = frozenset(READERS)
# Formats that come first if a folder has the same name in several.
USUAL = frozenset({".tif", ".tiff", ".png", ".zarr"})
# Formats that cannot store a label, whose values must be exact.
INEXACT = frozenset({".jpg", ".jpeg"})
# Formats of many arrays, of which a path must name one: "a.h5::/raw".
NAMED = frozenset({".h5", ".hdf5"})
# Formats of which a path may name one.
ARRAY_FILES = NAMED | {".zarr"}
# Formats of which a file is an image, or a stack of images, as it is.
WHOLE = SUFFIXES - NAMED
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


def format_of(path: Path) -> str:
    """The suffix in ``READERS`` that the file's name has; "" if it has none of them."""
    file = split_inside(path)[0] if MARK in path.name else path
    suffix = file.suffix.lower()
    if suffix == ".gz":
        suffix = "".join(file.suffixes[-2:]).lower()
    return suffix if suffix in SUFFIXES else ""


def stem(path: Path) -> str:
    """The file's name without the suffix of its format (``.ome.tif`` counts as one suffix)."""
    file = split_inside(path)[0] if MARK in path.name else path
    name, suffix = file.name, format_of(file)
    if suffix:
        name = name[: -len(suffix)]
        if name.lower().endswith(".ome"):
            name = name[:-4]
    return name
