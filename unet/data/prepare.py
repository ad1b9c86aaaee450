"""The prepare stage: normalised images and label arrays of all usable images into one store.

Images are independent tasks for dask's threads. Each reserves the memory that it will take before
it starts; an image that does not fit is streamed in rows of shards instead of being held, so the
peak follows from the setting and not from the size of the images.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unet.config.data_settings import PrepareSettings
from unet.config.stage_keys import written_keys
from unet.data.blocks import Budget, Progress, gigabytes, mapped
from unet.data.dataset_warnings import write_warnings
from unet.data.prepare_image import (
    Stage,
    Target,
    dataset_statistics,
    described,
    prepare_image,
    raw_bytes,
    resampled,
)
from unet.data.records import ImageRecord, read_manifest
from unet.data.scale_check import factor, reachable, scale_warnings
from unet.data.store import clean, free_bytes, update_attrs
from unet.errors import UserError
from unet.files import digest, lock_of, locked, read_json, write_sentinel

log = logging.getLogger(__name__)

# Classes of task instances.
BINARY = {"background": 0, "foreground": 1}


def prepare_stage(
    manifest: Path,
    inputs: Path,
    store: Path,
    sentinel: Path,
    settings: PrepareSettings,
    threads: int,
    memory_bytes: int,
    root: Path | None = None,
    target: Target | None = None,
    made_by: Mapping[str, Any] | None = None,
    warnings: Path | None = None,
) -> None:
    """The stage as a whole: manifest and inputs in, store and its sentinel out.

    Args:
        root: what the manifest's paths are relative to, None = where they were then.
        target: as in :func:`prepare_dataset`.
        warnings: file for those about the images' pixel sizes; needed with ``target``.
        made_by: goes into the sentinel (:mod:`unet.provenance`).
    """
    # The files may have moved since the manifest: the same names below another root.
    root = Path(read_json(inputs)["root"]) if root is None else root
    records = read_manifest(manifest)
    if target is not None and warnings is not None:
        write_warnings(warnings, scale_warnings(records, reachable(records, target), target))
    with locked(lock_of(store), "preparing these images"):
        images = prepare_dataset(records, root, store, settings, threads, memory_bytes, target)
        classes = settings.classes
        write_sentinel(
            sentinel,
            settings.version,
            images,
            made_by,
            task=settings.task,
            class_names=list(dict(classes or BINARY)),
            class_values=None if classes is None else [value for _, value in classes],
            normalize=written_keys(settings.stage, settings.prepare.normalize),
            channels=next(iter(images.values()))["shape"][0],
        )


def prepare_dataset(
    records: Sequence[ImageRecord],
    root: Path,
    store_path: Path,
    settings: PrepareSettings,
    threads: int,
    memory_bytes: int,
    target: Target | None = None,
) -> dict[str, dict[str, Any]]:
    """Brings the store up to date with the usable records; unchanged images stay as they are.

    Args:
        records: the manifest's rows; those that are not ``ok`` are left out.
        root: folder that the records' paths are relative to.
        store_path: the store, made if it is not there; must not be in use by another run.
        threads: images worked on at once (for few images: threads per image).
        memory_bytes: upper bound for the pixels that are in memory at any time.
        target: the network that the images are for, if it was trained on others: they are brought
            to its pixel size, where both are known.

    Returns:
        image id -> key, shape [C, (Z,) Y, X], axes, pixel_size_um, labelled, group, statistics.
        Shape and pixel size are those of the array ``image``.

    Raises:
        UserError: no usable record, a label value that is not declared, a file that is not what
            the manifest says, images that do not fit the network, or too little memory for a single
            row of tiles.
    """
    records = reachable(records, target)
    wanted = {record.id: record for record in records if record.status == "ok"}
    if not wanted:
        raise UserError(_unusable(records))
    _check(wanted, target)
    keys = _keys(wanted, settings, target)
    attrs = clean(store_path, keys)
    todo = [record for name, record in wanted.items() if name not in attrs]
    stage = _stage(root, store_path, settings, threads, memory_bytes, len(todo), target)
    _log_estimate(stage, wanted, todo, memory_bytes)
    if target is not None:
        _log_sizes(wanted, target)

    shared = None if target is None else target.statistics
    if todo and shared is None and stage.section.normalize.scope == "dataset":
        # Any image that stays was normalised with these very statistics: its key says so.
        shared = next((a["statistics"] for a in attrs.values()), None)
        shared = shared or dataset_statistics(stage, list(wanted.values()))
    progress = Progress("prepare", len(todo), sum(map(raw_bytes, todo)))

    def work(record: ImageRecord) -> tuple[str, dict[str, Any]]:
        return record.id, prepare_image(stage, record, keys[record.id], shared, progress)

    for record in wanted.values():
        if record.id in attrs and (new := _changed(attrs[record.id], described(record))):
            update_attrs(store_path, record.id, new)
    attrs.update(mapped(work, todo, stage.workers))
    return {name: _entry(record, attrs[name]) for name, record in wanted.items()}


def _unusable(records: Sequence[ImageRecord]) -> str:
    first = f"; the first: {records[0].image}: {records[0].reason}" if records else ""
    return f"manifest.csv: no usable image{first}"


def _check(wanted: dict[str, ImageRecord], target: Target | None) -> None:
    for record in wanted.values():
        if target is not None:
            _check_fit(record, target)
    first = next(iter(wanted.values()))
    for record in wanted.values():
        if record.shape[0] != first.shape[0]:
            raise UserError(
                f"{record.image}: has {record.shape[0]} channels, but {first.image} has "
                f"{first.shape[0]}; choose the same ones with channels"
            )


def _check_fit(record: ImageRecord, target: Target) -> None:
    """An image against the network that is to predict it."""
    channels, dims = record.shape[0], len(record.shape) - 1
    if dims != target.dims:
        advice = "layout: stack (each plane is an image)" if dims == 3 else "axes: ZYX"
        raise UserError(
            f"{record.image}: the images have {dims} spatial axes, the model wants "
            f"{target.dims}; write {advice}, or take a model of dims: {dims}"
        )
    if channels != target.channels:
        raise UserError(
            f"{record.image}: the images have {channels} channel(s), the model wants "
            f"{target.channels}; choose with channels"
        )


def _stage(
    root: Path,
    store: Path,
    settings: PrepareSettings,
    threads: int,
    memory_bytes: int,
    images: int,
    target: Target | None,
) -> Stage:
    workers = max(1, min(threads, images))
    return Stage(
        root=root,
        store=store,
        section=settings.prepare,
        task=settings.task,
        classes=dict(settings.classes or {}),
        ignore=settings.ignore,
        axes=settings.axes,
        channels=settings.channels,
        budget=Budget(memory_bytes),
        workers=workers,
        threads=max(1, threads // workers),
        target=target,
        binary=settings.label_kind == "binary",
    )


def _keys(
    wanted: dict[str, ImageRecord], settings: PrepareSettings, target: Target | None
) -> dict[str, str]:
    """Hash of all that determines an image's arrays, per image."""
    # The order of the classes gives their index, and a mapping's order is lost in a hash.
    common: dict[str, Any] = {
        "settings": {k: v for k, v in settings.to_json().items() if k not in ("classes", "ignore")},
        "labels": [[value for _, value in settings.classes or ()], settings.ignore],
    }
    grids: dict[str, list[Any]] = {name: [] for name in wanted}
    if target is not None:
        common["statistics"] = target.statistics
        grids = {name: [resampled(r, target.resampling(r))] for name, r in wanted.items()}
    elif settings.prepare.normalize.scope == "dataset":
        # What the statistics follow from, so that the key is known before a pixel is read.
        common["dataset"] = sorted([r.sha256, r.page or 0, *_inversion(r)] for r in wanted.values())
    base = digest(common)
    return {
        name: digest(
            [
                *(base, record.sha256, record.label_sha256, record.page, *grids[name]),
                *_inversion(record),
            ]
        )
        for name, record in wanted.items()
    }


