"""Label masks as TIFF files that Fiji opens with their pixel size.

Files are plain single-channel TIFF in zlib-compressed strips, with the pixel size in the resolution
tags and its unit in an ImageJ-style description. The reasons:

* ImageJ's own reader supports strips, zlib, uint8, uint16 and (shown as float) uint32, but not
  tiles.
* tifffile's ``imagej=True`` allows neither compression nor uint32, because it writes hyperstacks,
  whose planes must be uncompressed and contiguous. A single plane or a list of planes need not be.
* OME-TIFF has the pixel size, too, but only Bio-Formats shows it, not ImageJ's own reader.
* A lookup table of 256 colours next to plain grey, as ImageJ writes it for 16 bits, gives each
  object a colour in Fiji, and the display range keeps low labels from being shown as black. Other
  readers see the values.

Files above 4 GiB are BigTIFF. Fiji opens them with Bio-Formats, which reads the same description.
ImageJ's own reader is not involved, so these files have tiles: viewers of large images (QuPath,
Bio-Formats, napari) then read only the visible part, not bands across the whole image.
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
from unet.data.blocks import ordered
from unet.data.tiling import Slices
from unet.files import replacing
from unet.provenance import SOFTWARE

# Strips of about 256 KiB, tifffile's default. Masks are read in bands of at most 8 MiB; volumes in
# as many sections as fit into 64 MiB, since a chunk contains several sections.
_STRIP_BYTES = 1 << 18
_BAND_BYTES = 1 << 23
_BAND_ROWS = 512
_SLAB_BYTES = 1 << 26
_TILE = 512
# A classic TIFF has 32-bit offsets; zlib may slightly expand data that does not compress.
_CLASSIC_BYTES = 2**32 - 2**26
_COLOR_MAP = 320
# Number of colours, and the largest end of a display range at which 1 is not shown as 0: ImageJ
# rounds v * 256 / (range + 1).
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
    threads: int = 1,
) -> None:
    """Writes a mask, some rows at a time; the file appears whole or not at all.

    Args:
        read: returns a region of the mask [(Z,) Y, X].
        shape: of the mask, (Z,) Y, X; each section is a page.
        dtype: of the file, an integer of 8, 16 or 32 bits that fits all values.
        pixel_size_um: micrometres along the axes of ``shape``, None = unknown.
        classic_bytes: larger masks (uncompressed) are BigTIFF with tiles.
        top: largest value of the mask, for the display range.
        made_by: provenance of the mask (:func:`unet.provenance.made_by`), for its description.
        threads: for compressing.
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
            ordered(lambda part: zlib.compress(part.tobytes(), 6), parts, threads),
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
    """The ImageJ-style description: unit, display range, for volumes the number of sections and
    their distance, and the provenance as JSON in one line."""
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
    """Colours [RGB, 256] of labels: 0 is black, and successive labels differ in hue (by the golden
    angle) and in lightness."""
    steps = np.arange(_COLOURS)
    hues, values = steps * 0.618034 % 1, np.array([1.0, 0.7, 0.85])[steps % 3]
    colours = [hsv_to_rgb(h, 0.75, v) for h, v in zip(hues, values, strict=True)]
    table = np.round(np.array(colours).T * 65535).astype(np.uint16)
    table[:, 0] = 0
    return table


def smallest_dtype(low: int, high: int) -> np.dtype[Any]:
    """The smallest integer dtype that TIFF readers support and that fits ``low`` to ``high``.

    Raises:
        ValueError: 32 bits are not enough.
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
    """The strips of all pages, in order. Bands of rows and slabs of a volume's sections are read at
    once, to decode each chunk only once."""
    height, width = shape[-2:]
    most = min(_BAND_ROWS, max(1, _BAND_BYTES // (width * dtype.itemsize)))
    band = max(1, most // rows) * rows
    for section in _sections(read, shape, dtype):
        for top in range(0, height, band):
            pixels = section((slice(top, min(top + band, height)), slice(0, width)))
            yield from (pixels[r : r + rows] for r in range(0, len(pixels), rows))


def _tiles(read: Read, shape: Sequence[int], dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """The tiles of all pages, in order, padded with 0 at the ends. Each read covers as many tiles
    of a row as fit into a band."""
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
    """For each page in order, a function that reads its regions [Y, X] as ``dtype``.

    For a volume, as many whole sections as fit into ``_SLAB_BYTES`` are read at once, since a chunk
    contains several sections.
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
