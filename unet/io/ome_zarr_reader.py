"""Reader for OME-Zarr 0.3 to 0.5."""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.storage import LocalStore

from unet.errors import UserError, one_line
from unet.files import check_regular
from unet.io.axes import Raw, block_shape
from unet.io.pixel_size import Declared, read_sizes
from unet.io.raw import CHECKED_FROM, OTHER_RATIO, check_pixels, lazily
from unet.io.zarr_metadata import read_metadata, zarr_attributes

Array = NDArray[Any]

# Codecs that only turn bytes into bytes or numbers. Others are refused before anything is decoded:
# one codec of numcodecs (pickle) can run code, and so can plugins.
CODECS = frozenset(
    {
        "adler32", "astype", "bitround", "blosc", "bytes", "bz2", "crc32", "crc32c", "delta",
        "endian", "fixedscaleoffset", "fletcher32", "gzip", "jenkins_lookup3", "lz4", "lzma",
        "packbits", "pcodec", "quantize", "sharding_indexed", "shuffle", "transpose", "zfpy",
        "zlib", "zstd",
    }
)  # fmt: skip
# Largest size of a decoded chunk in bytes: the limit of Blosc, and far above the usual sizes.
MAX_CHUNK = 1 << 31


class _Store(LocalStore):
    """A folder of which only regular files are read: reading a pipe or a device might never end."""

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        path = os.path.join(self.root, key)  # noqa: PTH118 - once per chunk
        if os.path.exists(path) and not os.path.isdir(path):  # noqa: PTH110, PTH112
            check_regular(Path(path))
        return await super().get(key, prototype, byte_range)


def open_level(path: Path, name: str) -> Any:
    """The array of a level.

    Raises:
        UserError: it lies outside the image, does not contain numbers, or uses a codec that is not
            known to be safe.
    """
    import zarr

    folder = path / name
    if not folder.resolve().is_relative_to(path.resolve()):
        raise UserError(
            f"{path}: refused, its metadata refer to a level outside of it ({name[:100]!r})"
        )
    for file in (folder / "zarr.json", folder / ".zarray"):
        found = _codecs(read_metadata(file)) if file.is_file() else set()
        if strange := sorted(found - CODECS):
            raise UserError(
                f"{file}: refused, codec {strange[0][:40]!r} is not known to be safe; save the "
                "image with blosc, zstd or gzip"
            )
    array = zarr.open_array(_Store(folder, read_only=True), mode="r")
    if array.dtype.kind not in "buif":
        raise UserError(f"{path}: pixels of type {array.dtype}; save them as numbers")
    return array


def check_store(path: Path, folder: Path, array: Any) -> None:
    """Refuses chunks that fit into no memory, and arrays with far more pixels than their files can
    hold (some chunks of an array may be missing, but not nearly all)."""
    if min(array.chunks) < 1 or math.prod(array.chunks) * array.dtype.itemsize > MAX_CHUNK:
        size = " x ".join(map(str, array.chunks))
        raise UserError(f"{path}: chunks of {size} pixels; save the image with smaller ones")
    claimed = math.prod(array.shape) * array.dtype.itemsize
    if claimed > CHECKED_FROM:
        stored = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if claimed > OTHER_RATIO * stored:
            size = " x ".join(map(str, array.shape))
            raise UserError(
                f"{path}: its metadata claim {size} pixels, more than its files can hold"
            )


def _codecs(metadata: Any) -> set[str]:
    """Names of the codecs of a zarr array of version 2 or 3, including those within shards."""
    if not isinstance(metadata, dict):
        return set()
    entries = [metadata.get("compressor"), *_as_list(metadata.get("filters"))]
    entries += _as_list(metadata.get("codecs"))
    names: set[str] = set()
    for entry in filter(None, entries):
        name = entry.get("id", entry.get("name")) if isinstance(entry, dict) else entry
        names.add(str(name).removeprefix("numcodecs."))
        inner = entry.get("configuration") if isinstance(entry, dict) else None
        if isinstance(inner, dict):
            names |= _codecs({"codecs": _as_list(inner.get("codecs"))})
            names |= _codecs({"codecs": _as_list(inner.get("index_codecs"))})
    return names


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def locate_chunks(
    path: Path, folder: Path, array: Any, *, label: bool
) -> tuple[Any, tuple[str, ...]]:
    """The array, after a check that its chunks are where its metadata says; and warnings.

    Zarr reads a missing chunk as zeros, so chunks in another place would be lost silently.

    Raises:
        UserError: there are chunks, but none is where the metadata says; or an image has no chunks.
    """
    if _has_chunk(folder, array):
        return array, ()
    metadata = array.metadata
    if metadata.zarr_format == 2:
        nested = _open_as(array, replace(metadata, dimension_separator="/"))
        declared = "dimension_separator" in read_metadata(folder / ".zarray")
        # Early OME-Zarr nests its chunks in folders, and some writers do not declare that.
        if not declared and _has_chunk(folder, nested):
            return nested, ()
    first = metadata.encode_chunk_key((0,) * array.ndim)
    strange = next(_chunk_files(folder), None)
    if strange is not None:
        raise UserError(
            f"{path}: no chunk is where the metadata says: {folder.name}/{first} is missing, but "
            f"there is {strange.relative_to(folder.parent)}; save it again (in Zarr 2 the key "
            "dimension_separator may be wrong)"
        )
    if not label:
        raise UserError(f"{path}: no chunk is stored ({folder.name}/{first} is missing)")
    return array, (f"the file has no stored chunk, so all values are {metadata.fill_value}",)


