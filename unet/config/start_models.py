"""Trainings that start from trained weights (``train.from``): the models that show the start.

For each model with a start, :func:`expanded` adds ``<name>-start``: the start, fitted to the
dataset and not trained further (``epochs: 0``). It is predicted and scored like any other model, so
that the report shows the start beside the result. :func:`collapsed` takes these models out again.
Torch-free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unet.config.made_models import name_mistake, without_models
from unet.config.run import START_SUFFIX, Config
from unet.config.sections import ModelSection
from unet.config.start_keys import origin_in_run
from unet.errors import UserError


def start_name(model: str) -> str:
    """The name of the model that shows the start of another one."""
    return f"{model}{START_SUFFIX}"


def starts_of(config: Config, dataset: str) -> dict[str, str]:
    """Model of a dataset -> the model that shows its start; models without one are left out."""
    if config.origins_for(dataset):
        return {}
    there = config.models_for(dataset)
    return {m: start_name(m) for m in there if config.shown_model(start_name(m)) and
            start_name(m) in there}  # fmt: skip


def expanded(config: Config, made: Sequence[str] = ()) -> Config:
    """The config with the models that show a start, in ``models`` and in the lists of the datasets
    that name their models. A config that has them already stays as it is.

    Args:
        made: models that follow from a learning curve or a sweep; none is added for them.

    Raises:
        UserError: one line per name that is taken, or too long.
    """
    wanted = {
        name: [d for d in config.datasets if _shows_start(config, d, name)]
        for name in config.models
        if name not in made and not config.shown_model(name)
    }
    added = {name: _start_of(config.models[name]) for name, where in wanted.items() if where}
    if not added:
        return config
    if lines := [line for name, made in added.items() for line in _unusable(config, name, made)]:
        raise UserError("\n".join(lines))
    models = {**config.models, **{start_name(name): made for name, made in added.items()}}
    datasets = {}
    for name, data in config.datasets.items():
        if data.models is not None:
            listed = [
                each
                for model in data.models
                for each in (model, start_name(model))
                if each == model or (name in wanted.get(model, ()) and each not in data.models)
            ]
            data = data.model_copy(update={"models": tuple(listed)})
        datasets[name] = data
    return config.model_copy(update={"models": models, "datasets": datasets})


def collapsed(config: Config) -> Config:
    """The opposite of :func:`expanded`."""
    return without_models(config, shown_models(config))


def shown_models(config: Config) -> dict[str, str]:
    """The models that show a start -> the models whose start they show."""
    return {name: base for name in config.models if (base := config.shown_model(name))}


def _shows_start(config: Config, dataset: str, model: str) -> bool:
    """Whether the report on this dataset shows the start of the model.

    Not if the start has other outputs: a network with a new last layer predicts nothing yet.
    """
    if config.origins_for(dataset) or model not in config.models_for(dataset):
        return False
    start = config.start_for(dataset, model)
    if start is None or not config.train_value(dataset, model, "show_start"):
        return False
    if config.train_value(dataset, model, "epochs") == 0:
        return False
    section = config.models[model]
    # The models of a sweep may be different networks, which no single start fits.
    if any(not key.startswith("train.") for key in section.sweep):
        return False
    origin = origin_in_run(start)
    if origin is None:
        return True
    if origin.dataset not in config.datasets or origin.model not in config.models:
        return False  # reported later
    return config.head_for(origin.dataset, origin.model) == config.head_for(dataset, model)


def _start_of(section: ModelSection) -> ModelSection:
    given: Mapping[str, Any] = (
        {"recipe": section.train} if isinstance(section.train, str) else section.train
    )
    update = {"train": {**given, "epochs": 0}, "learning_curve": (), "sweep": {}}
    return section.model_copy(update=update)


def _unusable(config: Config, name: str, made: ModelSection) -> list[str]:
    instead = "rename it, or write train.show_start: false"
    wrong = name_mistake(config, name, start_name(name), made, instead)
    return [f"config: models.{name}.train.from: {wrong}"] if wrong else []
