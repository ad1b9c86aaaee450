"""Chooses the windows and batches of a fold, so that all processes use the same ones.

``tile: auto`` and ``batch: auto`` depend on the free memory, which can change: with ``memory_gb``,
with the node, or with other programs on a GPU. An image keeps the windows that it was started with:
they are stored with its tiles (:mod:`unet.prediction.tiles.finished_tiles`). Jobs that share a fold
need one plan before any of them starts: they use the memory of the first job, which is kept in
``tiles.zarr`` until the fold is finished.
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
from unet.prediction.tiles.finished_tiles import finished_attrs, unfinished_attrs, unfinished_name
from unet.prediction.tiles.windows import choose_batch, layout, memory_needed, tile_for

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemoryBudget:
    """Memory to plan for.

    Attributes:
        device: kind of device, "cpu" or "cuda".
        memory_bytes: free memory of a GPU, or allowed memory of a CPU.
        batch: as in the config.
    """

    device: str
    memory_bytes: float
    batch: int | Literal["auto"]

    @classmethod
    def here(
        cls, device: torch.device, memory_bytes: float, batch: int | Literal["auto"]
    ) -> MemoryBudget:
        """The memory of this process, now."""
        if device.type == "cuda":
            memory_bytes = float(torch.cuda.mem_get_info(device)[0])
        return cls(device.type, memory_bytes, batch)

    def fits(self, windows: WindowPlan, width: int, batch: int = 1) -> bool:
        """Whether such a batch fits in the memory at all."""
        return memory_needed(windows.window, width, batch) <= self.memory_bytes


@dataclass(frozen=True)
class ImagePlan:
    """The windows of an image, the largest allowed window per axis, and how many windows go
    through the network together."""

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
        shared: the memory that all jobs plan for, if several share the fold.
    """

    folder: Path
    section: PredictSection
    footprints: Footprints
    width: int
    here: MemoryBudget
    shared: MemoryBudget | None = None

    def layout(self, image: str, key: str, part: str, shape: Sequence[int]) -> ImagePlan:
        """The layout of an image of this spatial shape; if it has tiles already, their layout.

        An image that was started with windows that do not fit in memory here starts again, unless
        other jobs predict it, too.
        """
        done = finished_attrs(self.folder, image, key, part)
        if done is not None:
            return self._layout(shape, done)
        begun = unfinished_attrs(self.folder, image, key)
        if self.shared is not None:
            made = self._layout(shape, begun)
            if not self.here.fits(made.windows, self.width):
                log.warning(
                    "image %s: windows of %s px, planned by the first job, may not fit in memory "
                    "here; to start again with smaller ones, remove %s and the tiles.shard files "
                    "next to it", image, made.tile, self.folder,
                )  # fmt: skip
            return made
        made, kept = self._layout(shape), self._layout(shape, begun)
        if begun is None:
            # Missing or unreadable.
            remove(self.folder / unfinished_name(image, key))
        if kept.tile == made.tile:
            return kept
        if self.here.fits(kept.windows, self.width):
            log.info("image %s: continues with windows of %s px, as started", image, kept.tile)
            return kept
        log.warning(
            "image %s: started with windows of %s px, which no longer fit in memory; starts again "
            "with %s px", image, kept.tile, made.tile,
        )  # fmt: skip
        remove(self.folder / unfinished_name(image, key))
        return made

    def _layout(self, shape: Sequence[int], begun: Mapping[str, Any] | None = None) -> ImagePlan:
        """As ``begun`` (the attributes stored with the tiles), or as the memory allows."""
        budget, batch = self.shared or self.here, None
        if begun is None:
            tile = tile_for(self.section, shape, self.footprints, self.width, budget.memory_bytes)
        else:
            tile, batch = list(begun["tile"]), begun.get("batch")
        windows = layout(self.section, tile, shape, self.footprints)
        if budget.batch != "auto" or batch is None or not budget.fits(windows, self.width, batch):
            batch = choose_batch(
                budget.batch, windows.window, self.width, budget.device, budget.memory_bytes
            )
        return ImagePlan(tile, windows, batch)


def shared_budget(folder: Path, keys: Mapping[str, str], here: MemoryBudget) -> MemoryBudget:
    """The memory that all jobs that share a fold plan for: that of the first one.

    Args:
        folder: ``tiles.zarr``.
        keys: image id -> its key; each model and setting has its own plan.
    """
    target = folder / f".plan-{digest(dict(keys))[:32]}"
    file = target / "room.json"
    if not file.is_file():
        made = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=folder))
        try:
            write_json(made / file.name, asdict(here))
            made.rename(target)
        except OSError:
            # A folder that is not empty is not replaced: another job was faster.
            if not file.is_file():
                raise
        finally:
            remove(made)
    return MemoryBudget(**read_json(file))
