"""Checks that involve several sections of a config, one line per mistake: names that must exist,
sizes that must fit the network.

Pydantic finds mistakes within a section; :mod:`unet.config.messages` writes their messages.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from unet.config.choices import FAMILY_TABLE, METHOD_TABLE
from unet.config.geometry import Footprints, footprint, sizes_for
from unet.config.heads import HEADS
from unet.config.licences import licence_mistake
from unet.config.loss_table import LOSS_TABLE, check_options
from unet.config.messages import OVERRIDES, lines_of
from unet.config.presets import AnyArchitecture, AnyUNet
from unet.config.public_datasets import public_set
from unet.config.recipes import expanded
from unet.config.run import Config, merge, overlaid
from unet.config.sections import DatasetSection, TrainSection
from unet.config.start_checks import start_mistakes
from unet.errors import UserError, did_you_mean
from unet.paths import origin_of


def _override_mistakes(config: Config) -> list[str]:
    """Checks each override separately, so that the message names the override's key."""
    lines: list[str] = []
    for group, members in (("datasets", config.datasets), ("models", config.models)):
        for name, member in members.items():
            for key in OVERRIDES:
                override = getattr(member, key, None)
                if not override:
                    continue
                if key == "train":
                    override = expanded(override)
                base = getattr(config, key)
                try:
                    overlaid(base, override)
                except ValidationError as error:
                    merged = merge(base.model_dump(), override)
                    lines += lines_of(error, merged, (group, name, key))
    return lines


def _dataset_mistakes(config: Config) -> list[str]:
    lines: list[str] = []
    for name, data in config.datasets.items():
        key = f"config: datasets.{name}"
        if data.label_kind == "binary" and data.task != "instances":
            lines.append(
                f"{key}.label_kind: binary numbers the pieces of masks for task: instances; drop "
                f"this key (the task is {data.task})"
            )
        alone = data.background is None and data.background_px is None
        if data.sparse and data.task == "instances" and alone and not data.predict_with:
            lines.append(
                f"{key}.unlabelled: ignore leaves no background to learn; write background_px: 3 "
                "(unlabelled pixels so near a labelled object are background), or background: "
                "<the value of pixels that are marked as background>"
            )
        if data.models is not None and len(set(data.models)) != len(data.models):
            lines.append(f"{key}.models: got {list(data.models)}; name each model once")
        for model in data.models or ():
            if model not in config.models:
                known = f"{', '.join(sorted(config.models))}{did_you_mean(model, config.models)}"
                lines.append(f"{key}.models: no model {model!r}; there are: {known}")
        if not data.labelled and not data.predict_with:
            lines.append(f"{key}.labels: this key is needed to train (a path or glob)")
        if data.synthetic is not None and not data.predict_with:
            # Each fold needs at least one training, one validation and one test image.
            folds, images = data.split.folds, data.synthetic.images
            least = 3 if folds is None else max(folds, 4 if folds == 2 else 3)
            if folds is not None and data.split.ensemble:
                least = folds + 1
            if images < least:
                lines.append(
                    f"{key}.split.folds: {folds} folds need at least {least} images, "
                    f"datasets.{name}.synthetic.images is {images}"
                )
        lines += _download_mistakes(key, data)
        lines += _compare_mistakes(config, name)
        wanted = config.evaluate_for(name)
        if wanted.topology_class is not None and wanted.topology_class not in data.class_names:
            lines.append(
                f"{key}: evaluate.topology_class: no class {wanted.topology_class!r}; there are: "
                f"{', '.join(data.class_names)}"
            )
    return lines


def _download_mistakes(key: str, data: DatasetSection) -> list[str]:
    """Checks the name of a public dataset, and the keys beside it."""
    if data.download is None:
        alone = data.download_from is not None
        return [f"{key}.download_from: needs download, the dataset's name; or drop it"] * alone
    try:
        public_set(data.download)
    except UserError as error:
        return [f"{key}.download: {error}"]
    if data.synthetic is not None:
        return [f"{key}.download: generated images are not downloaded; drop this key or synthetic"]
    return []


def _export_mistakes(config: Config) -> list[str]:
    """Checks that a package that is to be written has what it needs."""
    lines: dict[str, None] = {}
    for dataset in config.datasets:
        for model in config.models_for(dataset) if config.folds_for(dataset) else ():
            section = config.export_for(dataset, model)
            if not section.write:
                continue
            where = f"(dataset {dataset}, model {model})"
            lines |= {
                f"config: export.{key}: missing; a package needs it {where}": None
                for key in section.missing()
            }
            if section.license and (wrong := licence_mistake(section.license)):
                lines[f"config: export.license: {wrong}"] = None
            folds = config.folds_for(dataset)
            if section.fold is not None and section.fold not in folds:
                there = ", ".join(map(str, folds))
                lines[
                    f"config: export.fold: no fold {section.fold} {where}; there are: {there}"
                ] = None
    return list(lines)


