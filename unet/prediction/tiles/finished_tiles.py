"""An image's tiles while they are being predicted: what is done is known and done once.

``tiles.zarr/.<hash of image and key>.partial`` is the array of
:mod:`unet.prediction.tiles.tile_store` under a hidden name, with a folder ``.done`` in it: a file
per writer, a line per tile that is wholly written. A killed run, or the other half of a job that is
split, leaves it as it is; whoever comes next goes on where the lines end. With the last tile it
takes the image's name.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from unet.data.tiling import WindowPlan
from unet.errors import UserError
from unet.files import digest, remove
from unet.io.checksums import COMPLETE
from unet.prediction.tiles.tile_store import create_tiles

_DONE = ".done"
_SKIPPED = "skipped"


def partial_name(image: str, key: str) -> str:
    """The hidden folder's name: of another model, image or setting it is another."""
    return f".{digest([image, key])[:32]}.partial"


class Partial:
    """The tiles of one image, done and to do.

    Args:
        folder: ``tiles.zarr``.
        image, key: id, and hash of all that determines the tiles.
        writer: this process, among those that may write at the same time.
    """

    def __init__(self, folder: Path, image: str, key: str, writer: str) -> None:
        self.target = folder / image
        self.path = folder / partial_name(image, key)
        self.key, self.writer = key, writer
        self._array: Any = None
        self._repaired = False
        self._marking = threading.Lock()

    def create(self, plan: WindowPlan, classes: int, dtype: str, attrs: Mapping[str, Any]) -> None:
        """Makes the empty array unless it is there, by whichever process comes first."""
        if (self.path / "zarr.json").is_file():
            self._check(attrs)
            return
        made = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=self.path.parent))
        try:
            create_tiles(made / "tiles", plan, classes, dtype, {**attrs, "key": self.key})
            (made / "tiles" / _DONE).mkdir()
            (made / "tiles").rename(self.path)
        except OSError:
            # A folder that has something in it is not replaced: another process was faster.
            if not (self.path / "zarr.json").is_file():
                raise
            self._check(attrs)
        finally:
            remove(made)

    def _check(self, attrs: Mapping[str, Any]) -> None:
        """The windows follow from the tile: by others, a tile's number would be another place.

        Raises:
            UserError: it was begun with others.
        """
        begun = list(self.attrs()["tile"])
        if begun != list(attrs["tile"]):
            raise UserError(
                f"{self.path}: begun with tiles of {begun} px, this process takes "
                f"{list(attrs['tile'])}; remove it and run again"
            )

    def attrs(self) -> dict[str, Any]:
        """What was noted beside the tiles when they were begun."""
        return _attributes(self.path)

    def done(self) -> dict[int, bool]:
        """Tiles that are there: index -> whether it was skipped as empty."""
        found = {}
        for file in sorted((self.path / _DONE).glob("*")):
            # A line without its end was being written when the process died.
            for line in file.read_text(encoding="ascii", errors="replace").split("\n")[:-1]:
                index, _, how = line.partition(" ")
                if index.isdecimal():
                    found[int(index)] = how == _SKIPPED
        return found

    def write(self, index: int, core: np.ndarray) -> None:
        """Writes a tile's core [class, (Z,) y, x] into its corner of the chunk."""
        if self._array is None:
            self._array = zarr.open_array(self.path, mode="r+", config=COMPLETE)
        corner = tuple(slice(0, n) for n in core.shape[1:])
        self._array[(index, slice(None), *corner)] = core.astype(self._array.dtype)

    def mark(self, tiles: Sequence[tuple[int, bool]]) -> None:
        """Notes that these tiles (index, whether skipped) are wholly written."""
        lines = "".join(f"{i} {_SKIPPED}\n" if skipped else f"{i}\n" for i, skipped in tiles)
        file = self.path / _DONE / self.writer
        # One thread at a time: the repair would cut off what another one has just written.
        with self._marking:
            if not self._repaired:
                _cut_unfinished(file)
                self._repaired = True
            with file.open("a", encoding="ascii") as handle:
                handle.write(lines)

    def finish(self, part: str) -> None:
        """Gives the array the image's name; what is there under it is replaced.

        Args:
            part: why the image is predicted, which may have changed since it was begun.
        """
        skipped = sorted(index for index, empty in self.done().items() if empty)
        zarr.open_array(self.path, mode="r+").attrs.update({"skipped": skipped, "part": part})
        remove(self.target)
        self.path.rename(self.target)
        remove(self.target / _DONE)


def _cut_unfinished(file: Path) -> None:
    """Cuts off a last line without its end, left by a process that was killed or had no space: what
    is written next would make another number of it."""
    if not file.exists():
        return
    whole = file.read_bytes().rfind(b"\n") + 1
    if whole != file.stat().st_size:
        os.truncate(file, whole)


def finished(folder: Path, image: str, key: str, part: str) -> dict[str, Any] | None:
    """The attributes of an image's tiles if all are there and of this key, else None."""
    try:
        attrs = _attributes(folder / image)
    except (OSError, ValueError, KeyError):
        return None
    if attrs.get("key") != key or attrs.get("part") != part:
        return None
    remove(folder / image / _DONE)  # of a process that died right before
    return attrs


def unfinished_tiles(folder: Path, image: str, key: str) -> dict[str, Any] | None:
    """What is noted beside the tiles of an image that was begun, None if it was not."""
    try:
        return _attributes(folder / partial_name(image, key))
    except (OSError, ValueError, KeyError):
        return None


def _attributes(path: Path) -> dict[str, Any]:
    return dict(json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"])


def remove_stale(folder: Path, wanted: Mapping[str, str]) -> None:
    """Removes what is neither an image that is asked for nor the unfinished tiles of one.

    Args:
        wanted: image id -> its key.
    """
    keep = {partial_name(image, key) for image, key in wanted.items()} | set(wanted)
    for path in sorted(folder.iterdir()):
        if path.name not in keep and (path.is_dir() or path.name.startswith(".")):
            remove(path)
