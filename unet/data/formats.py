"""Readers: one lazy image, in one order of axes, whatever the file's format.

``READERS`` maps a suffix to its reader; a new format is one function and one line. Heavy packages
are imported inside functions, so that listing files stays fast.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from unet.data.axes import DaskArray, LazyImage, Raw, arrange, pages_of
from unet.data.pixel_size import partly_known
from unet.errors import UserError
from unet.files import check_regular

__all__ = ["READERS", "SUFFIXES", "LazyImage", "open_image", "open_label", "page_count", "stem"]

# A reader takes the path, the page that is asked for, and whether the file is a label.
Reader = Callable[[Path, int | None, bool], Raw]
# Files of one image whose channels are files of their own: "case_????.tif" (nnU-Net).
CHANNEL_FILES = re.compile(r"_\?{4}(?=\.)")


def _tiff(path: Path, page: int | None, label: bool) -> Raw:
    from unet.data.tiff import read_tiff

    return read_tiff(path, page, label=label)


def _png(path: Path, page: int | None, label: bool) -> Raw:
    from unet.data.readers import read_png

    return read_png(path, label=label)


def _zarr(path: Path, page: int | None, label: bool) -> Raw:
    from unet.data.zarr_reader import read_ome_zarr

    return read_ome_zarr(path, label=label)


READERS: dict[str, Reader] = {".tif": _tiff, ".tiff": _tiff, ".png": _png, ".zarr": _zarr}
SUFFIXES = frozenset(READERS)


def stem(path: Path) -> str:
    """The file's name without its format's suffix (``.ome.tif`` and the like as a whole)."""
    name = path.name
    if path.suffix.lower() in SUFFIXES:
        name = name[: -len(path.suffix)]
        if name.lower().endswith(".ome"):
            name = name[:-4]
    return name


def channel_files(path: Path) -> list[Path]:
    """The files that ``case_????.tif`` stands for, in the order of their channels."""
    found: list[Path] = []
    while (file := path.with_name(path.name.replace("????", f"{len(found):04d}"))).exists():
        found.append(file)
    if not found:
        raise UserError(f"{path}: no such files")
    return found


def _read(path: Path, page: int | None, *, label: bool, inverted: bool = False) -> Raw:
    """Finds the reader and lets only UserError out of it.

    Raises:
        UserError: no such file, no reader for it, or a file that cannot be decoded.
    """
    if not label and CHANNEL_FILES.search(path.name) and not path.exists():
        from unet.data.readers import read_channel_files

        files = channel_files(path)
        channels = [_read(p, page, label=False, inverted=inverted) for p in files]
        return read_channel_files(path, channels)
    if path.is_dir() and path.suffix.lower() != ".zarr":
        from unet.data.readers import read_mask_folder
        from unet.data.zarr_metadata import is_zarr
        from unet.data.zarr_reader import read_ome_zarr

        if is_zarr(path):
            return read_ome_zarr(path, label=label)
        if label:
            return read_mask_folder(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f"{path}: no reader for {path.suffix or 'a name without suffix'}; convert the file to "
            f"one of {', '.join(sorted(SUFFIXES))}"
        )
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if reader is not _zarr:
        check_regular(path)
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty")
    try:
        raw = reader(path, page, label)
        if inverted and raw.black is not None:
            from unet.data import readers

            raw = readers.inverted(path, raw)
        return raw
    except (UserError, MemoryError):
        raise
    except Exception as error:
        # Decoders raise whatever their authors chose; to the user all of it is a bad file.
        raise UserError(f"{path}: cannot be read ({one_line(error)})") from error


def one_line(error: BaseException) -> str:
    """An error's message on one line of moderate length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def page_count(path: Path, *, axes: str | None = None, label: bool = False) -> int:
    """Number of images in a stack (from the header), 1 for a file of a single image.

    Raises:
        UserError: a file that cannot be read, or ``axes`` that do not fit it.
    """
    return pages_of(path, _read(path, 0, label=label), axes, label=label)