def _written_mistakes(config: Config) -> list[str]:
    """Checks that labels in the images of a dataset come from one model."""
    lines = []
    for dataset, data in config.datasets.items():
        models: dict[str, list[str]] = {}
        for model in config.models_for(dataset):
            if name := config.stitch_for(dataset, model).write_back:
                models.setdefault(name, []).append(model)
        where = f"config: datasets.{dataset}: stitch.write_back"
        if models and data.images is None:
            lines.append(f"{where}: the dataset has no image files of its own; drop the key here")
        lines += [
            f"{where}: {', '.join(found)} would all write {name}; write it in the section stitch "
            "of one model"
            for name, found in models.items()
            if len(found) > 1
        ]
    return lines


def _compare_mistakes(config: Config, name: str) -> list[str]:
    """Checks the masks of other tools against the dataset's labels, models and metrics."""
    data, lines = config.datasets[name], []
    key = f"config: datasets.{name}.compare"
    if data.compare and not data.labelled:
        lines.append(f"{key}: the dataset has no labels to compare with; give labels, or drop it")
    for tool in data.compare:
        if tool in config.models:
            lines.append(f"{key}: {tool} is also the name of a model; write another name")
    wanted = config.evaluate_for(name).metrics
    if data.compare and not any(FAMILY_TABLE[family].masks for family in wanted):
        families = ", ".join(name for name, family in FAMILY_TABLE.items() if family.masks)
        lines.append(
            f"{key}: evaluate.metrics has only {', '.join(wanted)}, which masks without "
            f"probabilities cannot be scored by; add one of {families}"
        )
    return lines


def _size_mistakes(
    patch: int | tuple[int, ...],
    tile: Any,
    footprints: Footprints,
    derived: bool,
    where: str,
    blended: bool = False,
) -> list[str]:
    """Checks patch and tile against the network, axis by axis."""
    lines = []
    dims = len(footprints)
    for key, value in (("train.patch", patch), ("predict.tile", tile)):
        if isinstance(value, tuple) and len(value) != dims:
            lines.append(
                f"config: {key}: got {list(value)} {where}; the network has {dims} spatial axes: "
                f"write one number or {dims}"
            )
    if lines or derived:
        return lines
    for size, fp in zip(sizes_for(patch, footprints), footprints, strict=True):
        if not fp.accepts(size):
            near = sorted({fp.fit_below(size), fp.fit(size)})
            lines.append(
                f"config: train.patch: {size} does not fit the network {where}; the nearest "
                f"accepted sizes are {' and '.join(map(str, near))}"
            )
    for size, fp in zip(() if tile == "auto" else sizes_for(tile, footprints), footprints):  # noqa: B905
        # Blended windows keep their whole output, so they need no halo.
        least = fp.smallest if blended else fp.least_tile
        if size < least:
            lines.append(
                f"config: predict.tile: {size} is too small for the network's grid of {fp.grid} px "
                f"and its halo of {fp.halo or fp.margin} px {where}; at least {least} is needed"
            )
    return lines


def _norm_mistakes(
    train: TrainSection, arch: AnyArchitecture, footprints: Footprints, where: str
) -> list[str]:
    """Normalisation needs more than one pixel: a single value has no variance."""
    if not isinstance(arch, AnyUNet) or isinstance(train.patch, tuple):
        return []
    alone = arch.norm == "instance" or (arch.norm == "batch" and train.batch == 1)
    if not alone or any(train.patch >= 2 * fp.grid for fp in footprints):
        return []
    return [
        f"config: train.patch: {train.patch} leaves one pixel at the network's deepest level, and "
        f"norm: {arch.norm} needs more {where}; write at least {2 * footprints[0].grid}"
    ]


def _classes_of(config: Config, dataset: str, model: str) -> tuple[str, ...]:
    """Names of the network's outputs that are classes."""
    number = HEADS[config.model_section(model).head].classes(config.datasets[dataset].class_names)
    return config.head_for(dataset, model)[:number]


