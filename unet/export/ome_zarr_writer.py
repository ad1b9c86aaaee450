"""OME-Zarr images with labels (https://ngff.openmicroscopy.org/0.5/ and 0.4), written in parts.

Version 0.5 is Zarr v3, with its metadata below the attribute "ome" and with shards, so that a large
image consists of a few files instead of thousands. Version 0.4 is Zarr v2, with its metadata at the
root of the attributes and one file per chunk. In both, every write covers whole shards or the same
number of whole chunks (:func:`write_regions`), so threads can write different regions at the same
time. No function holds a whole image in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore

from unet.data.tiling import Slices
from unet.export.pyramid import REDUCTIONS, Reduction
from unet.io.checksums import CHECKSUM, COMPLETE
from unet.io.zipped_images import Place, put, store_of

ZarrArray: TypeAlias = "zarr.Array[Any]"
# An array that is read by region.
Pixels: TypeAlias = "ZarrArray | NDArray[Any]"
Version: TypeAlias = Literal["0.4", "0.5"]

# The Zarr version of each OME-Zarr version.
_FORMAT: dict[Version, Literal[2, 3]] = {"0.4": 2, "0.5": 3}
SMALLEST_LEVEL = 64
# Pixels per side, by number of spatial axes.
_CHUNK = {2: 512, 3: 64}
_SHARD = {2: 2048, 3: 256}
# A shard is held in memory as float32 while it is written.
_SHARD_BYTES = 1 << 28
# Colours that colour-blind people can tell apart, too (Okabe & Ito 2008).
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

    def multiscales(
        self, name: str, version: Version, *, channels: bool, by: Reduction
    ) -> list[dict[str, Any]]:
        """The ``multiscales`` metadata.

        Args:
            channels: whether the arrays start with a channel axis.
            by: how the levels are made. The centre of several merged pixels lies between them,
                which a translation describes; with nearest, a pixel stays in its place.
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
            if REDUCTIONS[by].centred and level:
                shift = [(f - 1) / 2 * s for f, s in zip(factors, size, strict=True)]
                moves.append({"type": "translation", "translation": [0.0] * len(lead) + shift})
            datasets.append({"path": str(level), "coordinateTransformations": moves})
        if channels:
            axes = [{"name": "c", "type": "channel"}, *axes]
        # In 0.5 the version is stored next to the multiscales.
        first = {"version": version} if version == "0.4" else {}
        return [{**first, "name": name, "axes": axes, "datasets": datasets, "type": by}]


