"""Goes through the batches of a fold: what is done, what is left, and how fast it goes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unet.data.blocks import LOG_SECONDS, ordered
from unet.prediction.tiles.batches import Batch, Planned
from unet.prediction.tiles.finished_tiles import Partial, finished
from unet.prediction.tiles.worker import Work

log = logging.getLogger(__name__)

# Does all of these batches, and tells of each when it is done.
Run = Callable[[Work, Iterable[Batch]], Iterator[Batch]]


class Todo:
    """What is done and what is to do, image by image."""

    def __init__(self, work: Work, planned: Sequence[Planned], folder: Path) -> None:
        self.work, self.folder = work, folder
        self.planned = {image.image: image for image in planned}
        self._skipped: dict[str, int] = {}
        self.done: dict[str, set[int]] = {}
        for image in planned:
            attrs = finished(folder, image.image, image.key, image.part)
            if attrs is not None:
                self._skipped[image.image] = len(attrs.get("skipped", ()))
        self._before = frozenset(self._skipped)
        self._partials: dict[str, Partial] = {}

    def is_finished(self, image: str) -> bool:
        return image in self._skipped

    def remaining(self) -> Iterator[Planned]:
        """Images of which something may be left to do."""
        return (image for image in self.planned.values() if not self.is_finished(image.image))

    def window_of(self, image: str) -> float:
        """Pixels of a window of an image; 0 of one that was finished before."""
        return 0.0 if image in self._before else float(np.prod(self.planned[image].plan.window))

    def begin(self, image: str) -> None:
        """Opens an image when its first batch comes."""
        if image not in self._partials:
            self._partials[image] = self.work.add(self.planned[image])
            self.done[image] = set(self._partials[image].done())

    def left_of(self, batch: Batch) -> Batch:
        """The tiles of a batch that are not done."""
        left = []
        for image, tile in batch:
            if self.is_finished(image):
                continue
            self.begin(image)
            if tile not in self.done[image]:
                left.append((image, tile))
        return tuple(left)

    def note(self, batch: Batch, *, finish: bool) -> None:
        """After a batch: images of which it was the last get their names."""
        for image, tile in batch:
            self.done[image].add(tile)
        for image in dict(batch):
            if finish:
                self.finish_if_whole(image)

    def finish_if_whole(self, image: str) -> None:
        if len(self.done[image]) == len(self.planned[image].plan.tiles):
            partial = self._partials.pop(image)
            self._skipped[image] = sum(partial.done().values())
            self.work.forget(image)
            partial.finish(self.planned[image].part)

    def entries(self) -> dict[str, Any]:
        return {name: image.entry(self._skipped[name]) for name, image in self.planned.items()}


def do_all(
    work: Work, todo: Todo, groups: Iterable[Batch], run: Run, *, finish: bool, shares: int = 1
) -> None:
    """Does all batches that are not done, with a line in the log every some seconds.

    Args:
        groups: all of them, or one of ``shares`` equal parts.
    """
    total = float(sum(image.computed for image in todo.remaining())) / shares
    started = shown = time.monotonic()
    computed = 0.0

    def left() -> Iterator[Batch]:
        nonlocal total
        for group in groups:
            remains = todo.left_of(group)
            # Of an image that was begun by an earlier run: no part of what is left to this one.
            total -= sum(todo.window_of(tile[0]) for tile in set(group) - set(remains))
            if remains:
                yield remains

    for group in run(work, left()):
        todo.note(group, finish=finish)
        for image, _ in group:
            computed += todo.window_of(image)
        if time.monotonic() - shown > LOG_SECONDS:
            shown = time.monotonic()
            rate = computed / (shown - started)
            log.info(
                "%.1f of %.1f Mpx  %.2f Mpx/s  left %.0f s",
                computed / 1e6, total / 1e6, rate / 1e6, max(0.0, (total - computed) / rate),
            )  # fmt: skip
    if finish:
        # All tiles were there, but the process died before the image got its name.
        for left_over in list(todo.remaining()):
            todo.begin(left_over.image)
            todo.finish_if_whole(left_over.image)
    seconds = max(time.monotonic() - started, 1e-9)
    log.info("computed %.1f Mpx at %.2f Mpx/s", computed / 1e6, computed / 1e6 / seconds)


def run_here(work: Work, todo: Iterable[Batch]) -> Iterator[Batch]:
    """Batches by the threads of this process: while a device computes one, others are read and
    written, and no more are in memory than there are threads."""

    def one(batch: Batch) -> Batch:
        work.compute(batch)
        return batch

    return ordered(one, todo, work.feeders)
