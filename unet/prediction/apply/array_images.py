"""Arrays as images: checks their axes and values, and stores them as files that the stages read.

The stages read files, so an array becomes a temporary OME-Zarr image first. That way its result is
the same as that of a file, to the last bit, and memory stays bounded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.errors import ArgumentError
from unet.files import canonical
from unet.io.axes import BLOCK_PIXELS, DaskArray, block_shape
from unet.io.raw import lazily

# Chunk of the stored image along Y and X, and the chunk assumed for arrays in memory.
CHUNK = 1024


@dataclass(frozen=True, eq=False)
class ArrayImage:
    """An image in an array.

    Attributes:
        array: NumPy or dask, its axes in the order of ``axes``.
        axes: "CYX" or "CZYX".
        names: of the channels; may be empty.
        lazy: whether it came as a dask or zarr array.
    """

    array: NDArray[Any] | DaskArray
    axes: str
    names: tuple[str, ...] = ()
    lazy: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.array.shape)

    def pick(self, channels: Sequence[int | str] | None) -> ArrayImage:
        """The image with these channels, by number from 0 or by name; None = all.

        Raises:
            ArgumentError: there is no such channel.
        """
        if channels is None:
            return self
        picked = [self._channel(channel) for channel in channels]
        names = tuple(self.names[k] for k in picked) if self.names else ()
        return replace(self, array=self.array[picked], names=names)

    def _channel(self, wanted: int | str) -> int:
        count = self.shape[0]
        if isinstance(wanted, str):
            if wanted in self.names:
                return self.names.index(wanted)
            there = ", ".join(filter(None, self.names)) or "none has a name"
            raise ArgumentError(f"channels: no channel {wanted!r}; there are: {there}")
        if not 0 <= wanted < count:
            raise ArgumentError(f"channels: got {wanted}; write 0 to {count - 1}")
        return int(wanted)


def image_of(array: Any, axes: str | None, dims: int, names: Sequence[str] = ()) -> ArrayImage:
    """The array as an image for a network with ``dims`` spatial axes.

    Args:
        array: NumPy, dask, zarr, or what ``numpy.asarray`` accepts.
        axes: a letter per axis, in the array's order: Y, X, C (channel), Z (depth); None = YX for
            an array of two axes.
        names: of the channels.

    Raises:
        ArgumentError: the axes do not fit the array or the network, or the values are no numbers.
    """
    found, lazy = _as_array(array)
    if found.dtype.kind not in "buif" or found.dtype.itemsize > 8:
        raise ArgumentError(
            f"array: values of type {found.dtype}; give whole numbers or floats of up to 64 bits"
        )
    shape = " x ".join(map(str, found.shape))
    if any(size != size for size in found.shape):
        raise ArgumentError("array: its shape is unknown; call its compute_chunk_sizes() first")
    if 0 in found.shape:
        raise ArgumentError(f"array: got {shape} values; no axis may be empty")
    letters = _letters(axes, found.ndim, shape)
    if dims == 2 and "Z" in letters and found.shape[letters.index("Z")] == 1:
        found = found[(slice(None),) * letters.index("Z") + (0,)]
        letters = letters.replace("Z", "")
    if dims == 2 and "Z" in letters:
        raise ArgumentError(
            f"axes: got {letters} ({shape}), but the model is for images of 2 dimensions; predict "
            "each plane alone, such as array[z]"
        )
    if dims == 3 and "Z" not in letters:
        raise ArgumentError(
            f"axes: got {letters} ({shape}), but the model is for volumes; give Z, such as ZYX"
        )
    if "C" not in letters:
        found, letters = found[None], "C" + letters
    order = [letters.index(letter) for letter in "CZYX" if letter in letters]
    ordered = "".join(letters[k] for k in order)
    return ArrayImage(found.transpose(order), ordered, tuple(names), lazy)


def _as_array(array: Any) -> tuple[Any, bool]:
    """The array as NumPy or dask, and whether it is lazy."""
    import zarr

    if isinstance(array, zarr.Array):
        spatial = "YX".rjust(array.ndim, "?")
        stored = array.shards or array.chunks
        return lazily(array, block_shape(stored, array.shape, spatial)), True
    if hasattr(array, "__dask_graph__"):
        import dask.array as da

        as_dask: Any = da.asarray
        return as_dask(array), True
    return np.asarray(array), False


def _letters(axes: str | None, ndim: int, shape: str) -> str:
    if axes is None:
        if ndim != 2:
            raise ArgumentError(
                f"axes: the array has {ndim} axes ({shape}); say what they are, such as "
                f"{'CYX, YXC or ZYX' if ndim == 3 else 'CZYX'}"
            )
        return "YX"
    if not isinstance(axes, str):
        raise ArgumentError(f"axes: got {axes!r}; write letters, such as 'CYX'")
    letters = axes.upper()
    known = set(letters) <= set("CZYX") and {"Y", "X"} <= set(letters)
    if not known or len(set(letters)) < len(letters):
        hint = ""
        if set(letters) & set("TS"):
            hint = " (C for colours; time points and other series one at a time)"
        raise ArgumentError(
            f"axes: got {axes!r}; write Y, X and, if present, C and Z once each, such as CYX{hint}"
        )
    if len(letters) != ndim:
        raise ArgumentError(f"axes: got {axes!r}, but the array has {ndim} axes ({shape})")
    return letters


def write_image(image: ArrayImage, path: Path) -> str:
    """Writes OME-Zarr 0.5 without pixel size, block by block.

    Returns:
        sha256 (64 hex digits) of the pixels; it depends on the blocks, too.

    Raises:
        ArgumentError: a value is NaN or infinite.
    """
    import zarr

    array, spatial = image.array, image.axes
    stored = array.chunksize if hasattr(array, "chunksize") else _chunk(array.shape)
    block = block_shape(stored, array.shape, spatial)
    kind = np.dtype(np.uint8) if array.dtype == np.bool_ else array.dtype.newbyteorder("=")
    group = zarr.create_group(str(path), overwrite=True, attributes=_metadata(image))
    level = group.create_array(
        "0",
        shape=array.shape,
        dtype=kind,
        chunks=block if prod(block) <= BLOCK_PIXELS else _chunk(array.shape),
        compressors=None,
        # The reader takes an image without any chunk for a damaged one.
        config={"write_empty_chunks": True},
    )
    said = canonical([image.axes, list(array.shape), list(block), str(kind)])
    sha = hashlib.sha256(said.encode())
    for region in _blocks(array.shape, block):
        values = np.asarray(array[region]).astype(kind, copy=False)
        if kind.kind == "f" and not np.isfinite(values).all():
            raise ArgumentError(
                "array: NaN or infinite values; replace them, such as with numpy.nan_to_num"
            )
        level[region] = values
        sha.update(np.ascontiguousarray(values).view(np.uint8).data)
    return sha.hexdigest()


def _chunk(shape: Sequence[int]) -> tuple[int, ...]:
    *lead, y, x = shape
    return (*(1 for _ in lead), min(y, CHUNK), min(x, CHUNK))


def _blocks(shape: Sequence[int], block: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    starts = (range(0, size, step) for size, step in zip(shape, block, strict=True))
    for corner in product(*starts):
        yield tuple(slice(at, at + step) for at, step in zip(corner, block, strict=True))


def _metadata(image: ArrayImage) -> dict[str, Any]:
    kinds = {"C": "channel"}
    axes = [{"name": a.lower(), "type": kinds.get(a, "space")} for a in image.axes]
    scale = [{"type": "scale", "scale": [1.0] * len(axes)}]
    level = {"path": "0", "coordinateTransformations": scale}
    return {"ome": {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [level]}]}}
