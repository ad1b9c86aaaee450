"""Runs the batches of a fold, and keeps track of what is done, what is left and how fast it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unet.data.blocks import LOG_SECONDS, ordered
from unet.errors import time_left
from unet.prediction.tiles.batches import Batch, Planned
from unet.prediction.tiles.finished_tiles import UnfinishedTiles, finished_attrs
from unet.prediction.tiles.worker import TileWorker

log = logging.getLogger(__name__)

# Runs all batches, and yields each one when it is done.
Run = Callable[[TileWorker, Iterable[Batch]], Iterator[Batch]]


class Todo:
    """What is done and what is left, image by image."""

    def __init__(self, worker: TileWorker, planned: Sequence[Planned], folder: Path) -> None:
        self.worker, self.folder = worker, folder
        self.planned = {image.image: image for image in planned}
        self._skipped: dict[str, int] = {}
        self.done: dict[str, set[int]] = {}
        for image in planned:
            attrs = finished_attrs(folder, image.image, image.key, image.part)
            if attrs is not None:
                self._skipped[image.image] = len(attrs.get("skipped", ()))
        self._before = frozenset(self._skipped)
        self._unfinished: dict[str, UnfinishedTiles] = {}

    def is_finished(self, image: str) -> bool:
        return image in self._skipped

    def remaining(self) -> Iterator[Planned]:
        """Images that may have tiles left."""
        return (image for image in self.planned.values() if not self.is_finished(image.image))

    def window_of(self, image: str) -> float:
        """Pixels of a window of an image; 0 if the image was finished before this run."""
        return 0.0 if image in self._before else float(np.prod(self.planned[image].plan.window))

    def begin(self, image: str) -> None:
        """Opens an image at its first batch."""
        if image not in self._unfinished:
            self._unfinished[image] = self.worker.add(self.planned[image])
            self.done[image] = set(self._unfinished[image].done())

    def remaining_tiles(self, batch: Batch) -> Batch:
        """The tiles of a batch that are not done yet."""
        left = []
        for image, tile in batch:
            if self.is_finished(image):
                continue
            self.begin(image)
            if tile not in self.done[image]:
                left.append((image, tile))
        return tuple(left)

    def record(self, batch: Batch, *, finish: bool) -> None:
        """Records a finished batch; images that are now complete get their names."""
        for image, tile in batch:
            self.done[image].add(tile)
        for image in dict(batch):
            if finish:
                self.finish_if_complete(image)

    def finish_if_complete(self, image: str) -> None:
        if len(self.done[image]) == len(self.planned[image].plan.tiles):
            unfinished = self._unfinished.pop(image)
            self._skipped[image] = sum(unfinished.done().values())
            self.worker.forget(image)
            unfinished.finish(self.planned[image].part)

    def entries(self) -> dict[str, Any]:
        return {name: image.entry(self._skipped[name]) for name, image in self.planned.items()}


def run_batches(
    worker: TileWorker,
    todo: Todo,
    groups: Iterable[Batch],
    run: Run,
    *,
    finish: bool,
    shares: int = 1,
) -> None:
    """Runs all batches that are not done, and logs its progress every few seconds.

    Args:
        groups: all batches, or one of ``shares`` equal parts.
    """
    total = float(sum(image.computed for image in todo.remaining())) / shares
    started = shown = time.monotonic()
    computed = 0.0

    def left() -> Iterator[Batch]:
        nonlocal total
        for group in groups:
            remains = todo.remaining_tiles(group)
            # Tiles that an earlier run finished are not part of what is left for this one.
            total -= sum(todo.window_of(tile[0]) for tile in set(group) - set(remains))
            if remains:
                yield remains

    for group in run(worker, left()):
        todo.record(group, finish=finish)
        for image, _ in group:
            computed += todo.window_of(image)
        if time.monotonic() - shown > LOG_SECONDS:
            shown = time.monotonic()
            rate = computed / (shown - started)
            log.info(
                "%.1f of %.1f Mpx  %.2f Mpx/s  left %s",
                computed / 1e6, total / 1e6, rate / 1e6, time_left((total - computed) / rate),
            )  # fmt: skip
    if finish:
        # Images whose process died after the last tile, but before the image got its name.
        for left_over in list(todo.remaining()):
            todo.begin(left_over.image)
            todo.finish_if_complete(left_over.image)
    seconds = max(time.monotonic() - started, 1e-9)
    log.info("computed %.1f Mpx at %.2f Mpx/s", computed / 1e6, computed / 1e6 / seconds)


def run_here(worker: TileWorker, todo: Iterable[Batch]) -> Iterator[Batch]:
    """Runs batches in the threads of this process: while a device computes one, others are read
    and written. At most one batch per thread is in memory."""
    return ordered(worker.compute, todo, worker.feeders)
