"""The predict stage: every tile of every held-out image through the network, once.

dask's threads read the windows and write the cores; one thread of its own runs the network, so
reading and writing overlap computing and no more than a few batches are ever in memory.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dask.base
import numpy as np
import psutil
import torch
import zarr
from dask.delayed import delayed

from unet.data.store import Prepared
from unet.data.tiling import Plan, Tile, cheapest_tile, read_window
from unet.errors import UserError
from unet.files import digest, remove, replacing
from unet.models.geometry import Footprints
from unet.models.inference import Predictor, choose_device, is_out_of_memory
from unet.prediction.ensemble import Ensemble, Member
from unet.prediction.tiles import create_tiles
from unet.sections import PredictSection

log = logging.getLogger(__name__)

# Threads that read and write around the one that computes.
FEEDERS = 3
# Bytes per pixel of a window and per channel of the first level that a forward pass is taken to
# need at most: an estimate on the safe side, not measured; a batch that is too large is halved.
BYTES_PER_PIXEL_AND_WIDTH = 32
# From how many computed pixels per pixel of the image on a word about it is due.
WASTEFUL = 8
# Pixels of a window, at most, where the tile is chosen here, by the number of spatial axes: beyond
# them little is gained. The halo takes the larger part of a volume's window.
LARGEST = {2: 1 << 21, 3: 1 << 25}


@dataclass
class Batching:
    """How many tiles go through the network at once; halved when the device runs out."""

    size: int

    def halve(self, error: BaseException) -> None:
        """Halves the batch.

        Raises:
            UserError: not even one tile fits.
        """
        if self.size == 1:
            raise UserError(
                "predict.tile: the device has no memory for a single tile; write a smaller tile"
            ) from error
        self.size //= 2
        log.warning("out of memory on the device: going on with batches of %d tiles", self.size)


def choose_batch(
    wanted: int | Literal["auto"],
    window: Sequence[int],
    width: int,
    device: torch.device,
    memory_bytes: float,
) -> int:
    """The number of tiles per batch: as given, or what a third of the free memory holds (1..16)."""
    if wanted != "auto":
        return wanted
    free = _free_memory(device, memory_bytes)
    per_tile = float(np.prod(window)) * width * BYTES_PER_PIXEL_AND_WIDTH
    # Beyond some megapixels a larger batch is no faster on any device.
    enough = max(1, (1 << 22) // int(np.prod(window)))
    return int(max(1, min(free / 3 / per_tile, 16, enough)))


def _free_memory(device: torch.device, memory_bytes: float) -> float:
    """Bytes that the device has left; of the CPU's at most as many as are allowed."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return min(float(psutil.virtual_memory().available), memory_bytes)


def auto_tile(
    shape: Sequence[int], footprints: Footprints, width: int, memory_bytes: float
) -> tuple[int, ...]:
    """The windows, per axis, that compute the least, of which one needs at most a third of the
    memory and has at most ``LARGEST`` pixels (or the fewest that the halo allows)."""
    fitting = memory_bytes / 3 / (width * BYTES_PER_PIXEL_AND_WIDTH)
    return cheapest_tile(shape, footprints, min(fitting, LARGEST[len(shape)]))


def _forward(predictor: Predictor, windows: np.ndarray, batching: Batching) -> np.ndarray:
    """Probabilities of the windows, in as many goes as the device's memory needs."""
    done: list[np.ndarray] = []
    start = 0
    while start < len(windows):
        part = windows[start : start + batching.size]
        try:
            done.append(predictor(part))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            batching.halve(error)
            if predictor.device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        start += len(part)
    return np.concatenate(done)


def predict_image(
    predictor: Predictor,
    image: Any,
    plan: Plan,
    target: Any,
    batching: Batching,
    device_thread: ThreadPoolExecutor,
) -> None:
    """Predicts all tiles of an image.

    Args:
        image: [C, (Z,) Y, X], read lazily by window.
        target: [tile, class, (Z,) y, x]; each tile's core is written into its corner.
        device_thread: the one thread that runs the network.
    """

    def work(tiles: Sequence[Tile]) -> None:
        windows = np.stack([read_window(image, tile.window) for tile in tiles])
        p = device_thread.submit(_forward, predictor, windows, batching).result()
        for tile, values in zip(tiles, p, strict=True):
            core = values[(slice(None), *tile.inner)]
            corner = tuple(slice(0, n) for n in core.shape[1:])
            target[(tile.index, slice(None), *corner)] = core.astype(target.dtype)

    size = batching.size
    groups = [plan.tiles[i : i + size] for i in range(0, len(plan.tiles), size)]
    tasks = [delayed(work)(group, dask_key_name=f"tiles-{i}") for i, group in enumerate(groups)]
    dask.base.compute(*tasks, scheduler="threads", num_workers=FEEDERS)  # type: ignore[no-untyped-call]


