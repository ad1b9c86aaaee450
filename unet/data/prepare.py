"""The prepare stage: normalised images and label arrays of all usable images into one store.

Images are independent tasks for dask's threads. Each reserves the memory that it will take before
it starts; an image that does not fit is streamed in rows of shards instead of being held, so the
peak follows from the setting and not from the size of the images.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unet.data.prepare_image import (
    Stage,
    dataset_statistics,
    described,
    prepare_image,
    raw_bytes,
)
from unet.data.records import ImageRecord, read_manifest
from unet.data.store import clean, free_bytes, update_attrs
from unet.data.streaming import Budget, Progress, gigabytes, mapped
from unet.errors import UserError
from unet.files import digest, read_json, write_sentinel
from unet.sections import PrepareSection

log = logging.getLogger(__name__)

# Classes of task instances.
BINARY = {"background": 0, "foreground": 1}


def prepare_stage(
    manifest: Path,
    inputs: Path,
    store: Path,
    sentinel: Path,
    settings: dict[str, Any],
    threads: int,
    memory_bytes: int,
    root: Path | None = None,
) -> None:
    """The stage as a whole: manifest and inputs in, store and its sentinel out.

    ``root`` is what the manifest's paths are relative to, None = where they were then.
    """
    # The files may have moved since the manifest: the same names below another root.
    root = Path(read_json(inputs)["root"]) if root is None else root
    records = read_manifest(manifest)
    images = prepare_dataset(records, root, store, settings, threads, memory_bytes)
    write_sentinel(
        sentinel,
        settings["version"],
        images,
        task=settings["task"],
        class_names=list(dict(settings.get("classes") or BINARY)),
        class_values=None
        if settings.get("classes") is None
        else list(dict(settings["classes"]).values()),
        normalize=settings["prepare"]["normalize"],
        channels=next(iter(images.values()))["shape"][0],
    )


def prepare_dataset(
    records: Sequence[ImageRecord],
    root: Path,
    store_path: Path,
    settings: dict[str, Any],
    threads: int,
    memory_bytes: int,
) -> dict[str, dict[str, Any]]:
    """Brings the store up to date with the usable records; unchanged images stay as they are.

    Args:
        records: the manifest's rows; those that are not ``ok`` are left out.
        root: folder that the records' paths are relative to.
        store_path: the store, made if it is not there; must not be in use by another run.
        settings: version, prepare, task, classes, ignore, axes, channels (see :mod:`unet.slices`).
        threads: images worked on at once (for few images: threads per image).
        memory_bytes: upper bound for the pixels that are in memory at any time.

    Returns:
        image id -> key, shape [C, (Z,) Y, X], axes, pixel_size_um, labelled, group, statistics.

    Raises:
        UserError: no usable record, a label value that is not declared, a file that is not what
            the manifest says, or too little memory for a single row of tiles.
    """
    wanted = {record.id: record for record in records if record.status == "ok"}
    _check(wanted)
    keys = _keys(wanted, settings)
    attrs = clean(store_path, keys)
    todo = [record for name, record in wanted.items() if name not in attrs]
    stage = _stage(root, store_path, settings, threads, memory_bytes, len(todo))
    _log_estimate(wanted, todo, store_path, memory_bytes)

    shared = None
    if todo and stage.section.normalize.scope == "dataset":
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


def _check(wanted: dict[str, ImageRecord]) -> None:
    if not wanted:
        raise UserError("manifest.csv: no usable image; its column 'reason' says why")
    first = next(iter(wanted.values()))
    for record in wanted.values():
        if record.shape[0] != first.shape[0]:
            raise UserError(
                f"{record.image}: has {record.shape[0]} channels, but {first.image} has "
                f"{first.shape[0]}; choose the same ones with channels"
            )


def _stage(
    root: Path,
    store: Path,
    settings: dict[str, Any],
    threads: int,
    memory_bytes: int,
    images: int,
) -> Stage:
    workers = max(1, min(threads, images))
    channels = settings.get("channels")
    return Stage(
        root=root,
        store=store,
        section=PrepareSection.model_validate(settings["prepare"]),
        task=settings["task"],
        classes=dict(settings.get("classes") or {}),
        ignore=settings.get("ignore"),
        axes=settings.get("axes"),
        channels=None if channels is None else tuple(channels),
        budget=Budget(memory_bytes),
        workers=workers,
        threads=max(1, threads // workers),
    )


def _keys(wanted: dict[str, ImageRecord], settings: dict[str, Any]) -> dict[str, str]:
    """Hash of all that determines an image's arrays, per image."""
    # The order of the classes gives their index, and a mapping's order is lost in a hash.
    common = {
        "settings": {name: v for name, v in settings.items() if name not in ("classes", "ignore")},
        "labels": [list(dict(settings.get("classes") or {}).values()), settings.get("ignore")],
    }
    if PrepareSection.model_validate(settings["prepare"]).normalize.scope == "dataset":
        # What the statistics follow from, so that the key is known before a pixel is read.
        common["dataset"] = sorted([r.sha256, r.page or 0] for r in wanted.values())
    base = digest(common)
    return {
        name: digest([base, record.sha256, record.label_sha256, record.page])
        for name, record in wanted.items()
    }


def _changed(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in new.items() if old.get(name) != value}


def _entry(record: ImageRecord, attrs: dict[str, Any]) -> dict[str, Any]:
    from_manifest = described(record)
    return {
        "key": attrs["key"],
        "shape": list(record.shape),
        "axes": from_manifest["axes"],
        "pixel_size_um": from_manifest["pixel_size_um"],
        "labelled": bool(record.label),
        "group": from_manifest["group"],
        "statistics": attrs["statistics"],
    }


def _log_estimate(
    wanted: dict[str, ImageRecord], todo: list[ImageRecord], store: Path, memory_bytes: int
) -> None:
    # Labels compress to next to nothing; normalised images hardly at all.
    disk = sum(4 * int(np.prod(r.shape, dtype=np.int64)) for r in todo)
    free = free_bytes(store)
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