def _open_as(array: Any, metadata: Any) -> Any:
    import zarr
    from zarr.core.array import AsyncArray

    return zarr.Array(AsyncArray(metadata, array.store_path))


def _has_chunk(folder: Path, array: Any) -> bool:
    """Whether any chunk (or shard) exists; usually the first one does.

    Otherwise this goes through the files, since far more chunks may be declared.
    """
    key = array.metadata.encode_chunk_key
    if (folder / key((0,) * array.ndim)).exists():
        return True
    sides = array.shards or array.chunks
    counts = [math.ceil(n / side) for n, side in zip(array.shape, sides, strict=True)]
    for file in _chunk_files(folder):
        name = file.relative_to(folder).as_posix()
        place = tuple(map(int, re.findall(r"[0-9]+", name)))
        within = len(place) == len(counts) and all(map(operator.lt, place, counts))
        if within and key(place) == name:
            return True
    return False


def _chunk_files(folder: Path) -> Iterator[Path]:
    """All files in an array's folder except its metadata."""
    for path in folder.rglob("*"):
        if not path.name.startswith(".") and path.name != "zarr.json" and not path.is_dir():
            yield path


def read_ome_zarr(path: Path, *, label: bool = False) -> Raw:
    """Level 0 of an OME-Zarr image or label (0.3 to 0.5), axes and scale from its metadata.

    Raises:
        UserError: it is not an OME-Zarr image, or is damaged (see the functions above).
    """
    attributes = zarr_attributes(path)
    scales = attributes.get("multiscales")
    if not scales:
        raise UserError(f"{path}: not an OME-Zarr image (no multiscales in its metadata)")
    scale = scales[0]
    if "axes" not in scale:
        version = scale.get("version", "unknown")
        raise UserError(f"{path}: OME-Zarr version {version} declares no axes; convert it to 0.4")
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in scale["axes"]]
    level = scale["datasets"][0]
    array = open_level(path, str(level["path"]))
    letters = "".join(_axis_letter(axis) for axis in axes)
    if len(letters) != array.ndim:
        raise UserError(f"{path}: {len(letters)} axes declared for an array of {array.ndim}")
    check_pixels(path, array.shape)
    folder = path / str(level["path"])
    check_store(path, folder, array)
    array, warnings = locate_chunks(path, folder, array, label=label)
    factors = np.ones(array.ndim)
    for source in (level, scale):
        for step in source.get("coordinateTransformations", ()):
            if step.get("type") == "scale" and len(step.get("scale", ())) == array.ndim:
                factors = factors * np.asarray(step["scale"], float)
    sizes, size_warnings = read_sizes(
        [
            Declared(letter, float(factor), axis.get("unit"))
            for letter, axis, factor in zip(letters, axes, factors, strict=True)
            if letter in "ZYX"
        ],
        letters,
    )
    named = attributes.get("omero", {}).get("channels", ())
    return Raw(
        array=lazily(ZarrSource(path, array), block_shape(array.chunks, array.shape, letters)),
        axes=letters,
        pixel_size=sizes,
        names=tuple(str(channel.get("label", "")) for channel in named),
        warnings=warnings,
        size_warnings=size_warnings,
    )


def _axis_letter(axis: Mapping[str, Any]) -> str:
    """The letter of an OME-Zarr axis, by its name if that is known, otherwise by its type."""
    name = str(axis.get("name", "")).upper()
    if re.fullmatch(r"[TCZYX]", name):
        return name
    return {"time": "T", "channel": "C"}.get(str(axis.get("type")), "?")


class ZarrSource:
    """A zarr array whose read errors name the file."""

    def __init__(self, path: Path, array: Any) -> None:
        self.path, self.array = path, array
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, region: Any) -> Array:
        try:
            return np.asarray(self.array[region])
        except MemoryError:
            raise
        except Exception as error:
            text = one_line(error, 200)
            raise UserError(f"{self.path}: cannot be decoded ({text})") from error
