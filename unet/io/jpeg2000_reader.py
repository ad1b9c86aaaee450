"""Reader for JPEG 2000: files (.jp2) and bare codestreams (.j2k), of 1 to 16 bits."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from unet.errors import UserError
from unet.io.axes import Raw
from unet.io.raw import RGB_NAMES, Decoded, check_claim, check_pixels, lazily

Array = NDArray[Any]

# Markers of a codestream (ISO/IEC 15444-1, table A.2).
_SOC, _SIZ, _COD, _SOT, _EOC = 0xFF4F, 0xFF51, 0xFF52, 0xFF90, 0xFFD9
_BOX_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
# Colour spaces whose samples are intensities: sRGB and grey.
_COLOURS = {16: "sRGB", 17: "grey"}
_OPACITY = (1, 2)
_LARGEST_HEADER = 1 << 20


@dataclass(frozen=True)
class _Stream:
    """Header of a codestream. ``exact``: whether the wavelet is the reversible one."""

    shape: tuple[int, int]
    samples: int
    bits: int
    signed: bool
    exact: bool


def _boxes(handle: BinaryIO, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of the content of each box from here to ``end``.

    Raises:
        ValueError: a box reaches further.
    """
    at = handle.tell()
    while at + 8 <= end:
        handle.seek(at)
        size, kind = struct.unpack(">I4s", handle.read(8))
        start = at + 8
        if size == 1:
            (size,) = struct.unpack(">Q", handle.read(8))
            start += 8
        stop = end if size == 0 else at + size
        if not start <= stop <= end:
            raise ValueError("cut short")
        yield kind, start, stop
        at = stop


def _read_stream(handle: BinaryIO, end: int) -> _Stream:
    """The header of the codestream that begins here; checks that all its parts are there."""
    if handle.read(2) != struct.pack(">H", _SOC):
        raise ValueError("no codestream")
    size, exact = None, None
    while True:
        marker, length = struct.unpack(">HH", handle.read(4))
        if marker == _SOT:
            break
        if length < 2:
            raise ValueError("damaged")
        content = handle.read(length - 2)
        if marker == _SIZ:
            size = content
        elif marker == _COD:
            exact = content[9] == 1
    if size is None or exact is None:
        raise ValueError("no image size")
    _check_parts(handle, handle.tell() - 4, end)
    right, below, left, top, *_ = struct.unpack(">8I", size[2:34])
    (samples,) = struct.unpack(">H", size[34:36])
    kinds = {tuple(size[36 + 3 * i : 39 + 3 * i]) for i in range(samples)}
    if len(kinds) != 1 or next(iter(kinds))[1:] != (1, 1):
        raise ValueError("channels of different sizes or types; save the file as RGB or grey")
    depth = next(iter(kinds))[0]
    return _Stream((below - top, right - left), samples, (depth & 127) + 1, depth > 127, exact)


def _check_parts(handle: BinaryIO, at: int, end: int) -> None:
    """Follows the parts of the tiles to the end: the decoder fills missing ones with zeros."""
    while True:
        handle.seek(at)
        head = handle.read(12)
        marker = struct.unpack(">H", head[:2])[0] if len(head) > 1 else None
        if marker == _EOC:
            return
        if marker != _SOT or len(head) < 12:
            raise ValueError("cut short")
        (length,) = struct.unpack(">I", head[6:10])
        if length == 0:  # up to the end marker
            handle.seek(end - 2)
            if handle.read(2) != struct.pack(">H", _EOC):
                raise ValueError("cut short")
            return
        if length < 12:
            raise ValueError("damaged")
        at += length


def _header(path: Path) -> tuple[_Stream, int | None, tuple[int, ...]]:
    """The codestream's header, the colour space (None if not declared), and the channels that hold
    opacity."""
    total = path.stat().st_size
    colour, alpha, palette, stream = None, list[int](), False, None
    with path.open("rb") as handle:
        if handle.read(12) != _BOX_SIGNATURE:
            handle.seek(0)
            return _read_stream(handle, total), None, ()
        for kind, start, stop in _boxes(handle, total):
            handle.seek(start)
            if kind == b"jp2h" and stop - start < _LARGEST_HEADER:
                for inner, first, last in _boxes(handle, stop):
                    handle.seek(first)
                    content = handle.read(last - first)
                    palette = palette or inner == b"pclr"
                    if inner == b"colr" and content[:1] == b"\1":
                        (colour,) = struct.unpack(">I", content[3:7])
                    if inner == b"cdef":
                        entries = struct.iter_unpack(">3H", content[2:])
                        alpha = [channel for channel, kind, _ in entries if kind in _OPACITY]
            elif kind == b"jp2c" and stream is None:
                stream = _read_stream(handle, stop)
    if palette:
        raise ValueError("a palette; save the file as RGB or grey")
    if stream is None:
        raise ValueError("no codestream")
    return stream, colour, tuple(alpha)


def _decode_jpeg2000(path: Path) -> Array:
    """Samples [Y, X] or [Y, X, S]."""
    import imagecodecs

    return np.asarray(imagecodecs.jpeg2k_decode(path.read_bytes()))


def read_jpeg2000(path: Path, *, label: bool = False) -> Raw:
    """Opens a JPEG 2000 file; a label must be stored with the reversible wavelet.

    Raises:
        UserError: damaged or cut short, colours that are not intensities, a label whose values are
            not exact.
    """
    try:
        stream, colour, opacity = _header(path)
    except (ValueError, struct.error, IndexError) as error:
        told = "damaged or cut short" if isinstance(error, struct.error) else error
        raise UserError(f"{path}: not a JPEG 2000 image that can be read ({told})") from None
    if colour is not None and colour not in _COLOURS:
        raise UserError(f"{path}: colours of kind {colour}; save the file as RGB or grey")
    if label and not stream.exact:
        raise UserError(
            f"{path}: a label as lossy JPEG 2000, which changes values when it is saved; save it "
            "as PNG or TIFF"
        )
    if stream.bits > 16:
        raise UserError(f"{path}: {stream.bits} bits per pixel; save the file with 16 or as TIFF")
    shape = (*stream.shape, stream.samples) if stream.samples > 1 else stream.shape
    check_pixels(path, shape)
    dtype = np.dtype(f"{'i' if stream.signed else 'u'}{1 if stream.bits <= 8 else 2}")
    check_claim(path, shape, dtype.itemsize)
    alpha = opacity[0] if len(opacity) == 1 and opacity[0] < stream.samples else None
    names = ("",) * stream.samples
    if stream.samples >= 3 and colour == 16:
        names = (*RGB_NAMES, *names[3:])
    if alpha is not None:
        names = (*names[:alpha], "alpha", *names[alpha + 1 :])
    source = Decoded(path, shape, dtype, _decode_jpeg2000)
    return Raw(lazily(source, shape), "YXS"[: len(shape)], names=names, alpha=alpha)
