"""Keeps the results of a finished training, so that the same training never runs twice.

Snakemake deletes a job's outputs before it runs the job again, for example after the images were
prepared again with the same content. The checkpoints may have been deleted by then. So each output
gets a second name (a hard link) in a hidden folder that Snakemake does not know.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unet.errors import UserError
from unet.files import file_sha256, read_json, remove, replacing, write_json

log = logging.getLogger(__name__)


class Finished:
    """The kept outputs of a finished training.

    Args:
        outputs: the files, all in one folder.
        key: hash of everything that determines the training.
    """

    def __init__(self, outputs: Sequence[Path], key: str) -> None:
        self.folder = outputs[0].parent / ".trained"
        self._outputs, self._key = outputs, key
        self._kept = [self.folder / path.name for path in outputs]
        # Written last, once the folder is complete.
        self._about = self.folder / "trained.json"

    def keep(self) -> None:
        """Keeps the outputs; replaces those of an earlier training."""
        remove(self.folder)
        for output, kept in zip(self._outputs, self._kept, strict=True):
            _link(output, kept)
        write_json(self._about, self._description())

    def is_kept(self) -> bool:
        """Whether the outputs of this training are kept and intact; warns if they are damaged."""
        try:
            found = read_json(self._about) if self._about.exists() else {}
            if found.get("key") != self._key:
                return False
            # Output and kept file are the same file: a program that edits one changes both.
            if found == self._description():
                return True
        except (AttributeError, OSError, UserError):
            pass
        log.warning("%s: damaged or changed; not used", self.folder)
        return False

    def restore(self) -> None:
        """Restores the kept outputs, with the current time."""
        for output, kept in zip(self._outputs, self._kept, strict=True):
            _link(kept, output)
            os.utime(output)

    def _description(self) -> dict[str, Any]:
        return {"key": self._key, "files": {path.name: file_sha256(path) for path in self._kept}}


def _link(path: Path, other: Path) -> None:
    """Makes a hard link, which takes no space; a copy if the file system has no hard links."""
    if other.exists() and other.samefile(path):
        return
    with replacing(other) as temporary:
        temporary.unlink()
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)
