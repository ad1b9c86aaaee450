"""Images of a microscope's file, which a library reads plane by plane or region by region."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.errors import UserError, one_line

Array = NDArray[Any]

# Most scenes, or times, of a file.
_MOST = 1 << 20
# Opens a file with its library; what it returns has a method ``close``.
Opener = Callable[[Path], Any]
# Reads pixels [y, x] or [y, x, s]: the open file, the place along the axes before Y, rows, columns.
RegionReader = Callable[[Any, tuple[int, ...], slice, slice], Array]


class PlaneSource:
    """An array [..., Y, X] (or [..., Y, X, S]) of a file that can be sliced. The file is opened on
    first use, closed with the object, and opened again after unpickling.

    Args:
        axes: a letter for each of ``shape``; Y and X are next to each other.
        open_file, read: functions of a module, or ``functools.partial`` of such.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        axes: str,
        dtype: Any,
        open_file: Opener,
        read: RegionReader,
    ) -> None:
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype)
        self.ndim, self._axes = len(shape), axes
        self._open_file, self._read = open_file, read
        self._lock = threading.Lock()
        self._file: Any = None

    def __getitem__(self, region: Any) -> Array:
        parts = region if isinstance(region, tuple) else (region,)
        parts = (*parts, *(slice(None),) * (self.ndim - len(parts)))
        try:
            return self._region(parts)
        except (UserError, MemoryError):
            raise
        except Exception as error:
            text = one_line(error, 200)
            raise UserError(f"{self.path}: cannot be decoded ({text})") from error

    def _region(self, parts: Sequence[Any]) -> Array:
        sides = [
            range(size)[part] if isinstance(part, slice) else range(part % size, part % size + 1)
            for part, size in zip(parts, self.shape, strict=True)
        ]
        at = self._axes.index("Y")
        found = np.empty([len(side) for side in sides], self.dtype)
        if not found.size:
            rows = columns = slice(0, 0)
        else:
            rows, columns = _span(sides[at]), _span(sides[at + 1])
        samples = (_steps(sides[at]), _steps(sides[at + 1]), *map(_slice, sides[at + 2 :]))
        # Most libraries are not made for several threads in one file.
        with self._lock:
            for place in product(*(range(len(side)) for side in sides[:at])) if found.size else ():
                where = tuple(side[i] for side, i in zip(sides, place, strict=False))
                pixels = self._read(self._opened(), where, rows, columns)
                found[place] = self._whole(pixels, rows, columns)[samples]
        return found[tuple(slice(None) if isinstance(part, slice) else 0 for part in parts)]

    def _whole(self, pixels: Array, rows: slice, columns: slice) -> Array:
        """The pixels, after a check that the library returned as many as were asked for."""
        at = self._axes.index("Y")
        wanted = (rows.stop - rows.start, columns.stop - columns.start, *self.shape[at + 2 :])
        if pixels.shape != wanted:
            raise UserError(
                f"{self.path}: {pixels.shape} pixels, but its header says {wanted}; it is damaged"
            )
        return pixels

    def _opened(self) -> Any:
        if self._file is None:
            self._file = self._open_file(self.path)
            weakref.finalize(self, self._file.close)
        return self._file

    def __getstate__(self) -> tuple[Any, ...]:
        return (self.path, self.shape, self._axes, self.dtype, self._open_file, self._read)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state)  # type: ignore[misc]


def _span(side: range) -> slice:
    """The region that has all these places."""
    return slice(min(side), max(side) + 1)


def _steps(side: range) -> slice:
    """These places within their region."""
    return slice(None, None, side.step)


def _slice(side: range) -> slice:
    return slice(side.start, side.stop, side.step)


def page_names(count: int, letter: str, digits: int = 1) -> list[str]:
    """The ends of the ids of several scenes (``s0``) or times (``t000``); one empty text if there
    is one.

    Raises:
        ValueError: more than any file has, so its header is false.
    """
    if count > _MOST:
        raise ValueError(f"the header claims {count} images; the file is damaged")
    return [f"{letter}{n:0{digits}d}" for n in range(count)] if count > 1 else [""]


def joined_names(*parts: str) -> str:
    """The end of an id from those of the scene and the time, such as ``s1-t002``."""
    return "-".join(filter(None, parts))


def chosen_page(path: Path, page: int | None, count: int) -> int:
    """The page to read, the first one if none is chosen. Pages of a file with one image are its
    sections, which are chosen later.

    Raises:
        UserError: there is no such page.
    """
    if count == 1:
        return 0
    if page is not None and not 0 <= page < count:
        raise UserError(f"{path}: page {page} requested, but the file has {count}")
    return page or 0
