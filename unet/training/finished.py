"""A finished training, kept beside its outputs, so that nobody trains for what is there already.

Snakemake deletes the outputs of a job before it runs again, as it does when the images were
prepared again, though to the same content. Checkpoints may have been deleted by then. So the
outputs have a second name each, in a hidden folder that is not declared.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from unet.errors import UserError
from unet.files import file_sha256, read_json, remove, replacing, write_json

log = logging.getLogger(__name__)


class Finished:
    """What a finished training wrote.

    Args:
        outputs: the files, all in one folder.
        key: hash of everything that determines the training.
    """

    def __init__(self, outputs: Sequence[Path], key: str) -> None:
        self.folder = outputs[0].parent / ".trained"
        self._outputs, self._key = outputs, key
        self._kept = [self.folder / path.name for path in outputs]
        # Written last, it says what the folder holds.
        self._about = self.folder / "trained.json"

    def keep(self) -> None:
        """Keeps the outputs, in the place of an earlier training's."""
        remove(self.folder)
        for output, kept in zip(self._outputs, self._kept, strict=True):
            _link(output, kept)
        write_json(self._about, self._of(self._kept))

    def is_kept(self) -> bool:
        """Whether this training is kept; with a warning where it is, but damaged."""
        try:
            told = read_json(self._about) if self._about.exists() else {}
            if told.get("key") != self._key:
                return False
            # A second name is of the same file: who writes into an output changes both.
            if told == self._of(self._kept):
                return True
        except (AttributeError, OSError, UserError):
            pass
        log.warning("%s: damaged or changed; not used", self.folder)
        return False

    def restore(self) -> None:
        """Gives the outputs that are kept their names again, and the time of now."""
        for output, kept in zip(self._outputs, self._kept, strict=True):
            _link(kept, output)
            os.utime(output)

    def _of(self, paths: Iterable[Path]) -> dict[str, Any]:
        return {"key": self._key, "files": {path.name: file_sha256(path) for path in paths}}


def _link(path: Path, other: Path) -> None:
    """Gives a file a second name, which takes no space; a copy where there are no such names."""
    if other.exists() and other.samefile(path):
        return
    with replacing(other) as temporary:
        temporary.unlink()
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)
