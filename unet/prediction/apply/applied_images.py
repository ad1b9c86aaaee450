"""Applies networks to images: calls the workflow's stages (manifest, prepare_applied, predict,
stitch) one after the other in this process, with a work folder below the output folder.

`unet predict` and `import unet` both come here. Light to import: the stages are imported when they
run.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet import provenance
from unet.config.data_settings import ManifestSettings, PrepareAppliedSettings
from unet.config.sections import PrepareSection
from unet.config.stage_keys import written_keys
from unet.config.stage_settings import PredictSettings, StitchSettings
from unet.files import digest, read_json, replacing, write_json
from unet.prediction.apply.chosen_settings import (
    Requested,
    predict_settings,
    stitch_settings,
    training_choices,
)
from unet.prediction.apply.result_folder import SHEET, SHEET_COLUMNS, Output
from unet.tables import csv_writer

if TYPE_CHECKING:
    from unet.data.prepare_image import Target
    from unet.data.raw_files import RawSource
    from unet.data.records import ImageRecord
    from unet.models.model_file import ModelFile
    from unet.prediction.tiles.ensemble import Member

FOLD = re.compile(r"fold-\d+")


@dataclass(frozen=True)
class PredictTask:
    """The networks, the settings of each stage, and the normalisation and pixel size they need."""

    members: Sequence[Member]
    manifest: ManifestSettings
    prepare: PrepareAppliedSettings
    predict: PredictSettings
    stitch: StitchSettings
    target: Target

    @property
    def key(self) -> str:
        """A hash of everything that determines the results."""
        settings = [
            self.manifest.to_json(),
            self.prepare.to_json(),
            with_all_keys(self.predict),
            self.stitch.to_json(),
        ]
        return digest([*settings, [member.key for member in self.members]])


@dataclass(frozen=True)
class Applied:
    """What the stages found.

    Attributes:
        records: a row of the manifest for each image.
        images: ids of the segmented images.
        threshold: the minimum foreground probability that was used.
        store: the prepared images (`work` holds it until that is removed).
    """

    records: Sequence[ImageRecord]
    images: tuple[str, ...]
    threshold: float
    store: Path

    @property
    def left_out(self) -> int:
        return sum(record.status != "ok" for record in self.records)


def with_all_keys(settings: PredictSettings) -> dict[str, Any]:
    """The settings with all keys of their section, because the keys of earlier results have them
    too."""
    return {**settings.to_json(), "predict": written_keys(settings.stage, settings.predict)}


def task_of(
    members: Sequence[Member], source: RawSource, asked: Requested, content: str | None = None
) -> PredictTask:
    """What these networks compute from these images.

    Args:
        content: a hash of the images; None = by sizes and times of their files.

    Raises:
        UserError: the networks do not fit together, or a request does not fit them.
    """
    from unet.data.layouts import list_files
    from unet.data.raw_changes import fingerprint
    from unet.prediction.tiles.applied_models import target_of

    model, known = members[0].model, training_choices(members[0].path, asked)
    normalize, target = target_of({member.path: member.model for member in members})
    common = {
        "task": model.task, "ignore": None, "axes": asked.axes, "channels": asked.channels,
    }  # fmt: skip
    if content is None:
        # Each run writes the sheet again, so its time says nothing; the files that it lists count.
        files = [path for path in list_files(source) if path != source.sheet]
        content = fingerprint(files, source.root, None)
    return PredictTask(
        members,
        ManifestSettings.made(
            **common, layout=source.layout, classes=None, pixel_size_um=asked.pixel_size,
            group=None, column=None, strict=False, labelled=False,
            fingerprint=content,
        ),
        PrepareAppliedSettings.made(
            **common, classes=_classes(model), prepare=PrepareSection(normalize=normalize)
        ),
        predict_settings(asked, known),
        stitch_settings(model, asked, known),
        target,
    )  # fmt: skip


def top_folder(paths: Sequence[Path]) -> Path:
    """The deepest folder that contains all paths."""
    return Path(os.path.commonpath([path.parent for path in paths]))


def source_of(
    images: Sequence[tuple[str, Path]],
    out: Output,
    *,
    stack: bool = False,
    columns: Mapping[str, Mapping[str, str]] | None = None,
) -> RawSource:
    """Writes the images (id, path) into a sheet, which may list files from any folder.

    Args:
        stack: whether each page of a file is an image.
        columns: id -> more cells, of which those that say where it is on a plate are written.
    """
    from unet.data.raw_files import RawSource
    from unet.data.records import WELL_KEYS

    more = columns or {}
    keys = [key for key in WELL_KEYS if any(key in cells for cells in more.values())]

    sheet = out.work / SHEET
    with replacing(sheet) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv_writer(handle)
        writer.writerow([*SHEET_COLUMNS, *keys])
        for name, path in images:
            writer.writerow([name, path, *(more.get(name, {}).get(key, "") for key in keys)])
    root = top_folder([path for _, path in images])
    return RawSource(root, str(sheet.absolute()), None, "stack" if stack else "folders", False)


def apply(task: PredictTask, source: RawSource, out: Output, asked: Requested) -> Applied:
    """Runs the stages; the caller has locked the folder, and calls :func:`mark_done` afterwards.

    Raises:
        UserError: no image can be used, or the images do not fit the networks.
    """
    from unet.data.fit_checks import AS_OPTIONS, IN_CONFIG, check_fit
    from unet.data.manifest import manifest_stage
    from unet.data.manifest_checks import NoUsableImage
    from unet.data.prepare import prepare_stage
    from unet.data.records import read_manifest, write_manifest
    from unet.data.scale_check import quarantine_far
    from unet.prediction.tiles.predict import predict_fold
    from unet.prediction.tiles.prediction_job import PredictionData, PredictionResources

    inputs, store, tiles = out.work / "inputs.json", out.store, out.work / "tiles.zarr"
    remedies = AS_OPTIONS if asked.options else IN_CONFIG
    # The name contains a hash of its settings, so that each image is checked only once.
    manifest = out.work / f"manifest-{digest(task.manifest.to_json())[:12]}.csv"
    if not manifest.is_file():
        warnings = out.work / "warnings.manifest.json"
        try:
            manifest_stage(
                source, task.manifest, manifest, inputs, asked.threads, warnings, remedies
            )
        except NoUsableImage as error:
            write_manifest(out.manifest, error.records)  # says why
            raise
    records = quarantine_far(read_manifest(manifest), task.target)
    write_manifest(out.manifest, records)
    usable = [record for record in records if record.status == "ok"]
    check_fit(usable, task.target, remedies)
    # Before anything is computed.
    targets = _targets(task, usable, source, asked)
    memory = asked.memory_gb * 1e9
    sentinel = out.work / "prepared.json"
    prepare_stage(
        *(manifest, inputs, store, sentinel, task.prepare, asked.threads, int(memory)),
        root=source.root,
        target=task.target,
        warnings=out.work / "warnings.prepare.json",
    )
    prepared = read_json(sentinel)
    parts: dict[str, Any] = dict.fromkeys(prepared["images"], "test")
    predict_fold(
        PredictionData(task.members, store, prepared, parts, tiles),
        task.predict,
        PredictionResources(memory_bytes=memory, threads=asked.threads),
    )
    wells = {record.id: dict(record.well) for record in usable if record.well is not None}
    threshold = _stitched(task, tiles, store, out, asked.threads, wells, targets)
    return Applied(records, tuple(parts), threshold, store)


def mark_done(
    task: PredictTask, applied: Applied, out: Output, asked: Requested, **more: Any
) -> None:
    """Writes `predict.json`, which marks the results as complete.

    Args:
        more: further entries.
    """
    write_json(
        out.done,
        {
            "key": task.key,
            "kept": bool(asked.keep),
            "models": {str(member.path): member.key for member in task.members},
            "images": len(applied.images),
            "left_out": applied.left_out,
            "threshold": applied.threshold,
            **more,
        },
    )


def _targets(
    task: PredictTask, records: Sequence[ImageRecord], source: RawSource, asked: Requested
) -> dict[str, Path]:
    """The user's images that the results are written into, if that is asked for."""
    from unet.prediction.stitch.write_back import write_targets

    write_back, key = task.stitch.stitch.write_back, asked.word("write_back")
    return write_targets(records, source.root, write_back, key)


