"""Tracks an image's tiles while they are predicted, so that none is computed twice.

``tiles.zarr/.<hash of image and key>.partial`` is the array of
:mod:`unet.prediction.tiles.tile_store` under a hidden name. Its folder ``.done`` has one file per
writer, with a line for each tile that is completely written. A run that was killed, or one of
several jobs that share the fold, leaves it behind, and the next process continues where the lines
end. After the last tile the array is renamed to the image's name.
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


def unfinished_name(image: str, key: str) -> str:
    """The hidden folder's name, which differs for each model, image and setting."""
    return f".{digest([image, key])[:32]}.partial"


class UnfinishedTiles:
    """The tiles of one image while they are being predicted.

    Args:
        folder: ``tiles.zarr``.
        image, key: id, and hash of everything that determines the tiles.
        writer: name of this process, unique among those that write at the same time.
    """

    def __init__(self, folder: Path, image: str, key: str, writer: str) -> None:
        self.target = folder / image
        self.path = folder / unfinished_name(image, key)
        self.key, self.writer = key, writer
        self._array: Any = None
        self._repaired = False
        self._marking = threading.Lock()

    def create(self, plan: WindowPlan, classes: int, dtype: str, attrs: Mapping[str, Any]) -> None:
        """Creates the empty array, unless another process has done so."""
        if (self.path / "zarr.json").is_file():
            self._check(attrs)
            return
        made = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=self.path.parent))
        try:
            create_tiles(made / "tiles", plan, classes, dtype, {**attrs, "key": self.key})
            (made / "tiles" / _DONE).mkdir()
            (made / "tiles").rename(self.path)
        except OSError:
            # A folder that is not empty is not replaced: another process was faster.
            if not (self.path / "zarr.json").is_file():
                raise
            self._check(attrs)
        finally:
            remove(made)

    def _check(self, attrs: Mapping[str, Any]) -> None:
        """Checks the tile size: with another size, a tile's number would mean another position.

        Raises:
            UserError: the image was started with another size.
        """
        earlier = list(self.attrs()["tile"])
        if earlier != list(attrs["tile"]):
            raise UserError(
                f"{self.path}: started with tiles of {earlier} px, but this process uses "
                f"{list(attrs['tile'])}; remove it and run again"
            )

    def attrs(self) -> dict[str, Any]:
        """The attributes that were stored when the image was started."""
        return _attributes(self.path)

    def done(self) -> dict[int, bool]:
        """The finished tiles: index -> whether it was skipped as empty."""
        found = {}
        for file in sorted((self.path / _DONE).glob("*")):
            # The process died while it wrote the last line, if that has no line end.
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
        """Records that these tiles (index, whether skipped) are completely written."""
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
        """Renames the array to the image's name, and replaces older tiles of that name.

        Args:
            part: why the image is predicted, which may have changed since it was started.
        """
        skipped = sorted(index for index, empty in self.done().items() if empty)
        zarr.open_array(self.path, mode="r+").attrs.update({"skipped": skipped, "part": part})
        remove(self.target)
        self.path.rename(self.target)
        remove(self.target / _DONE)


def _cut_unfinished(file: Path) -> None:
    """Cuts off a last line without a line end, left by a process that was killed or ran out of disk
    space. Otherwise the next number would be appended to it."""
    if not file.exists():
        return
    complete = file.read_bytes().rfind(b"\n") + 1
    if complete != file.stat().st_size:
        os.truncate(file, complete)


def finished_attrs(folder: Path, image: str, key: str, part: str) -> dict[str, Any] | None:
    """The attributes of an image's tiles if all are finished and have this key, else None."""
    try:
        attrs = _attributes(folder / image)
    except (OSError, ValueError, KeyError):
        return None
    if attrs.get("key") != key or attrs.get("part") != part:
        return None
    remove(folder / image / _DONE)  # left by a process that died just before it removed this
    return attrs


def unfinished_attrs(folder: Path, image: str, key: str) -> dict[str, Any] | None:
    """The attributes of an image whose tiles were started, else None."""
    try:
        return _attributes(folder / unfinished_name(image, key))
    except (OSError, ValueError, KeyError):
        return None


def _attributes(path: Path) -> dict[str, Any]:
    return dict(json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"])


def remove_stale(folder: Path, wanted: Mapping[str, str]) -> None:
    """Removes everything except the requested images and their unfinished tiles.

    Args:
        wanted: requested image id -> its key.
    """
    keep = {unfinished_name(image, key) for image, key in wanted.items()} | set(wanted)
    for path in sorted(folder.iterdir()):
        if path.name not in keep and (path.is_dir() or path.name.startswith(".")):
            remove(path)
