"""Learning curves: ``models.<name>.learning_curve: [0.25, 0.5]`` stands for more models, one per
share, which differ from ``<name>`` only in ``train.subset``. Torch-free.

:func:`unet.config.load.load` puts these models into the config, so that everything after it sees
plain models. :func:`collapsed` takes them out again, for a config that people read and edit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unet.config.made_models import name_mistake, without_models
from unet.config.run import Config
from unet.config.sections import ModelSection
from unet.errors import UserError


def name_at(model: str, share: float) -> str:
    """The name of the model that trains on this share of the images, such as ``unet-12pct``."""
    # Rounded first: 0.29 * 100 is just below 29.
    return f"{model}-{int(round(100 * share, 6))}pct"


def curve_of(config: Config, model: str) -> dict[str, float]:
    """The models of a learning curve, name -> share, without ``model`` itself; empty if it has
    none."""
    return {name_at(model, share): share for share in sorted(config.models[model].learning_curve)}


def curves_of(config: Config, dataset: str) -> dict[str, dict[str, float]]:
    """The learning curves of a dataset: model -> the models of its curve with their shares, by
    rising share; the model itself is one of them."""
    if config.origins_for(dataset):
        return {}
    trained, found = config.models_for(dataset), {}
    for model in trained:
        smaller = {m: share for m, share in curve_of(config, model).items() if m in trained}
        if smaller:
            full = {model: config.train_for(dataset, model).subset}
            found[model] = dict(sorted({**smaller, **full}.items(), key=lambda item: item[1]))
    return found


def compared(config: Config, dataset: str) -> tuple[str, ...]:
    """The models of a dataset that the report compares: a model that is trained only for the
    learning curve of another one is no rival of it."""
    curves = curves_of(config, dataset)
    members = {member for model, curve in curves.items() for member in curve if member != model}
    return tuple(model for model in config.models_for(dataset) if model not in members)


def expanded(config: Config) -> Config:
    """The config with the models of all learning curves, in ``models`` and in the lists of the
    datasets that name their models. A config that has them already stays as it is.

    Raises:
        UserError: one line per name that two shares would get, that is taken, or that is too long.
    """
    lines: list[str] = []
    models: dict[str, ModelSection] = {}
    for name, section in config.models.items():
        models.setdefault(name, section)
        lines += _repeated(name, section.learning_curve)
        for member, share in curve_of(config, name).items():
            made = _at_share(section, share)
            lines += _unusable(config, name, member, made)
            models[member] = made
    if lines:
        raise UserError("\n".join(lines))
    if not any(section.learning_curve for section in config.models.values()):
        return config
    datasets = {
        name: data
        if data.models is None
        else data.model_copy(update={"models": _with_members(config, data.models)})
        for name, data in config.datasets.items()
    }
    return config.model_copy(update={"models": models, "datasets": datasets})


def collapsed(config: Config) -> Config:
    """The opposite of :func:`expanded`: without the models that follow from a learning curve."""
    return without_models(config, curve_models(config))


def curve_models(config: Config) -> dict[str, str]:
    """The models that follow from a learning curve -> the models that have it."""
    return {member: name for name in config.models for member in curve_of(config, name)}


def _at_share(section: ModelSection, share: float) -> ModelSection:
    given: Any = {"recipe": section.train} if isinstance(section.train, str) else section.train
    update = {"train": {**given, "subset": share}, "learning_curve": ()}
    return section.model_copy(update=update)


def _with_members(config: Config, models: Sequence[str]) -> tuple[str, ...]:
    """The models of a dataset, each followed by those of its curve."""
    found: dict[str, None] = {}
    for name in models:
        found[name] = None
        if name in config.models:  # unknown names are reported later
            found.update(dict.fromkeys(m for m in curve_of(config, name) if m not in models))
    return tuple(found)


def _repeated(name: str, shares: Sequence[float]) -> list[str]:
    known: dict[str, float] = {}
    for share in shares:
        member = name_at(name, share)
        if member in known:
            return [
                f"config: models.{name}.learning_curve: {known[member]:g} and {share:g} both make "
                f"the model {member}; write shares that differ by 0.01 or more"
            ]
        known[member] = share
    return []


def _unusable(config: Config, name: str, member: str, made: ModelSection) -> list[str]:
    wrong = name_mistake(config, name, member, made)
    return [f"config: models.{name}.learning_curve: {wrong}"] if wrong else []
