"""Accuracy against window size on ISBI 2012, with the pipeline's stages; for sliding_window.py.

Each network is a model of one config (config/examples/isbi2012.yaml with other models). The scripts
of the workflow train, predict, stitch and evaluate it. Window classifiers train on the same number
of windows; U-Nets train as long as the reference window did. Finished results are kept in files and
not computed again.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import yaml

from unet.config import yaml_file
from unet.config.load import load_file
from unet.config.presets import AnyArchitecture, Architecture, architecture_of
from unet.files import digest, file_sha256
from unet.models.build import build
from unet.models.network import Network, parameter_counts
from unet.paths import Paths
from unet.report.score_tables import read_metrics
from unet.tables import read_table

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "config" / "examples" / "isbi2012.yaml"
DATASET, FOLD = "isbi2012", 0
# The stages of each window: as many of N4's first stages as fit into the window. Windows with four
# stages differ in the side of the fully connected layer's input: 1, 2, 3 (N4), 5 pixels.
N4_STAGES = ([48, 4], [48, 5], [48, 4], [48, 4])
STAGES: dict[int, int] = {23: 2, 31: 3, 47: 3, 63: 4, 79: 4, 95: 4, 127: 4}
REFERENCE = 95
BATCH, EPOCHS, TIMING_STEPS = 64, 5, 12
# Side of the patches, in windows, on which the reference is also trained densely.
DENSE_WINDOWS, DENSE_BATCH = 64, 4
# Smaller U-Nets (width, depth): one may do about as well as the best window.
SMALLER = ((3, 3),)

Row = dict[str, Any]
Model = dict[str, Any]


def window_model(size: int, steps: int, patch: int | None = None, batch: int = BATCH) -> Model:
    """A window classifier, trained on single windows, or on all windows of larger patches."""
    train = {
        "recipe": "ciresan2012", "patch": patch or size, "batch": batch,
        "epochs": EPOCHS, "steps_per_epoch": max(1, steps // EPOCHS),
    }  # fmt: skip
    stages = [list(stage) for stage in N4_STAGES[: STAGES[size]]]
    return {"preset": "ciresan2012", "window": size, "stages": stages, "train": train}


def unet_model(width: int, depth: int, steps: int) -> Model:
    """A U-Net with the example's training settings and this number of steps."""
    train = {"epochs": EPOCHS, "steps_per_epoch": max(1, steps // EPOCHS)}
    return {"preset": "unet-bn", "width": width, "depth": depth, "train": train}


def counted(network: Network, side: int) -> int:
    """Multiplications of a network for a square image, counted by torch."""
    from torch.utils.flop_counter import FlopCounterMode

    fp = network.footprint[0]
    size = fp.fit(side + 2 * fp.margin)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, network.in_channels, size, size))
    return int(counter.get_total_flops()) // 2


def equal_unet(parameters: int, channels: int = 1, classes: int = 2) -> Architecture:
    """The ``unet-bn`` of depth 3 or 4 whose number of parameters comes closest."""
    best: tuple[int, Architecture] | None = None
    for depth in (3, 4):
        for width in range(2, 65):
            arch = architecture_of("unet-bn", width=width, depth=depth)
            found = parameter_counts(build(channels, classes, arch))[0]
            if best is None or abs(found - parameters) < best[0]:
                best = abs(found - parameters), cast(Architecture, arch)
            if found > parameters:  # and the next width has more still
                break
    assert best is not None
    return best[1]


