"""Each stage's own slice of the config: what Snakemake tracks, and all that the stage is told.

A slice is plain JSON, holds no path of the machine and no time stamp, and has the stage's version
in it. An edit of the config reruns exactly the jobs whose slice it changes, and what follows. Keys
that have no say beside others stand at their default (:mod:`unet.moot`).
"""

from __future__ import annotations

from typing import Any

from unet import moot
from unet.config import Config
from unet.paths import ENSEMBLE, fold_name, origin_of
from unet.versions import STAGES

Slice = dict[str, Any]


def synthesize(config: Config, dataset: str) -> Slice:
    section = config.datasets[dataset].synthetic
    if section is None:
        raise ValueError(f"{dataset} is not a generated dataset")
    return {
        "version": STAGES["synthesize"],
        **section.model_dump(mode="json"),
        "seed": config.seed,
    }


def manifest(config: Config, dataset: str, fingerprint: str = "") -> Slice:
    data = config.datasets[dataset].model_dump(mode="json")
    keys = ("layout", "task", "classes", "ignore", "axes", "pixel_size_um", "channels")
    applied: Slice = {}
    if config.origins_for(dataset):
        # Labels are welcome there, not needed.
        applied = {"labelled": config.datasets[dataset].labelled, "required": False}
    return {
        "version": STAGES["manifest"],
        **{key: data[key] for key in keys},
        **_label_kind(config, dataset),
        "group": data["split"]["group"],
        "column": data["split"]["column"],
        "strict": config.strict,
        "labelled": True,
        "fingerprint": fingerprint,
        **applied,
    }


def _label_kind(config: Config, dataset: str) -> Slice:
    """A key that came later: at its default it is as if it were not there."""
    kind = config.datasets[dataset].label_kind
    return {} if kind == "instances" else {"label_kind": kind}


def splits(config: Config, dataset: str) -> Slice:
    split = moot.of_split(config.datasets[dataset].split).model_dump(mode="json")
    # Which folds are run does not change who is in them.
    split.pop("run")
    if not split["redraw"]:
        # A key that came later, too.
        split.pop("redraw")
    return {"version": STAGES["splits"], "split": split, "seed": config.seed}


def prepare(config: Config, dataset: str) -> Slice:
    data = config.datasets[dataset].model_dump(mode="json")
    keys = ("task", "ignore", "axes", "channels")
    return {
        "version": STAGES["prepare"],
        "prepare": config.prepare_for(dataset).model_dump(mode="json"),
        **{key: data[key] for key in keys},
        **_label_kind(config, dataset),
        # As pairs: the order of the classes is their index, and canonical JSON sorts mappings.
        "classes": None if data["classes"] is None else [list(p) for p in data["classes"].items()],
    }


def prepare_applied(config: Config, dataset: str, model: str) -> Slice:
    """Of images that are prepared for a model of another dataset: its files, which are inputs of
    the stage, tell the normalisation and the pixel size."""
    settings = prepare(config, dataset)
    settings["prepare"].pop("normalize")
    return {
        **settings,
        "version": STAGES["prepare_applied"],
        "networks": _networks(config, dataset, model),
    }


def _networks(config: Config, dataset: str, model: str) -> list[int]:
    """The folds whose networks make an ensemble; none where there is no ensemble."""
    origin = origin_of(model)
    if origin is not None:
        return list(config.folds_for(origin.dataset))
    split = config.datasets[dataset].split
    return list(split.to_run) if split.ensemble else []


def train(config: Config, dataset: str, model: str) -> Slice:
    section = config.models[model]
    trained = moot.of_train(config.train_for(dataset, model), section.head)
    settings = trained.model_dump(mode="json")
    # When to save and how much to hold in memory changes no weight.
    settings.pop("checkpoint_seconds")
    settings.pop("cache_gb")
    settings.pop("gpus")
    # What it stands for is spelled out in the other keys.
    settings.pop("recipe")
    arch = config.architecture_for(model)
    return {
        "version": STAGES["train"],
        # None: the training chooses (preset auto), within this memory.
        "architecture": None if arch is None else moot.of_architecture(arch).to_json(),
        "memory_gb": config.memory_gb if arch is None else None,
        # What it must leave as it is.
        "given": sorted(config.train_given(dataset, model) & {"patch", "batch"})
        if arch is None
        else None,
        "anisotropic": section.anisotropic and section.kernels is None and section.pools is None,
        "head": section.head,
        "border_width": moot.border_width(section),
        "head_names": list(config.head_for(dataset, model)),
        "train": settings,
        "device": config.device,
        "seed": config.seed,
    }


def predict(config: Config, dataset: str, model: str) -> Slice:
    settings = config.predict_for(dataset, model).model_dump(mode="json")
    # Matters of speed and memory, or of where it is done.
    for key in ("batch", "gpus", "shards", "cluster"):
        settings.pop(key)
    if settings["blend"] == "none":
        settings.pop("overlap")
    members = _networks(config, dataset, model)
    return {
        "version": STAGES["predict"],
        "predict": settings,
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
        "stitch": moot.of_stitch(section, data.task).model_dump(mode="json"),
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
        "evaluate": moot.of_evaluate(config.evaluate_for(dataset)).model_dump(mode="json"),
        "task": data.task,
        "class_names": list(data.class_names),
        # Images without labels are predicted, but not scored.
        **({"applied": True} if config.origins_for(dataset) else {}),
    }


def report(config: Config, dataset: str) -> Slice:
    data, tested = config.datasets[dataset], config.tested_for(dataset)
    return {
        "version": STAGES["report"],
        "report": config.report.model_dump(mode="json"),
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
