"""What a file's axes mean, and the fixed order in which the rest of the program sees them.

Letters of a file's axes, in file order: Y, X, Z (depth), C (channel), S (colour samples of a
pixel), T (time), P (separate images), ? (not declared). Nothing is guessed from sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unet.errors import UserError

# Dask's arrays are not fully typed; importing it here would slow down the listing of files.
DaskArray = Any

KNOWN = "YXZCSTP"
# Axes that can hold the pages of a stack, if the user says that the file is a stack.
PAGE_AXES = "P?TZ"
# Dask chunks grow to about this many pixels, a balance between the number of tasks and memory.
BLOCK_PIXELS = 1 << 22


@dataclass(frozen=True)
class Raw:
    """What a reader returns.

    Attributes:
        array: lazy, in file order.
        axes: one letter for each axis of ``array`` (see the module).
        pixel_size: micrometres along those of Z, Y, X whose size is declared.
        names: channel names, along C or S; empty if not declared.
        alpha: index of the opacity sample along S.
        separate: number of images in the file if their shapes differ (the reader has then already
            picked the requested one).
        page_names: names of these images, if the file has any.
        black: the stored value that means black, if an image file says that zero is white.
        inverted: whether the stored values are inverted because of that.
        warnings: what looks wrong in the file, one line each without the file's name.
        size_warnings: the same for ``pixel_size``, which the config can override.
        together: whether times in this file are known to show one place, so that they belong in
            one part of a split: those along T and, if ``page_names`` has any, all its images.
    """

    array: DaskArray
    axes: str
    pixel_size: Mapping[str, float] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    alpha: int | None = None
    separate: int = 1
    black: int | None = None
    inverted: bool = False
    warnings: tuple[str, ...] = ()
    size_warnings: tuple[str, ...] = ()
    page_names: tuple[str, ...] = ()
    together: bool = False


@dataclass(frozen=True)
class Pages:
    """The separate images in a file.

    Attributes:
        names: each ends the id of its image.
        together: whether they are times of one place, so that they belong in one part of a split.
    """

    names: tuple[str, ...]
    together: bool = False


@dataclass(frozen=True)
class LazyImage:
    """One image or label, not yet read.

    Attributes:
        axes: "CYX" or "CZYX" for an image, "YX" or "ZYX" for a label.
        shape: in that order.
        dtype: type of the pixels (bilevel files give uint8 0 and 1), in native byte order.
        pixel_size_um: micrometres along the spatial axes, None if one of them is not declared.
        channel_names: "" for an unnamed channel; empty for a label.
        array: dask array in that order; computing it raises UserError for pixels that cannot be
            decoded.
        pages: number of separate images in the file.
        inverted, warnings, size_warnings: as in :class:`Raw`.
    """

    axes: str
    shape: tuple[int, ...]
    dtype: Any
    pixel_size_um: tuple[float, ...] | None
    channel_names: tuple[str, ...]
    array: DaskArray
    pages: int = 1
    inverted: bool = False
    warnings: tuple[str, ...] = ()
    size_warnings: tuple[str, ...] = ()


def block_shape(stored: Sequence[int], shape: Sequence[int], axes: str) -> tuple[int, ...]:
    """A chunk for dask: the file's own chunk, which one read decodes, enlarged along Y and X only.

    Args:
        stored: shape of the file's chunk, such as a tile or a strip.
        shape, axes: of the whole array.
    """
    block = [max(1, min(chunk, size)) for chunk, size in zip(stored, shape, strict=True)]
    plane = [axis for axis, letter in enumerate(axes) if letter in "YX"]
    while True:
        pixels = 1
        for size in block:
            pixels *= max(size, 1)
        short = [axis for axis in plane if block[axis] < shape[axis]]
        if not short or pixels * 2 > BLOCK_PIXELS:
            return tuple(block)
        axis = min(short, key=lambda a: block[a])
        block[axis] = min(block[axis] * 2, shape[axis])


def letters_of(path: Path, raw: Raw, axes: str | None, *, label: bool = False) -> str:
    """The meaning of each axis in file order; the user's ``axes`` override those of the file.

    Raises:
        UserError: ``axes`` does not fit the file.
    """
    if axes is None:
        return raw.axes
    ndim = raw.array.ndim
    given = axes.upper().replace("S", "P")
    for letters in (given, given.replace("C", "")) if label else (given,):
        if len(letters) == ndim:
            if "S" in raw.axes and letters[raw.axes.index("S")] in "YX":
                break
            return letters
        if len(letters) == ndim - 1 and "S" in raw.axes:
            at = raw.axes.index("S")
            return letters[:at] + "S" + letters[at:]
    else:
        if raw.axes == "YX":
            return raw.axes  # a single plane: the other axes have length 1
    raise UserError(
        f"{path}: axes {axes} do not fit the file's {_described(raw.axes, raw.array.shape)}; "
        "write one letter per axis, in the order of the file"
    )


def _described(letters: str, shape: Sequence[int]) -> str:
    size = " x ".join(map(str, shape))
    return f"axes {letters.replace('S', 'C').replace('P', 'S')} of {size}"


def page_axis(letters: str, shape: Sequence[int]) -> int | None:
    """The axis along which the pages of a stack lie; None if the file is one image, or if nothing
    is declared of its axes."""
    if not {"Y", "X"} <= set(letters):
        return None
    for letter in PAGE_AXES:
        for axis, found in enumerate(letters):
            if found == letter and shape[axis] > 1:
                return axis
    return None


def pages_of(path: Path, raw: Raw, axes: str | None, *, label: bool = False) -> Pages:
    """The separate images in a file that is a stack, according to the user."""
    if raw.page_names:
        return Pages(raw.page_names, raw.together)
    count, times = raw.separate, False
    if count == 1:
        letters = letters_of(path, raw, axes, label=label)
        axis = page_axis(letters, raw.array.shape)
        if axis is not None:
            count, times = int(raw.array.shape[axis]), letters[axis] == "T"
    return Pages(tuple(f"p{number:03d}" for number in range(count)), raw.together and times)


def arrange(
    path: Path, raw: Raw, axes: str | None, page: int | None, *, label: bool
) -> tuple[DaskArray, str, int]:
    """The requested image with its axes in the order C Z Y X, without C or Z if the file has none.

    Returns:
        array, axes, number of images in the file.

    Raises:
        UserError: an axis without a declared meaning, no such page, no Y or X axis.
    """
    letters, array, pages = letters_of(path, raw, axes, label=label), raw.array, raw.separate
    if page is not None and pages == 1:
        pages = len(pages_of(path, raw, axes, label=label).names)
        if not 0 <= page < pages:
            raise UserError(f"{path}: page {page} requested, but the file has {pages}")
        # A reader that names the pages has picked this one; its sections stay together.
        axis = None if raw.page_names else page_axis(letters, array.shape)
        if axis is not None:
            array = array[(slice(None),) * axis + (page,)]
            letters = letters[:axis] + letters[axis + 1 :]
    for axis in reversed(range(array.ndim)):
        if letters[axis] not in "YXCS" and array.shape[axis] == 1:
            array = array[(slice(None),) * axis + (0,)]
            letters = letters[:axis] + letters[axis + 1 :]
    if page is None and len(raw.page_names) > 1:
        shown = ", ".join(raw.page_names[:3]) + (", ..." if len(raw.page_names) > 3 else "")
        raise UserError(
            f"{path}: {len(raw.page_names)} images ({shown}); write layout: stack (each is an "
            "image of its own)"
        )
    _check_letters(path, letters, array.shape, separate=raw.separate if page is None else 1)
    letters = letters.replace("S", "C")
    order = [letters.index(letter) for letter in "CZYX" if letter in letters]
    return array.transpose(order), "".join(letters[i] for i in order), pages


def _check_letters(path: Path, letters: str, shape: Sequence[int], separate: int) -> None:
    if separate > 1:
        raise UserError(
            f"{path}: {separate} images of different sizes; write layout: stack (pages are "
            "separate images)"
        )
    if "?" in letters and not {"Y", "X"} & set(letters):
        size = " x ".join(map(str, shape))
        raise UserError(
            f"{path}: {size} values without declared axes; write axes, a letter "
            "for each, such as ZYX, CYX, YXC (or SYX with layout: stack)"
        )
    unknown = [axis for axis, letter in enumerate(letters) if letter in "?TP"]
    if unknown:
        rest = " x ".join(str(n) for axis, n in enumerate(shape) if axis not in unknown)
        if len(unknown) > 1:
            found = _described(letters, shape)
        else:
            kind = {"T": "time points", "P": "separate images"}.get(letters[unknown[0]], "pages")
            found = f"{shape[unknown[0]]} {kind} of {rest}"
        undeclared = " without declared axes" if "?" in letters else ""
        raise UserError(
            f"{path}: {found}{undeclared}; write layout: stack (pages are separate images) or "
            "axes: CYX / ZYX"
        )
    if "Y" not in letters or "X" not in letters:
        raise UserError(f"{path}: {_described(letters, shape)}; Y and X are both needed")
    if "C" in letters and "S" in letters:
        raise UserError(
            f"{path}: {_described(letters, shape)} has both channels and colours; save the "
            "channels as grey values"
        )
    if len(set(letters)) != len(letters):
        raise UserError(
            f"{path}: {_described(letters, shape)} has an axis twice; write the key axes"
        )
