"""What a package of the BioImage Model Zoo says about a model: README.md, training, scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unet.config.export_section import ExportSection
from unet.config.presets import Architecture
from unet.files import canonical
from unet.models.model_file import ModelFile
from unet.models.zoo_layers import Sizes, sizes_of
from unet.models.zoo_package import Texts
from unet.models.zoo_steps import steps_of

Score = Mapping[str, Any]
# Most letters of a name in the zoo's tables.
SHORT = 16
# Most letters of a title in the format.
LONGEST = 128
# The paper of each kind of network.
PAPERS = {
    "unet": {
        "text": "Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image "
        "Segmentation. MICCAI 2015",
        "doi": "10.1007/978-3-319-24574-4_28",
    },
    "window": {
        "text": "Ciresan, Giusti, Gambardella, Schmidhuber: Deep Neural Networks Segment Neuronal "
        "Membranes in Electron Microscopy Images. NIPS 2012",
        "url": "https://papers.nips.cc/paper/2012/hash/459a4ddcb586f24efd9395aa7662bc7c-Abstract.html",
    },
}


@dataclass(frozen=True)
class Trained:
    """Where a model comes from; empty for a model.pt outside the results of a run.

    Attributes:
        dataset, model: names in the run's config.
        fold: whose network it is.
        scores: the main scores (:func:`unet.report.model_facts.score_values`).
        confidence: level of their intervals.
    """

    dataset: str = ""
    model: str = ""
    fold: int | None = None
    scores: Sequence[Score] = ()
    confidence: float = 0.95


def texts_of(model: ModelFile, section: ExportSection, trained: Trained) -> Texts:
    """All texts of a package."""
    name = section.name or _name(trained)
    description = section.description or _sentence(model, trained)
    authors = [
        {"name": name, **known.model_dump(exclude_none=True)}
        for name, known in section.authors.items()
    ]
    cite = [
        {"text": text, "url" if "://" in where else "doi": where}
        for text, where in section.cite.items()
    ]
    details: dict[str, Any] = {"training": training_details(model)}
    if section.data_url and trained.scores:
        details["evaluations"] = [_evaluation(section.data_url, trained)]
    return Texts(
        name=name,
        description=description,
        license=section.license or "",
        authors=authors,
        cite=[*cite, dict(PAPERS[model.architecture.kind])],
        tags=_tags(model, section),
        readme=_readme(model, name, description, trained),
        details=details,
        own={"trained": canonical(_origin(trained))} if trained.dataset else {},
    )


def _origin(trained: Trained) -> dict[str, Any]:
    """What :mod:`unet.report.package_facts` reads back."""
    known = {"dataset": trained.dataset, "model": trained.model, "fold": trained.fold}
    return {**known, "scores": [dict(score) for score in trained.scores]}


def _name(trained: Trained) -> str:
    return f"{trained.model} on {trained.dataset}"[:LONGEST] if trained.dataset else "U-Net model"


def _sentence(model: ModelFile, trained: Trained) -> str:
    what = "objects" if model.task == "instances" else "classes"
    source = f" Trained on {trained.dataset}." if trained.dataset else ""
    dims = model.architecture.dims
    return f"Segments {what} in {dims}D microscopy images: {', '.join(model.head)}.{source}"


def _tags(model: ModelFile, section: ExportSection) -> list[str]:
    dims, task = model.architecture.dims, model.task
    own = ["unet", "segmentation", "pytorch", f"{dims}d", f"{task.removesuffix('s')}-segmentation"]
    return list(dict.fromkeys([*own, *section.tags]))


def notes_of(model: ModelFile) -> list[str]:
    """How results of other programs differ from ours, in a sentence each."""
    arch, sizes = model.architecture, sizes_of(model)
    _, notes = steps_of(model.normalize, arch.dims)
    if isinstance(arch, Architecture) and arch.padding == "same" and any(s.halo for s in sizes):
        notes.append(
            f"less than {_sides([s.halo for s in sizes])} px from an image's edge, values differ: "
            "other programs mirror the image there, here nothing is added"
        )
    if any(s.step > 1 for s in sizes):
        notes.append(
            f"tiles are only exact if the sides of the image are multiples of "
            f"{_sides([s.step for s in sizes])} px"
        )
    if model.pixel_size_um is not None:
        notes.append(
            f"images should have the training's pixel size, {_sides(model.pixel_size_um)} um; "
            "other programs do not resample them"
        )
    if model.task == "instances":
        notes.append("the package ends with probabilities; making objects of them is up to others")
    return notes


def _sides(values: Sequence[float]) -> str:
    known = [f"{value:g}" for value in values]
    return known[0] if len(set(known)) == 1 else " x ".join(known)


def training_details(model: ModelFile) -> dict[str, Any]:
    """How the model was trained, in the format's fields; empty if the file does not say."""
    train = model.settings.get("train", {})
    fields = {
        "training_epochs": train.get("epochs"),
        "training_batch_size": train.get("batch"),
        "initial_learning_rate": train.get("lr"),
        "learning_rate_schedule": train.get("schedule"),
        "loss_function": train.get("loss"),
        "loss_function_kwargs": train.get("loss_options"),
        "optimizer": train.get("optimizer"),
    }
    found = {key: value for key, value in fields.items() if value not in (None, {})}
    decay = train.get("weight_decay")
    dropout = getattr(model.architecture, "dropout", 0.0)
    parts = [f"weight decay {decay:g}"] if decay else []
    parts += [f"dropout {dropout:g}"] if dropout else []
    found |= {"regularization": ", ".join(parts)} if parts else {}
    return found | {"training_preprocessing": _normalisation(model)}