def _stitched(
    task: PredictTask,
    tiles: Path,
    store: Path,
    out: Output,
    threads: int,
    wells: Mapping[str, Mapping[str, str]],
    targets: Mapping[str, Path],
) -> float:
    """Stitches the tiles; returns the threshold that was used."""
    from unet.data.store import OwnGrid
    from unet.prediction.stitch.source_scale import ResampledTiles
    from unet.prediction.stitch.stitch import Outputs, stitch_dataset

    prepared, done = OwnGrid(store), out.work / "segmentation.json"
    names = short_names([member.path for member in task.members])
    stitch_dataset(
        ResampledTiles(tiles, prepared),
        prepared,
        Outputs(segmentation=out.segmentation, done=done, masks=out.masks, objects=out.objects),
        task.stitch,
        threads=threads,
        made_by={
            **provenance.made_by("stitch", task.stitch.to_json(), {}),
            "models": {name: provenance.content_id(path) for path, name in names.items()},
        },
        wells=wells,
        targets=targets,
    )
    return float(read_json(done)["threshold"])


def short_names(models: Sequence[Path]) -> dict[Path, str]:
    """The models' names in the results, which must not depend on where their files lie: the path
    relative to the output folder of its run, ``<dataset>/<model>/fold-<k>/model.pt``; of any other
    file, such as a package, its name. A number tells files of the same name apart."""
    names: dict[Path, str] = {}
    taken: Counter[str] = Counter()
    for model in dict.fromkeys(models):
        folders = model.parts[len(Path(model.anchor).parts) :]
        in_run = model.suffix == ".pt" and FOLD.fullmatch(model.parent.name) and len(folders) > 3
        name = "/".join(folders[-4:]) if in_run else model.name
        taken[name] += 1
        names[model] = name if taken[name] == 1 else f"{name} ({taken[name]})"
    return names


def _classes(model: ModelFile) -> list[tuple[str, int]] | None:
    if model.class_values is None:
        return None
    return list(zip(model.class_names, model.class_values, strict=True))
