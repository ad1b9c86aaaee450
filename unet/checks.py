"""What is wrong with a config, one line per mistake: the key, what was found, what is allowed.

A mistake within a section is pydantic's to find (:mod:`unet.config`); here its words become lines,
and sections are held against each other: names that exist, sizes that fit the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from unet.config import Config, merge, overlaid
from unet.models.geometry import footprint

# Sections that a dataset or a model may override.
_OVERRIDES = ("prepare", "train", "predict", "stitch", "evaluate")


# pydantic's words where they speak of Python rather than of the file.
_WORDS = {
    "model_type": "must hold keys of its own",
    "dict_type": "must hold keys of its own",
    "tuple_type": "must be a list, such as [a, b]",
    "extra_forbidden": "unknown key; see config/README.md for the keys that there are",
    "missing": "this key is needed",
    "too_short": "must name at least one",
    "string_too_short": "must not be empty",
}


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
    items = error.errors(include_url=False)
    for item in items:
        if item["type"] == "too_short" and len(items) > 1 and item["input"]:
            continue  # what is in the list is wrong, not that there is too little
        where, value = _located(item["loc"], raw)
        message = _WORDS.get(item["type"], item["msg"]).removeprefix("Value error, ")
        message = message.replace("Input should ", "must ").split(", unable to ")[0]
        plain = item["type"] in ("extra_forbidden", "missing", "value_error")
        key = ".".join([*prefix, *where]) or "config"
        messages, _ = found.setdefault(key, ([], "" if plain else f" (got {value!r})"))
        # A second message for the same key is of another alternative.
        messages.append(message.removeprefix("must be ") if messages else message)
    return [f"config: {key}: {' or '.join(texts)}{got}" for key, (texts, got) in found.items()]


def _override_mistakes(config: Config) -> list[str]:
    """Checks each override alone, so that its mistake carries its own key."""
    lines: list[str] = []
    for group, members in (("datasets", config.datasets), ("models", config.models)):
        for name, member in members.items():
            for key in _OVERRIDES:
                override = getattr(member, key, None)
                if not override:
                    continue
                base = getattr(config, key)
                try:
                    overlaid(base, override)
                except ValidationError as error:
                    merged = merge(base.model_dump(), override)
                    lines += lines_of(error, merged, (group, name, key))
    return lines


def _is_sheet(images: str | None) -> bool:
    """Whether ``images`` names a sheet, which has a column for the labels."""
    return images is not None and images.lower().endswith(".csv")


def _dataset_mistakes(config: Config) -> list[str]:
    lines: list[str] = []
    for name, data in config.datasets.items():
        key = f"config: datasets.{name}"
        if data.models is not None and len(set(data.models)) != len(data.models):
            lines.append(f"{key}.models: got {list(data.models)}; name each model once")
        for model in data.models or ():
            if model not in config.models:
                known = ", ".join(sorted(config.models))
                lines.append(f"{key}.models: no model {model!r}; there are: {known}")
        by_name = data.layout in ("folders", "stack") and not _is_sheet(data.images)
        if data.labels is None and data.synthetic is None and by_name:
            lines.append(f"{key}.labels: this key is needed to train (a path or glob)")
        if data.synthetic is not None:
            # In each fold at least one image trains, one validates and one tests.
            folds, images = data.split.folds, data.synthetic.images
            least = 3 if folds is None else max(folds, 4 if folds == 2 else 3)
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


def _pair_mistakes(config: Config, dataset: str, model: str) -> list[str]:
    """Checks that need a dataset and a model together: sizes against the network, heads."""
    lines: list[str] = []
    where = f"(dataset {dataset}, model {model})"
    data, section = config.datasets[dataset], config.models[model]
    fp = footprint(config.architecture_for(model))
    train, predict = config.train_for(dataset, model), config.predict_for(dataset, model)
    if not fp.accepts(train.patch):
        near = sorted({fp.fit_below(train.patch), fp.fit(train.patch)})
        lines.append(
            f"config: train.patch: {train.patch} does not fit the network {where}; the nearest "
            f"accepted sizes are {' and '.join(map(str, near))}"
        )
    least = fp.smallest + fp.grid if fp.margin else 2 * fp.halo + fp.grid
    if predict.tile < least:
        lines.append(
            f"config: predict.tile: {predict.tile} is too small for depth "
            f"{config.architecture_for(model).depth} with its halo of {fp.halo or fp.margin} px "
            f"{where}; at least {least} is needed"
        )
    if section.head == "border" and data.task != "instances":
        lines.append(
            f"config: models.{model}.head: border needs instance labels, but dataset {dataset} "
            "has task semantic; write head: classes"
        )
    if train.cells is not None and train.cells not in data.class_names:
        lines.append(
            f"config: train.cells: no class {train.cells!r} {where}; there are: "
            f"{', '.join(data.class_names)}"
        )
    if train.loss == "border-ce" and data.task != "instances" and train.w0 == 0:
        lines.append(f"config: train.w0: 0 makes border-ce plain ce {where}; write loss: ce")
    weights = train.class_weights
    if train.loss == "weighted-ce" and weights is None:
        lines.append(
            f"config: train.class_weights: loss weighted-ce needs them {where}; write auto, or a "
            f"weight for each of {', '.join(config.head_for(dataset, model))}"
        )
    if train.loss in ("ce", "dice", "border-ce") and weights is not None:
        lines.append(
            f"config: train.class_weights: loss {train.loss} takes none {where}; leave them out, "
            "or write loss: weighted-ce or ce-dice"
        )
    if isinstance(weights, tuple) and len(weights) != len(config.head_for(dataset, model)):
        lines.append(
            f"config: train.class_weights: got {len(weights)} weights {where}; the classes are "
            f"{', '.join(config.head_for(dataset, model))}"
        )
    stitch = config.stitch_for(dataset, model)
    if stitch.method == "grow" and section.head != "border":
        lines.append(
            f"config: stitch.method: grow needs a model with head: border {where}; write components"
        )
    return lines


def mistakes(config: Config) -> list[str]:
    """Every cross-field mistake, one line each; empty when the config is sound."""
    lines = _override_mistakes(config)
    if lines:
        return lines
    lines = _dataset_mistakes(config)
    if lines:
        return lines
    for dataset in config.datasets:
        for model in config.models_for(dataset):
            lines += _pair_mistakes(config, dataset, model)
    return list(dict.fromkeys(lines))
