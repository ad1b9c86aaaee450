"""Arrays in the pipeline's own stores: each chunk has a checksum, and errors name the damaged one.

A bit that flips on a disk or in a network changes a pixel, and nobody would notice that in a mask.
So each chunk ends with the CRC-32C of its bytes (a codec of the Zarr specification, which every
reader supports). It takes 4 bytes of about 100,000.

The codec alone is not enough: it does not say which chunk is damaged, and Zarr reads a missing file
as a chunk of zeros. So chunks of zeros are written like all others, and an array checks that its
files exist before it reads them. It is a subclass of Zarr's array because many places use ``[]``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import product
from numbers import Integral
from typing import Any

import zarr
from zarr.codecs import Crc32cCodec, ShardingCodec

from unet.errors import UserError

CHECKSUM = Crc32cCodec()
# Option for `zarr.create_array` and `open_array`: chunks of zeros are written to files, too.
COMPLETE: Any = {"write_empty_chunks": True}
# Option for `zarr.create_array`: all files of an array lie in one folder, not in one for each axis.
FLAT: Any = {"name": "default", "separator": "."}


class Checked(zarr.Array[Any]):
    """An array whose errors say which file is damaged and what to do about it.

    Create it with :func:`checked`. It reads the same values as :class:`zarr.Array`.

    Raises:
        UserError: (on reading) a chunk fails its checksum, cannot be decoded, or is missing.
    """

    remedy: str
    complete: bool

    def __getitem__(self, selection: Any) -> Any:
        if self.complete:
            self._check_files(selection)
        try:
            return super().__getitem__(selection)
        except (OSError, MemoryError, UserError):
            raise
        except Exception:
            start = self._damaged(selection)
            if start is None:
                raise  # the data is not the cause
        raise UserError(
            f"{self._file(start)}: damaged, the data of the chunk at {list(start)} of "
            f"{list(self.shape)} fail their checksum; {self.remedy}"
        ) from None

    def _check_files(self, selection: Any) -> None:
        for start in _chunks(selection, self.shape, self.shards or self.chunks):
            if not self._has_file(start):
                file = self._file(start)
                raise UserError(
                    f"{file}: damaged, the chunk at {list(start)} of {list(self.shape)} is "
                    f"missing; {self.remedy}"
                )

    def _has_file(self, start: Sequence[int]) -> bool:
        members = getattr(self.store, "members", None)
        if members is not None:  # the image is a zip file
            return self._key(start) in members
        file = self._file(start)
        # Zarr reads an empty shard file as zeros, too.
        return os.path.exists(file) and os.path.getsize(file) > 0  # noqa: PTH110, PTH202

    def _damaged(self, selection: Any) -> tuple[int, ...] | None:
        """Start of the first chunk that cannot be read on its own."""
        for start in _chunks(selection, self.shape, self.chunks):
            part = tuple(slice(a, a + n) for a, n in zip(start, self.chunks, strict=True))
            try:
                super().__getitem__(part)
            except OSError:
                raise
            except Exception:
                return start
        return None

    def _file(self, start: Sequence[int]) -> str:
        """The file of the shard that contains a chunk; the zip file, if the image is one."""
        members = getattr(self.store, "members", None)
        root = str(getattr(self.store, "root", ""))
        return os.path.join(root, self._key(start)) if members is None else str(members.file)  # noqa: PTH118

    def _key(self, start: Sequence[int]) -> str:
        """The path of that file in the store."""
        sides = self.shards or self.chunks
        place = tuple(a // n for a, n in zip(start, sides, strict=True))
        name = self.metadata.encode_chunk_key(place)
        return f"{self.path}/{name}" if self.path else name


def checked(array: zarr.Array[Any], remedy: str) -> zarr.Array[Any]:
    """The same array, but its errors name the damaged file.

    Args:
        remedy: the end of the message: what the user should do.
    """
    found = Checked(array.async_array)
    # The class is a frozen dataclass.
    object.__setattr__(found, "remedy", remedy)
    object.__setattr__(found, "complete", _has_checksums(array))
    return found


def _has_checksums(array: zarr.Array[Any]) -> bool:
    """Whether the array has checksums; older versions wrote none, and skipped chunks of zeros."""
    codecs: Sequence[Any] = getattr(array.metadata, "codecs", ())
    if len(codecs) == 1 and isinstance(codecs[0], ShardingCodec):
        codecs = codecs[0].codecs
    return CHECKSUM in codecs


def _chunks(
    selection: Any, shape: Sequence[int], sides: Sequence[int]
) -> Iterator[tuple[int, ...]]:
    """First index of each chunk that a selection by numbers and slices touches; any other selection
    gives all chunks."""
    parts = selection if isinstance(selection, tuple) else (selection,)
    at = next((i for i, part in enumerate(parts) if part is Ellipsis), len(parts))
    before, after = parts[:at], parts[at + 1 :]
    whole = (slice(None),) * (len(shape) - len(before) - len(after))
    axes = zip((*before, *whole, *after), shape, sides, strict=False)
    yield from product(*(_starts(part, n, side) for part, n, side in axes))


def _starts(part: Any, size: int, side: int) -> range:
    """Starts of the chunks along one axis that the selection ``part`` touches."""
    if isinstance(part, slice):
        start, stop, step = part.indices(size)
        if step == 1:
            return range(start // side * side, stop if stop > start else 0, side)
    elif isinstance(part, Integral):
        where = int(part) % size
        return range(where // side * side, where + 1, side)
    return range(0, size, side)
