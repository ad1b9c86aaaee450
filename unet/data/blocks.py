"""Working through an image block by block: the grid, ordered threads, temporary label arrays."""

from __future__ import annotations

import logging
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from unet.data.tiling import Slices
from unet.files import remove

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")
Index = tuple[int, ...]
LOG_EVERY_SECONDS = 10.0


class Store(Protocol):
    """What blocks are written to and read from: a NumPy or a zarr array."""

    def __getitem__(self, region: Slices, /) -> Any: ...
    def __setitem__(self, region: Slices, value: Any, /) -> None: ...


@dataclass(frozen=True)
class Grid:
    """Blocks that cover an image once; those at the far ends are cut at the image.

    Attributes:
        shape: the image's spatial shape ((Z,) Y, X) in pixels.
        block: the largest block, in pixels per axis.
    """

    shape: tuple[int, ...]
    block: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.block) or min(*self.shape, *self.block) < 1:
            raise ValueError(f"blocks {self.block} do not fit an image of shape {self.shape}")

    @cached_property
    def counts(self) -> Index:
        """Number of blocks along each axis."""
        return tuple(-(-n // b) for n, b in zip(self.shape, self.block, strict=True))

    def __len__(self) -> int:
        return int(np.prod(self.counts))

    def __iter__(self) -> Iterator[Index]:
        """The blocks' indices in raster order."""
        return product(*(range(n) for n in self.counts))

    def number(self, index: Index) -> int:
        """Position of a block in raster order."""
        return int(np.ravel_multi_index(index, self.counts))

    def region(self, index: Index) -> Slices:
        """The block's pixels, as slices of the image."""
        return tuple(
            slice(i * b, min((i + 1) * b, n))
            for i, b, n in zip(index, self.block, self.shape, strict=True)
        )

    def touching(self, region: Slices) -> Iterator[Index]:
        """Indices of the blocks that share pixels with a region of the image."""
        return product(
            *(range(s.start // b, -(-s.stop // b)) for s, b in zip(region, self.block, strict=True))
        )


def grid_of(shape: Sequence[int], block: int) -> Grid:
    """Blocks of ``block`` pixels a side for 2D images, of as many pixels in all for 3D ones."""
    side = block if len(shape) == 2 else max(1, round(block ** (2 / 3)))
    return Grid(tuple(shape), (side,) * len(shape))


def within(inner: Slices, outer: Slices) -> Slices:
    """The common part of two regions, counted from the start of ``outer``."""
    return tuple(
        slice(max(i.start, o.start) - o.start, min(i.stop, o.stop) - o.start)
        for i, o in zip(inner, outer, strict=True)
    )


def ordered(
    function: Callable[[T], R], items: Iterable[T], threads: int, *, what: str = "", total: int = 0
) -> Iterator[R]:
    """Results in the items' order, with a bounded number of them computed ahead of their use.

    Args:
        what: if given, named in the log every some seconds, with the number done of ``total``.
    """
    last = time.monotonic()
    for done, result in enumerate(_mapped(function, items, threads), 1):
        yield result
        if what and time.monotonic() - last >= LOG_EVERY_SECONDS:
            last = time.monotonic()
            log.info("%s: %d of %d", what, done, total)


def _mapped(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    if threads <= 1:
        yield from map(function, items)
        return
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class Scratch:
    """Makes the temporary arrays of one image: in memory for one block, else on disk."""

    def __init__(self, folder: Path, grid: Grid) -> None:
        self._folder = folder
        self._grid = grid
        self._made = 0

    def array(self, dtype: DTypeLike = np.uint32) -> Store:
        """An array of the image's spatial shape, zero everywhere; one chunk is one block, so
        that threads may write different blocks at once."""
        if len(self._grid) == 1:
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
    """Temporary arrays in a hidden folder below ``folder``, removed at the end in any case."""
    if len(grid) == 1:
        yield Scratch(folder, grid)
        return
    temporary = Path(tempfile.mkdtemp(prefix=".labels-", suffix=".tmp", dir=folder))
    try:
        yield Scratch(temporary, grid)
    finally:
        remove(temporary)


def run_starts(values: NDArray[Any]) -> NDArray[np.int64]:
    """Where runs of equal values start in a flat, non-empty array (int64, from 0)."""
    return np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1]).astype(np.int64)
