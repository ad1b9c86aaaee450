"""Datasets that are predicted by models of other datasets (``predict_with``). Loads neither torch
nor dask.

Such a dataset trains nothing. If it has no task and classes of its own, it takes those of the
dataset that the model was trained on. All of its images are predicted by the ensemble of that
model's folds.
"""

from __future__ import annotations

from unet.config.geometry import common, footprint
from unet.config.run import Config
from unet.config.sections import DatasetSection, SplitSection
from unet.errors import did_you_mean
from unet.paths import Origin


def origin_mistakes(config: Config) -> list[str]:
    """Mistakes in datasets with ``predict_with``, one line each."""
    lines: list[str] = []
    for name, data in config.datasets.items():
        if data.predict_with is not None:
            found = _unknown(config, name) or _without_effect(name, data)
            lines += found or _differences(config, name) or _windows(config, name)
    return lines


def resolved(config: Config) -> Config:
    """The config, with the models' task and classes filled in for such datasets."""
    datasets = dict(config.datasets)
    for name, data in config.datasets.items():
        for origin in config.origins_for(name)[:1]:
            source = config.datasets[origin.dataset]
            written = _task(data) is not None
            update = {} if written else {"task": source.task, "classes": source.classes}
            if written and data.classes is None:
                update = {"classes": source.classes}
            datasets[name] = data.model_copy(update=update)
    return config.model_copy(update={"datasets": datasets})


def _task(data: DatasetSection) -> str | None:
    """The task, if the dataset gives one; classes imply task semantic."""
    return data.task if "task" in data.model_fields_set or data.classes is not None else None


def _unknown(config: Config, name: str) -> list[str]:
    """Unknown datasets and models, and datasets that train no model."""
    key, lines = f"config: datasets.{name}.predict_with", []
    trained = [d for d in sorted(config.datasets) if not config.origins_for(d)]
    datasets = ", ".join(trained) or "none that trains a model"
    for origin in config.origins_for(name):
        text = _named(origin)
        if origin.dataset == name:
            lines.append(f"{key}: {text} is of the dataset itself; name a model of another one")
        elif origin.dataset not in config.datasets:
            near = did_you_mean(origin.dataset, trained)
            lines.append(f"{key}: no dataset {origin.dataset!r}; there are: {datasets}{near}")
        elif origin.dataset not in trained:
            # This excludes chains and cycles.
            lines.append(
                f"{key}: dataset {origin.dataset} has predict_with itself and trains no model; "
                f"there are: {datasets}"
            )
        elif origin.model not in config.models_for(origin.dataset):
            known = config.models_for(origin.dataset)
            near = did_you_mean(origin.model, known)
            if tried := [each for each in known if origin.model in config.members_of(each)]:
                near = f"; {origin.model} is tried by a sweep: write {origin.dataset}/{tried[0]}"
            lines.append(
                f"{key}: dataset {origin.dataset} trains no model {origin.model!r}; "
                f"there are: {', '.join(known)}{near}"
            )
    return list(dict.fromkeys(lines))


def _named(origin: Origin) -> str:
    return f"{origin.dataset}/{origin.model}"


def _without_effect(name: str, data: DatasetSection) -> list[str]:
    """Keys that have no effect if nothing is trained: an error, so that nobody relies on them."""
    key = f"config: datasets.{name}"
    group = data.split.group
    # The default of the key, and a section with the group alone.
    grouped = (SplitSection(test=0.25, group=group), SplitSection(group=group))
    wrong = {
        "models": (data.models is not None, "predict_with names the models"),
        "split": (
            data.split not in grouped,
            "every image is tested (split.group alone may be given)",
        ),
        "train": (bool(data.train), "nothing is trained"),
        "prepare.normalize": ("normalize" in data.prepare, "the model's own normalisation is used"),
    }
    return [
        f"{key}.{part}: has no effect with predict_with, {why}; drop this key"
        for part, (there, why) in wrong.items()
        if there
    ]


def _differences(config: Config, name: str) -> list[str]:
    """A task, classes or channels that differ from those of the models."""
    data, key = config.datasets[name], f"config: datasets.{name}"
    origins = config.origins_for(name)
    first = config.datasets[origins[0].dataset]
    task, classes = _task(data), data.classes
    for origin in origins:
        source, text = config.datasets[origin.dataset], _named(origin)
        if source.task != (task or first.task):
            if task is None:
                return [
                    f"{key}.predict_with: {_named(origins[0])} has task {first.task}, {text} has "
                    f"task {source.task}; make a dataset for each"
                ]
            return [
                f"{key}.task: got {task}, but {text} was trained for task {source.task}; write "
                f"task: {source.task}, or name a model of task {task}"
            ]
        names = tuple(classes) if classes else first.class_names
        if source.task == "semantic" and source.class_names != names:
            known = ", ".join(source.class_names)
            if classes is None:
                return [
                    f"{key}.predict_with: {text} predicts the classes {known}, "
                    f"{_named(origins[0])} others; make a dataset for each"
                ]
            return [
                f"{key}.classes: got {', '.join(names)}, but {text} predicts {known}; write these "
                "names in this order, with the values that they have in the label files"
            ]
        if data.channels and source.channels and len(data.channels) != len(source.channels):
            return [
                f"{key}.channels: got {len(data.channels)} of them, but {text} was trained on "
                f"{len(source.channels)}; choose as many"
            ]
    return []


def _windows(config: Config, name: str) -> list[str]:
    """Models of a sweep whose folds may choose networks that cannot be averaged."""
    lines = []
    for origin in config.origins_for(name):
        split = config.datasets[origin.dataset].split
        if split.same_test or len(split.to_run) == 1:
            continue  # all folds choose the same
        tried = [arch for arch in config.architectures_for(origin.model) if arch is not None]
        if not tried:
            continue
        try:
            common([footprint(arch) for arch in tried])
        except ValueError:
            lines.append(
                f"config: datasets.{name}.predict_with: each fold of {_named(origin)} chooses a "
                "model of its sweep, and these need different windows, so they cannot be averaged; "
                f"write test beside folds in datasets.{origin.dataset}.split, so that all folds "
                "choose the same"
            )
    return lines
