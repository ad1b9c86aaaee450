"""``unet info``: what a trained model is, what it was trained on, and how good it is."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unet.cli.stage import closed_pipe, run
from unet.paths import Paths
from unet.prediction.apply.chosen_settings import model_files


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unet info``."""
    p.description = (
        "Says what a trained model is: its network, what it was trained on, the images that it "
        "takes, its scores with intervals if the run evaluated it, and its licence, authors and "
        "citation if known. Of a package: what the package says."
    )
    p.epilog = (
        "examples:\n"
        "  unet info results/nuclei/unet-border           all folds of a model\n"
        "  unet info results/nuclei/unet-border/fold-0    one fold\n"
        "  unet info nuclei.bioimageio.zip                a package\n"
        "  unet info model.pt --json                      for programs"
    )
    p.add_argument(
        "model", type=Path, metavar="MODEL",
        help="model.pt, the results folder of a fold, that of a model, or a package of the "
        "BioImage Model Zoo (.zip)",
    )  # fmt: skip
    p.add_argument("--json", action="store_true", help="print JSON")


def command(args: argparse.Namespace) -> int:
    """Runs ``unet info``; returns the exit code."""
    return run(args, _show)


def _show(args: argparse.Namespace, _: Paths) -> None:
    from unet.report.model_facts import model_facts

    facts = model_facts(model_files([args.model]))
    text = json.dumps(facts, indent=1) if args.json else "\n".join(lines_of(facts))
    with closed_pipe():
        print(text)  # noqa: T201 - this is the command's output


def lines_of(facts: Mapping[str, Any]) -> list[str]:
    """The facts (:func:`unet.report.model_facts.model_facts`) as text for people."""
    groups = {
        "model": _network_rows(facts),
        "trained on": _training_rows(facts),
        "takes": _input_rows(facts["takes"]),
        "results on the test images": _score_rows(facts["results"], facts["files"]),
        "terms": [(key, value) for key, value in facts["terms"].items()],
    }
    lines = []
    for title, rows in groups.items():
        shown = [(key, value) for key, value in rows if value]
        if shown:
            lines += ["", title, *(f"  {key:<16} {value}" for key, value in shown)]
    return [*lines[1:], *(f"\nnote: {note}" for note in facts["notes"])]


Rows = Iterable[tuple[str, str]]


def _network_rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    network, files = facts["network"], facts["files"]
    more = f" and those of {_count(len(files) - 1, 'more fold')}" if len(files) > 1 else ""
    yield "title", facts["title"] or ""
    yield "file", f"{files[0]}{more}"
    yield "preset", network["preset"] or "none of the presets"
    yield "size", f"width {network['width']}, depth {network['depth']}, {network['dims']}D"
    total, trainable = network["parameters"], network["trainable"]
    yield "parameters", f"{total:,}" + ("" if total == trainable else f" ({trainable:,} trainable)")
    yield "receptive field", f"{_sides(network['receptive_field'])} px"
    yield "halo", f"{_sides(network['halo'])} px (context around each tile)"


def _training_rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    training = facts["training"]
    if training["dataset"]:
        folds = ", ".join(training["folds"])
        word = "fold" if len(training["folds"]) == 1 else "folds"
        yield "dataset", f"{training['dataset']} (model {training['model']}, {word} {folds})"
    yield "images", _images(training.get("images", {}))
    yield "pixel size", _pixel_size(facts["takes"]["pixel_size_um"])
    yield "classes", ", ".join(training["classes"]) + f" (task {training['task']})"
    if training["outputs"] != training["classes"]:
        yield "outputs", ", ".join(training["outputs"])
    yield "normalisation", _normalization(training["normalize"])
    yield "steps", _each(f"{step:,}" for step in training["steps"])
    yield "validation", _each(f"{score:.3f}" for score in training["validation_score"])
    yield "file written", _each(training["written"])
    yield "versions", ", ".join(f"{name} {found}" for name, found in training["versions"].items())


def _input_rows(takes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "sizes", takes["sizes"]
    yield "channels", str(takes["channels"])
    if takes["pixel_size_um"] is not None:
        yield "pixel size", "any: images are resampled to that of the training"


def _score_rows(results: Mapping[str, Any], files: Sequence[str]) -> Iterator[tuple[str, str]]:
    for score in results["scores"]:
        if score["mean"] is None:
            continue
        value = f"{score['mean']:.3f}"
        if score["low"] is not None and score["high"] is not None:
            value += f" [{score['low']:.3f}, {score['high']:.3f}]"
        yield score["label"], f"{value} ({_count(score['images'], 'image')})"
    if results["scores"]:
        yield "of", _scored(results["scores_of"], files)
        yield "from", results["scores_from"]
    elif Path(files[0]).suffix == ".zip":
        yield "none", "the package holds no scores"
    else:
        yield "none", "there is no report.csv or metrics.csv of the run beside this model"
    yield (
        "threshold used",
        _each(f"{value:g}" for value in results["threshold"] if value is not None),
    )


def _scored(folds: int | None, files: Sequence[str]) -> str:
    """Whose scores they are, where one may take them for those of the given file alone."""
    if Path(files[0]).suffix == ".zip":
        return "all folds that the run had trained; the package holds one of their networks"
    if folds is not None and folds > len(files):
        return f"all {folds} folds of the model together, not of the given one alone"
    return ""


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _each(values: Iterable[str]) -> str:
    """One value, or the value of each fold; "" if there is none."""
    return ", ".join(dict.fromkeys(values))


def _sides(sizes: Sequence[int]) -> str:
    """One size, or one per axis if they differ."""
    return " × ".join(map(str, sizes if len(set(sizes)) > 1 else sizes[:1]))


def _pixel_size(sizes: Sequence[float] | None) -> str:
    if sizes is None:
        return "unknown"
    return " × ".join(f"{size:g}" for size in (sizes if len(set(sizes)) > 1 else sizes[:1])) + " µm"


def _images(folds: Mapping[str, Mapping[str, int]]) -> str:
    """``40 train, 10 val, 12 test``; with several folds per fold, if they differ."""
    words = {fold: ", ".join(f"{n} {p}" for p, n in parts.items()) for fold, parts in folds.items()}
    if len(set(words.values())) <= 1:
        return _each(words.values())
    return "; ".join(f"fold {fold}: {text}" for fold, text in words.items())


def _normalization(section: Mapping[str, Any]) -> str:
    """``percentile (low 1, high 99.8, scope image)``."""
    method = section.get("method", "unknown")
    keys = () if method == "none" else ("scope",)
    keys = ("low", "high", *keys) if method == "percentile" else keys
    rest = {key: section[key] for key in keys if key in section}
    inner = ", ".join(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
                      for key, value in rest.items())  # fmt: skip
    return f"{method} ({inner})" if inner else str(method)
