"""Going through arrays of any size within a memory budget, region by region.

Peak memory follows from the budget alone: an image that does not fit is not held but decoded again
for each pass, in rows of shards or parts of them.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, TypeVar

import dask
import numpy as np
import numpy.typing as npt

from unet.errors import UserError

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]
Slices = tuple[slice, ...]
T = TypeVar("T")
R = TypeVar("R")
LOG_SECONDS = 3.0
# Items handed to dask at once: enough to hide each batch's tail, few enough for a small graph.
BATCH = 256


def gigabytes(nbytes: int) -> str:
    """A number of bytes for messages, such as ``1.25 GB``."""
    return f"{nbytes / 1e9:.3g} GB"


def blocks(shape: tuple[int, ...], step: tuple[int, ...]) -> Iterator[Slices]:
    """Regions of at most ``step`` pixels that cover ``shape`` once, in the order of the axes."""
    starts = [range(0, size, s) for size, s in zip(shape, step, strict=True)]
    for start in product(*starts):
        yield tuple(
            slice(a, min(a + s, size)) for a, s, size in zip(start, step, shape, strict=True)
        )


@dataclass(frozen=True)
class Walk:
    """How a source array is gone through: region by region, each of whole shards.

    Attributes:
        held: whether the source is decoded once and kept until the image is done.
        step: shape of a region, all axes.
        peak: upper bound of the memory that this takes, in bytes.
    """

    held: bool
    step: tuple[int, ...]
    peak: int


def plan_walk(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    source: tuple[tuple[int, ...], ...],
    shard: tuple[int, ...],
    allowed: int,
) -> Walk:
    """The fastest walk that fits into ``allowed`` bytes; if none does, the smallest there is.

    Held is faster than decoding again for each pass, and whole rows of shards faster than parts
    of them, because most files store rows.

    Args:
        shape: of the array, all axes ((C,) (Z,) Y, X).
        source: sizes of the source's chunks along each axis (a chunk is decoded as a whole).
        shard: shape of a shard, all axes.
    """
    rows = tuple(min(s, size) for s, size in zip(shard, shape, strict=True))
    columns = -(-shape[-1] // shard[-1])
    best: Walk | None = None
    for held in (True, False):
        width = columns
        while width:
            step = (*rows[:-1], min(width * shard[-1], shape[-1]))
            decoded = shape if held else tuple(map(_decoded, source, step))
            # Beside the source: float64 at the most while normalising, float32, the encoded
            # shard, and one more copy of it on its way to the file.
            peak = math.prod(decoded) * dtype.itemsize + math.prod(step) * (dtype.itemsize + 20)
            if best is None or peak < best.peak:
                best = Walk(held, step, peak)
            if peak <= allowed:
                return Walk(held, step, peak)
            width //= 2
    if best is None:
        raise ValueError(f"an array of shape {shape} has no pixels")
    return best


def _decoded(chunks: tuple[int, ...], step: int) -> int:
    """The most pixels along an axis that reading ``step`` of them decodes."""
    ends = np.cumsum(chunks)
    starts = np.arange(0, ends[-1], step)
    stops = np.minimum(starts + step, ends[-1])
    first = np.searchsorted(ends, starts, side="right")
    last = np.searchsorted(ends, stops, side="left")
    return int((ends[last] - (ends[first] - np.asarray(chunks)[first])).max())


class Budget:
    """Memory in bytes that concurrent tasks share; a task waits until its part is free."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, nbytes: int, name: str) -> Iterator[None]:
        """Holds ``nbytes`` for the block.

        Raises:
            UserError: the whole budget is smaller than that.
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


class Progress:
    """Logs now and then how far the work is, from any thread."""

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


class ArraySource:
    """An image's or label's array, read region by region.

    Args:
        array: dask array as the reader gives it.
        shard: what regions are whole multiples of, all axes.
        allowed: bytes that this should take.
        threads: to decode with.
    """

    def __init__(self, array: Any, shard: tuple[int, ...], allowed: int, threads: int) -> None:
        self._array = array
        self._threads = threads
        self.dtype = np.dtype(array.dtype)
        self.shape: tuple[int, ...] = tuple(int(n) for n in array.shape)
        self._shard = shard
        self.walk = plan_walk(self.shape, self.dtype, array.chunks, shard, allowed)

    def load(self) -> None:
        """Decodes all now if the plan is to hold it (after its memory has been reserved)."""
        if self.walk.held:
            self._array = self._computed(self._array)

    def shards(self) -> Iterator[Array]:
        """Shard by shard in an order that does not depend on the memory or the threads."""
        for _, block in self.regions():
            for part in blocks(block.shape, self._shard):
                yield block[part]

    def regions(self) -> Iterator[tuple[Slices, Array]]:
        """The regions of the walk with their pixels; together they are the array."""
        for region in blocks(self.shape, self.walk.step):
            part = self._array[region]
            yield region, part if self.walk.held else self._computed(part)

    def _computed(self, array: Any) -> Array:
        if self._threads == 1:
            return np.asarray(array.compute(scheduler="synchronous"))
        return np.asarray(array.compute(scheduler="threads", num_workers=self._threads))


def mapped(function: Callable[[T], R], items: Sequence[T], workers: int) -> list[R]:
    """``function`` of each item, in their order, by dask's threads."""
    delayed: Any = dask.delayed  # type: ignore[attr-defined]
    compute: Any = dask.compute  # type: ignore[attr-defined]
    results: list[R] = []
    for start in range(0, len(items), BATCH):
        # partial: dask would search an argument for collections of its own.
        batch = [partial(function, item) for item in items[start : start + BATCH]]
        tasks = [delayed(work, pure=False)() for work in batch]
        results += compute(*tasks, scheduler="threads", num_workers=workers)
    return results
