"""Checkpoints: written every half minute, atomically, under a lock, in a folder per training.

The last two are kept, with a checksum of every tensor; a damaged one is skipped. The folder is
named by a hash of everything that determines the training, so that a training with edited settings
never resumes from another's weights. It is not a declared output of the workflow, because Snakemake
would delete it before each attempt.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unet.errors import UserError
from unet.files import locked
from unet.models.model_file import load_tensors, save_tensors

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: of the dataset, model and fold; each key has its own folder in it.
        key: hash of everything that determines the training.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.key = key
        self.folder = folder / key[:16]
        # From the newest to the oldest; the first exists only during a save.
        self._next = self.folder / "next.pt"
        self._last = self.folder / "last.pt"
        self._previous = self.folder / "previous.pt"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder; the lock is released when the process ends, however it ends.

        Raises:
            UserError: another process trains here (a job can outlive a killed workflow).
        """
        with locked(self.folder / "lock", "training here"):
            yield

    def save(self, state: dict[str, Any]) -> None:
        """Writes the state and keeps the previous one.

        If it is killed at any moment, or runs out of space, the newest two complete states remain.
        """
        self._remove_unfinished()
        save_tensors(self._next, {**state, "key": self.key})
        if self._last.exists():
            self._last.replace(self._previous)
        self._next.replace(self._last)

    def load(self) -> dict[str, Any] | None:
        """The newest intact state, or None; damaged ones are skipped with a warning."""
        for path in (self._next, self._last, self._previous):
            if not path.exists():
                continue
            try:
                state = load_tensors(path)
            except UserError as error:
                log.warning("%s; using the checkpoint before it, if there is one", error)
                # Renamed, or the next save would replace the good checkpoint by it.
                path.replace(path.with_name("damaged.pt"))
                continue
            if state.get("key") == self.key:
                return state
            log.warning("%s: belongs to another training; ignored", path)
        return None

    def _remove_unfinished(self) -> None:
        # From a process that was killed during a save; nobody else writes, as we have the lock.
        for path in self.folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)
