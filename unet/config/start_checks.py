"""Mistakes in the keys of trainings that start from trained weights, one line each. Torch-free."""

from __future__ import annotations

from unet.config.presets import AnyUNet
from unet.config.recipes import expanded
from unet.config.run import Config
from unet.config.sections import TrainSection
from unet.config.start_keys import origin_in_run
from unet.config.sweep import sweep_models, written_models
from unet.errors import did_you_mean
from unet.paths import Origin

Node = tuple[str, str]


def origin_mistakes(config: Config) -> list[str]:
    """Starts that name an unknown dataset or model of the run, or that wait for each other."""
    lines: list[str] = []
    wanted: dict[Node, Node] = {}
    for dataset in config.datasets:
        # With those that are chosen: what concerns all models of a sweep is said once.
        for model in config.trained_for(dataset) if _known_models(config, dataset) else ():
            origin = origin_in_run(config.start_for(dataset, model))
            if origin is None:
                continue
            if line := _unknown(config, origin):
                lines.append(f"config: train.from: {line} (dataset {dataset}, model {model})")
            wanted[dataset, model] = (origin.dataset, origin.model)
    for dataset in config.datasets:
        for name in config.models_for(dataset) if _known_models(config, dataset) else ():
            # A model with a sweep waits for the models that it is chosen from.
            for member in config.members_of(name):
                if (dataset, member) in wanted:
                    wanted.setdefault((dataset, name), (dataset, member))
    return list(dict.fromkeys(lines)) or _circles(config, wanted)


def key_of_start(config: Config, dataset: str, model: str) -> str:
    """The key that names the start of a training, where the user wrote it."""
    if "from" in expanded(config.models[model].train):
        return f"models.{written_models(config).get(model, model)}.train.from"
    if "from" in expanded(config.datasets[dataset].train):
        return f"datasets.{dataset}.train.from"
    return "train.from"


def keys_without_start(config: Config, dataset: str) -> list[tuple[str, str]]:
    """Keys that have no effect in the dataset's trainings, since no training of the run has a
    start: ("train." and key, text). Allowed, so that a start can be switched off for a while."""
    if any(config.start_for(d, m) for d in config.datasets for m in config.trained_for(d)):
        return []
    found: dict[tuple[str, str], None] = {}
    for model in config.trained_for(dataset):
        train = config.train_for(dataset, model)
        for key in ("freeze", "norm_statistics"):
            value = getattr(train, key)
            if value != TrainSection.model_fields[key].get_default():
                text = f"{value} has no effect without train.from; write train.from, or drop it"
                found[f"train.{key}", text] = None
    return list(found)


def unused_encoder_weights(config: Config, dataset: str) -> list[tuple[str, str]]:
    """Models of a dataset whose ``encoder_weights`` no training reads, since all have a start:
    (key, text). Allowed, as :func:`keys_without_start`."""
    read, written = encoder_weights_read(config), written_models(config)
    found: dict[tuple[str, str], None] = {}
    for model in config.trained_for(dataset):
        given = config.models[model].encoder_weights is not None
        if given and written.get(model, model) not in {written.get(m, m) for m in read}:
            key = f"models.{written.get(model, model)}.encoder_weights"
            text = "has no effect with train.from; drop it, or write train.from: null"
            found[key, text] = None
    return list(found)


def encoder_weights_read(config: Config) -> set[str]:
    """Models with ``encoder_weights`` that are trained without a start, which would replace these
    weights."""
    return {
        model
        for dataset in config.datasets
        for model in config.trained_for(dataset)
        if config.models[model].encoder_weights and config.start_for(dataset, model) is None
    }


def start_mistakes(config: Config, dataset: str, model: str) -> list[str]:
    """Mistakes in the keys of one training."""
    where = f"(dataset {dataset}, model {model})"
    train, arch = config.train_for(dataset, model), config.architecture_for(model)
    if train.start is None:
        if train.epochs == 0:
            return [
                f"config: train.epochs: 0 trains nothing {where}; write at least 1, or train.from"
            ]
        return []
    lines = []
    if train.freeze and arch is not None:
        most = arch.depth if isinstance(arch, AnyUNet) else 0
        if not most:
            lines.append(
                f"config: train.freeze: a sliding-window classifier has no contracting path to "
                f"freeze {where}; drop this key"
            )
        elif train.freeze > most:
            lines.append(
                f"config: train.freeze: {train.freeze} levels, but the contracting path has "
                f"{most} {where}; write at most {most}"
            )
    origin = origin_in_run(train.start)
    other = None if origin is None else config.architecture_for(origin.model)
    if arch is not None and other is not None and arch.dims != other.dims:
        lines.append(
            f"config: train.from: {train.start} has {other.dims} spatial axes, this model "
            f"{arch.dims} {where}; no convolution fits: start from a model with dims: {arch.dims}"
        )
    return lines


def _known_models(config: Config, dataset: str) -> bool:
    """Unknown names are reported by other checks."""
    return all(name in config.models for name in config.datasets[dataset].models or ())


def _unknown(config: Config, origin: Origin) -> str:
    trained = [d for d in sorted(config.datasets) if not config.origins_for(d)]
    if origin.dataset not in trained:
        near = did_you_mean(origin.dataset, trained)
        why = "trains no model" if origin.dataset in config.datasets else "is not in the config"
        listed = ", ".join(trained) or "none that trains a model"
        return f"dataset {origin.dataset!r} {why}; there are: {listed}{near}"
    known = (*config.models_for(origin.dataset), *config.trained_for(origin.dataset))
    if origin.model not in known:
        listed = ", ".join(dict.fromkeys(known))
        near = did_you_mean(origin.model, known)
        return (
            f"dataset {origin.dataset} trains no model {origin.model!r}; there are: {listed}{near}"
        )
    return ""


def _circles(config: Config, wanted: dict[Node, Node]) -> list[str]:
    """Trainings that would wait for themselves, each circle once."""
    chosen_from = sweep_models(config)
    lines: list[str] = []
    told: set[Node] = set()
    for first in wanted:
        chain, node = [first], first
        while (node := wanted.get(node, ("", ""))) in wanted and node not in chain:
            chain.append(node)
        if node not in chain or node in told:
            continue
        circle = chain[chain.index(node) :]
        told.update(circle)
        # In place of the models of a sweep, the one that they are made for.
        names = list(dict.fromkeys(f"{d}/{chosen_from.get(m, m)}" for d, m in circle))
        if len(names) == 1:
            text = f"{names[0]} would start from itself"
        else:
            text = f"{', '.join(names)} would each wait for the next one"
        lines.append(
            f"config: train.from: {text}; write train.from under the datasets or the models whose "
            "trainings start from others"
        )
    return lines
