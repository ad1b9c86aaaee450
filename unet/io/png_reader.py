"""Reader for PNG of every kind: grey of 1 to 16 bits, colours, palettes, opacity."""

from __future__ import annotations

import io
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.errors import UserError
from unet.io.axes import Raw
from unet.io.raw import DEFLATE_RATIO, RGB_NAMES, Decoded, check_pixels, lazily

Array = NDArray[Any]

# PNG colour types (ISO/IEC 15948, 11.2.1): samples per pixel.
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PILLOW = threading.Lock()
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


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
    """Stored samples [Y, X] or [Y, X, S]; grey values of 1, 2 and 4 bits are not scaled up."""
    import imagecodecs

    _, bits, colour = _png_header(path)
    pixels = np.asarray(imagecodecs.png_decode(path.read_bytes()))
    if colour == 0 and bits < 8:
        pixels = pixels // np.uint8(255 // (2**bits - 1))
    return pixels


def _palette_image(path: Path) -> Any:
    """Opens a palette file with Pillow, without Pillow's limit on pixels: the header was already
    compared with the file's size, and a slide of 20,000 x 20,000 pixels is not unusual."""
    from PIL import Image

    with _PILLOW:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            # From memory: with a file, Pillow allocates as many bytes as a chunk claims to have.
            return Image.open(io.BytesIO(path.read_bytes()))
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _decode_png_palette(path: Path) -> Array:
    """Palette indices [Y, X]."""
    with _palette_image(path) as image:
        return np.array(image)


def _decode_png_colours(path: Path) -> Array:
    """Palette colours [Y, X, S], with opacity as the last sample if the file has it."""
    with _palette_image(path) as image:
        return np.array(image.convert("RGBA" if "transparency" in image.info else "RGB"))


def read_png(path: Path, *, label: bool = False) -> Raw:
    """Opens a PNG of any kind; a palette gives colours for an image, indices for a label."""
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
