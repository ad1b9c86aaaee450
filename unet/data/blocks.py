"""Processes arrays of any size block by block, within a memory budget.

A :class:`Grid` cuts an array into blocks, :func:`ordered` processes them with threads, and an
:class:`ArraySource` reads a raw image or label this way. Peak memory depends only on the budget,
since an image that does not fit is decoded again for each pass instead of being held.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from unet.data.tiling import Slices
from unet.errors import UserError

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")
Index = tuple[int, ...]
# Seconds between two progress lines in the log.
LOG_SECONDS = 5.0


@dataclass(frozen=True)
class Grid:
    """Blocks that cover an image once; those at the far ends are cut to the image.

    Attributes:
        shape: the image's spatial shape ((Z,) Y, X) in pixels.
        block: shape of the largest block, in pixels.
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

    def regions(self) -> Iterator[Slices]:
        """The pixels of each block, in raster order."""
        return map(self.region, self)

    def touching(self, region: Slices) -> Iterator[Index]:
        """Indices of the blocks that share pixels with a region of the image."""
        return product(
            *(range(s.start // b, -(-s.stop // b)) for s, b in zip(region, self.block, strict=True))
        )


def grid_of(shape: Sequence[int], block: int) -> Grid:
    """Blocks with sides of ``block`` pixels for 2D images, and the same number of pixels in 3D."""
    side = block if len(shape) == 2 else max(1, round(block ** (2 / 3)))
    return Grid(tuple(shape), (side,) * len(shape))


def within(inner: Slices, outer: Slices) -> Slices:
    """The intersection of two regions, relative to the start of ``outer``."""
    return tuple(
        slice(max(i.start, o.start) - o.start, min(i.stop, o.stop) - o.start)
        for i, o in zip(inner, outer, strict=True)
    )


def ordered(
    function: Callable[[T], R],
    items: Iterable[T],
    threads: int,
    *,
    ahead: int = 0,
    what: str = "",
    total: int = 0,
) -> Iterator[R]:
    """Results in the items' order, of which a limited number is computed ahead.

    Args:
        ahead: how many results; at least one for each thread.
        what: if given, the progress is logged every few seconds, with this name and ``total``.
    """
    last = time.monotonic()
    for done, result in enumerate(_mapped(function, items, threads, max(ahead, threads)), 1):
        yield result
        if what and time.monotonic() - last >= LOG_SECONDS:
            last = time.monotonic()
            log.info("%s: %d of %d", what, done, total)


def _mapped(
    function: Callable[[T], R], items: Iterable[T], threads: int, ahead: int
) -> Iterator[R]:
    if threads <= 1:
        yield from map(function, items)
        return
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def mapped(function: Callable[[T], R], items: Iterable[T], threads: int) -> list[R]:
    """``function`` of each item, in their order. A slow item delays few others."""
    return list(ordered(function, items, threads, ahead=256))


class Progress:
    """Logs progress every few seconds, from any thread."""

    def __init__(self, what: str, images: int, nbytes: int) -> None:
        self._what, self._images, self._bytes = what, images, max(nbytes, 1)
        self._done, self._read = 0, 0
        self._start = self._last = time.monotonic()
        self._lock = threading.Lock()

    def advance(self, nbytes: int, images: int = 0) -> None:
        """Counts raw bytes and finished images."""
        with self._lock:
            self._read += nbytes
            self._done += images
            now = time.monotonic()
            if now - self._last < LOG_SECONDS and self._done < self._images:
                return
            self._last = now
            log.info(
                "%s: image %d of %d, %.0f %%, %.0f MB/s",
                self._what,
                self._done,
                self._images,
                min(100.0, 100 * self._read / self._bytes),
                self._read / max(now - self._start, 1e-3) / 1e6,
            )


def gigabytes(nbytes: int) -> str:
    """A number of bytes for messages, such as ``1.25 GB``."""
    return f"{nbytes / 1e9:.3g} GB"


class Budget:
    """Memory in bytes that concurrent tasks share; a task waits until its share is free."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, nbytes: int, name: str) -> Iterator[None]:
        """Reserves ``nbytes`` for the ``with`` block.

        Raises:
            UserError: the whole budget is smaller.
        """
        if nbytes > self.total:
            raise UserError(
                f"{name}: needs {gigabytes(nbytes)} of memory, but only {gigabytes(self.total)} "
                "are allowed; raise memory_gb, or lower prepare.shard or prepare.tile"
            )
        with self._changed:
            self._changed.wait_for(lambda: self._free >= nbytes)
            self._free -= nbytes
        try:
            yield
        finally:
            with self._changed:
                self._free += nbytes
                self._changed.notify_all()


@dataclass(frozen=True)
class ReadPlan:
    """How a source array is read: region by region, each made of whole shards.

    Attributes:
        held: whether the source is decoded once and kept until the image is done.
        step: shape of a region, all axes.
        peak: upper bound of the memory in bytes.
    """

    held: bool
    step: tuple[int, ...]
    peak: int


def plan_reads(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    source: tuple[tuple[int, ...], ...],
    shard: tuple[int, ...],
    allowed: int,
) -> ReadPlan:
    """The fastest plan that fits into ``allowed`` bytes; if none fits, the smallest one.

    Holding the source is faster than decoding it for each pass, and whole rows of shards are faster
    than parts of them, because most files store rows.

    Args:
        shape: of the array, all axes ((C,) (Z,) Y, X).
        source: sizes of the source's chunks along each axis (chunks are decoded as a whole).
        shard: shape of a shard, all axes.
    """
    rows = tuple(min(s, size) for s, size in zip(shard, shape, strict=True))
    columns = -(-shape[-1] // shard[-1])
    best: ReadPlan | None = None
    for held in (True, False):
        width = columns
        while width:
            step = (*rows[:-1], min(width * shard[-1], shape[-1]))
            decoded = shape if held else tuple(map(_decoded, source, step))
            # Besides the source: at most float64 while normalising, float32, the encoded shard, and
            # one more copy of it while it is written.
            peak = math.prod(decoded) * dtype.itemsize + math.prod(step) * (dtype.itemsize + 20)
            if best is None or peak < best.peak:
                best = ReadPlan(held, step, peak)
            if peak <= allowed:
                return ReadPlan(held, step, peak)
            width //= 2
    if best is None:
        raise ValueError(f"an array of shape {shape} has no pixels")
    return best


def _decoded(chunks: tuple[int, ...], step: int) -> int:
    """The largest number of pixels along an axis that is decoded to read ``step`` of them."""
    ends = np.cumsum(chunks)
    starts = np.arange(0, ends[-1], step)
    stops = np.minimum(starts + step, ends[-1])
    first = np.searchsorted(ends, starts, side="right")
    last = np.searchsorted(ends, stops, side="left")
    return int((ends[last] - (ends[first] - np.asarray(chunks)[first])).max())


class ArraySource:
    """An image's or label's array, read region by region.

    Args:
        array: dask array from the reader.
        shard: shape of a shard, all axes; regions are multiples of it.
        allowed: memory in bytes that reading should take.
        threads: for decoding.
    """

    def __init__(self, array: Any, shard: tuple[int, ...], allowed: int, threads: int) -> None:
        self._array = array
        self._threads = threads
        self.dtype = np.dtype(array.dtype)
        self.shape: tuple[int, ...] = tuple(int(n) for n in array.shape)
        self._shard = shard
        self.plan = plan_reads(self.shape, self.dtype, array.chunks, shard, allowed)

    def load(self) -> None:
        """Decodes everything now if the plan holds the source; reserve the memory first."""
        if self.plan.held:
            self._array = self._computed(self._array)

    def shards(self) -> Iterator[NDArray[Any]]:
        """Shard by shard, in an order that does not depend on memory or threads."""
        for _, block in self.regions():
            for part in Grid(block.shape, self._shard).regions():
                yield block[part]

    def regions(self) -> Iterator[tuple[Slices, NDArray[Any]]]:
        """The regions of the plan with their pixels; together they are the whole array."""
        for region in Grid(self.shape, self.plan.step).regions():
            part = self._array[region]
            yield region, part if self.plan.held else self._computed(part)

    def _computed(self, array: Any) -> NDArray[Any]:
        if self._threads == 1:
            return np.asarray(array.compute(scheduler="synchronous"))
        return np.asarray(array.compute(scheduler="threads", num_workers=self._threads))
