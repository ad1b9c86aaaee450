"""OME-Zarr 0.5 images with labels (https://ngff.openmicroscopy.org/0.5/), written in parts.

Arrays are Zarr v3 with shards, so that a large image is some files and not thousands; every write
covers whole shards. Nothing here holds a whole image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray
from zarr.codecs import BloscCodec

from unet.data.tiling import Slices

ZarrArray: TypeAlias = "zarr.Array[Any]"

VERSION = "0.5"
SMALLEST_LEVEL = 64
# Pixels a side by number of spatial axes.
_CHUNK = {2: 512, 3: 64}
_SHARD = {2: 2048, 3: 256}
# A shard is held in memory as float32 while it is written.
_SHARD_BYTES = 1 << 28
# Labels shrink to almost nothing; probabilities hardly do, so for them speed counts.
_LABEL_CODEC = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")
_IMAGE_CODEC = BloscCodec(cname="lz4", clevel=1, shuffle="shuffle")
# Colours that people with any colour vision tell apart (Okabe & Ito 2008).
_COLOURS = ("E69F00", "56B4E9", "009E73", "F0E442", "0072B2", "D55E00", "CC79A7")


@dataclass(frozen=True)
class Pyramid:
    """The shapes of an image's levels and their scales.

    Attributes:
        shapes: spatial shape ((Z,) Y, X) per level, from fine to coarse; Y and X halve.
        pixel_size_um: micrometres along the spatial axes, None = unknown.
    """

    shapes: tuple[tuple[int, ...], ...]
    pixel_size_um: tuple[float, ...] | None

    @property
    def axes(self) -> str:
        """Spatial axes, "yx" or "zyx"."""
        return "zyx"[-len(self.shapes[0]) :]

    def multiscales(self, name: str, *, channels: bool, averaged: bool) -> list[dict[str, Any]]:
        """The ``multiscales`` metadata.

        Args:
            channels: the arrays have a channel axis in front.
            averaged: levels are means of pixels, whose centre lies between those of level 0 (which
                a translation says); else they are every second pixel, in its place.
        """
        unit = {"unit": "micrometer"} if self.pixel_size_um else {}
        axes = [{"name": a, "type": "space", **unit} for a in self.axes]
        lead = [1.0] if channels else []
        datasets = []
        for level in range(len(self.shapes)):
            size = self.pixel_size_um or (1.0,) * len(self.axes)
            factors = [1.0] * (len(self.axes) - 2) + [2.0**level] * 2
            scale = [f * s for f, s in zip(factors, size, strict=True)]
            moves: list[dict[str, Any]] = [{"type": "scale", "scale": lead + scale}]
            if averaged and level:
                shift = [(f - 1) / 2 * s for f, s in zip(factors, size, strict=True)]
                moves.append({"type": "translation", "translation": [0.0] * len(lead) + shift})
            datasets.append({"path": str(level), "coordinateTransformations": moves})
        kind = "mean" if averaged else "nearest"
        if channels:
            axes = [{"name": "c", "type": "channel"}, *axes]
        return [{"name": name, "axes": axes, "datasets": datasets, "type": kind}]


def pyramid_of(shape: Sequence[int], levels: int, pixel_size_um: Sequence[float] | None) -> Pyramid:
    """Plans at most ``levels`` levels of an image [(Z,) Y, X], none of them (but the first)
    smaller than 64 pixels along Y or X."""
    shapes = [tuple(shape)]
    while len(shapes) < levels:
        *lead, y, x = shapes[-1]
        y, x = -(-y // 2), -(-x // 2)
        if min(y, x) < SMALLEST_LEVEL:
            break
        shapes.append((*lead, y, x))
    return Pyramid(tuple(shapes), tuple(pixel_size_um) if pixel_size_um else None)


def create_image(
    path: Path,
    pyramid: Pyramid,
    dtype: DTypeLike,
    channels: Sequence[str],
    attributes: dict[str, Any],
) -> list[ZarrArray]:
    """Creates a new image group whose channels are probabilities (shown from 0 to 1).

    Args:
        path: of the group, which must not exist.
        channels: names.
        attributes: further attributes of the group, beside ``ome``.

    Returns:
        The levels' arrays [C, (Z,) Y, X], empty.
    """
    ome: dict[str, Any] = {
        "version": VERSION,
        "multiscales": pyramid.multiscales("probabilities", channels=True, averaged=True),
        "omero": {"channels": [_channel(i, name) for i, name in enumerate(channels)]},
    }
    group = zarr.create_group(str(path), attributes={"ome": ome, **attributes})
    return _levels(group, pyramid, dtype, len(channels), lead=(len(channels),))


def create_labels(
    path: Path,
    pyramid: Pyramid,
    dtypes: dict[str, DTypeLike],
    class_names: Sequence[str],
    channels: int,
) -> dict[str, list[ZarrArray]]:
    """Creates the label images of an image group.

    Args:
        path: of the image's group.
        dtypes: name -> dtype; the label named "classes" gets the classes' names and colours. The
            others get no colours, so that viewers choose one for each object.
        channels: of the image, whose shards the labels share.

    Returns:
        Name -> the levels' arrays [(Z,) Y, X], empty.
    """
    listing = {"ome": {"version": VERSION, "labels": list(dtypes)}}
    parent = zarr.create_group(str(path / "labels"), attributes=listing)
    found = {}
    for name, dtype in dtypes.items():
        about: dict[str, Any] = {"version": VERSION, "source": {"image": "../../"}}
        if name == "classes":
            about["colors"] = [
                {"label-value": i, "rgba": _rgba(i)} for i in range(len(class_names))
            ]
            about["properties"] = [
                {"label-value": i, "class": text} for i, text in enumerate(class_names)
            ]
        metadata: dict[str, Any] = {
            "version": VERSION,
            "multiscales": pyramid.multiscales(name, channels=False, averaged=False),
            "image-label": about,
        }
        group = parent.create_group(name, attributes={"ome": metadata})
        found[name] = _levels(group, pyramid, dtype, channels, lead=())
    return found


def shard_regions(array: ZarrArray, dims: int) -> list[Slices]:
    """The shards' parts of the last ``dims`` (spatial) axes, in raster order: what threads may
    write at once."""
    unit = (array.shards or array.chunks)[-dims:]
    return list(_parts(array.shape[-dims:], unit))


def reduce_region(source: ZarrArray, target: ZarrArray, region: Slices, *, averaged: bool) -> None:
    """Writes one region of the next coarser level: half as large along Y and X.

    Args:
        source, target: levels [(C,) (Z,) Y, X] of one image.
        region: spatial, a whole shard of ``target``.
        averaged: means of 2 x 2 pixels (of fewer at an odd end), else the first of them.
    """
    lead = (slice(None),) * (len(target.shape) - len(region))
    shape = (*target.shape[: len(lead)], *(s.stop - s.start for s in region))
    out = np.empty(shape, target.dtype)
    # One chunk's worth of rows at a time, one channel at a time: the source is four times as large.
    steps = (*(1,) * len(lead), *target.chunks[-len(region) :])
    for part in _parts(shape, steps):
        fine = [
            slice((s.start + r.start) * f, min((s.stop + r.start) * f, n))
            for s, r, f, n in zip(
                part[len(lead) :],
                region,
                (1,) * (len(region) - 2) + (2, 2),
                source.shape[len(lead) :],
                strict=True,
            )
        ]
        pixels = np.asarray(source[(*part[: len(lead)], *fine)])
        out[part] = mean_pairs(pixels) if averaged else pixels[..., ::2, ::2]
    target[(*lead, *region)] = out


def _parts(shape: Sequence[int], steps: Sequence[int]) -> Iterator[Slices]:
    """Parts of at most ``steps`` that cover ``shape`` once, in raster order."""
    starts = [range(0, n, step) for n, step in zip(shape, steps, strict=True)]
    for corner in product(*starts):
        yield tuple(
            slice(a, min(a + step, n)) for a, step, n in zip(corner, steps, shape, strict=True)
        )


def mean_pairs(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Means of 2 x 2 pixels of the last two axes; an odd last row or column counts twice."""
    odd = [(0, 0)] * (pixels.ndim - 2) + [(0, n % 2) for n in pixels.shape[-2:]]
    even = np.pad(pixels.astype(np.float32), odd, mode="edge")
    rows = even[..., ::2, :] + even[..., 1::2, :]
    return np.asarray((rows[..., ::2] + rows[..., 1::2]) / 4, np.float32)


