"""Each stage's own slice of the config: what Snakemake tracks, and all that the stage is told.

A slice is plain JSON, holds no path of the machine and no time stamp, and has the stage's version
in it. An edit of the config reruns exactly the jobs whose slice it changes, and what follows. Keys
that have no effect given the other settings are at their default (:mod:`unet.config.inactive`), and
a key that is new and at its default is left out (:mod:`unet.config.stage_keys`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from unet.config import inactive
from unet.config.run import Config
from unet.config.stage_keys import told
from unet.paths import ENSEMBLE, fold_name, origin_of
from unet.versions import STAGES

Slice = dict[str, Any]
# The keys of a dataset that are a stage's settings as they are.
DATA_KEYS = {
    "manifest": (
        "layout",
        "task",
        "classes",
        "label_kind",
        "ignore",
        "axes",
        "pixel_size_um",
        "channels",
    ),
    "prepare": ("task", "label_kind", "ignore", "axes", "channels"),
}


def synthesize(config: Config, dataset: str) -> Slice:
    section = config.datasets[dataset].synthetic
    if section is None:
        raise ValueError(f"{dataset} is not a generated dataset")
    return {
        "version": STAGES["synthesize"],
        **told("synthesize", section),
        "seed": config.seed,
    }


def manifest(config: Config, dataset: str, fingerprint: str = "") -> Slice:
    data = config.datasets[dataset]
    applied: Slice = {}
    if config.origins_for(dataset):
        # Labels are welcome there, not needed.
        applied = {"labelled": data.labelled, "required": False}
    return {
        "version": STAGES["manifest"],
        **told("manifest", data, only=DATA_KEYS["manifest"]),
        "group": data.split.group,
        "column": data.split.column,
        "strict": config.strict,
        "labelled": True,
        "fingerprint": fingerprint,
        **applied,
    }


def splits(config: Config, dataset: str) -> Slice:
    split = inactive.of_split(config.datasets[dataset].split)
    # Which folds are run does not change who is in them.
    how = told("splits", split, without={"run"})
    return {"version": STAGES["splits"], "split": how, "seed": config.seed}


def prepare(config: Config, dataset: str) -> Slice:
    return _prepare(config, dataset, "prepare")


def _prepare(config: Config, dataset: str, stage: str, without: Collection[str] = ()) -> Slice:
    data = config.datasets[dataset]
    return {
        "version": STAGES[stage],
        "prepare": told(stage, config.prepare_for(dataset), without=without),
        **told(stage, data, only=DATA_KEYS["prepare"]),
        # As pairs: the order of the classes is their index, and canonical JSON sorts mappings.
        "classes": None if data.classes is None else [list(p) for p in data.classes.items()],
    }


def prepare_applied(config: Config, dataset: str, model: str) -> Slice:
    """Of images that are prepared for a model of another dataset: its files, which are inputs of
    the stage, tell the normalisation and the pixel size."""
    settings = _prepare(config, dataset, "prepare_applied", without={"normalize"})
    return {**settings, "networks": _networks(config, dataset, model)}


def _networks(config: Config, dataset: str, model: str) -> list[int]:
    """The folds whose networks make an ensemble; none where there is no ensemble."""
    origin = origin_of(model)
    if origin is not None:
        return list(config.folds_for(origin.dataset))
    split = config.datasets[dataset].split
    return list(split.to_run) if split.ensemble else []


def train(config: Config, dataset: str, model: str) -> Slice:
    section = config.models[model]
    trained = inactive.of_train(config.train_for(dataset, model), section.head)
    # When to save and how much to hold in memory changes no weight; what a recipe stands for is
    # spelled out in the other keys.
    without = {"checkpoint_seconds", "cache_gb", "gpus", "recipe"}
    arch = config.architecture_for(model)
    return {
        "version": STAGES["train"],
        # None: the training chooses (preset auto), within this memory.
        "architecture": None if arch is None else inactive.of_architecture(arch).to_json(),
        "memory_gb": config.memory_gb if arch is None else None,
        # What it must leave as it is.
        "given": sorted(config.train_given(dataset, model) & {"patch", "batch"})
        if arch is None
        else None,
        "anisotropic": section.anisotropic and section.kernels is None and section.pools is None,
        "head": section.head,
        "border_width": inactive.border_width(section),
        "head_names": list(config.head_for(dataset, model)),
        "train": told("train", trained, without=without),
        "device": config.device,
        "seed": config.seed,
    }


def predict(config: Config, dataset: str, model: str) -> Slice:
    section = config.predict_for(dataset, model)
    # Matters of speed and memory, or of where it is done.
    without = {"batch", "gpus", "shards", "cluster"}
    if section.blend == "none":
        without.add("overlap")
    members = _networks(config, dataset, model)
    return {
        "version": STAGES["predict"],
        "predict": told("predict", section, without=without),
        "device": config.device,
        **({"members": members} if members else {}),
    }


def stitch(config: Config, dataset: str, model: str) -> Slice:
    data = config.datasets[dataset]
    section = config.stitch_for(dataset, model)
    origin, chosen = origin_of(model), {}
    if origin is not None and section.threshold == "auto":
        # There are no validation images here: the thresholds that were chosen on those of training.
        tested = config.tested_for(origin.dataset)
        chosen = {"thresholds_of": [fold_name(fold) for fold in tested]}
    return {
        "version": STAGES["stitch"],
        "stitch": told("stitch", inactive.of_stitch(section, data.task)),
        **chosen,
        "task": data.task,
        "class_names": list(data.class_names),
        "class_values": None if data.classes is None else list(data.classes.values()),
        "head": list(config.head_for(dataset, model)),
    }


def evaluate(config: Config, dataset: str) -> Slice:
    data = config.datasets[dataset]
    return {
        "version": STAGES["evaluate"],
        "evaluate": told("evaluate", inactive.of_evaluate(config.evaluate_for(dataset))),
        "task": data.task,
        "class_names": list(data.class_names),
        # Images without labels are predicted, but not scored.
        **({"applied": True} if config.origins_for(dataset) else {}),
    }


def report(config: Config, dataset: str) -> Slice:
    data, tested = config.datasets[dataset], config.tested_for(dataset)
    return {
        "version": STAGES["report"],
        "report": told("report", config.report),
        "task": data.task,
        "class_names": list(data.class_names),
        "models": list(config.models_for(dataset)),
        "folds": list(config.folds_for(dataset)),
        # Where the folds themselves are not.
        **({"tested": [fold_name(k) for k in tested]} if ENSEMBLE in tested else {}),
        **({"applied": _applied(config, dataset)} if config.origins_for(dataset) else {}),
        "seed": config.seed,
    }


def _applied(config: Config, dataset: str) -> Slice:
    """What the report says of models that were trained elsewhere, and whether they are scored."""
    return {
        "labelled": config.datasets[dataset].labelled,
        "networks": {m: _networks(config, dataset, m) for m in config.models_for(dataset)},
    }


def report_all(config: Config) -> Slice:
    return {
        "version": STAGES["report"],
        "datasets": {
            name: {
                "task": data.task,
                "models": list(config.models_for(name)),
                **({} if data.labelled else {"labelled": False}),
            }
            for name, data in sorted(config.datasets.items())
        },
    }
