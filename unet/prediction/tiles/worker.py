"""Predicts batches in one process, which has networks on its devices and open images.

Used by a job that runs alone, by each of several jobs, and by the workers of a cluster.
"""

from __future__ import annotations

import logging
import mmap
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unet.config.sections import PredictSection
from unet.data.store import Prepared
from unet.data.tiling import Tile, WindowPlan, read_window
from unet.errors import UserError, is_out_of_memory
from unet.models.inference import Predictor
from unet.models.transfer import Late, stopwatch, transfer_memory
from unet.prediction.tiles.batches import Batch, Planned
from unet.prediction.tiles.calibration import Calibration
from unet.prediction.tiles.empty_tiles import Skipper, skipper
from unet.prediction.tiles.ensemble import Ensemble, Member
from unet.prediction.tiles.finished_tiles import UnfinishedTiles
from unet.prediction.tiles.windows import layout

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Pipelining:
    """How much goes on at the same time, per device.

    Attributes:
        ahead: batches that the device has: one to compute, and on a GPU the next one.
        feeders: threads that read and write, next to the one that computes.
    """

    ahead: int
    feeders: int


# Threads of a cluster's worker, whose device is not known.
FEEDERS = 3
_PIPELINING = {"cpu": _Pipelining(1, FEEDERS), "cuda": _Pipelining(2, 2 * FEEDERS)}


@dataclass
class Batching:
    """How many tiles go through the network at once; halved when memory runs out."""

    size: int

    def halve(self, error: BaseException) -> None:
        """Halves the batch.

        Raises:
            UserError: not even one tile fits.
        """
        if self.size == 1:
            raise UserError(
                "predict.tile: the device has no memory for a single tile; write a smaller tile"
            ) from error
        self.size //= 2
        log.warning("out of memory on the device: continuing with batches of %d tiles", self.size)


def begin(predictor: Predictor, windows: np.ndarray, batching: Batching) -> list[Late]:
    """Starts to compute probabilities of the windows, in as many parts as the device's memory
    requires."""
    found: list[Late] = []
    start = 0
    while start < len(windows):
        part = windows[start : start + batching.size]
        try:
            found.append(predictor.begin(part))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            batching.size = min(batching.size, len(part))
            batching.halve(error)
            if predictor.device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        start += len(part)
    return found


def joined(parts: Sequence[Late]) -> np.ndarray:
    """The parts' values, one after the other, in memory of their own.

    Raises:
        ValueError: there are none.
    """
    if not parts:
        raise ValueError("there are no windows")
    arrays: list[np.ndarray] = [part.result().numpy() for part in parts]
    if len(parts) == 1 and parts[0].copied:
        return arrays[0]
    out = own_memory((sum(map(len, arrays)), *arrays[0].shape[1:]))
    return np.concatenate(arrays, out=out)


def own_memory(shape: Sequence[int]) -> np.ndarray:
    """A float32 array in memory of its own, which is returned to the system when it is freed.
    Arrays that wait to be computed or written live longer than the layers' tensors, and would
    fragment the heap."""
    size = int(np.prod(shape))
    return np.frombuffer(mmap.mmap(-1, 4 * max(1, size)), np.float32, size).reshape(shape)


class Busy:
    """Seconds in which a device computed; several threads add to them."""

    def __init__(self) -> None:
        self.seconds, self._lock = 0.0, threading.Lock()

    def add(self, seconds: float) -> None:
        """Adds the seconds of a batch."""
        with self._lock:
            self.seconds += seconds


@dataclass(frozen=True, eq=False)
class Lane:
    """A device, the networks on it, and the one thread that runs them."""

    device: torch.device
    ensemble: Ensemble
    thread: ThreadPoolExecutor
    batching: Batching
    busy: Busy = field(default_factory=Busy)

    def begin(self, image: str, windows: np.ndarray) -> Callable[[], np.ndarray]:
        """Gives the device windows of an image; called in the lane's thread.

        Returns:
            A function that waits for their probabilities. Until it is called, the device may get
            the next windows.
        """
        clock = stopwatch(self.device)
        parts = begin(self.ensemble.predictor(image), windows, self.batching)
        clock.stop()
        # On the CPU they are there already.
        done = joined(parts) if self.device.type == "cpu" else None

        def result() -> np.ndarray:
            found = joined(parts) if done is None else done
            self.busy.add(clock.seconds())
            return found

        return result


@dataclass(frozen=True, eq=False)
class _Open:
    """An image that is being predicted."""

    pixels: Any
    plan: WindowPlan
    tiles: UnfinishedTiles
    skipper: Skipper | None


