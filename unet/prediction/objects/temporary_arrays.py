"""Temporary arrays for the labels of one image: in memory if it is a few blocks, else on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from unet.data.blocks import Grid
from unet.data.tiling import Slices
from unet.files import remove

# The arrays of an image with this many blocks are as large as what a few threads work on.
HELD_BLOCKS = 4


class Store(Protocol):
    """A NumPy or zarr array that blocks are written to and read from."""

    def __getitem__(self, region: Slices, /) -> Any: ...
    def __setitem__(self, region: Slices, value: Any, /) -> None: ...


class Scratch:
    """Makes the temporary arrays of one image."""

    def __init__(self, folder: Path, grid: Grid) -> None:
        self._folder = folder
        self._grid = grid
        self._made = 0

    def array(self, dtype: DTypeLike = np.uint32) -> Store:
        """An array of zeros with the image's spatial shape. One chunk is one block, so threads can
        write different blocks at the same time."""
        if len(self._grid) <= HELD_BLOCKS:
            return np.zeros(self._grid.shape, dtype)
        import zarr
        from zarr.codecs import BloscCodec

        self._made += 1
        array = zarr.create_array(
            str(self._folder / f"{self._made}.zarr"),
            shape=self._grid.shape,
            chunks=self._grid.block,
            dtype=np.dtype(dtype),
            compressors=BloscCodec(cname="lz4", clevel=3),
            fill_value=0,
        )
        return array


@contextmanager
def scratch(folder: Path, grid: Grid) -> Iterator[Scratch]:
    """Temporary arrays in a hidden folder below ``folder``, which is always removed at the end."""
    if len(grid) <= HELD_BLOCKS:
        yield Scratch(folder, grid)
        return
    temporary = Path(tempfile.mkdtemp(prefix=".labels-", suffix=".tmp", dir=folder))
    try:
        yield Scratch(temporary, grid)
    finally:
        remove(temporary)
