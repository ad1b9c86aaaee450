"""The chunks of zarr arrays on a local disk, read and written without zarr's event loop.

Zarr hands each call to one thread for the whole process, and each chunk to yet another thread,
which takes longer than the work itself for small images. This does the same work in the caller's
thread, for the layout of the pipeline's own stores: chunks that are compressed and end with a
checksum, one per file or many in the file of a shard. The bytes are those that zarr writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from numbers import Integral
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec
from zarr.storage import LocalStore

# First pixel, and last pixel + 1, along each axis.
Box = list[tuple[int, int]]
Start = tuple[int, ...]

_CHECKSUM_BYTES = 4
# A shard ends with the offset and the length of each chunk; both are MISSING if there is none.
_INDEX = np.dtype("<u8")
_MISSING = np.iinfo(_INDEX).max


@dataclass(frozen=True, eq=False)
class ChunkFiles:
    """The files of one array.

    Attributes:
        chunks: shape of a chunk.
        shards: shape of the content of a file, which is one chunk or several.
        codec: compresses chunks.
    """

    array: zarr.Array[Any]
    chunks: tuple[int, ...]
    shards: tuple[int, ...]
    codec: Any

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> ChunkFiles | None:
        """None if the array has another layout, so only zarr can read it."""
        codecs: Sequence[Any] = getattr(array.metadata, "codecs", ())
        if len(codecs) == 1 and isinstance(codecs[0], ShardingCodec):
            (outer,) = codecs
            codecs = outer.codecs
            usual = ShardingCodec(chunk_shape=outer.chunk_shape, codecs=codecs)
            if outer.to_dict() != usual.to_dict():
                return None
        if not isinstance(array.store, LocalStore):
            return None
        match codecs:
            case [BytesCodec() as plain, BloscCodec() | ZstdCodec() as codec, Crc32cCodec()]:
                if getattr(plain.endian, "value", "little") == "little":
                    return cls(array, array.chunks, array.shards or array.chunks, _packer(codec))
        return None

    def read(self, selection: Any) -> NDArray[Any] | None:
        """``array[selection]`` for numbers and slices; None if it selects in another way.

        Raises:
            ValueError: a chunk fails its checksum.
        """
        parts = _parts(selection, self.array.shape)
        if parts is None:
            return None
        box = [(start, stop) for start, stop, _ in parts]
        out = np.empty([stop - start for start, stop in box], self.array.dtype)
        for file in _starts(box, self.shards):
            inside = _common(box, file, self.shards)
            for start, chunk in self._chunks(file, inside):
                common = _common(inside, start, self.chunks)
                out[_slices(common, [a for a, _ in box])] = chunk[_slices(common, start)]
        return out[tuple(0 if single else slice(None) for _, _, single in parts)]

    def _chunks(self, file: Start, box: Box) -> Iterator[tuple[Start, NDArray[Any]]]:
        """The chunks in a file that share pixels with ``box``."""
        with open(file_of(self.array, file), "rb") as handle:  # noqa: PTH123
            if self.array.shards is None:
                yield file, self._decoded(handle.read())
                return
            shape = self._index_shape
            size = int(np.prod(shape)) * _INDEX.itemsize + _CHECKSUM_BYTES
            handle.seek(max(0, os.fstat(handle.fileno()).st_size - size))
            index = np.frombuffer(_verified(handle.read()), _INDEX).reshape(shape)
            for start in _starts(box, self.chunks):
                offset, length = index[self._place(start, file)].tolist()
                if offset == _MISSING:
                    yield start, np.full(self.chunks, self.array.fill_value, self.array.dtype)
                    continue
                handle.seek(offset)
                yield start, self._decoded(handle.read(length))

    def write(self, region: Sequence[slice], pixels: NDArray[Any]) -> None:
        """``array[region] = pixels`` for a region of whole files, cut to the array."""
        box = [(s.start, s.stop) for s in region]
        pixels = pixels.astype(self.array.dtype, copy=False)
        for file in _starts(box, self.shards):
            data, index, end = list[bytes](), np.full(self._index_shape, _MISSING, _INDEX), 0
            starts = list(_starts(_common(box, file, self.shards), self.chunks))
            places = [self._place(start, file) for start in starts]
            # The order of the chunks is free; this is zarr's.
            for place, start in sorted(zip(places, starts, strict=True), key=_morton):
                common = _common(box, start, self.chunks)
                data.append(self._encoded(pixels[_slices(common, [a for a, _ in box])]))
                index[place] = end, len(data[-1])
                end += len(data[-1])
            if self.array.shards is not None:
                data.append(_with_checksum(index.tobytes()))
            path = file_of(self.array, file)
            os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
            with open(path, "wb") as handle:  # noqa: PTH123
                handle.writelines(data)

    @property
    def _index_shape(self) -> tuple[int, ...]:
        return (*(s // c for s, c in zip(self.shards, self.chunks, strict=True)), 2)

    def _place(self, start: Start, file: Start) -> tuple[int, ...]:
        """The number of a chunk in its file along each axis."""
        return tuple((a - b) // n for a, b, n in zip(start, file, self.chunks, strict=True))

    def _decoded(self, data: bytes) -> NDArray[Any]:
        pixels = self.codec.decode(_verified(data))
        return np.frombuffer(pixels, self.array.dtype).reshape(self.chunks)

    def _encoded(self, pixels: NDArray[Any]) -> bytes:
        if pixels.shape != self.chunks:
            beyond = [(0, n - m) for n, m in zip(self.chunks, pixels.shape, strict=True)]
            pixels = np.pad(pixels, beyond, constant_values=self.array.fill_value)
        return _with_checksum(self.codec.encode(np.ascontiguousarray(pixels)))


def file_of(array: zarr.Array[Any], start: Sequence[int]) -> str:
    """The file with the chunk that starts at this pixel."""
    sides = array.shards or array.chunks
    place = tuple(a // n for a, n in zip(start, sides, strict=True))
    root = str(getattr(array.store, "root", ""))
    return os.path.join(root, array.path, array.metadata.encode_chunk_key(place))  # noqa: PTH118


def _packer(codec: BloscCodec | ZstdCodec) -> Any:
    if isinstance(codec, ZstdCodec):
        return numcodecs.Zstd(codec.level, codec.checksum)
    shuffle = ("noshuffle", "shuffle", "bitshuffle").index(codec.shuffle.value)
    return numcodecs.Blosc(codec.cname.value, codec.clevel, shuffle, codec.blocksize)


def _with_checksum(data: bytes) -> bytes:
    checksum: int = google_crc32c.value(data)
    return data + checksum.to_bytes(_CHECKSUM_BYTES, "little")


def _verified(data: bytes) -> NDArray[np.uint8]:
    """The data without the checksum at their end."""
    # An array, because a slice of bytes is a copy, and the checksum takes no memoryview.
    content = np.frombuffer(data, np.uint8)[:-_CHECKSUM_BYTES]
    if google_crc32c.value(content) != int.from_bytes(data[-_CHECKSUM_BYTES:], "little"):
        raise ValueError("the checksum is wrong")
    return content


def _parts(selection: Any, shape: Sequence[int]) -> list[tuple[int, int, bool]] | None:
    """Start and stop along each axis, and whether a number selects a single pixel; None if anything
    else than numbers and slices selects pixels, or nothing but numbers."""
    parts = selection if isinstance(selection, tuple) else (selection,)
    if parts and parts[-1] is Ellipsis:
        parts = parts[:-1]
    if len(parts) > len(shape):
        return None
    found = []
    for part, size in zip((*parts, *[slice(None)] * (len(shape) - len(parts))), shape, strict=True):
        if isinstance(part, slice) and part.step in (None, 1):
            start, stop, _ = part.indices(size)
            found.append((start, max(start, stop), False))
        elif isinstance(part, Integral) and 0 <= int(part) < size:
            found.append((int(part), int(part) + 1, True))
        else:
            return None
    return None if all(single for *_, single in found) else found


def _starts(box: Box, sides: Sequence[int]) -> Iterator[Start]:
    """The first pixel of each part of the size ``sides`` that shares pixels with ``box``."""
    if all(start < stop for start, stop in box):
        axes = zip(box, sides, strict=True)
        yield from product(*(range(a // side * side, b, side) for (a, b), side in axes))


def _common(box: Box, start: Start, sides: Sequence[int]) -> Box:
    return [(max(a, s), min(b, s + n)) for (a, b), s, n in zip(box, start, sides, strict=True)]


def _slices(box: Box, start: Sequence[int]) -> tuple[slice, ...]:
    """The pixels of ``box``, counted from ``start``."""
    return tuple(slice(a - s, b - s) for (a, b), s in zip(box, start, strict=True))


def _morton(chunk: tuple[Start, Start]) -> int:
    """Position on the Z-order curve: the bits of the chunk's numbers in its file, interleaved."""
    place, dims = chunk[0], len(chunk[0])
    return sum(
        (n >> bit & 1) << (bit * dims + axis)
        for axis, n in enumerate(place)
        for bit in range(n.bit_length())
    )