def image_key(model_key: str, prepared_key: str, settings: Mapping[str, Any]) -> str:
    """Hash of all that determines an image's tiles."""
    return digest({"model": model_key, "image": prepared_key, "settings": dict(settings)})


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
) -> dict[str, Any]:
    """Predicts the held-out images of a fold into ``tiles.zarr``.

    Each image appears under its name when all of its tiles are there; one that is there already,
    made by the same networks from the same image with the same settings, is kept.

    Args:
        members: the networks, whose probabilities are averaged.
        prepared_path: the store; ``prepared`` is its sentinel.
        parts: image id -> why it is predicted (``val`` images serve to choose thresholds).
        settings: the slice made by :func:`unet.slices.predict`.
        alone: image id -> index of the one network that predicts it, none being all of them.

    Returns:
        What the sentinel tells of each image.

    Raises:
        UserError: the channels do not fit the model, the networks not one another, or one tile not
            the device.
    """
    section = PredictSection.model_validate(settings["predict"])
    device = choose_device(settings["device"])
    first = members[0].model
    channels = int(prepared["channels"])
    if first.in_channels != channels:
        raise UserError(
            f"{prepared_path}: the images have {channels} channel(s), the model wants "
            f"{first.in_channels}; choose as many by the dataset's key channels"
        )
    torch.set_num_threads(threads)
    ensemble = Ensemble(members, alone or {}, device, section)
    # Each image's own key says which networks predict it.
    told = {key: value for key, value in settings.items() if key != "members"}
    store = Prepared(prepared_path)
    tiles_path.mkdir(parents=True, exist_ok=True)
    zarr.open_group(tiles_path, mode="a", zarr_format=3)
    _remove_stale(tiles_path, parts)
    entries: dict[str, Any] = {}
    fps = ensemble.footprint
    log.info(
        "predicting %d images by %d network(s) on %s in %s; halo %s px, grid %s px",
        len(parts), len(members), device, ensemble.precision, [fp.halo or fp.margin for fp in fps],
        [fp.grid for fp in fps],
    )  # fmt: skip
    started, done, shown = time.monotonic(), 0.0, time.monotonic()
    total = sum(float(np.prod(prepared["images"][name]["shape"][1:])) for name in parts)
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(threads,)) as runner:
        for name, part in sorted(parts.items()):
            info = prepared["images"][name]
            shape = info["shape"][1:]
            if len(shape) != len(fps):
                raise UserError(
                    f"{prepared_path}: image {name} has {len(shape)} spatial axes, the model "
                    f"{len(fps)}; write dims: {len(shape)} under the model"
                )
            predictor, width = ensemble.predictor(name), ensemble.width
            tile = section.tile
            if tile == "auto":
                # Of the CPU all that is allowed, so that equal runs have equal tiles.
                room = memory_bytes if device.type == "cpu" else _free_memory(device, 0)
                tile = auto_tile(shape, fps, width, room)
            plan = predictor.plan(shape, tile)
            if plan.overhead > WASTEFUL:
                log.warning(
                    "%s: windows of %s px are mostly halo, each pixel is computed %.0f times; "
                    "raise memory_gb or predict.tile, or train a model of less depth",
                    name, list(plan.window), plan.overhead,
                )  # fmt: skip
            told["precision"] = predictor.precision
            key = image_key(ensemble.key(name), info["key"], told)
            entries[name] = {
                "key": key,
                "shape": list(plan.shape),
                "part": part,
                "tiles": len(plan.tiles),
            }
            pixels = float(np.prod(plan.shape))
            if not _is_there(tiles_path / name, key, part):
                image = store.image(name)
                batching = Batching(choose_batch(batch, plan.window, width, device, memory_bytes))
                with replacing(tiles_path / name) as temporary:
                    temporary.unlink()
                    target = create_tiles(
                        temporary, plan, len(first.head), section.dtype,
                        {
                            "key": key, "part": part, "head": list(first.head),
                            "axes": info["axes"], "pixel_size_um": info["pixel_size_um"],
                            "channels": channels, "precision": predictor.precision,
                        },
                    )  # fmt: skip
                    predict_image(predictor, image, plan, target, batching, runner)
            done += pixels
            if time.monotonic() - shown > 5:
                shown = time.monotonic()
                rate = done / (shown - started)
                log.info(
                    "%.1f of %.1f Mpx  %.2f Mpx/s  left %.0f s",
                    done / 1e6, total / 1e6, rate / 1e6, (total - done) / rate,
                )  # fmt: skip
    seconds = max(time.monotonic() - started, 1e-9)
    log.info("predicted %.1f Mpx at %.2f Mpx/s", total / 1e6, total / 1e6 / seconds)
    return entries


def _remove_stale(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Unfinished images of a killed run, and images that are no longer asked for."""
    for path in sorted(folder.iterdir()):
        known = path.name in wanted or not path.is_dir()
        if not known or path.name.startswith("."):
            remove(path)


def _is_there(folder: Path, key: str, part: str) -> bool:
    try:
        attrs = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))["attributes"]
    except (OSError, ValueError, KeyError):
        return False
    return bool(attrs.get("key") == key and attrs.get("part") == part)