def _normalisation(model: ModelFile) -> str:
    values, whose = model.normalize, "each image"
    if values.get("scope") == "dataset":
        whose = "the whole dataset"
    if values["method"] == "percentile":
        low, high = values.get("low", 1.0), values.get("high", 99.8)
        return f"percentiles {low:g} and {high:g} of {whose} become 0 and 1"
    return f"{values['method']} of {whose}" if values["method"] != "none" else "none"


def _evaluation(url: str, trained: Trained) -> dict[str, Any]:
    """The scores in the format's fields."""
    level = f"{100 * trained.confidence:g}"
    known = [score for score in trained.scores if score["mean"] is not None]
    # Two classes may have the same metric.
    names = [f"{n + 1} {score['metric']}"[:SHORT] for n, score in enumerate(known)]
    return {
        "dataset_id": trained.dataset.lower(),
        "dataset_source": url,
        "dataset_role": "test",
        "sample_count": max(score["images"] for score in known),
        "evaluation_factors": ["mean", f"low {level} %", f"high {level} %"],
        "evaluation_factors_long": [
            "mean over the test images",
            f"lower end of the {level} % interval of the mean",
            f"upper end of the {level} % interval of the mean",
        ],
        "metrics": names,
        "metrics_long": [f"{score['label']} ({score['metric']})" for score in known],
        "results": [
            [_number(score[key]) for key in ("mean", "low", "high")] for score in known
        ],
    }  # fmt: skip


def _number(value: float | None) -> float | str:
    return "" if value is None else round(float(value), 4)


def _readme(model: ModelFile, name: str, description: str, trained: Trained) -> str:
    sizes = sizes_of(model)
    parts = [f"# {name}", description, "## Input and output", *_in_and_out(model, sizes)]
    parts += ["## Training", _training(model, trained)]
    parts += ["## Validation", _validation(trained)]
    parts += ["## What differs in other programs", "\n".join(f"- {n}" for n in notes_of(model))]
    return "\n\n".join(parts) + "\n"


def _in_and_out(model: ModelFile, sizes: Sequence[Sizes]) -> list[str]:
    least, step = _sides([s.least for s in sizes]), _sides([s.step for s in sizes])
    channels = f"{model.in_channels} channel{'s' if model.in_channels > 1 else ''}"
    return [
        f"Input: an image with {channels}, of {least} px or more in steps of {step} px. "
        f"Normalisation, part of the package: {_normalisation(model)}.",
        f"Output: a probability per pixel for each of {', '.join(model.head)}. "
        f"Of each tile, {_sides([s.halo for s in sizes])} px at each side are context (halo) and "
        "not kept.",
    ]


def _training(model: ModelFile, trained: Trained) -> str:
    rows = {key.replace("_", " "): value for key, value in training_details(model).items()}
    rows |= {"steps": model.step, "validation score": round(model.score, 4)}
    if trained.dataset:
        own = f"{trained.dataset}, fold {trained.fold}: a package holds the network of one fold"
        rows = {"dataset": own, **rows}
    return "\n".join(f"- {key}: {value}" for key, value in rows.items())


def _validation(trained: Trained) -> str:
    if not trained.scores:
        return (
            "No scores are known. Before you rely on the model, compare its results with a few "
            "images that you annotated yourself."
        )
    level = f"{100 * trained.confidence:g} %"
    lines = [f"| score | mean | {level} interval | images |", "|---|---|---|---|"]
    for score in trained.scores:
        if score["mean"] is None:
            continue
        ends = [score["low"], score["high"]]
        interval = "" if None in ends else f"{ends[0]:.3f} to {ends[1]:.3f}"
        lines.append(f"| {score['label']} | {score['mean']:.3f} | {interval} | {score['images']} |")
    lead = "Scores on test images that the network of their fold did not see, over all folds."
    tail = (
        "Images unlike those of the training give worse results: compare a few with your own "
        "annotations first."
    )
    return "\n\n".join([lead, "\n".join(lines), tail])