def open_image(
    path: Path,
    *,
    axes: str | None = None,
    channels: tuple[int | str, ...] | None = None,
    page: int | None = None,
    inverted: bool = True,
) -> LazyImage:
    """Opens an image without decoding it (but for a check of its opacity channel, if it has one).

    Args:
        path: TIFF, OME-TIFF, PNG, OME-Zarr, or ``name_????.tif`` for channels in files.
        axes: meaning of the file's axes in their order (letters S C Z Y X; S = separate images),
            over what the file declares.
        channels: which to take, by index from 0 or by name; None = all (opaque alpha left out).
        page: which image of a stack, from 0.
        inverted: whether to give black for white where the file says that zero is white; else the
            values are those that are stored.

    Returns:
        a LazyImage with axes C (Z) Y X.

    Raises:
        UserError: the file cannot be read, its axes are not declared, a channel is not there.
    """
    raw = _read(path, page, label=False, inverted=inverted)
    array, letters, pages = arrange(path, raw, axes, page, label=False)
    if "C" not in letters:
        array, letters = array[None], "C" + letters
    count = int(array.shape[0])
    names = raw.names if len(raw.names) == count else ("",) * count
    if channels is not None:
        picked = _picked(path, channels, names)
        array, names = array[picked], tuple(names[i] for i in picked)
    elif raw.alpha is not None and raw.alpha < count:
        _check_opaque(path, array[raw.alpha])
        kept = [i for i in range(count) if i != raw.alpha]
        array, names = array[kept], tuple(names[i] for i in kept)
    return _lazy_image(array, letters, raw, names, pages)


def open_label(path: Path, *, axes: str | None = None, page: int | None = None) -> LazyImage:
    """Opens a label without decoding it (but for colour files, whose channels must be equal).

    Args:
        path: as for an image, or a folder of one mask file per object (merged in the order of
            their names, ids from 1; where they overlap the first wins).
        axes: as for the image; C may be among them even where the label has none.
        page: which label of a stack, from 0. A palette file gives its indices, not its colours.

    Returns:
        a LazyImage with axes (Z) Y X.

    Raises:
        UserError: as for images, or several values per pixel.
    """
    raw = _read(path, page, label=True)
    array, letters, pages = arrange(path, raw, axes, page, label=True)
    if "C" in letters:
        if raw.alpha is not None and raw.alpha < array.shape[0]:
            _check_opaque(path, array[raw.alpha])
            array = array[[i for i in range(array.shape[0]) if i != raw.alpha]]
        if array.shape[0] > 1 and not _computed((array == array[:1]).all()):
            raise UserError(
                f"{path}: {array.shape[0]} different values per pixel; a label needs one (save it "
                "as a grey or palette file)"
            )
        array, letters = array[0], letters[1:]
    return _lazy_image(array, letters, raw, (), pages)


def _lazy_image(
    array: DaskArray, letters: str, raw: Raw, names: tuple[str, ...], pages: int
) -> LazyImage:
    import numpy as np

    wanted = np.dtype(np.uint8) if array.dtype == np.bool_ else array.dtype.newbyteorder("=")
    if array.dtype != wanted:
        array = array.astype(wanted)
    sizes = [raw.pixel_size.get(letter) for letter in letters if letter != "C"]
    known = [size for size in sizes if size is not None]
    partly = partly_known(raw.pixel_size, letters.replace("C", ""))
    return LazyImage(
        axes=letters,
        shape=tuple(int(n) for n in array.shape),
        dtype=wanted,
        pixel_size_um=tuple(known) if len(known) == len(sizes) else None,
        channel_names=names,
        array=array,
        pages=pages,
        inverted=raw.inverted,
        warnings=raw.warnings,
        size_warnings=(*raw.size_warnings, *([partly] if partly else ())),
    )


def _picked(path: Path, channels: tuple[int | str, ...], names: tuple[str, ...]) -> list[int]:
    """Indices of the wanted channels."""
    picked = []
    for wanted in channels:
        matches = [i for i, name in enumerate(names) if wanted in (i, name) and wanted != ""]
        if len(matches) != 1 or matches[0] in picked:
            there = ", ".join(f"{i} ({name})" if name else str(i) for i, name in enumerate(names))
            problems = {
                0: f"there is no channel {wanted!r}",
                1: f"channel {wanted!r} is given twice",
            }
            problem = problems.get(len(matches), f"several channels are called {wanted!r}")
            raise UserError(f"{path}: {problem}; the channels are: {there}")
        picked.append(matches[0])
    return picked


def _check_opaque(path: Path, alpha: DaskArray) -> None:
    import numpy as np

    opaque = np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1
    if not _computed((alpha == opaque).all()):
        raise UserError(
            f"{path}: an opacity channel that is not opaque everywhere; save the file without it "
            "or choose channels with the key channels"
        )


def _computed(value: DaskArray) -> bool:
    # Synchronous: callers run in threads of their own, and one block at a time bounds the memory.
    return bool(value.compute(scheduler="synchronous"))