def _levels(
    group: zarr.Group,
    pyramid: Pyramid,
    dtype: DTypeLike,
    channels: int,
    lead: tuple[int, ...],
) -> list[ZarrArray]:
    arrays = []
    for level, shape in enumerate(pyramid.shapes):
        chunk, shard = _layout(shape, channels)
        chunks, shards = (*(1 for _ in lead), *chunk), (*lead, *shard)
        array = group.create_array(
            str(level),
            shape=(*lead, *shape),
            dtype=np.dtype(dtype),
            chunks=chunks,
            # One chunk per shard would be an index for nothing.
            shards=shards if shards != chunks else None,
            compressors=_LABEL_CODEC if np.dtype(dtype).kind in "iu" else _IMAGE_CODEC,
            dimension_names=(*("c" for _ in lead), *pyramid.axes),
            fill_value=0,
        )
        arrays.append(array)
    return arrays


def _layout(shape: tuple[int, ...], channels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Chunk and shard of the spatial axes, cut to the image; smaller for many channels."""
    chunk = tuple(min(_CHUNK[len(shape)], n) for n in shape)
    side = _SHARD[len(shape)] // _CHUNK[len(shape)]
    least = 4 * channels * int(np.prod(chunk))
    while side > 1 and least * side ** len(shape) > _SHARD_BYTES:
        side //= 2
    return chunk, tuple(min(side, -(-n // c)) * c for n, c in zip(shape, chunk, strict=True))


def _channel(index: int, name: str) -> dict[str, Any]:
    window = {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0}
    # The first class is the background: white would drown the others, so it starts hidden.
    colour = "FFFFFF" if index == 0 else _COLOURS[(index - 1) % len(_COLOURS)]
    return {"label": name, "color": colour, "active": index > 0, "window": window}


def _rgba(index: int) -> list[int]:
    if index == 0:
        return [0, 0, 0, 0]
    return [*bytes.fromhex(_COLOURS[(index - 1) % len(_COLOURS)]), 255]
