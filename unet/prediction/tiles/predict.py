"""The predict stage: every tile of every held-out image through the network, once.

The tiles are cut into batches that are the same for every run that goes on
(:mod:`unet.prediction.tiles.window_plans`, :mod:`unet.prediction.tiles.batches`); what is done is
noted tile by tile (:mod:`unet.prediction.tiles.finished_tiles`). So the work can be done by one
job, by several that share it, or by the workers of a cluster, can end at any time and go on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from unet.config.stage_settings import PredictSettings
from unet.data.blocks import gigabytes
from unet.data.store import Prepared, free_bytes
from unet.errors import UserError
from unet.models.devices import choose_devices
from unet.prediction.tiles.batches import Batch, Planned, batches, shard_of
from unet.prediction.tiles.engine_accuracy import trusted
from unet.prediction.tiles.ensemble import Ensemble
from unet.prediction.tiles.finished_tiles import Partial, finished, remove_stale, unfinished_tiles
from unet.prediction.tiles.predict_loop import Run, Todo, do_all, run_here
from unet.prediction.tiles.prediction_job import PredictionData, PredictionResources, Share
from unet.prediction.tiles.window_plans import ImagePlan, Planner, Room, shared_room
from unet.prediction.tiles.windows import memory_needed
from unet.prediction.tiles.worker import Work

log = logging.getLogger(__name__)

# From how many computed pixels per pixel of the image on a word about it is due.
WASTEFUL = 8


def predict_fold(
    data: PredictionData,
    settings: PredictSettings,
    resources: PredictionResources | None = None,
    share: Share | None = None,
    run: Run | None = None,
) -> dict[str, Any]:
    """Predicts the held-out images of a fold into ``tiles.zarr``.

    Each image appears under its name when all of its tiles are there; one that is there already,
    made by the same networks from the same image with the same settings, is kept, and of one that
    is not finished the tiles that are there are.

    Args:
        share: what this job does of it; the images stay unfinished (see :func:`gather`).
        run: does the batches; by default the threads of this process.

    Returns:
        What the sentinel tells of each image.

    Raises:
        UserError: the channels do not fit the model, the networks not one another, one tile not
            the device, or the tiles not the disk.
    """
    resources = resources or PredictionResources()
    devices, threads = choose_devices(settings.device, resources.gpus), resources.threads
    data.check_channels()
    torch.set_num_threads(threads)
    ready = _trusted(data, settings, devices[0], max(1, threads // len(devices)))
    settings = settings.with_section(precision=ready.precision, engine=ready.engine)
    data.tiles.mkdir(parents=True, exist_ok=True)
    zarr.open_group(data.tiles, mode="a", zarr_format=3)
    work = Work(
        data.members, data.alone, settings.predict, devices, data.store,
        data.prepared.get("normalize", {}), data.tiles, threads,
        "0" if share is None else str(share.index), ready,
    )  # fmt: skip
    try:
        ensemble = work.lanes[0].ensemble
        room = Room.here(devices[0], resources.memory_bytes, resources.batch)
        planned = _planned(data, settings, ensemble, room, shared=share is not None)
        if share is None:
            remove_stale(data.tiles, {image.image: image.key for image in planned})
        todo = Todo(work, planned, data.tiles)
        _log_estimate(todo, ensemble, settings)
        groups: Iterable[Batch] = batches(planned)
        if share is not None:
            groups = shard_of(groups, share.index, share.count)
        shares = 1 if share is None else share.count
        do_all(work, todo, groups, run or run_here, finish=share is None, shares=shares)
    finally:
        work.close()
    return {image.image: image.entry() for image in planned} if share else todo.entries()


def _trusted(
    data: PredictionData, settings: PredictSettings, device: torch.device, threads: int
) -> Ensemble:
    """The networks with the engine and the precision that are used: PyTorch in float32 where the
    wanted ones turn out to be too coarse for these networks on the first image.

    Where there are tiles already it is what they were made with: an image more must not change the
    others.
    """

    def with_settings(wanted: PredictSettings) -> Ensemble:
        return Ensemble(data.members, data.alone, device, wanted.predict, threads)

    ensemble = with_settings(settings)
    if not data.parts or (ensemble.engine, ensemble.precision) == ("torch", "float32"):
        return ensemble
    exactly = settings.with_section(precision="float32", engine="torch")
    used = settings.with_section(precision=ensemble.precision, engine=ensemble.engine)
    for way in (used, exactly):
        keyed = way.keyed()
        for name, part in data.parts.items():
            key = data.key(name, ensemble, keyed)
            if finished(data.tiles, name, key, part) or unfinished_tiles(data.tiles, name, key):
                return ensemble if way is used else with_settings(exactly)
    name = min(data.parts)
    image = Prepared(data.store).image(name)
    if image.ndim - 1 != len(ensemble.footprint) or trusted(ensemble.predictor(name), image):
        return ensemble
    return with_settings(exactly)


def _planned(
    data: PredictionData,
    settings: PredictSettings,
    ensemble: Ensemble,
    room: Room,
    shared: bool,
) -> list[Planned]:
    """All images with their windows, in order of their ids."""
    keyed, fps = settings.keyed(), ensemble.footprint
    keys = {name: data.key(name, ensemble, keyed) for name in data.parts}
    agreed = shared_room(data.tiles, keys, room) if shared else None
    planner = Planner(data.tiles, settings.predict, fps, ensemble.width, room, agreed)
    found = []
    for name, part in sorted(data.parts.items()):
        shape = data.info(name)["shape"][1:]
        if len(shape) != len(fps):
            raise UserError(
                f"{data.store}: image {name} has {len(shape)} spatial axes, the model "
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
        attrs = _noted(data, settings, ensemble, name, made)
        found.append(Planned(name, part, keys[name], windows, made.batch, attrs))
    return found


def _noted(
    data: PredictionData, settings: PredictSettings, ensemble: Ensemble, name: str, made: ImagePlan
) -> dict[str, Any]:
    """What is noted beside the tiles of an image."""
    info, model, section = data.info(name), data.members[0].model, settings.predict
    return {
        "part": data.parts[name], "head": list(model.head), "axes": info["axes"],
        "pixel_size_um": info["pixel_size_um"], "channels": model.in_channels,
        "precision": section.precision, "engine": section.engine, "blend": section.blend,
        "network": ensemble.alone.get(name), "tile": made.tile, "batch": made.batch,
        "grid": [fp.grid for fp in ensemble.footprint],
    }  # fmt: skip


def _log_estimate(todo: Todo, ensemble: Ensemble, settings: PredictSettings) -> None:
    """Says what is ahead.

    Raises:
        UserError: the tiles would not fit the disk.
    """
    ahead, section = list(todo.remaining()), settings.predict
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
