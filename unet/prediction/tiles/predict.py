"""The predict stage: every tile of every held-out image through the network, once.

The tiles are cut into batches that are the same for every run that goes on
(:mod:`unet.prediction.tiles.window_plans`, :mod:`unet.prediction.tiles.batches`); what is done is
noted tile by tile (:mod:`unet.prediction.tiles.finished_tiles`). So the work can be done by one
job, by several that share it, or by the workers of a cluster, can end at any time and go on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import zarr

from unet.config.sections import PredictSection
from unet.config.stage_keys import told
from unet.data.blocks import LOG_SECONDS, gigabytes, ordered
from unet.data.store import Prepared, free_bytes
from unet.errors import UserError
from unet.files import digest
from unet.models.devices import choose_devices
from unet.prediction.tiles.batches import Batch, Planned, batches, shard_of
from unet.prediction.tiles.engine_accuracy import trusted
from unet.prediction.tiles.ensemble import Ensemble, Member
from unet.prediction.tiles.finished_tiles import Partial, finished, remove_stale, unfinished_tiles
from unet.prediction.tiles.window_plans import Planner, Room, shared_room
from unet.prediction.tiles.windows import memory_needed
from unet.prediction.tiles.worker import Work

log = logging.getLogger(__name__)

# From how many computed pixels per pixel of the image on a word about it is due.
WASTEFUL = 8
# Settings that say how and where it is done, and change no tile.
HOW = ("batch", "gpus", "shards", "cluster")

# Does all of these batches, and tells of each when it is done.
Run = Callable[[Work, Iterable[Batch]], Iterator[Batch]]


@dataclass(frozen=True)
class Share:
    """The part of the batches that this job does: every ``count``-th from ``index`` on."""

    index: int
    count: int


def image_key(model_key: str, prepared_key: str, settings: Mapping[str, Any]) -> str:
    """Hash of all that determines an image's tiles."""
    return digest({"model": model_key, "image": prepared_key, "settings": dict(settings)})


def keyed_settings(settings: Mapping[str, Any], section: PredictSection) -> dict[str, Any]:
    """The settings that determine tiles, with the section as it is used."""
    # Each image's own key says which networks predict it.
    others = {key: value for key, value in settings.items() if key != "members"}
    return {**others, "predict": told("predict", section, without=HOW)}


