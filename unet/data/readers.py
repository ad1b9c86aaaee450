"""Readers of PNG, of one mask file per object, and of channels in files."""

from __future__ import annotations

import io
import struct
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.data.axes import DaskArray, Raw
from unet.errors import UserError

Array = NDArray[Any]

MAX_PIXELS = 1 << 36
# Deflate cannot shrink further (zlib's "maximum compression factor"), so a PNG header that claims
# more than this many times the file's size is false.
DEFLATE_RATIO = 1032
# The same for compressions that are not known so well; generous.
OTHER_RATIO = 1 << 17
CHECKED_FROM = 1 << 28  # bytes: below this a false claim does no harm, and a region may be sparse
RGB_NAMES = ("red", "green", "blue")

# PNG colour types (ISO/IEC 15948, 11.2.1): samples per pixel.
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PILLOW = threading.Lock()
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def check_pixels(path: Path, shape: tuple[int, ...]) -> None:
    """Refuses a header's claim that no memory could ever serve (before anything is allocated)."""
    if np.prod([float(n) for n in shape]) > MAX_PIXELS or min(shape, default=0) < 1:
        size = " x ".join(map(str, shape))
        raise UserError(f"{path}: the header claims {size} pixels; the file is damaged")


class Decoded:
    """An array that is decoded as a whole, once, when first needed; picklable."""

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
            text = " ".join(str(error).split())[:200] or type(error).__name__
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
    # Without meta dask reads an empty region to see what comes.
    meta = np.empty((0,) * len(blocks), source.dtype)
    return from_array(source, chunks=blocks, name=False, asarray=False, fancy=False, meta=meta)


def inverted(path: Path, raw: Raw) -> Raw:
    """What a file holds in which zero is white, black for white, in the same type.

    TIFF 6.0 defines it so, and Bio-Formats reads it so; tifffile gives what is stored.

    Raises:
        UserError: the values are of a type for which nothing says which of them is black.
    """
    import dask.array as da

    map_blocks: Any = da.map_blocks
    dtype, black = np.dtype(raw.array.dtype), raw.black
    if dtype.kind not in "bu":
        raise UserError(
            f"{path}: white is zero (photometric MinIsWhite) in pixels of type {dtype}; save the "
            "file as MinIsBlack"
        )

    def turned(block: Array) -> Array:
        return ~block if dtype.kind == "b" else np.asarray(dtype.type(black) - block)

    meta = np.empty((0,) * raw.array.ndim, dtype)
    said = (
        f"white is zero in this file (photometric MinIsWhite): its values are read as {black} "
        "- value"
    )
    return replace(
        raw,
        array=map_blocks(turned, raw.array, dtype=dtype, meta=meta),
        inverted=True,
        warnings=(*raw.warnings, said),
    )


# PNG


def _png_header(path: Path) -> tuple[tuple[int, int], int, int]:
    """(Y, X), bits per sample, colour type."""
    with path.open("rb") as handle:
        head = handle.read(26)
    if len(head) < 26 or not head.startswith(_PNG_SIGNATURE) or head[12:16] != b"IHDR":
        raise UserError(f"{path}: not a PNG file, or cut short")
    width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
    if colour not in _PNG_SAMPLES or bits not in (1, 2, 4, 8, 16):
        raise UserError(f"{path}: the PNG header is damaged (colour type {colour}, {bits} bits)")
    check_pixels(path, (height, width))
    if height * width * _PNG_SAMPLES[colour] * bits / 8 > DEFLATE_RATIO * path.stat().st_size:
        raise UserError(
            f"{path}: the header claims {height} x {width} pixels, more than the file can hold"
        )
    return (height, width), bits, colour


def _decode_png(path: Path) -> Array:
    """Stored samples: [Y, X] or [Y, X, S]; 1, 2 and 4 bit grey as their values 0.. ."""
    import imagecodecs

    _, bits, colour = _png_header(path)
    pixels = np.asarray(imagecodecs.png_decode(path.read_bytes()))
    if colour == 0 and bits < 8:
        pixels = pixels // np.uint8(255 // (2**bits - 1))
    return pixels


def _palette_image(path: Path) -> Any:
    """A palette file, opened by Pillow without its limit of pixels: the header's claim has been
    held against the file's size, and a slide of 20,000 x 20,000 is none too many."""
    from PIL import Image

    with _PILLOW:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            # From memory: of a file it would make room for as much as a chunk says that it holds.
            return Image.open(io.BytesIO(path.read_bytes()))
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _decode_png_palette(path: Path) -> Array:
    """Palette indices [Y, X]."""
    with _palette_image(path) as image:
        return np.array(image)


def _decode_png_colours(path: Path) -> Array:
    """Palette colours [Y, X, S], with opacity as the last sample where the file has it."""
    with _palette_image(path) as image:
        return np.array(image.convert("RGBA" if "transparency" in image.info else "RGB"))


def read_png(path: Path, *, label: bool = False) -> Raw:
    """PNG of any kind; a palette gives colours for an image, indices for a label."""
    shape, bits, colour = _png_header(path)
    samples, decode = _PNG_SAMPLES[colour], _decode_png
    if colour == 3 and label:
        decode = _decode_png_palette
    elif colour == 3:
        decode = _decode_png_colours
        with _palette_image(path) as image:
            samples = 4 if "transparency" in image.info else 3
    whole = (*shape, samples) if samples > 1 else shape
    source = Decoded(path, whole, np.uint16 if bits == 16 else np.uint8, decode)
    names = RGB_NAMES if samples >= 3 else ("",)
    return Raw(
        array=lazily(source, whole),
        axes="YXS"[: len(whole)],
        names=(*names, "alpha") if samples in (2, 4) else names,
        alpha=samples - 1 if samples in (2, 4) else None,
    )


# One mask file per object


def mask_files(folder: Path) -> list[Path]:
    """The mask files of a folder in the order of their names. What is no file is among them, so
    that whoever reads it is told: an object must not be missing without a word."""
    from unet.data.formats import SUFFIXES

    return sorted(
        p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
    )


def _merge_masks(folder: Path) -> Array:
    """Ids 1.. [Y, X] uint32 in the order of the names; the first file wins where they overlap."""
    from unet.data.formats import open_label

    merged: Array | None = None
    for number, path in enumerate(mask_files(folder), start=1):
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
    """A label that lies in one file per object (as in the 2018 Data Science Bowl)."""
    from unet.data.formats import open_label

    files = mask_files(folder)
    if not files:
        raise UserError(f"{folder}: no mask files")
    first = open_label(files[0])
    source = Decoded(folder, first.shape, np.uint32, _merge_masks)
    return Raw(array=lazily(source, first.shape), axes=first.axes)


# Channels in files of their own


def read_channel_files(path: Path, channels: list[Raw]) -> Raw:
    """One image from one file per channel.

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
        raise UserError(f"{path}: each channel's file must hold one channel ({first.axes} found)")
    return Raw(
        array=stack([raw.array for raw in channels]),
        axes="C" + first.axes,
        pixel_size=first.pixel_size,
        inverted=any(raw.inverted for raw in channels),
        warnings=tuple(dict.fromkeys(text for raw in channels for text in raw.warnings)),
        size_warnings=first.size_warnings,
    )
