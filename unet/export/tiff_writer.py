"""Label masks as TIFF files that Fiji opens with their pixel size.

Plain single-channel TIFF in zlib-compressed strips, with the pixel size in the resolution tags and
its unit in an ImageJ-style description. Why this form:

* ImageJ reads strips, zlib, uint8, uint16 and (shown as float) uint32 by itself; tiles it does not.
* tifffile's ``imagej=True`` allows neither compression nor uint32: it writes hyperstacks, whose
  planes must lie uncompressed one after the other. A single plane or a list of planes need not.
* OME-TIFF carries the pixel size too, but then only Bio-Formats shows it, not ImageJ's own reader.
* A lookup table of 256 colours beside plain grey, as ImageJ itself writes it for 16 bits, gives
  each object a colour in Fiji, and a display range keeps few objects from being black; other
  readers see the values.

Above 4 GiB it is BigTIFF, which Fiji opens by Bio-Formats, and that reads the same description.
ImageJ's own reader has no part in it, so such files have tiles: viewers of large images (QuPath,
Bio-Formats, napari) then read what they show, not bands across the whole image.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from colorsys import hsv_to_rgb
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from unet import __version__
from unet.data.tiling import Slices
from unet.files import replacing
from unet.provenance import SOFTWARE

# Strips of about 256 KiB, as tifffile does by itself; read in bands of at most 8 MiB, of volumes
# in as many sections at once as fit into 64 MiB, since a chunk holds some of them.
_STRIP_BYTES = 1 << 18
_BAND_BYTES = 1 << 23
_BAND_ROWS = 512
_SLAB_BYTES = 1 << 26
_TILE = 512
# Offsets are 32 bits in a classic TIFF; zlib may expand a little what does not compress.
_CLASSIC_BYTES = 2**32 - 2**26
_COLOR_MAP = 320
# Colours of a lookup table, and the largest value that a display range may end at so that 1 is not
# shown as 0: ImageJ rounds v * 256 / (range + 1).
_COLOURS, _WIDEST = 256, 510

Read = Callable[[Slices], NDArray[Any]]


def write_mask(
    path: Path,
    read: Read,
    shape: Sequence[int],
    dtype: DTypeLike,
    pixel_size_um: Sequence[float] | None,
    classic_bytes: int = _CLASSIC_BYTES,
    *,
    top: int = 0,
    made_by: Mapping[str, Any] | None = None,
) -> None:
    """Writes a mask, some rows at a time; the file appears whole or not at all.

    Args:
        read: gives a region of the mask [(Z,) Y, X].
        shape: of the mask, (Z,) Y, X; each section is a page.
        dtype: of the file, an integer of 8, 16 or 32 bits that holds all values.
        pixel_size_um: micrometres along the axes of ``shape``, None = unknown.
        classic_bytes: larger masks (uncompressed) are BigTIFF with tiles.
        top: largest value of the mask, for the display range.
        made_by: what made the mask (:func:`unet.provenance.made_by`), for its description.
    """
    import tifffile

    kind = np.dtype(dtype).newbyteorder("<")
    rows = int(np.clip(_STRIP_BYTES // (shape[-1] * kind.itemsize), 1, shape[-2]))
    big = float(np.prod(shape, dtype=float)) * kind.itemsize > classic_bytes
    parts = _tiles(read, shape, kind) if big else _strips(read, shape, kind, rows)
    layout: dict[str, Any] = {"tile": (_TILE, _TILE)} if big else {"rowsperstrip": rows}
    resolution = None
    if pixel_size_um is not None:
        resolution = (1 / pixel_size_um[-1], 1 / pixel_size_um[-2])
    with (
        replacing(path) as temporary,
        tifffile.TiffWriter(temporary, bigtiff=big, byteorder="<") as writer,
    ):
        writer.write(
            (zlib.compress(part.tobytes(), 6) for part in parts),
            shape=tuple(shape),
            dtype=kind,
            photometric="minisblack",
            compression="zlib",
            resolution=resolution,
            resolutionunit="NONE",
            description=description(shape, kind, pixel_size_um, top, made_by),
            metadata=None,
            software=f"{SOFTWARE} {__version__}",
            extratags=[(_COLOR_MAP, 3, 3 * _COLOURS, lookup_table().ravel().tolist(), False)],
            **layout,
        )


def description(
    shape: Sequence[int],
    dtype: np.dtype[Any],
    pixel_size_um: Sequence[float] | None,
    top: int,
    made_by: Mapping[str, Any] | None = None,
) -> str:
    """The ImageJ-style description: unit, display range, for volumes the sections and their
    distance, and what made the mask, as JSON in one line."""
    lines = ["ImageJ=1.54f"]
    if len(shape) == 3:
        lines += [f"images={shape[0]}", f"slices={shape[0]}"]
        if pixel_size_um is not None:
            lines.append(f"spacing={pixel_size_um[0]:.9g}")
    if pixel_size_um is not None:
        lines.append("unit=um")
    if dtype.itemsize > 1:  # 8 bits are shown as they are
        lines += ["min=0", f"max={max(_COLOURS - 1, min(top, _WIDEST))}"]
    if made_by is not None:
        lines.append(f"made_by={json.dumps(made_by, sort_keys=True)}")
    return "\n".join([*lines, ""])


@cache
def lookup_table() -> NDArray[np.uint16]:
    """Colours [RGB, 256] of labels: 0 is black, neighbours in number differ in hue (steps of the
    golden angle) and in lightness."""
    steps = np.arange(_COLOURS)
    hues, values = steps * 0.618034 % 1, np.array([1.0, 0.7, 0.85])[steps % 3]
    colours = [hsv_to_rgb(h, 0.75, v) for h, v in zip(hues, values, strict=True)]
    table = np.round(np.array(colours).T * 65535).astype(np.uint16)
    table[:, 0] = 0
    return table


def smallest_dtype(low: int, high: int) -> np.dtype[Any]:
    """The smallest integer dtype that TIFF readers know and that holds ``low`` to ``high``.

    Raises:
        ValueError: 32 bits do not suffice.
    """
    kinds = ("uint8", "uint16", "uint32") if low >= 0 else ("int8", "int16", "int32")
    for kind in kinds:
        limits = np.iinfo(kind)
        if limits.min <= low and high <= limits.max:
            return np.dtype(kind)
    raise ValueError(f"values from {low} to {high} do not fit into 32 bits")


def _strips(
    read: Read, shape: Sequence[int], dtype: np.dtype[Any], rows: int
) -> Iterator[NDArray[Any]]:
    """The strips of all pages in order; bands of rows, and slabs of the sections of a volume, are
    read as a whole, as their chunks are."""
    height, width = shape[-2:]
    most = min(_BAND_ROWS, max(1, _BAND_BYTES // (width * dtype.itemsize)))
    band = max(1, most // rows) * rows
    for section in _sections(read, shape, dtype):
        for top in range(0, height, band):
            pixels = section((slice(top, min(top + band, height)), slice(0, width)))
            yield from (pixels[r : r + rows] for r in range(0, len(pixels), rows))


def _tiles(read: Read, shape: Sequence[int], dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """The tiles of all pages in order, those at the ends filled up with 0; of each row of tiles as
    many are read at once as a band may hold."""
    height, width = shape[-2:]
    side = max(1, _BAND_BYTES // (_TILE * _TILE * dtype.itemsize)) * _TILE
    for section in _sections(read, shape, dtype):
        for top in range(0, height, _TILE):
            for left in range(0, width, side):
                rows = slice(top, min(top + _TILE, height))
                pixels = section((rows, slice(left, min(left + side, width))))
                missing = [(0, -n % _TILE) for n in pixels.shape]
                if missing != [(0, 0), (0, 0)]:
                    pixels = np.pad(pixels, missing)
                yield from (
                    np.ascontiguousarray(pixels[:, x : x + _TILE])
                    for x in range(0, pixels.shape[1], _TILE)
                )


def _sections(read: Read, shape: Sequence[int], dtype: np.dtype[Any]) -> Iterator[Read]:
    """Reads regions [Y, X] of one page after the other, in ``dtype``.

    Of a volume as many whole sections as fit into memory are read at once, as a chunk holds some of
    them.
    """
    *depths, height, width = shape
    if not depths:
        yield lambda where: np.ascontiguousarray(read(where), dtype)
        return
    (depth,) = depths
    step = _SLAB_BYTES // (height * width * dtype.itemsize)
    for low in range(0, depth, max(1, step)):
        if not step:
            yield partial(_one_section, read, low, dtype)
            continue
        slab = (slice(low, min(low + step, depth)), slice(0, height), slice(0, width))
        for section in np.ascontiguousarray(read(slab), dtype):
            yield section.__getitem__


def _one_section(read: Read, z: int, dtype: np.dtype[Any], where: Slices) -> NDArray[Any]:
    return np.ascontiguousarray(read((slice(z, z + 1), *where))[0], dtype)