def _loss_mistakes(config: Config, dataset: str, model: str, where: str) -> list[str]:
    """Checks the loss against its options and class weights."""
    lines = []
    train = config.train_for(dataset, model)
    info, weights = LOSS_TABLE[train.loss], train.class_weights
    names = _classes_of(config, dataset, model)
    try:
        check_options(train.loss, train.loss_options, len(names))
    except UserError as error:
        lines.append(f"config: train.loss_options: {error} {where}")
    if info.class_weights == "needed" and weights is None:
        lines.append(
            f"config: train.class_weights: loss {train.loss} needs them {where}; write auto, or a "
            f"weight for each of {', '.join(names)}"
        )
    if info.class_weights == "refused" and weights is not None:
        takers = [name for name, other in LOSS_TABLE.items() if other.class_weights != "refused"]
        lines.append(
            f"config: train.class_weights: loss {train.loss} takes none {where}; leave them out, "
            f"or write loss: {' or '.join(takers)}"
        )
    if isinstance(weights, tuple) and len(weights) != len(names):
        lines.append(
            f"config: train.class_weights: got {len(weights)} weights {where}; the classes are "
            f"{', '.join(names)}"
        )
    return lines


def _pair_mistakes(config: Config, dataset: str, model: str) -> list[str]:
    """Checks that need a dataset and a model together: sizes against the network, heads."""
    lines: list[str] = []
    where = f"(dataset {dataset}, model {model})"
    data, section = config.datasets[dataset], config.models[model]
    train = config.train_for(dataset, model)
    arch = config.architecture_for(model)
    if arch is not None:
        # Sizes for anisotropic layers depend on the pixel size, which is known only in training.
        derived = arch.dims == 3 and section.anisotropic and section.pools is None
        predict = config.predict_for(dataset, model)
        blended = predict.blend != "none"
        lines += _size_mistakes(train.patch, predict.tile, footprint(arch), derived, where, blended)
        lines += _norm_mistakes(train, arch, footprint(arch), where)
    if train.compile and train.gpus > 1:
        lines.append(
            f"config: train.compile: works with one GPU per training, and train.gpus is "
            f"{train.gpus} {where}; write compile: false, or gpus: 1"
        )
    if HEADS[section.head].needs_instances and data.task != "instances":
        lines.append(
            f"config: models.{model}.head: {section.head} needs instance labels, but dataset "
            f"{dataset} has task semantic; write head: classes"
        )
    if train.cells is not None and train.cells not in data.class_names:
        lines.append(
            f"config: train.cells: no class {train.cells!r} {where}; there are: "
            f"{', '.join(data.class_names)}"
        )
    if train.loss == "border-ce" and data.task != "instances" and train.w0 == 0:
        lines.append(f"config: train.w0: 0 makes border-ce plain ce {where}; write loss: ce")
    lines += _loss_mistakes(config, dataset, model, where)
    lines += start_mistakes(config, dataset, model)
    return lines + _use_mistakes(config, dataset, model, where)


def _use_mistakes(config: Config, dataset: str, model: str, where: str) -> list[str]:
    """Checks the settings for using a trained network against its classes and head."""
    lines: list[str] = []
    skip = config.predict_for(dataset, model).skip
    classes = _classes_of(config, dataset, model)
    if skip is not None and skip.fill is not None and skip.fill not in classes:
        lines.append(
            f"config: predict.skip.fill: no class {skip.fill!r} {where}; there are: "
            f"{', '.join(classes)}"
        )
    stitch = config.stitch_for(dataset, model)
    needed = METHOD_TABLE[stitch.method].head
    if needed is not None and config.model_section(model).head != needed:
        lines.append(
            f"config: stitch.method: {stitch.method} needs a model with head: {needed} {where}; "
            "write components"
        )
    return lines


def _applied_mistakes(config: Config, dataset: str, model: str) -> list[str]:
    """Checks a dataset with a model of another dataset, where the model itself is checked."""
    where = f"(dataset {dataset}, model {model})"
    origin, section = origin_of(model), config.model_section(model)
    arch = None if origin is None else config.architecture_for(origin.model)
    lines: list[str] = []
    if origin is not None and arch is not None:
        derived = arch.dims == 3 and section.anisotropic and section.pools is None
        patch = config.train_for(origin.dataset, origin.model).patch
        predict = config.predict_for(dataset, model)
        blended = predict.blend != "none"
        found = _size_mistakes(patch, predict.tile, footprint(arch), derived, where, blended)
        lines = [line for line in found if line.startswith("config: predict.")]
    return lines + _use_mistakes(config, dataset, model, where)


def mistakes(config: Config) -> list[str]:
    """Every mistake that involves several sections, one line each; empty if there is none."""
    lines = _override_mistakes(config)
    if lines:
        return lines
    lines = _dataset_mistakes(config)
    if lines:
        return lines
    for dataset in config.datasets:
        if config.origins_for(dataset):
            for model in config.models_for(dataset):
                lines += _applied_mistakes(config, dataset, model)
        for model in config.trained_for(dataset):
            lines += _pair_mistakes(config, dataset, model)
    return list(dict.fromkeys(lines + _export_mistakes(config) + _written_mistakes(config)))