def _inversion(record: ImageRecord) -> list[str]:
    """What keys say of it: nothing of most images, so that those of older versions stay valid."""
    return ["inverted"] if record.inverted else []


def _changed(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in new.items() if old.get(name) != value}


def _entry(record: ImageRecord, attrs: dict[str, Any]) -> dict[str, Any]:
    from_manifest = described(record)
    seen = {"shape": list(record.shape[1:]), "pixel_size_um": from_manifest["pixel_size_um"]}
    seen |= attrs.get("resampled", {})
    own = {"resampled": True} if "resampled" in attrs else {}
    return {
        **own,
        "key": attrs["key"],
        "shape": [record.shape[0], *seen["shape"]],
        "axes": from_manifest["axes"],
        "pixel_size_um": seen["pixel_size_um"],
        "labelled": bool(record.label),
        "group": from_manifest["group"],
        "statistics": attrs["statistics"],
    }


def _log_sizes(wanted: dict[str, ImageRecord], target: Target) -> None:
    """Which images are brought to the network's pixel size, and which cannot be."""
    if target.pixel_size_um is None:
        log.info("the model's pixel size is not known: the images are not resampled")
        return
    size = " x ".join(f"{value:.4g}" for value in target.pixel_size_um)
    unknown = [record for record in wanted.values() if record.pixel_size_um is None]
    if unknown:
        log.warning(
            "%d of %d images, such as %s, tell no pixel size: they are not resampled to the "
            "model's %s um; give it by pixel_size_um",
            *(len(unknown), len(wanted), unknown[0].image, size),
        )
    factors = [
        factor(record, target)
        for record in wanted.values()
        if target.resampling(record) is not None
    ]
    if factors:
        log.info(
            "%d of %d images are resampled to the model's %s um, by factors of up to %.3g",
            *(len(factors), len(wanted), size, max(factors)),
        )


def stored_bytes(stage: Stage, record: ImageRecord) -> int:
    """Bytes that an image's arrays take on the disk, on its own grid and on the network's. Labels
    compress to next to nothing; normalised images hardly at all."""
    found = stage.resampling(record)
    grids = [record.shape[1:]] if found is None else [record.shape[1:], found.shape]
    return sum(4 * record.shape[0] * math.prod(grid) for grid in grids)


def _log_estimate(
    stage: Stage, wanted: dict[str, ImageRecord], todo: list[ImageRecord], memory_bytes: int
) -> None:
    disk = sum(stored_bytes(stage, record) for record in todo)
    free = free_bytes(stage.store)
    log.info(
        "prepare: %d of %d images to do, %d stay as they are; about %s on disk (%s free), "
        "up to %s of memory",
        len(todo),
        len(wanted),
        len(wanted) - len(todo),
        gigabytes(disk),
        gigabytes(free),
        gigabytes(memory_bytes),
    )
    if disk > free:
        log.warning(
            "prepare: the disk may become full: %s needed, %s free",
            gigabytes(disk),
            gigabytes(free),
        )