def predict_fold(
    members: Sequence[Member],
    prepared_path: Path,
    prepared: Mapping[str, Any],
    parts: Mapping[str, Literal["test", "val"]],
    settings: Mapping[str, Any],
    tiles_path: Path,
    batch: int | Literal["auto"] = "auto",
    memory_bytes: float = 4e9,
    threads: int = 2,
    alone: Mapping[str, int] | None = None,
    *,
    share: Share | None = None,
    gpus: int = 1,
    run: Run | None = None,
) -> dict[str, Any]:
    """Predicts the held-out images of a fold into ``tiles.zarr``.

    Each image appears under its name when all of its tiles are there; one that is there already,
    made by the same networks from the same image with the same settings, is kept, and of one that
    is not finished the tiles that are there are.

    Args:
        members: the networks, whose probabilities are averaged.
        prepared_path: the store; ``prepared`` is its sentinel.
        parts: image id -> why it is predicted (``val`` images serve to choose thresholds).
        settings: the slice made by :func:`unet.config.stage_settings.predict`.
        alone: image id -> index of the one network that predicts it, none being all of them.
        share: what this job does of it; the images stay unfinished (see :func:`gather`).
        gpus: of this machine, to be used at once.
        run: does the batches; by default the threads of this process.

    Returns:
        What the sentinel tells of each image.

    Raises:
        UserError: the channels do not fit the model, the networks not one another, one tile not
            the device, or the tiles not the disk.
    """
    section = PredictSection.model_validate(settings["predict"])
    devices = choose_devices(settings["device"], gpus)
    _check_channels(members[0], prepared_path, prepared)
    torch.set_num_threads(threads)
    alone = alone or {}
    each = max(1, threads // len(devices))
    ready = _trusted(
        members, alone, devices[0], settings, prepared_path, prepared, parts, tiles_path, each
    )
    section = section.model_copy(update={"precision": ready.precision, "engine": ready.engine})
    tiles_path.mkdir(parents=True, exist_ok=True)
    zarr.open_group(tiles_path, mode="a", zarr_format=3)
    work = Work(
        members, alone, section, devices, prepared_path, prepared.get("normalize", {}), tiles_path,
        threads, "0" if share is None else str(share.index), ready,
    )  # fmt: skip
    try:
        ensemble = work.lanes[0].ensemble
        used = {**settings, "predict": told("predict", section)}
        room = Room.here(devices[0], memory_bytes, batch)
        planned = _planned(
            ensemble, prepared_path, prepared, parts, used, tiles_path, room, share is not None
        )
        if share is None:
            remove_stale(tiles_path, {image.image: image.key for image in planned})
        todo = _Todo(work, planned, tiles_path)
        _log_estimate(todo, ensemble, section)
        groups: Iterable[Batch] = batches(planned)
        if share is not None:
            groups = shard_of(groups, share.index, share.count)
        shares = 1 if share is None else share.count
        _do(work, todo, groups, run or run_here, finish=share is None, shares=shares)
    finally:
        work.close()
    return {image.image: _entry(image) for image in planned} if share else todo.entries()


def _check_channels(member: Member, prepared_path: Path, prepared: Mapping[str, Any]) -> None:
    channels, wanted = int(prepared["channels"]), member.model.in_channels
    if wanted != channels:
        raise UserError(
            f"{prepared_path}: the images have {channels} channel(s), the model wants "
            f"{wanted}; choose as many by the dataset's key channels"
        )


def _trusted(
    members: Sequence[Member],
    alone: Mapping[str, int],
    device: torch.device,
    settings: Mapping[str, Any],
    prepared_path: Path,
    prepared: Mapping[str, Any],
    parts: Mapping[str, Any],
    tiles_path: Path,
    threads: int,
) -> Ensemble:
    """The networks with the engine and the precision that are used: PyTorch in float32 where the
    wanted ones turn out to be too coarse for these networks on the first image.

    Where there are tiles already it is what they were made with: an image more must not change the
    others.
    """
    section = PredictSection.model_validate(settings["predict"])
    ensemble = Ensemble(members, alone, device, section, threads)
    if not parts or (ensemble.engine, ensemble.precision) == ("torch", "float32"):
        return ensemble
    exactly = section.model_copy(update={"precision": "float32", "engine": "torch"})
    used = {"precision": ensemble.precision, "engine": ensemble.engine}
    for way in (section.model_copy(update=used), exactly):
        keyed = keyed_settings(settings, way)
        for name, part in parts.items():
            key = image_key(ensemble.key(name), prepared["images"][name]["key"], keyed)
            if finished(tiles_path, name, key, part) or unfinished_tiles(tiles_path, name, key):
                same = way is not exactly
                return ensemble if same else Ensemble(members, alone, device, exactly, threads)
    name = min(parts)
    image = Prepared(prepared_path).image(name)
    if image.ndim - 1 != len(ensemble.footprint) or trusted(ensemble.predictor(name), image):
        return ensemble
    return Ensemble(members, alone, device, exactly, threads)


def _planned(
    ensemble: Ensemble,
    prepared_path: Path,
    prepared: Mapping[str, Any],
    parts: Mapping[str, Literal["test", "val"]],
    settings: Mapping[str, Any],
    tiles_path: Path,
    room: Room,
    shared: bool,
) -> list[Planned]:
    """All images with their windows, in order of their ids."""
    section = PredictSection.model_validate(settings["predict"])
    keyed = keyed_settings(settings, section)
    fps, first = ensemble.footprint, ensemble.members[0].model
    keys = {
        name: image_key(ensemble.key(name), prepared["images"][name]["key"], keyed)
        for name in parts
    }
    agreed = shared_room(tiles_path, keys, room) if shared else None
    planner = Planner(tiles_path, section, fps, ensemble.width, room, agreed)
    found = []
    for name, part in sorted(parts.items()):
        info = prepared["images"][name]
        shape = info["shape"][1:]
        if len(shape) != len(fps):
            raise UserError(
                f"{prepared_path}: image {name} has {len(shape)} spatial axes, the model "
                f"{len(fps)}; write dims: {len(shape)} under the model"
            )
        made = planner.layout(name, keys[name], part, shape)
        windows = made.windows
        if windows.overhead > WASTEFUL:
            log.warning(
                "%s: windows of %s px are mostly halo, each pixel is computed %.0f times; "
                "raise memory_gb or predict.tile, or train a model of less depth",
                name, list(windows.window), windows.overhead,
            )  # fmt: skip
        attrs = {
            "part": part, "head": list(first.head), "axes": info["axes"],
            "pixel_size_um": info["pixel_size_um"], "channels": first.in_channels,
            "precision": section.precision, "engine": section.engine, "blend": section.blend,
            "network": ensemble.alone.get(name), "tile": made.tile, "batch": made.batch,
            "grid": [fp.grid for fp in fps],
        }  # fmt: skip
        found.append(Planned(name, part, keys[name], windows, made.batch, attrs))
    return found


def _entry(image: Planned, skipped: int = 0) -> dict[str, Any]:
    return {
        "key": image.key,
        "shape": list(image.plan.shape),
        "part": image.part,
        "tiles": len(image.plan.tiles),
        "skipped": skipped,
    }


class _Todo:
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
        return {name: _entry(image, self._skipped[name]) for name, image in self.planned.items()}


def _do(
    work: Work, todo: _Todo, groups: Iterable[Batch], run: Run, *, finish: bool, shares: int = 1
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


def _log_estimate(todo: _Todo, ensemble: Ensemble, section: PredictSection) -> None:
    """Says what is ahead.

    Raises:
        UserError: the tiles would not fit the disk.
    """
    ahead = list(todo.remaining())
    classes, itemsize = len(ensemble.members[0].model.head), np.dtype(section.dtype).itemsize
    disk = sum(image.stored_bytes(classes, itemsize) for image in ahead)
    free = free_bytes(todo.folder)
    windows = sum(len(image.plan.tiles) for image in ahead)
    pixels = sum(image.pixels for image in ahead)
    computed = sum(image.computed for image in ahead)
    memory = max(
        (memory_needed(i.plan.window, ensemble.width, i.batch) for i in ahead), default=0.0
    )
    fps = ensemble.footprint
    log.info(
        "predicting %d images by %d network(s) on %s by %s in %s; halo %s px, grid %s px",
        len(ahead), len(ensemble.members), ensemble.device, section.engine,
        section.precision, [fp.halo or fp.margin for fp in fps], [fp.grid for fp in fps],
    )  # fmt: skip
    if not ahead:
        return
    log.info(
        "%d windows, %.1f Mpx for %.1f Mpx of images (%.0f %% halo and border); at most %s of "
        "memory for a batch, at most %s on disk (%s free)",
        windows, computed / 1e6, pixels / 1e6, 100 * (1 - pixels / max(computed, 1)),
        gigabytes(int(memory)), gigabytes(disk), gigabytes(free),
    )  # fmt: skip
    if disk > free:
        raise UserError(
            f"{todo.folder}: the tiles may need {gigabytes(disk)}, but only {gigabytes(free)} are "
            "free; make room, give another output, or write predict.dtype: float16"
        )


def gather(tiles_path: Path, shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Puts together what several jobs predicted: finished images get their names.

    Args:
        shards: what :func:`predict_fold` gave back for each share.

    Returns:
        What the sentinel tells of each image.

    Raises:
        UserError: the jobs did not do the same thing, or a tile is missing.
    """
    first = shards[0]
    if any(dict(other) != dict(first) for other in shards[1:]):
        raise UserError(
            f"{tiles_path}: the jobs of predict.shards differ in what they computed with (another "
            "device?); write predict.precision and device, and run again"
        )
    remove_stale(tiles_path, {image: entry["key"] for image, entry in first.items()})
    entries = {}
    for image, entry in first.items():
        attrs = finished(tiles_path, image, entry["key"], entry["part"])
        if attrs is None:
            partial = Partial(tiles_path, image, entry["key"], "gather")
            missing = entry["tiles"] - len(partial.done())
            if missing:
                raise UserError(
                    f"{tiles_path}: {missing} of {entry['tiles']} tiles of image {image} are "
                    "missing; remove the tiles.shard files beside it and run again"
                )
            skipped = sum(partial.done().values())
            partial.finish(entry["part"])
        else:
            skipped = len(attrs.get("skipped", ()))
        entries[image] = {**entry, "skipped": skipped}
    return entries