def pyramid_of(shape: Sequence[int], levels: int, pixel_size_um: Sequence[float] | None) -> Pyramid:
    """Plans at most ``levels`` levels for an image [(Z,) Y, X]; none except the first is smaller
    than 64 pixels along Y or X. An image that fits into one chunk has one level: a coarser one
    would be no faster to read."""
    shapes = [tuple(shape)]
    while len(shapes) < levels and not one_chunk(shape):
        *lead, y, x = shapes[-1]
        y, x = -(-y // 2), -(-x // 2)
        if min(y, x) < SMALLEST_LEVEL:
            break
        shapes.append((*lead, y, x))
    return Pyramid(tuple(shapes), tuple(pixel_size_um) if pixel_size_um else None)


def one_chunk(shape: Sequence[int]) -> bool:
    """Whether an image of this spatial shape ((Z,) Y, X) is a single chunk."""
    return max(shape) <= _CHUNK[len(shape)]


def create_image(
    path: Place,
    pyramid: Pyramid,
    dtype: DTypeLike,
    channels: Sequence[str],
    attributes: dict[str, Any],
    version: Version = "0.5",
) -> list[ZarrArray]:
    """Creates a new image group whose channels are probabilities (shown from 0 to 1).

    Args:
        path: of the group, which must not exist yet, or where its files are collected.
        channels: names.
        attributes: more attributes for the group, in addition to those of OME-Zarr.

    Returns:
        The levels' arrays [C, (Z,) Y, X], empty.
    """
    scales = pyramid.multiscales("probabilities", version, channels=True, by="mean")
    omero: dict[str, Any] = {"channels": [_channel(i, name) for i, name in enumerate(channels)]}
    if version == "0.4":
        omero["version"] = version
    ome = group_metadata(version, {"multiscales": scales, "omero": omero})
    write_group(path, {**ome, **attributes}, version)
    return new_levels(path, pyramid, dtype, len(channels), version, lead=(len(channels),))


def create_labels(
    path: Place,
    pyramid: Pyramid,
    dtypes: dict[str, DTypeLike],
    class_names: Sequence[str],
    channels: int,
    version: Version = "0.5",
    by: Reduction = "nearest",
) -> dict[str, list[ZarrArray]]:
    """Creates the label images of an image group.

    Args:
        path: of the image's group.
        dtypes: name -> dtype; the label named "classes" gets the classes' names and colours. The
            others get no colours, so viewers choose one for each object.
        channels: of the image; the labels use shards of the same size.
        version: of the image's group.
        by: how the coarser levels will be made.

    Returns:
        Name -> the levels' arrays [(Z,) Y, X], empty.
    """
    write_group(path / "labels", group_metadata(version, {"labels": list(dtypes)}), version)
    found = {}
    for name, dtype in dtypes.items():
        about: dict[str, Any] = {"version": version, "source": {"image": "../../"}}
        if name == "classes":
            about["colors"] = [
                {"label-value": i, "rgba": _rgba(i)} for i in range(len(class_names))
            ]
            about["properties"] = [
                {"label-value": i, "class": text} for i, text in enumerate(class_names)
            ]
        scales = pyramid.multiscales(name, version, channels=False, by=by)
        attributes = group_metadata(version, {"multiscales": scales, "image-label": about})
        write_group(path / "labels" / name, attributes, version)
        found[name] = new_levels(path / "labels" / name, pyramid, dtype, channels, version, lead=())
    return found


def write_regions(shape: Sequence[int], channels: int) -> list[Slices]:
    """The parts of a level of spatial ``shape`` ((Z,) Y, X) that threads may write concurrently.

    They are the shards of an image with this many channels and of its labels, in raster order.
    Version 0.4 has no shards; there the same parts consist of whole chunks.
    """
    shape = tuple(shape)
    return list(_parts(shape, _layout(shape, channels)[1]))


def reduce_region(source: Pixels, target: ZarrArray, region: Slices, by: Reduction) -> NDArray[Any]:
    """Writes one region of the next coarser level, which is half as large along Y and X; returns
    what it wrote.

    Args:
        source, target: levels [(C,) (Z,) Y, X] of one image.
        region: spatial region of ``target``, from :func:`write_regions`.
        by: how 2 x 2 pixels (fewer at an odd end) are combined.
    """
    reduce = REDUCTIONS[by].reduce
    lead = (slice(None),) * (len(target.shape) - len(region))
    shape = (*target.shape[: len(lead)], *(s.stop - s.start for s in region))
    out = np.empty(shape, target.dtype)
    # One chunk at a time, one channel at a time: the source is four times as large.
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
        out[part] = reduce(pixels)
    target[(*lead, *region)] = out
    return out


def _parts(shape: Sequence[int], steps: Sequence[int]) -> Iterator[Slices]:
    """Parts of at most ``steps`` that cover ``shape`` once, in raster order."""
    starts = [range(0, n, step) for n, step in zip(shape, steps, strict=True)]
    for corner in product(*starts):
        yield tuple(
            slice(a, min(a + step, n)) for a, step, n in zip(corner, steps, shape, strict=True)
        )


def group_metadata(version: Version, entries: dict[str, Any]) -> dict[str, Any]:
    """A group's attributes: below "ome" in version 0.5, at the root in 0.4."""
    return entries if version == "0.4" else {"ome": {"version": version, **entries}}


def write_group(path: Place, attributes: dict[str, Any], version: Version) -> None:
    """Creates a group. Zarr itself writes the same files, but takes a millisecond for each."""
    files: dict[str, Any]
    if version == "0.4":
        files = {".zgroup": {"zarr_format": 2}, ".zattrs": attributes}
    else:
        group = {"attributes": attributes, "zarr_format": 3, "node_type": "group"}
        files = {"zarr.json": group}
    if isinstance(path, Path):
        path.mkdir(parents=True)
    for name, content in files.items():
        put(path, name, json.dumps(content).encode())


def new_levels(
    group: Place,
    pyramid: Pyramid,
    dtype: DTypeLike,
    channels: int,
    version: Version,
    lead: tuple[int, ...],
) -> list[ZarrArray]:
    arrays = []
    for level, shape in enumerate(pyramid.shapes):
        files, made = _empty_array(shape, np.dtype(dtype), channels, version, lead)
        path = group / str(level)
        for name, content in files.items():
            put(path, name, content)
        arrays.append(zarr.Array(zarr.AsyncArray(made.metadata, store_of(path), made.config)))
    return arrays


# The images of a dataset often have the same shape, and zarr takes milliseconds for each array.
@lru_cache(maxsize=64)
def _empty_array(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    channels: int,
    version: Version,
    lead: tuple[int, ...],
) -> tuple[dict[str, bytes], zarr.AsyncArray[Any]]:
    """The metadata files of a new array, and the array."""
    # Labels compress to almost nothing; probabilities hardly compress, so speed matters more.
    codec: Literal["zstd", "lz4"] = "zstd" if dtype.kind in "iu" else "lz4"
    chunk, shard = _layout(shape, channels)
    chunks, shards = (*(1 for _ in lead), *chunk), (*lead, *shard)
    about: dict[str, Any] = {"shape": (*lead, *shape), "dtype": dtype, "chunks": chunks}
    if version == "0.4":
        # Without a checksum: Zarr v2 has one only as a filter, which few viewers support.
        about["compressors"] = {"id": "blosc", "cname": codec, "clevel": 1, "shuffle": 1}
        about["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
    else:
        about["compressors"] = (BloscCodec(cname=codec, clevel=1, shuffle="shuffle"), CHECKSUM)
        # With one chunk per shard, the shard's index would be useless.
        about["shards"] = shards if shards != chunks else None
        about["dimension_names"] = (*("c" for _ in lead), *"zyx"[-len(shape) :])
        about["config"] = COMPLETE
    store: dict[str, Any] = {}
    array = zarr.create_array(
        MemoryStore(store), fill_value=0, zarr_format=_FORMAT[version], **about
    )
    return {name: data.to_bytes() for name, data in store.items()}, array.async_array


def _layout(shape: tuple[int, ...], channels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Chunk and shard along the spatial axes, cut to the image; smaller for many channels."""
    chunk = tuple(min(_CHUNK[len(shape)], n) for n in shape)
    side = _SHARD[len(shape)] // _CHUNK[len(shape)]
    least = 4 * channels * int(np.prod(chunk))
    while side > 1 and least * side ** len(shape) > _SHARD_BYTES:
        side //= 2
    return chunk, tuple(min(side, -(-n // c)) * c for n, c in zip(shape, chunk, strict=True))


def _channel(index: int, name: str) -> dict[str, Any]:
    window = {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0}
    # The first class is the background: its white would cover the others, so it starts hidden.
    colour = "FFFFFF" if index == 0 else _COLOURS[(index - 1) % len(_COLOURS)]
    return {"label": name, "color": colour, "active": index > 0, "window": window}


def _rgba(index: int) -> list[int]:
    if index == 0:
        return [0, 0, 0, 0]
    return [*bytes.fromhex(_COLOURS[(index - 1) % len(_COLOURS)]), 255]
