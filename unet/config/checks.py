"""What is wrong with a config, one line per mistake: the key, what was found, what is allowed.

A mistake within a section is pydantic's to find (:mod:`unet.config.run`); here its words become
lines, and sections are held against each other: names that exist, sizes that fit the network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from unet.config.choices import METHOD_TABLE
from unet.config.geometry import Footprints, footprint, sizes_for
from unet.config.heads import HEADS
from unet.config.loss_table import LOSS_TABLE, check_options
from unet.config.presets import AnyArchitecture, Architecture
from unet.config.recipes import expanded
from unet.config.run import Config, merge, overlaid
from unet.config.sections import TrainSection, sections_of
from unet.errors import UserError, meant, one_line
from unet.paths import origin_of

# Sections that a dataset or a model may override.
_OVERRIDES = ("prepare", "train", "predict", "stitch", "evaluate")


# pydantic's words where they speak of Python rather than of the file.
_WORDS = {
    "model_type": "must hold keys of its own",
    "dict_type": "must hold keys of its own",
    "tuple_type": "must be a list, such as [a, b]",
    "extra_forbidden": "unknown key",
    "missing": "this key is needed",
    "too_short": "must name at least one",
    "string_too_short": "must not be empty",
}


# A config of 100 datasets has some thousand values, four levels deep.
_MOST_VALUES, _MOST_LEVELS = 100_000, 50
# Letters of a value in a message; the longest of its own texts lists the choices of a key.
_LONGEST = 400


def too_large(raw: Any) -> str:
    """What is wrong with the shape of a raw config, before anything walks through it; "" if
    nothing is.

    An alias of YAML costs a few letters and may stand for a structure of any size (ten of ten of
    ten ..., or one that holds itself), which would be written out by the first copy of it.
    """
    sizes: dict[int, int] = {}

    def size(value: Any, level: int) -> int:
        if not isinstance(value, Mapping | list | tuple | set):
            return 1
        if level > _MOST_LEVELS:
            raise ValueError(f"nested deeper than {_MOST_LEVELS} levels")
        if id(value) not in sizes:
            parts = [*value, *value.values()] if isinstance(value, Mapping) else list(value)
            sizes[id(value)] = 1 + sum(size(part, level + 1) for part in parts)
        if sizes[id(value)] > _MOST_VALUES:
            raise ValueError(f"more than {_MOST_VALUES} values (aliases written out)")
        return sizes[id(value)]

    try:
        size(raw, 0)
    except ValueError as error:
        return str(error)
    return ""


def _located(loc: tuple[int | str, ...], raw: Any) -> tuple[tuple[str, ...], Any]:
    """The key that a mistake belongs to and its value, without the names that pydantic gives to
    the alternatives of a key (a number or ``auto``)."""
    key: list[str] = []
    for depth, part in enumerate(loc):
        last = depth == len(loc) - 1
        if isinstance(raw, Mapping) and (part in raw or (last and raw is not None)):
            if part not in raw and str(part).startswith(("[", "tuple", "literal", "constrained")):
                break
            key.append(str(part))
            raw = raw.get(part)
        elif isinstance(raw, list | tuple) and isinstance(part, int) and part < len(raw):
            key.append(str(part))
            raw = raw[part]
        else:
            break
    return tuple(key), raw


def lines_of(error: ValidationError, raw: Any, prefix: tuple[str, ...] = ()) -> list[str]:
    """One line per mistake: the key, what is wrong, the value that was found.

    Args:
        raw: the mapping that was validated.
        prefix: key of that mapping in the config.
    """
    found: dict[str, tuple[list[str], str]] = {}
    nears: dict[str, str] = {}
    items = error.errors(include_url=False)
    for item in items:
        if item["type"] == "too_short" and len(items) > 1 and item["input"]:
            continue  # what is in the list is wrong, not that there is too little
        where, value = _located(item["loc"], raw)
        if item["loc"][-1] == "[key]":
            # YAML reads 2024 as a number, and yes, no, on, off as true or false.
            name = where[-1] if where else "name"
            messages = [f"a name must be text; write it in quotes, such as '{name}'"]
            found[".".join([*prefix, *where])] = (messages, "")
            continue
        message = _WORDS.get(item["type"], item["msg"]).removeprefix("Value error, ")
        message = message.replace("Input should ", "must ").split(", unable to ")[0]
        if item["type"] == "extra_forbidden":
            message += _known_key((*prefix, *where))
        elif item["type"] == "literal_error" and isinstance(value, str):
            near = meant(value, re.findall("'([^']+)'", item["ctx"]["expected"]))
            nears[".".join([*prefix, *where])] = near
        plain = item["type"] in ("extra_forbidden", "missing", "value_error")
        key = ".".join([*prefix, *where]) or "config"
        messages, _ = found.setdefault(key, ([], "" if plain else f" (got {_shown(value)})"))
        # A second message for the same key is of another alternative.
        message = message.removeprefix("must be ") if messages else message
        messages.append(one_line(message, _LONGEST))
    return [
        f"config: {one_line(key, _LONGEST)}: {' or '.join(texts)}{got}{nears.get(key, '')}"
        for key, (texts, got) in found.items()
    ]


def _known_key(path: tuple[str, ...]) -> str:
    """What may have been meant by a key that there is not: one of its section, or the same key of
    another one."""
    *above, key = path
    section: Any = Config
    for part in above:
        if part in _OVERRIDES:
            section = Config  # of a dataset or a model: as at the top
        field = section.model_fields.get(part)
        if field is None:
            # A dataset's or a model's name.
            continue
        section = next(iter(sections_of(field.annotation)), section)
    if near := meant(key, section.model_fields):
        return near
    for name, field in Config.model_fields.items():
        for inner in sections_of(field.annotation):
            if key in inner.model_fields:
                named = ".<name>" if name in ("datasets", "models") else ""
                return f"; did you mean {name}{named}.{key}?"
    return "; see config/README.md for the keys that there are"


def _shown(value: Any) -> str:
    """A value as a message has room for it."""
    return one_line(repr(value), _LONGEST)


def _override_mistakes(config: Config) -> list[str]:
    """Checks each override alone, so that its mistake carries its own key."""
    lines: list[str] = []
    for group, members in (("datasets", config.datasets), ("models", config.models)):
        for name, member in members.items():
            for key in _OVERRIDES:
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
        if data.models is not None and len(set(data.models)) != len(data.models):
            lines.append(f"{key}.models: got {list(data.models)}; name each model once")
        for model in data.models or ():
            if model not in config.models:
                known = f"{', '.join(sorted(config.models))}{meant(model, config.models)}"
                lines.append(f"{key}.models: no model {model!r}; there are: {known}")
        if not data.labelled and not data.predict_with:
            lines.append(f"{key}.labels: this key is needed to train (a path or glob)")
        if data.synthetic is not None and not data.predict_with:
            # In each fold at least one image trains, one validates and one tests.
            folds, images = data.split.folds, data.synthetic.images
            least = 3 if folds is None else max(folds, 4 if folds == 2 else 3)
            if folds is not None and data.split.ensemble:
                least = folds + 1
            if images < least:
                lines.append(
                    f"{key}.split.folds: {folds} folds need at least {least} images, "
                    f"datasets.{name}.synthetic.images is {images}"
                )
        wanted = config.evaluate_for(name)
        if wanted.topology_class is not None and wanted.topology_class not in data.class_names:
            lines.append(
                f"{key}: evaluate.topology_class: no class {wanted.topology_class!r}; there are: "
                f"{', '.join(data.class_names)}"
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
    """Patch and tile against the network, axis by axis."""
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
        # Blended windows keep all of their output, whatever the halo.
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
    """A single value has no variance: what is normalised must have more than one pixel."""
    if not isinstance(arch, Architecture) or isinstance(train.patch, tuple):
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
    """The loss against its options and class weights."""
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
        # With anisotropic layers the sizes follow from the pixel size, which training will know.
        derived = arch.dims == 3 and section.anisotropic and section.pools is None
        predict = config.predict_for(dataset, model)
        blended = predict.blend != "none"
        lines += _size_mistakes(train.patch, predict.tile, footprint(arch), derived, where, blended)
        lines += _norm_mistakes(train, arch, footprint(arch), where)
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
    return lines + _use_mistakes(config, dataset, model, where)


def _use_mistakes(config: Config, dataset: str, model: str, where: str) -> list[str]:
    """What is done with a trained network, against its classes and its head."""
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
    """What a dataset may have wrong for a model that was trained (and is checked) elsewhere."""
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
    """Every cross-field mistake, one line each; empty when the config is sound."""
    lines = _override_mistakes(config)
    if lines:
        return lines
    lines = _dataset_mistakes(config)
    if lines:
        return lines
    for dataset in config.datasets:
        of_pair = _applied_mistakes if config.origins_for(dataset) else _pair_mistakes
        for model in config.models_for(dataset):
            lines += of_pair(config, dataset, model)
    return list(dict.fromkeys(lines))