class TileWorker:
    """Predicts batches; may be called from several threads.

    Args:
        members, alone: see :class:`unet.prediction.tiles.ensemble.Ensemble`.
        section: the config's predict section; its engine and precision are used as they are.
        devices: where the networks run; each batch goes to the next free one.
        prepared_path, normalize: the prepared store, and how it was normalised.
        tiles_path: ``tiles.zarr``.
        threads: compute threads for all devices together.
        writer: name of this process, unique among those that write at the same time.
        ready: the networks on the first device, if they are loaded already.
        calibration: what int8 networks measure their ranges on.

    Raises:
        UserError: see :class:`Ensemble`.
    """

    def __init__(
        self,
        members: Sequence[Member],
        alone: Mapping[str, int],
        section: PredictSection,
        devices: Sequence[torch.device],
        prepared_path: Path,
        normalize: Mapping[str, Any],
        tiles_path: Path,
        threads: int,
        writer: str = "0",
        ready: Ensemble | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.section, self.tiles_path, self.writer = section, tiles_path, writer
        self.head = members[0].model.head
        self.normalize, self.calibration = dict(normalize), calibration
        self._store = Prepared(prepared_path)
        each = max(1, threads // len(devices))
        calibrate = None if calibration is None else calibration.windows
        torch.set_num_threads(each)
        self.lanes = [
            Lane(
                device,
                ready
                if ready and not index
                else Ensemble(members, alone, device, section, each, calibrate),
                ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(each,)),
                Batching(1 << 30),
            )
            for index, device in enumerate(devices)
        ]
        self._free: queue.Queue[Lane] = queue.Queue()
        self._pipelining = _PIPELINING[devices[0].type]
        for lane in self.lanes * self._pipelining.ahead:
            self._free.put(lane)
        self._images: dict[str, _Open] = {}
        self._lock = threading.Lock()

    @property
    def feeders(self) -> int:
        """Number of threads that should call `compute` at the same time."""
        return len(self.lanes) * self._pipelining.feeders

    def close(self) -> None:
        """Stops the devices' threads."""
        for lane in self.lanes:
            lane.thread.shutdown()

    def add(self, image: Planned) -> UnfinishedTiles:
        """Opens an image; continues its unfinished tiles, or starts new ones."""
        unfinished = UnfinishedTiles(self.tiles_path, image.image, image.key, self.writer)
        unfinished.create(image.plan, len(self.head), self.section.dtype, image.attrs)
        self._open(image.image, image.plan, unfinished)
        return unfinished

    def reopen(self, image: str, key: str) -> None:
        """Opens an image whose tiles another process started."""
        unfinished = UnfinishedTiles(self.tiles_path, image, key, self.writer)
        attrs = unfinished.attrs()
        footprints = self.lanes[0].ensemble.footprint
        self._open(
            image, layout(self.section, attrs["tile"], attrs["shape"], footprints), unfinished
        )

    def _open(self, image: str, plan: WindowPlan, unfinished: UnfinishedTiles) -> None:
        statistics = self._store.attrs(image).get("statistics", {})
        rule = skipper(self.section.skip, self.head, statistics, self.normalize)
        with self._lock:
            self._images[image] = _Open(self._store.image(image), plan, unfinished, rule)

    def forget(self, image: str) -> None:
        """Closes a finished image."""
        with self._lock:
            self._images.pop(image, None)

    def knows(self, image: str) -> bool:
        """Whether the image is open."""
        return image in self._images

    def key_of(self, image: str) -> str:
        """The key of an open image."""
        return self._images[image].tiles.key

    def compute(self, batch: Batch) -> Batch:
        """Predicts the tiles of a batch, writes their cores, marks them as done, and returns the
        batch."""
        tiles: list[tuple[str, Tile]] = []
        windows: np.ndarray | None = None
        done: dict[str, list[tuple[int, bool]]] = {}
        for name, index in batch:
            item = self._images[name]
            tile = item.plan.tiles[index]
            window = read_window(item.pixels, tile.window)
            done.setdefault(name, [])
            if item.skipper is not None and item.skipper.empty(window):
                core = [s.stop - s.start for s in tile.core]
                values = item.skipper.fill(self.head).reshape(-1, *(1 for _ in core))
                item.tiles.write(index, np.broadcast_to(values, (len(values), *core)))
                done[name].append((index, True))
            else:
                if windows is None:
                    windows = self._memory((len(batch), *window.shape))
                windows[len(tiles)] = window
                tiles.append((name, tile))
        if windows is not None:
            found = self._probabilities(tiles, windows[: len(tiles)])
            del windows
            for (name, tile), p in zip(tiles, found, strict=True):
                self._images[name].tiles.write(tile.index, p[(slice(None), *tile.inner)])
                done[name].append((tile.index, False))
        for name, marks in done.items():
            self._images[name].tiles.mark(sorted(marks))
        return batch

    def _memory(self, shape: Sequence[int]) -> np.ndarray:
        pinned = transfer_memory(shape, self.lanes[0].device)
        return own_memory(shape) if pinned is None else pinned

    def _probabilities(self, tiles: Sequence[tuple[str, Tile]], windows: np.ndarray) -> np.ndarray:
        with self._lane() as lane:
            found = lane.thread.submit(lane.begin, tiles[0][0], windows).result()()
        if not np.isfinite(found.sum(dtype=np.float64)):
            raise UserError(
                f"image {tiles[0][0]}: the network gives NaN; write predict.precision: float32, "
                "or train it again with a smaller train.lr"
            )
        return found

    @contextmanager
    def _lane(self) -> Iterator[Lane]:
        lane = self._free.get()
        try:
            yield lane
        finally:
            self._free.put(lane)