class Bench:
    """One output folder with one dataset, to which models are added.

    Args:
        data: folder with images/ and labels/.
        work: output folder.
        threads: for every stage.
    """

    def __init__(self, data: Path, work: Path, threads: int) -> None:
        self.data, self.threads = data.resolve(), threads
        self.paths = Paths(work.resolve())
        self.paths.output.mkdir(parents=True, exist_ok=True)

    def write_config(self, name: str, model: Mapping[str, Any]) -> Path:
        """Writes the example's config with only this model."""
        raw = yaml_file.read_yaml(EXAMPLE)
        raw["output"], raw["data_root"] = str(self.paths.output), str(self.data)
        raw["models"] = {name: dict(model)}
        # One way for all: no average over symmetries, the threshold by the validation images.
        raw["predict"] = {"tta": False}
        raw["stitch"] = {"threshold": "auto"}
        path = self.paths.output / "configs" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        # Unsorted: the order of the classes is their index.
        path.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
        return path

    def stage(self, script: str, config: Path, *words: str) -> None:
        """Runs a stage's command line; it ends the program if that fails."""
        command = [
            sys.executable, str(ROOT / "scripts" / f"{script}.py"),
            "--output", str(self.paths.output), "--dataset", DATASET, "--config", str(config),
            "--threads", str(self.threads), *words,
        ]  # fmt: skip
        threads = {"OMP_NUM_THREADS": str(self.threads)}
        done = subprocess.run(command, env={**os.environ, **threads}, check=False)
        if done.returncode:
            raise SystemExit(f"{script} failed: {' '.join(command)}")

    def prepare(self, config: Path) -> None:
        """Manifest, splits and prepared images, once; the split is that of the example."""
        root = ("--root", str(self.data))
        steps: list[tuple[Path, str, tuple[str, ...]]] = [
            (
                self.paths.manifest(DATASET), "manifest",
                (*root, "--images", "images", "--labels", "labels"),
            ),
            (self.paths.splits(DATASET), "splits", ()),
            (self.paths.prepared_done(DATASET), "prepare", root),
        ]  # fmt: skip
        for target, script, words in steps:
            if not target.exists():
                self.stage(script, config, *words)

    def train(self, name: str, model: Mapping[str, Any]) -> Path:
        """Trains a model, or continues its training; returns its config."""
        config = self.write_config(name, model)
        self.prepare(config)
        self.stage("train", config, "--model", name, "--fold", str(FOLD))
        return config

    def history(self, name: str) -> list[dict[Hashable, str]]:
        return read_table(self.paths.history(DATASET, name, FOLD), "train").to_dict("records")

    def rate(self, name: str, model: Mapping[str, Any]) -> float:
        """Steps per second, measured in a short separate training."""
        short = {**model["train"], "epochs": 1, "steps_per_epoch": TIMING_STEPS}
        config = self.train(f"{name}-timing", {**model, "train": short})
        batch = load_file(config).train_for(DATASET, f"{name}-timing").batch
        return float(self.history(f"{name}-timing")[-1]["images_per_s"]) / batch

    def architecture(self, name: str) -> AnyArchitecture:
        arch = load_file(self.paths.output / "configs" / f"{name}.yaml").architecture_for(name)
        assert arch is not None
        return arch

    def row(self, name: str, model: Mapping[str, Any], label: str) -> Row:
        """Trains and scores a model, or reads the finished result."""
        kept = self.paths.output / "rows" / f"{name}.json"
        key = digest({"model": dict(model), "example": file_sha256(EXAMPLE)})
        if kept.exists():
            row: Row = json.loads(kept.read_text())
            if row["key"] == key:
                print(f"{name}: finished before", flush=True)
                return row
        print(f"{name}: {label}", flush=True)
        config = self.train(name, model)
        fold = ("--model", name, "--fold", str(FOLD))
        self.stage("predict", config, *fold)
        self.stage("stitch", config, *fold)
        self.stage("evaluate", config, "--model", name, "--folds", str(FOLD))
        row = {"key": key, **self._result(name, label)}
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(row, indent=1) + "\n")
        return row

    def _result(self, name: str, label: str) -> Row:
        arch = self.architecture(name)
        network = build(1, 2, arch).eval()
        history = self.history(name)
        section = load_file(self.paths.output / "configs" / f"{name}.yaml").train_for(DATASET, name)
        images = section.batch * section.steps_per_epoch
        steps = section.epochs * section.steps_per_epoch
        window = getattr(arch, "window", None)
        what = "windows" if section.patch == window else f"patches of {section.patch} px"
        return {
            "name": name,
            "label": label,
            "kind": arch.kind,
            "window": window,
            "architecture": arch.to_json(),
            "parameters": parameter_counts(network)[0],
            "multiplications": counted(network, 512),
            "trained_on": f"{steps * section.batch} {what}",
            # Without the validations.
            "train_seconds": sum(images / float(row["images_per_s"]) for row in history),
            "validation": [float(row["val_loss"]) for row in history if row["val_loss"]],
            "scores": self.scores(name),
        }

    def scores(self, name: str) -> dict[str, float]:
        """Means over the test images."""
        found: dict[str, list[float]] = {}
        for row in read_metrics(self.paths.metrics(DATASET, name)):
            if row.metric in ("pixel_error", "v_rand", "v_info") and not math.isnan(row.value):
                found.setdefault(row.metric, []).append(row.value)
        return {metric: sum(values) / len(values) for metric, values in found.items()}


def accuracies(
    data: Path, work: Path, sizes: Sequence[int], windows: int, threads: int
) -> list[Row]:
    """A row per window size, then (if the reference is among them) the models compared with it.

    Args:
        sizes: keys of ``STAGES``.
        windows: number that each window classifier is trained on.
    """
    unknown = sorted(set(sizes) - set(STAGES))
    if unknown:
        raise SystemExit(f"--sizes: no stages are known for {unknown}; there are: {list(STAGES)}")
    bench = Bench(data, work, threads)
    steps = max(EPOCHS, windows // BATCH)
    rows = [
        bench.row(f"w{size}", window_model(size, steps), f"window {size}") for size in sorted(sizes)
    ]
    reference = next((row for row in rows if row["window"] == REFERENCE), rows[-1])
    seconds, parameters = reference["train_seconds"], reference["parameters"]
    size = reference["window"]
    patch = size + DENSE_WINDOWS - 1
    others: list[tuple[str, Model, str]] = [
        (
            f"w{size}-dense", window_model(size, EPOCHS, patch, DENSE_BATCH),
            f"window {size}, trained densely, same time",
        )
    ]  # fmt: skip
    equal = equal_unet(parameters)
    chosen = {(equal.width, equal.depth): "U-Net of equal parameters, same time"}
    for width, depth in SMALLER:
        chosen.setdefault((width, depth), f"U-Net of width {width}, depth {depth}, same time")
    for (width, depth), label in chosen.items():
        others.append((f"unet-w{width}-d{depth}", unet_model(width, depth, EPOCHS), label))
    for name, model, label in others:
        bench.write_config(name, model)
        # The number of steps is saved, because a second call would measure another speed.
        timed = bench.paths.output / "rows" / f"{name}-steps.json"
        value = {"seconds": seconds, "train": model["train"]}
        known = json.loads(timed.read_text()) if timed.exists() else {}
        if known.get("for") != value:
            known = {"for": value, "steps": max(EPOCHS, int(seconds * bench.rate(name, model)))}
            timed.write_text(json.dumps(known) + "\n")
        train = {**model["train"], "steps_per_epoch": max(1, known["steps"] // EPOCHS)}
        rows.append(bench.row(name, {**model, "train": train}, label))
    return rows
