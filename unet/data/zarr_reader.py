"""Reader of OME-Zarr 0.3 to 0.5."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.data.axes import Raw, block_shape
from unet.data.readers import CHECKED_FROM, OTHER_RATIO, check_pixels, lazily, micrometres
from unet.errors import UserError

Array = NDArray[Any]

# Codecs that only turn bytes into bytes or numbers. Others are refused before anything is decoded:
# one that numcodecs knows (pickle) runs code, and plugins bring whatever they like.
CODECS = frozenset(
    {
        "adler32", "astype", "bitround", "blosc", "bytes", "bz2", "crc32", "crc32c", "delta",
        "endian", "fixedscaleoffset", "fletcher32", "gzip", "jenkins_lookup3", "lz4", "lzma",
        "packbits", "pcodec", "quantize", "sharding_indexed", "shuffle", "transpose", "zfpy",
        "zlib", "zstd",
    }
)  # fmt: skip
# Of a level's metadata: no array needs as much, and a parser would take long.
MAX_METADATA = 1 << 24
# Bytes of a chunk, decoded; what Blosc can at most, and many times what is usual.
MAX_CHUNK = 1 << 31


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr group or array (version 2 or 3)."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray", ".zattrs"))


def zarr_attributes(path: Path) -> dict[str, Any]:
    """A zarr group's OME attributes: those of 0.5 (under "ome") or those of 0.4 (beside it)."""
    attributes: Any = {}
    for name in ("zarr.json", ".zattrs"):
        if (path / name).is_file():
            attributes = _json(path / name)
            break
    if not isinstance(attributes, dict):
        return {}
    attributes = attributes.get("attributes", attributes)
    attributes = attributes.get("ome", attributes)
    return dict(attributes)


def _json(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_METADATA:
            raise UserError(f"{path}: {path.stat().st_size} bytes of metadata; the file is damaged")
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None


def _level(path: Path, name: str) -> Any:
    """The array of a level.

    Raises:
        UserError: it lies outside of the image, is not made of numbers, or of codecs that are not
            known to be harmless.
    """
    import zarr

    folder = path / name
    if not folder.resolve().is_relative_to(path.resolve()):
        raise UserError(
            f"{path}: refused, its metadata name a level outside of it ({name[:100]!r})"
        )
    for file in (folder / "zarr.json", folder / ".zarray"):
        found = _codecs(_json(file)) if file.is_file() else set()
        if strange := sorted(found - CODECS):
            raise UserError(
                f"{file}: refused, codec {strange[0][:40]!r} is not known to be safe; save the "
                "image with blosc, zstd or gzip"
            )
    array = zarr.open_array(str(folder), mode="r")
    if array.dtype.kind not in "buif":
        raise UserError(f"{path}: pixels of type {array.dtype}; save them as numbers")
    return array


def _check_claim(path: Path, folder: Path, array: Any) -> None:
    """Refuses chunks that no memory could ever serve, and far more pixels than files (an array may
    have chunks that are not there, but not nearly all of them)."""
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
    """Names of the codecs of a zarr array, version 2 or 3, those within shards too."""
    if not isinstance(metadata, dict):
        return set()
    entries = [metadata.get("compressor"), *_list(metadata.get("filters"))]
    entries += _list(metadata.get("codecs"))
    names: set[str] = set()
    for entry in filter(None, entries):
        name = entry.get("id", entry.get("name")) if isinstance(entry, dict) else entry
        names.add(str(name).removeprefix("numcodecs."))
        inner = entry.get("configuration") if isinstance(entry, dict) else None
        if isinstance(inner, dict):
            names |= _codecs({"codecs": _list(inner.get("codecs"))})
            names |= _codecs({"codecs": _list(inner.get("index_codecs"))})
    return names


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def read_ome_zarr(path: Path) -> Raw:
    """Level 0 of an OME-Zarr image or label (0.3 to 0.5), axes and scale from its metadata."""
    attributes = zarr_attributes(path)
    scales = attributes.get("multiscales")
    if not scales:
        hint = "; it is a plate or a collection: name the images in it" if attributes else ""
        raise UserError(f"{path}: not an OME-Zarr image (no multiscales in its metadata){hint}")
    scale = scales[0]
    if "axes" not in scale:
        version = scale.get("version", "unknown")
        raise UserError(f"{path}: OME-Zarr of version {version} declares no axes; convert to 0.4")
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in scale["axes"]]
    level = scale["datasets"][0]
    array = _level(path, str(level["path"]))
    letters = "".join(_axis_letter(axis) for axis in axes)
    if len(letters) != array.ndim:
        raise UserError(f"{path}: {len(letters)} axes declared for an array of {array.ndim}")
    check_pixels(path, array.shape)
    _check_claim(path, path / str(level["path"]), array)
    factors = np.ones(array.ndim)
    for source in (level, scale):
        for step in source.get("coordinateTransformations", ()):
            if step.get("type") == "scale" and len(step.get("scale", ())) == array.ndim:
                factors = factors * np.asarray(step["scale"], float)
    sizes = {
        letter: size
        for letter, axis, factor in zip(letters, axes, factors, strict=True)
        if letter in "ZYX" and (size := micrometres(float(factor), axis.get("unit"))) is not None
    }
    named = attributes.get("omero", {}).get("channels", ())
    return Raw(
        array=lazily(ZarrSource(path, array), block_shape(array.chunks, array.shape, letters)),
        axes=letters,
        pixel_size=sizes,
        names=tuple(str(channel.get("label", "")) for channel in named),
    )


def _axis_letter(axis: Mapping[str, Any]) -> str:
    """The letter of an OME-Zarr axis: by its name where that is a known one, else by its type."""
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
            text = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"{self.path}: cannot be decoded ({text})") from error
