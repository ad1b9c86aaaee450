"""The predict stage: runs every tile of every held-out image through the network, once.

The tiles are grouped into batches, which are the same for every resumed run
(:mod:`unet.prediction.tiles.window_plans`, :mod:`unet.prediction.tiles.batches`). Finished tiles
are recorded one by one (:mod:`unet.prediction.tiles.finished_tiles`). So one job, several jobs or
the workers of a cluster can do the work, and it can stop and resume at any time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from unet.config.stage_settings import PredictSettings
from unet.data.blocks import gigabytes
from unet.data.store import Prepared, free_bytes
from unet.errors import UserError, how_many
from unet.models.devices import choose_devices
from unet.prediction.tiles.batches import Batch, Planned, batches, shard_of
from unet.prediction.tiles.engine_accuracy import agrees_with_float32
from unet.prediction.tiles.ensemble import Ensemble
from unet.prediction.tiles.finished_tiles import (
    UnfinishedTiles,
    finished_attrs,
    remove_stale,
    unfinished_attrs,
)
from unet.prediction.tiles.predict_loop import Run, Todo, run_batches, run_here
from unet.prediction.tiles.prediction_job import PredictionData, PredictionResources, Share
from unet.prediction.tiles.window_plans import ImagePlan, MemoryBudget, Planner, shared_budget
from unet.prediction.tiles.windows import memory_needed
from unet.prediction.tiles.worker import TileWorker

log = logging.getLogger(__name__)

# Warn if more pixels than this are computed per pixel of the image, though larger windows or a
# smaller halo would help: not for images smaller than the halo, of which one window sees all.
WASTEFUL = 8


def predict_fold(
    data: PredictionData,
    settings: PredictSettings,
    resources: PredictionResources | None = None,
    share: Share | None = None,
    run: Run | None = None,
) -> dict[str, Any]:
    """Predicts the held-out images of a fold into ``tiles.zarr``.

    Each image appears under its name when all of its tiles are finished. Finished images and
    tiles are kept if they were made by the same networks from the same image with the same
    settings.

    Args:
        share: the part of the batches for this job; images then stay unfinished (see
            :func:`gather`).
        run: runs the batches; by default in the threads of this process.

    Returns:
        Each image's entry for the sentinel.

    Raises:
        UserError: the channels do not match the model, the networks do not match each other, a
            single tile does not fit on the device, or the tiles do not fit on the disk.
    """
    resources = resources or PredictionResources()
    devices, threads = choose_devices(settings.device, resources.gpus), resources.threads
    data.check_channels()
    torch.set_num_threads(threads)
    ready = _checked_ensemble(data, settings, devices[0], max(1, threads // len(devices)))
    settings = settings.with_section(precision=ready.precision, engine=ready.engine)
    data.tiles.mkdir(parents=True, exist_ok=True)
    zarr.open_group(data.tiles, mode="a", zarr_format=3)
    worker = TileWorker(
        data.members, data.alone, settings.predict, devices, data.store,
        data.prepared.get("normalize", {}), data.tiles, threads,
        "0" if share is None else str(share.index), ready,
        data.calibration(settings.predict.precision),
    )  # fmt: skip
    try:
        ensemble = worker.lanes[0].ensemble
        budget = MemoryBudget.here(devices[0], resources.memory_bytes, resources.batch)
        planned = _planned(data, settings, ensemble, budget, shared=share is not None)
        if share is None:
            remove_stale(data.tiles, {image.image: image.key for image in planned})
        todo = Todo(worker, planned, data.tiles)
        _log_estimate(todo, ensemble, settings)
        groups: Iterable[Batch] = batches(planned)
        if share is not None:
            groups = shard_of(groups, share.index, share.count)
        shares = 1 if share is None else share.count
        # On a cluster the networks run elsewhere.
        resources.meter.begin([] if run else devices)
        started = time.monotonic()
        run_batches(worker, todo, groups, run or run_here, finish=share is None, shares=shares)
        seconds = (time.monotonic() - started) * len(devices)
        resources.meter.add(seconds, sum(lane.busy.seconds for lane in worker.lanes))
    finally:
        worker.close()
    return {image.image: image.entry() for image in planned} if share else todo.entries()


def _checked_ensemble(
    data: PredictionData, settings: PredictSettings, device: torch.device, threads: int
) -> Ensemble:
    """The networks, with the engine and the precision to use: the requested ones, or PyTorch in
    float32 if these turn out to be too coarse on the first image (int8: on one that was not used
    to calibrate, or on another part of the only one).

    If tiles exist already, it uses what they were made with: a new image must not change the
    others.
    """

    def with_settings(chosen: PredictSettings) -> Ensemble:
        calibration = data.calibration(chosen.predict.precision)
        calibrate = None if calibration is None else calibration.windows
        return Ensemble(data.members, data.alone, device, chosen.predict, threads, calibrate)

    ensemble = with_settings(settings)
    if not data.parts or (ensemble.engine, ensemble.precision) == ("torch", "float32"):
        return ensemble
    exact = settings.with_section(precision="float32", engine="torch")
    requested = settings.with_section(precision=ensemble.precision, engine=ensemble.engine)
    for candidate in (requested, exact):
        keyed = data.keyed(candidate)
        for name, part in data.parts.items():
            key = data.key(name, ensemble, keyed)
            if finished_attrs(data.tiles, name, key, part) or unfinished_attrs(
                data.tiles, name, key
            ):
                return ensemble if candidate is requested else with_settings(exact)
    calibration = data.calibration(ensemble.precision)
    name = min(data.parts) if calibration is None else calibration.checked(data.parts)
    image = Prepared(data.store).image(name)
    if image.ndim - 1 != len(ensemble.footprint) or agrees_with_float32(
        ensemble.predictor(name), image
    ):
        return ensemble
    return with_settings(exact)


def _planned(
    data: PredictionData,
    settings: PredictSettings,
    ensemble: Ensemble,
    budget: MemoryBudget,
    shared: bool,
) -> list[Planned]:
    """All images with their windows, in order of their ids."""
    keyed, fps = data.keyed(settings), ensemble.footprint
    keys = {name: data.key(name, ensemble, keyed) for name in data.parts}
    agreed = shared_budget(data.tiles, keys, budget) if shared else None
    planner = Planner(data.tiles, settings.predict, fps, ensemble.width, budget, agreed)
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
        if windows.halo_of_cuts > WASTEFUL:
            log.warning(
                "%s: windows of %s px are mostly halo, so each pixel is computed %.0f times; "
                "raise memory_gb or predict.tile, or train a model with less depth",
                name, list(windows.window), windows.overhead,
            )  # fmt: skip
        attrs = _attributes(data, settings, ensemble, name, made)
        found.append(Planned(name, part, keys[name], windows, made.batch, attrs))
    return found


def _attributes(
    data: PredictionData, settings: PredictSettings, ensemble: Ensemble, name: str, made: ImagePlan
) -> dict[str, Any]:
    """The attributes to store with the tiles of an image."""
    info, model, section = data.info(name), data.members[0].model, settings.predict
    return {
        "part": data.parts[name], "head": list(model.head), "axes": info["axes"],
        "pixel_size_um": info["pixel_size_um"], "channels": model.in_channels,
        "precision": section.precision, "engine": section.engine, "blend": section.blend,
        "network": ensemble.alone.get(name), "tile": made.tile, "batch": made.batch,
        "grid": [fp.grid for fp in ensemble.footprint],
    }  # fmt: skip


def _log_estimate(todo: Todo, ensemble: Ensemble, settings: PredictSettings) -> None:
    """Logs what is left to do.

    Raises:
        UserError: the tiles would not fit on the disk.
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
        "predicting %s with %s on %s by %s in %s; halo %s px, grid %s px",
        how_many(len(ahead), "image"), how_many(len(ensemble.members), "network"), ensemble.device,
        section.engine,
        section.precision, [fp.halo or fp.margin for fp in fps], [fp.grid for fp in fps],
    )  # fmt: skip
    if not ahead:
        return
    log.info(
        "%s, %.1f Mpx for %.1f Mpx of images (%.0f %% halo and border); at most %s of "
        "memory per batch and %s on disk (%s free)",
        how_many(windows, "window"), computed / 1e6, pixels / 1e6,
        100 * (1 - pixels / max(computed, 1)),
        gigabytes(int(memory)), gigabytes(disk), gigabytes(free),
    )  # fmt: skip
    if disk > free:
        raise UserError(
            f"{todo.folder}: the tiles may need {gigabytes(disk)}, but only {gigabytes(free)} are "
            "free; make room, choose another output, or write predict.dtype: float16"
        )


