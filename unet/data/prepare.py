"""The prepare stage: writes normalised images and label arrays of all usable images into a store.

Images are independent tasks for threads. Each task reserves its memory before it starts. An image
that does not fit is streamed in rows of shards instead of being held, so peak memory depends on the
setting and not on the size of the images.
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
from unet.data.fit_checks import check_fit
from unet.data.prepare_image import (
    Stage,
    Target,
    dataset_statistics,
    manifest_attrs,
    prepare_image,
    raw_bytes,
    resampled_attrs,
)
from unet.data.records import ImageRecord, read_manifest
from unet.data.scale_check import quarantine_far, scale_factor, scale_warnings
from unet.data.store import clean, free_bytes, update_attrs
from unet.errors import UserError
from unet.files import digest, lock_of, locked, read_json, write_sentinel
from unet.io.zipped_images import MANY

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
        root: folder that the manifest's paths are relative to, None = the one of ``inputs``.
        target: as in :func:`prepare_dataset`.
        warnings: file for warnings about pixel sizes; needed with ``target``.
        made_by: goes into the sentinel (:mod:`unet.provenance`).
    """
    # The files may have moved to another root since the manifest was made.
    root = Path(read_json(inputs)["root"]) if root is None else root
    records = read_manifest(manifest)
    if target is not None and warnings is not None:
        write_warnings(warnings, scale_warnings(records, quarantine_far(records, target), target))
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
    """Updates the store to the usable records; unchanged images stay as they are.

    Args:
        records: the manifest's rows; those that are not ``ok`` are left out.
        root: folder that the records' paths are relative to.
        store_path: the store, created if it is missing; no other run may use it.
        threads: images processed at the same time (with few images: threads per image).
        memory_bytes: upper bound for the pixels in memory.
        target: the network that the images are for, if it was trained on other images: they are
            resampled to its pixel size, if both are known.

    Returns:
        image id -> key, shape [C, (Z,) Y, X], axes, pixel_size_um, labelled, group, statistics.
        Shape and pixel size are those of the array ``image``.

    Raises:
        UserError: no usable record, an undeclared label value, a file that differs from the
            manifest, images that do not fit the network, or too little memory for a single row of
            tiles.
    """
    records = quarantine_far(records, target)
    wanted = {record.id: record for record in records if record.status == "ok"}
    if not wanted:
        raise UserError(_unusable(records))
    check_fit(list(wanted.values()), target)
    keys = _keys(wanted, settings, target)
    attrs = clean(store_path, keys)
    todo = [record for name, record in wanted.items() if name not in attrs]
    many = len(wanted) > MANY
    stage = _stage(root, store_path, settings, threads, memory_bytes, len(todo), target, many)
    _log_estimate(stage, wanted, todo, memory_bytes)
    if target is not None:
        _log_sizes(wanted, target)

    shared = None if target is None else target.statistics
    if todo and shared is None and stage.section.normalize.scope == "dataset":
        # The keys guarantee that the unchanged images were normalised with the same statistics.
        shared = next((a["statistics"] for a in attrs.values()), None)
        shared = shared or dataset_statistics(stage, list(wanted.values()))
    progress = Progress("prepare", len(todo), sum(map(raw_bytes, todo)))

    def work(record: ImageRecord) -> tuple[str, dict[str, Any]]:
        return record.id, prepare_image(stage, record, keys[record.id], shared, progress)

    for record in wanted.values():
        if record.id in attrs and (new := _changed(attrs[record.id], manifest_attrs(record))):
            update_attrs(store_path, record.id, new)
    attrs.update(mapped(work, todo, stage.workers))
    return {name: _entry(record, attrs[name]) for name, record in wanted.items()}


def _unusable(records: Sequence[ImageRecord]) -> str:
    first = f"; the first: {records[0].image}: {records[0].reason}" if records else ""
    return f"manifest.csv: no usable image{first}"


def _stage(
    root: Path,
    store: Path,
    settings: PrepareSettings,
    threads: int,
    memory_bytes: int,
    images: int,
    target: Target | None,
    many: bool,
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
        many=many,
        sparse=settings.sparse,
        background=settings.background,
        background_px=settings.background_px,
    )


def _keys(
    wanted: dict[str, ImageRecord], settings: PrepareSettings, target: Target | None
) -> dict[str, str]:
    """For each image, a hash of everything that determines its arrays."""
    # The order of the classes determines their indices, but a hash ignores the order of a mapping.
    common: dict[str, Any] = {
        "settings": {k: v for k, v in settings.to_json().items() if k not in ("classes", "ignore")},
        "labels": [[value for _, value in settings.classes or ()], settings.ignore],
    }
    grids: dict[str, list[Any]] = {name: [] for name in wanted}
    if target is not None:
        common["statistics"] = target.statistics
        grids = {name: [resampled_attrs(r, target.resampling(r))] for name, r in wanted.items()}
    elif settings.prepare.normalize.scope == "dataset":
        # The inputs of the statistics, so that the key is known before any pixel is read.
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
    """The entry in the key; empty for most images, so that keys of older versions stay valid."""
    return ["inverted"] if record.inverted else []


def _changed(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in new.items() if old.get(name) != value}


def _entry(record: ImageRecord, attrs: dict[str, Any]) -> dict[str, Any]:
    from_manifest = manifest_attrs(record)
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
    """Logs which images are resampled to the network's pixel size, and which cannot be."""
    if target.pixel_size_um is None:
        log.info("the model's pixel size is not known: the images are not resampled")
        return
    size = " x ".join(f"{value:.4g}" for value in target.pixel_size_um)
    unknown = [record for record in wanted.values() if record.pixel_size_um is None]
    if unknown:
        log.warning(
            "%d of %d images, such as %s, have no pixel size: they are not resampled to the "
            "model's %s um; set pixel_size_um",
            *(len(unknown), len(wanted), unknown[0].image, size),
        )
    factors = [
        scale_factor(record, target)
        for record in wanted.values()
        if target.resampling(record) is not None
    ]
    if factors:
        log.info(
            "%d of %d images are resampled to the model's %s um, by factors of up to %.3g",
            *(len(factors), len(wanted), size, max(factors)),
        )


def stored_bytes(stage: Stage, record: ImageRecord) -> int:
    """Bytes on disk of an image's arrays, on its own grid and on the network's. Labels compress to
    almost nothing; normalised images hardly compress."""
    found = stage.resampling(record)
    grids = [record.shape[1:]] if found is None else [record.shape[1:], found.shape]
    return sum(4 * record.shape[0] * math.prod(grid) for grid in grids)


def _log_estimate(
    stage: Stage, wanted: dict[str, ImageRecord], todo: list[ImageRecord], memory_bytes: int
) -> None:
    disk = sum(stored_bytes(stage, record) for record in todo)
    free = free_bytes(stage.store)
    log.info(
        "prepare: %d of %d images to prepare, %d stay as they are; about %s on disk (%s free), "
        "up to %s of memory",
        *(len(todo), len(wanted), len(wanted) - len(todo)),
        *map(gigabytes, (disk, free, memory_bytes)),
    )
    if disk > free:
        needed, found = gigabytes(disk), gigabytes(free)
        log.warning("prepare: the disk may become full: %s needed, %s free", needed, found)
