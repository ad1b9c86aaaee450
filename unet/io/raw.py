"""What all readers share: lazy arrays, and checks for headers that claim too many pixels."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.errors import UserError, one_line
from unet.io.axes import DaskArray, Raw

Array = NDArray[Any]

MAX_PIXELS = 1 << 36
# Deflate cannot shrink further (zlib's "maximum compression factor"), so a PNG header that claims
# more than this many times the file's size is false.
DEFLATE_RATIO = 1032
# The same for other compressions, with a generous limit.
OTHER_RATIO = 1 << 17
CHECKED_FROM = 1 << 28  # bytes: smaller false claims do no harm, and small regions may be sparse
RGB_NAMES = ("red", "green", "blue")


def needed(path: Path, module: str, package: str) -> Any:
    """A module of a package of the extra ``formats``.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"{path}: reading this format needs the package {package} ({one_line(error, 100)}); "
            "run pip install 'unet-pipeline[formats]'"
        ) from None


def check_pixels(path: Path, shape: tuple[int, ...]) -> None:
    """Refuses a header that claims more pixels than any memory holds (before any allocation)."""
    if np.prod([float(n) for n in shape]) > MAX_PIXELS or min(shape, default=0) < 1:
        size = " x ".join(map(str, shape))
        raise UserError(f"{path}: the header claims {size} pixels; the file is damaged")


def check_claim(
    path: Path,
    shape: tuple[int, ...],
    itemsize: int,
    ratio: int = OTHER_RATIO,
    stored: int | None = None,
) -> None:
    """Refuses a header that claims more than the file can hold (before any allocation).

    Args:
        ratio: the largest factor by which the format's compression can shrink pixels.
        stored: bytes that hold the pixels; None = the whole file.
    """
    claimed = np.prod([float(n) for n in shape]) * itemsize
    if claimed > max(CHECKED_FROM, ratio * (path.stat().st_size if stored is None else stored)):
        size = " x ".join(map(str, shape))
        raise UserError(f"{path}: the header claims {size} pixels, more than the file can hold")


class Decoded:
    """A picklable array that is decoded as a whole, once, on first use."""

    def __init__(
        self, path: Path, shape: tuple[int, ...], dtype: Any, decode: Callable[[Path], Array]
    ) -> None:
        self.path, self.shape, self.dtype, self.ndim = path, shape, np.dtype(dtype), len(shape)
        self._decode, self._lock = decode, threading.Lock()
        self._pixels: Array | None = None

    def __getitem__(self, region: Any) -> Array:
        with self._lock:
            if self._pixels is None:
                self._pixels = self._checked()
        pixels: Array = self._pixels[region]
        return pixels

    def _checked(self) -> Array:
        try:
            pixels = self._decode(self.path)
        except (UserError, MemoryError):
            raise
        except Exception as error:
            text = one_line(error, 200)
            raise UserError(f"{self.path}: cannot be decoded ({text})") from error
        if pixels.shape != self.shape:
            raise UserError(f"{self.path}: {pixels.shape} pixels, but its header says {self.shape}")
        return pixels

    def __getstate__(self) -> tuple[Any, ...]:
        return (self.path, self.shape, self.dtype, self._decode)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state)  # type: ignore[misc]


def lazily(source: Any, blocks: tuple[int, ...]) -> DaskArray:
    """A dask array over anything that can be sliced."""
    import dask.array as da

    from_array: Any = da.from_array
    # Without meta, dask reads an empty region to find out the type.
    meta = np.empty((0,) * len(blocks), source.dtype)
    return from_array(source, chunks=blocks, name=False, asarray=False, fancy=False, meta=meta)


def black_is_zero(path: Path, raw: Raw) -> Raw:
    """Inverts the values of a file in which zero is white; the type stays the same.

    TIFF 6.0 defines it this way, and Bio-Formats does the same; tifffile returns stored values.

    Raises:
        UserError: the type of the values does not define which of them is black.
    """
    import dask.array as da

    map_blocks: Any = da.map_blocks
    dtype, black = np.dtype(raw.array.dtype), raw.black
    if dtype.kind not in "bu":
        raise UserError(
            f"{path}: white is zero (photometric MinIsWhite) in pixels of type {dtype}; save the "
            "file as MinIsBlack"
        )

    def inverse(block: Array) -> Array:
        return ~block if dtype.kind == "b" else np.asarray(dtype.type(black) - block)

    meta = np.empty((0,) * raw.array.ndim, dtype)
    warning = (
        f"white is zero in this file (photometric MinIsWhite): its values are read as {black} "
        "- value"
    )
    return replace(
        raw,
        array=map_blocks(inverse, raw.array, dtype=dtype, meta=meta),
        inverted=True,
        warnings=(*raw.warnings, warning),
    )