def gather(tiles_path: Path, shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Completes what several jobs predicted: finished images get their names.

    Args:
        shards: what :func:`predict_fold` returned for each share.

    Returns:
        Each image's entry for the sentinel.

    Raises:
        UserError: the jobs did not work in the same way, or a tile is missing.
    """
    first = shards[0]
    if any(dict(other) != dict(first) for other in shards[1:]):
        raise UserError(
            f"{tiles_path}: the jobs of predict.shards used different settings (another device?); "
            "write predict.precision and device, and run again"
        )
    remove_stale(tiles_path, {image: entry["key"] for image, entry in first.items()})
    entries = {}
    for image, entry in first.items():
        attrs = finished_attrs(tiles_path, image, entry["key"], entry["part"])
        if attrs is None:
            unfinished = UnfinishedTiles(tiles_path, image, entry["key"], "gather")
            missing = entry["tiles"] - len(unfinished.done())
            if missing:
                raise UserError(
                    f"{tiles_path}: {missing} of {entry['tiles']} tiles of image {image} are "
                    "missing; remove the tiles.shard files next to it and run again"
                )
            skipped = sum(unfinished.done().values())
            unfinished.finish(entry["part"])
        else:
            skipped = len(attrs.get("skipped", ()))
        entries[image] = {**entry, "skipped": skipped}
    return entries
