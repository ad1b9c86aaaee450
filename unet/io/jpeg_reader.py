"""Reader for JPEG: grey and colour, 8 bits. A label is refused, since its values are not exact."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.errors import UserError
from unet.io.axes import Raw
from unet.io.raw import RGB_NAMES, Decoded, check_claim, check_pixels, lazily

Array = NDArray[Any]

# Samples per pixel of Pillow's modes.
_SAMPLES = {"L": 1, "RGB": 3}
# A block of 64 samples takes a few bits at least.
_JPEG_RATIO = 2048
_ORIENTATION = 0x112  # Exif: how a viewer must turn the picture
_LIMIT = threading.Lock()


def _opened(path: Path) -> Any:
    """The file in Pillow, without Pillow's limit on pixels: the header is compared with the size of
    the file instead."""
    from PIL import Image

    with _LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(path.read_bytes()), formats=("JPEG", "MPO"))
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _decode_jpeg(path: Path) -> Array:
    """Samples [Y, X] or [Y, X, S]. Pillow, because it refuses a file that is cut short."""
    with _opened(path) as image:
        return np.array(image)


def read_jpeg(path: Path, *, label: bool = False) -> Raw:
    """Opens a JPEG; pixels are returned as stored, also if the camera says that it was turned.

    Raises:
        UserError: it is a label, has colours that are not intensities, or a false header.
    """
    if label:
        raise UserError(
            f"{path}: a label as JPEG, which changes values when it is saved; save it as PNG or "
            "TIFF"
        )
    with _opened(path) as image:
        (width, height), mode = image.size, image.mode
        turned = image.getexif().get(_ORIENTATION, 1) not in (0, 1)
    if mode not in _SAMPLES:
        raise UserError(f"{path}: {mode} colours; save the file as RGB or grey")
    shape = (height, width, 3) if _SAMPLES[mode] == 3 else (height, width)
    check_pixels(path, shape)
    check_claim(path, shape, 1, _JPEG_RATIO)
    warnings = (
        "the camera says that this picture must be turned to be shown (Exif orientation); its "
        "pixels are read as stored",
    )
    return Raw(
        array=lazily(Decoded(path, shape, np.uint8, _decode_jpeg), shape),
        axes="YXS"[: len(shape)],
        names=RGB_NAMES if len(shape) == 3 else ("",),
        warnings=warnings if turned else (),
    )
