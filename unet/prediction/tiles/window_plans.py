"""What the windows and batches of a fold follow from, and how all who predict it use the same ones.

``tile: auto`` and ``batch: auto`` follow from the memory, which changes: with ``memory_gb``, with
the node, on a GPU with what else runs there. An image keeps the windows that it was begun with:
they are noted beside its tiles (:mod:`unet.prediction.tiles.finished_tiles`). Jobs that share a
fold need one plan before any of them has begun: the first one's memory, kept in ``tiles.zarr``
until the fold is whole.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from unet.config.geometry import Footprints
from unet.config.sections import PredictSection
from unet.data.tiling import WindowPlan
from unet.files import digest, read_json, remove, write_json
from unet.prediction.tiles.finished_tiles import finished, partial_name, unfinished_tiles
from unet.prediction.tiles.windows import choose_batch, layout, memory_needed, tile_for

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Room:
    """Memory to plan for.

    Attributes:
        device: its kind, "cpu" or "cuda".
        memory_bytes: free ones of a GPU, those allowed of a CPU.
        batch: as in the config.
    """

    device: str
    memory_bytes: float
    batch: int | Literal["auto"]

    @classmethod
    def here(cls, device: torch.device, memory_bytes: float, batch: int | Literal["auto"]) -> Room:
        """Of this process, now."""
        if device.type == "cuda":
            memory_bytes = float(torch.cuda.mem_get_info(device)[0])
        return cls(device.type, memory_bytes, batch)

    def holds(self, windows: WindowPlan, width: int, batch: int = 1) -> bool:
        """Whether such a batch can be computed at all."""
        return memory_needed(windows.window, width, batch) <= self.memory_bytes


@dataclass(frozen=True)
class ImagePlan:
    """The windows of an image, the largest one per axis that was allowed, and how many go through
    the network together."""

    tile: list[int]
    windows: WindowPlan
    batch: int


@dataclass(frozen=True)
class Planner:
    """Lays out the images of a fold.

    Attributes:
        folder: ``tiles.zarr``.
        width: channels of the networks' first level.
        here: the memory of this process.
        shared: the memory that all jobs plan for, where several share the fold.
    """

    folder: Path
    section: PredictSection
    footprints: Footprints
    width: int
    here: Room
    shared: Room | None = None

    def layout(self, image: str, key: str, part: str, shape: Sequence[int]) -> ImagePlan:
        """The layout of an image of this spatial shape: the one of its tiles, if there are any.

        One that was begun with windows that cannot be computed here begins again, unless others
        predict it too.
        """
        done = finished(self.folder, image, key, part)
        if done is not None:
            return self._layout(shape, done)
        begun = unfinished_tiles(self.folder, image, key)
        if self.shared is not None:
            made = self._layout(shape, begun)
            if not self.here.holds(made.windows, self.width):
                log.warning(
                    "image %s: windows of %s px, planned by the job that came first, may be more "
                    "than the memory here; to begin again with less, remove %s and the tiles.shard "
                    "files beside it", image, made.tile, self.folder,
                )  # fmt: skip
            return made
        made, kept = self._layout(shape), self._layout(shape, begun)
        if begun is None:
            # Nothing there, or nothing that can be read.
            remove(self.folder / partial_name(image, key))
        if kept.tile == made.tile:
            return kept
        if self.here.holds(kept.windows, self.width):
            log.info("image %s goes on with windows of %s px, as it was begun", image, kept.tile)
            return kept
        log.warning(
            "image %s: begun with windows of %s px, for which there is no memory now; begins again "
            "with %s px", image, kept.tile, made.tile,
        )  # fmt: skip
        remove(self.folder / partial_name(image, key))
        return made

    def _layout(self, shape: Sequence[int], begun: Mapping[str, Any] | None = None) -> ImagePlan:
        """As it was ``begun`` (what is noted beside the tiles), or as the memory allows."""
        room, batch = self.shared or self.here, None
        if begun is None:
            tile = tile_for(self.section, shape, self.footprints, self.width, room.memory_bytes)
        else:
            tile, batch = list(begun["tile"]), begun.get("batch")
        windows = layout(self.section, tile, shape, self.footprints)
        if room.batch != "auto" or batch is None or not room.holds(windows, self.width, batch):
            batch = choose_batch(
                room.batch, windows.window, self.width, room.device, room.memory_bytes
            )
        return ImagePlan(tile, windows, batch)


def shared_room(folder: Path, keys: Mapping[str, str], here: Room) -> Room:
    """The memory that all jobs plan for which share a fold: that of the one that comes first.

    Args:
        folder: ``tiles.zarr``.
        keys: image id -> its key; another model or setting is another plan.
    """
    target = folder / f".plan-{digest(dict(keys))[:32]}"
    file = target / "room.json"
    if not file.is_file():
        made = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=folder))
        try:
            write_json(made / file.name, asdict(here))
            made.rename(target)
        except OSError:
            # A folder that has something in it is not replaced: another job was faster.
            if not file.is_file():
                raise
        finally:
            remove(made)
    return Room(**read_json(file))
