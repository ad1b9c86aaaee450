"""Datasets that join others of the same config (``join``). Loads neither torch nor dask.

Such a dataset has no files: its images are those of its members, prepared and split there. Its
task, classes and folds follow from them, so that all stages after the preparation see a dataset
like any other.
"""

from __future__ import annotations

from collections import Counter

from unet.config.run import Config
from unet.config.sections import DatasetSection, SplitSection
from unet.errors import did_you_mean

# Keys of a dataset that say what its files are or how they are read: the members have them.
_OF_FILES = (
    "images", "labels", "synthetic", "download", "download_from", "layout", "ignore", "unlabelled",
    "background", "background_px", "label_kind", "axes", "pixel_size_um", "channels", "prepare",
)  # fmt: skip
# The split of a dataset that says nothing about it.
_UNWRITTEN = SplitSection(test=0.25)


def join_mistakes(config: Config) -> list[str]:
    """Mistakes in datasets with ``join``, one line each."""
    lines: list[str] = []
    for name, data in config.datasets.items():
        if data.join is not None:
            lines += _unusable(config, name) or _without_effect(name, data) or _differ(config, name)
    return lines


def resolved(config: Config) -> Config:
    """The config, with the members' task, classes and folds filled in for such datasets."""
    datasets = dict(config.datasets)
    for name, data in config.datasets.items():
        for first in list(data.weights)[:1]:
            source = config.datasets[first]
            classes = source.classes if data.classes is None else data.classes
            split = split_of(source.split)
            update = {"task": source.task, "classes": classes, "split": split}
            datasets[name] = data.model_copy(update=update)
    return config.model_copy(update={"datasets": datasets})


def split_of(split: SplitSection) -> SplitSection:
    """The folds of a joined dataset, given the split of a member: how many there are, whether they
    test the same images, and which are run. Which images are in them is in the members'
    ``splits.csv``."""
    if split.folds is None:
        return _UNWRITTEN
    return SplitSection(folds=split.folds, test=split.test, run=split.run)


def _unusable(config: Config, name: str) -> list[str]:
    """Names that are unknown or repeated, and datasets that cannot be joined."""
    data, key, lines = config.datasets[name], f"config: datasets.{name}.join", list[str]()
    usable = [d for d, other in sorted(config.datasets.items()) if _trains_alone(other)]
    there = ", ".join(usable) or "none with labelled images of its own"
    members = list(data.join or ())
    twice = [member for member, count in Counter(members).items() if count > 1]
    more = "" if len(set(members)) > 1 else f"; name two or more datasets ({there})"
    if twice:
        lines.append(f"{key}: {twice[0]} stands in it twice; name each dataset once{more}")
    elif more:
        lines.append(f"{key}: got {members}{more}")
    for member in dict.fromkeys(members):
        other = config.datasets.get(member)
        if member == name:
            lines.append(f"{key}: names the dataset itself; there are: {there}")
        elif other is None:
            near = did_you_mean(member, usable)
            lines.append(f"{key}: no dataset {member!r}; there are: {there}{near}")
        elif other.join is not None:
            lines.append(f"{key}: dataset {member} joins others itself; name these instead")
        elif other.predict_with is not None:
            lines.append(
                f"{key}: dataset {member} has predict_with and trains no model; there are: {there}"
            )
    return lines


def _trains_alone(data: DatasetSection) -> bool:
    return data.join is None and data.predict_with is None


def _without_effect(name: str, data: DatasetSection) -> list[str]:
    """Keys that have no effect, since the members have their own: an error, so that nobody relies
    on them."""
    key, fields = f"config: datasets.{name}", DatasetSection.model_fields
    members = " and ".join(data.weights)
    lines = [
        f"{key}.{part}: has no effect with join, {members} have this key; drop it here"
        for part in _OF_FILES
        if getattr(data, part) != fields[part].get_default()
    ]
    if data.predict_with is not None:
        lines.append(f"{key}.predict_with: join is for training, so give one of both")
    if data.compare:
        lines.append(
            f"{key}.compare: masks are compared where the images are; move it to {members}"
        )
    return lines


def _differ(config: Config, name: str) -> list[str]:
    """A task, classes, channels or folds in which the members differ, or the dataset from them."""
    data, key = config.datasets[name], f"config: datasets.{name}"
    first, *others = data.weights
    source = config.datasets[first]
    for other in others:
        there = config.datasets[other]
        if there.task != source.task:
            return [
                f"{key}.join: {first} has task {source.task}, {other} task {there.task}; join "
                "datasets of one task"
            ]
        if there.class_names != source.class_names:
            return [
                f"{key}.join: {first} has the classes {', '.join(source.class_names)}, {other} "
                f"{', '.join(there.class_names)}; write the same names in the same order"
            ]
        if there.channels and source.channels and len(there.channels) != len(source.channels):
            return [
                f"{key}.join: {first} has {len(source.channels)} channels, {other} "
                f"{len(there.channels)}; choose as many with channels"
            ]
        if _folds(there) != _folds(source):
            return [
                f"{key}.join: {first} has {_folds(source)}, {other} {_folds(there)}, and fold k of "
                "the join is fold k of each; write the same folds in both"
            ]
    return _own_values(key, data, first, source)


def _own_values(key: str, data: DatasetSection, first: str, source: DatasetSection) -> list[str]:
    """Values that the members give may be written again, but not differently."""
    if data.split not in (_UNWRITTEN, split_of(source.split)):
        return [f"{key}.split: the images stay in the parts of the joined datasets; drop this key"]
    if "task" in data.model_fields_set and data.task != source.task:
        return [f"{key}.task: got {data.task}, but {first} has task {source.task}; drop this key"]
    if data.classes is not None and data.class_names != source.class_names:
        return [
            f"{key}.classes: got {', '.join(data.classes)}, but {first} has "
            f"{', '.join(source.class_names)}; write these names in this order, or drop this key"
        ]
    return []


def _folds(data: DatasetSection) -> str:
    """What two splits must have in common to be joined, in words."""
    split = data.split
    if split.folds is None:
        return "a single split"
    kind = "folds that test the same images" if split.ensemble else "folds"
    run = "" if split.run is None else f" (run: {list(split.to_run)})"
    return f"{split.folds} {kind}{run}"
