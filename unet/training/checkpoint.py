"""Checkpoints: written by the minute, whole or not at all, under a lock, keyed by their content.

The last two are kept, each with a checksum of every tensor; one that does not pass is passed over.
The folder is keyed by a hash of everything that determines the training, so that an edited setting
can never resume another training's weights. It is not a declared output of the workflow, which
would be deleted before each attempt.
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
        folder: of the dataset, model and fold; each key has a folder of its own in it.
        key: hash of everything that determines the training.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.key = key
        self.folder = folder / key[:16]
        # From the newest to the oldest; the first is there only while one is being saved.
        self._next = self.folder / "next.pt"
        self._last = self.folder / "last.pt"
        self._previous = self.folder / "previous.pt"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for this process; the lock dies with the process, however it ends.

        Raises:
            UserError: another process trains here (a job can outlive a killed workflow).
        """
        with locked(self.folder / "lock", "training here"):
            yield

    def save(self, state: dict[str, Any]) -> None:
        """Writes the state; the one before stays beside it until the next.

        Killed at any moment, or out of space, it leaves the newest two that were whole.
        """
        self._remove_unfinished()
        save_tensors(self._next, {**state, "key": self.key})
        if self._last.exists():
            self._last.replace(self._previous)
        self._next.replace(self._last)

    def load(self) -> dict[str, Any] | None:
        """The newest state that is whole, or None; a damaged one is passed over with a warning."""
        for path in (self._next, self._last, self._previous):
            if not path.exists():
                continue
            try:
                state = load_tensors(path)
            except UserError as error:
                log.warning("%s; using the checkpoint before it, if there is one", error)
                # Out of the way: the next save would put it in the place of the good one.
                path.replace(path.with_name("damaged.pt"))
                continue
            if state.get("key") == self.key:
                return state
            log.warning("%s: belongs to another training; ignored", path)
        return None

    def _remove_unfinished(self) -> None:
        # Left by a process that was killed while it wrote; this one holds the lock.
        for path in self.folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)
