"""Opens an image or label of any format as a lazy array with a fixed order of axes.

Heavy packages are imported inside functions, so that listing files stays fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.errors import UserError, one_line
from unet.files import check_regular
from unet.io.array_paths import split_inside, with_inside
from unet.io.axes import DaskArray, LazyImage, Pages, Raw, arrange, pages_of
from unet.io.channel_files import check_all_there, listed_names, parts_of
from unet.io.formats import INEXACT, LABEL_READERS, READERS, SUFFIXES, format_of
from unet.io.pixel_size import partly_known
from unet.io.raw import Decoded, black_is_zero, lazily

Array = NDArray[Any]


def _read(path: Path, page: int | None, *, label: bool, inverted: bool = False) -> Raw:
    """Reads a file with the reader for its suffix; all its failures become UserErrors.

    Raises:
        UserError: no such file, no reader for it, or the file cannot be decoded.
    """
    file, inside = split_inside(path)
    files = [path] if label or inside else parts_of(path)
    if files != [path]:
        check_all_there(path, files)
        channels = [_read(p, page, label=False, inverted=inverted) for p in files]
        return read_channel_files(path, channels)
    if inside:
        path = with_inside(file, inside)
    if file.is_dir() and format_of(file) != ".zarr":
        from unet.io.ome_zarr_reader import read_ome_zarr
        from unet.io.zarr_metadata import is_zarr

        if is_zarr(file):
            return read_ome_zarr(file, label=label)
        if label:
            return read_mask_folder(file)
    reader = READERS.get(format_of(path))
    if reader is None and label:
        reader = LABEL_READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f"{path}: no reader for {path.suffix or 'a name without suffix'}; convert the file to "
            f"one of {', '.join(sorted(SUFFIXES))}"
        )
    if not file.exists():
        raise UserError(f"{file}: no such file")
    if format_of(path) != ".zarr":
        check_regular(file)
        if file.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty")
    try:
        raw = reader(path, page, label)
        if inverted and raw.black is not None:
            raw = black_is_zero(path, raw)
        return raw
    except (UserError, MemoryError):
        raise
    except Exception as error:
        # Decoders raise all kinds of errors; for the user each of them means a bad file.
        raise UserError(f"{path}: cannot be read ({one_line(error, 200)})") from error


def pages_in(path: Path, *, axes: str | None = None, label: bool = False) -> Pages:
    """The images in a stack, from the header; one for a file with a single image.

    Raises:
        UserError: the file cannot be read, or ``axes`` do not fit it.
    """
    return pages_of(path, _read(path, 0, label=label), axes, label=label)


def page_count(path: Path, *, axes: str | None = None, label: bool = False) -> int:
    """Number of images in a stack (see ``pages_in``)."""
    return len(pages_in(path, axes=axes, label=label).names)


def open_image(
    path: Path,
    *,
    axes: str | None = None,
    channels: tuple[int | str, ...] | None = None,
    page: int | None = None,
    inverted: bool = True,
) -> LazyImage:
    """Opens an image without decoding it, except to check that an opacity channel is opaque.

    Args:
        path: of any format in `unet.io.formats`, or a path that stands for one file per channel
            (:mod:`unet.io.channel_files`).
        axes: meaning of the file's axes in their order (letters S C Z Y X; S = separate images);
            overrides what the file declares.
        channels: which to take, by index from 0 or by name; None = all (opaque alpha left out).
        page: which image of a stack, from 0.
        inverted: whether to invert the values if the file says that zero is white; otherwise they
            are returned as stored.

    Returns:
        a LazyImage with axes C (Z) Y X.

    Raises:
        UserError: the file cannot be read, its axes are not declared, or a channel is missing.
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
    """Opens a label without decoding it, except to check that the channels of colour files agree.

    Args:
        path: as for an image, or a folder with one mask file per object (merged in the order of
            their names, ids from 1; where they overlap, the first one wins).
        axes: as for the image; may include C even if the label has no channels.
        page: which label of a stack, from 0. A palette file gives its indices, not its colours.

    Returns:
        a LazyImage with axes (Z) Y X.

    Raises:
        UserError: as for images, or the label has several values per pixel.
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
    opaque = np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1
    if not _computed((alpha == opaque).all()):
        raise UserError(
            f"{path}: its opacity channel is not fully opaque; save the file without it "
            "or choose channels with the key channels"
        )


def _computed(value: DaskArray) -> bool:
    # Synchronous: callers already run in threads, and one block at a time limits the memory.
    return bool(value.compute(scheduler="synchronous"))


# One mask file per object


def mask_files(folder: Path) -> tuple[list[Path], int]:
    """The mask files of a folder, in the order of their names, and the number of JPEG files that
    are left out, since other files hold the masks. Entries that are not files are included, so that
    reading them raises an error and no object is silently left out."""
    found = sorted(p for p in folder.iterdir() if format_of(p) and not p.name.startswith("."))
    exact = [path for path in found if format_of(path) not in INEXACT]
    return (exact, len(found) - len(exact)) if exact else (found, 0)


def _merge_masks(folder: Path) -> Array:
    """Ids [Y, X] uint32, from 1 in the order of the names; where masks overlap, the first wins."""
    merged: Array | None = None
    for number, path in enumerate(mask_files(folder)[0], start=1):
        mask = open_label(path).array.compute(scheduler="synchronous")
        if merged is None:
            merged = np.zeros(mask.shape, np.uint32)
        if mask.shape != merged.shape:
            raise UserError(f"{path}: {mask.shape} pixels, but the other masks have {merged.shape}")
        merged[(mask != 0) & (merged == 0)] = number
    if merged is None:
        raise UserError(f"{folder}: no mask files")
    return merged


def read_mask_folder(folder: Path) -> Raw:
    """A label with one file per object (as in the 2018 Data Science Bowl)."""
    files, left = mask_files(folder)
    if not files:
        raise UserError(f"{folder}: no mask files")
    first = open_label(files[0])
    source = Decoded(folder, first.shape, np.uint32, _merge_masks)
    warnings = (f"{left} JPEG files in its folder of masks are not read",) if left else ()
    return Raw(array=lazily(source, first.shape), axes=first.axes, warnings=warnings)


# One file per channel


def read_channel_files(path: Path, channels: list[Raw]) -> Raw:
    """Combines one file per channel into one image.

    Raises:
        UserError: the files differ in shape or axes, or have channels themselves.
    """
    import dask.array as da

    stack: Any = da.stack
    first = channels[0]
    for raw in channels:
        if raw.array.shape != first.array.shape or raw.axes != first.axes:
            raise UserError(
                f"{path}: its channels differ in shape: {first.array.shape}, {raw.array.shape}"
            )
    if set(first.axes) & set("CS"):
        raise UserError(f"{path}: each file must have a single channel (found axes {first.axes})")
    return Raw(
        array=stack([raw.array for raw in channels]),
        axes="C" + first.axes,
        names=_channel_names(path),
        pixel_size=first.pixel_size,
        inverted=any(raw.inverted for raw in channels),
        warnings=tuple(dict.fromkeys(text for raw in channels for text in raw.warnings)),
        size_warnings=first.size_warnings,
    )


def _channel_names(path: Path) -> tuple[str, ...]:
    """The names that the files have in a path such as ``A1_{DAPI,GFP}.tif``; none for numbers."""
    names = listed_names(path)
    # Several lists: a name and what a wildcard stands for.
    return tuple(names[0]) if len(names) == 1 and not "".join(names[0]).isdecimal() else ()
