"""Runs the command lines of the stages, each in its own process that can be killed.

The processes are forked from one that has loaded the libraries, so that a run takes a second and
hundreds of faults take minutes. Each one is nevertheless a real process, killed by SIGKILL.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.faults.contents import FOLD, QUALITY, content, different, size_of, tables, write_masks

ROOT = Path(__file__).resolve().parents[2]
# Seed of all random times, positions and bits; printed with the table.
SEED = int(os.environ.get("UNET_FAULT_SEED", "5"))

STAGES = (
    "manifest", "splits", "prepare", "train", "predict", "stitch", "evaluate", "details",
    "compare", "audit", "quality", "report", "all",
)  # fmt: skip
# Stages of a run without a dataset that models of others predict.
WITHOUT_APPLIED = tuple(stage for stage in STAGES if stage != "quality")
# The outputs that each stage declares to Snakemake, and its other outputs.
DECLARED = {
    "manifest": ["d/manifest.csv", "d/inputs.json"],
    "splits": ["d/splits.csv"],
    "prepare": ["d/prepared.json"],
    "train": [f"{FOLD}/model.pt", f"{FOLD}/history.csv", f"{FOLD}/curves.png"],
    "predict": [f"{FOLD}/tiles.json"],
    "stitch": [f"{FOLD}/segmentation.json", f"{FOLD}/objects.csv"],
    "evaluate": ["d/m/metrics.csv"],
    "details": [f"d/m/details/{name}.csv" for name in ("matches", "confusion", "thresholds")],
    "compare": ["d/compared/t/metrics.csv", "d/compared/t/masks.json"],
    "audit": ["d/m/audit.csv"],
    "quality": ["e/m@d/quality.csv"],
    "report": ["d/report.csv", "d/report.html"],
    "all": ["report.csv", "report.html"],
}
BESIDE = {
    "manifest": ["d/warnings.manifest.json"],
    "splits": ["d/.splits-kept.csv", "d/warnings.splits.json"],
    "prepare": ["d/prepared.zarr"],
    "train": ["checkpoints", f"{FOLD}/.trained"],
    "predict": [f"{FOLD}/tiles.zarr"],
    "stitch": [f"{FOLD}/segmentation.zarr", f"{FOLD}/masks"],
    "compare": ["d/compared", "d/warnings.compare-t.json"],
    "audit": ["d/m/audit"],
    "quality": ["e/warnings.quality-m@d.json"],
}
# One thread where torch computes: on a busy machine several threads wait for each other.
THREADS = {"train": 1, "predict": 1}
CONFIG: dict[str, Any] = {
    "data_root": "raw",
    "device": "cpu",
    "datasets": {
        "d": {
            "images": "images/*.tif", "labels": "labels/*.tif", "task": "instances",
            "split": {"test": 0.34, "val": 0.34}, "evaluate": {"metrics": ["pixel", "instance"]},
            "compare": {"t": "tool"},
        }
    },
    "models": {"m": {"preset": "unet-bn", "width": 4, "depth": 1, "train": {"patch": 48}}},
    "prepare": {"tile": 64, "shard": 2},
    "train": {"batch": 2, "epochs": 3, "steps_per_epoch": 4, "warmup_steps": 1, "lr": 0.01},
    "predict": {"tile": 64, "batch": 2},
    "stitch": {"min_size": 4},
    "report": {"bootstrap": 100},
}  # fmt: skip

# The model predicts these, too.
APPLIED: dict[str, Any] = {"images": "new/*.tif", "predict_with": ["d/m"]}

PRELOAD = [
    "torch", "torch._dynamo", "zarr", "dask.array", "pandas", "matplotlib.figure",
    "skimage.measure", "scipy.ndimage",
    "unet.training.train", "unet.prediction.tiles.predict", "unet.prediction.stitch.stitch",
    "unet.report.dataset_page", "unet.report.overall_page",
    "unet.evaluation.evaluate", "unet.data.prepare", "unet.data.manifest",
    "unet.evaluation.details", "unet.evaluation.compared", "unet.evaluation.audit.audit_model",
    "unet.evaluation.quality.quality",
]  # fmt: skip

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}


@dataclass(frozen=True)
class Order:
    """Instructions for a process.

    Attributes:
        operation: die just before this change of a file in ``output``, counted from 1.
        user: run as this user.
        patch: a module's function to call first in the process.
    """

    script: Path
    words: tuple[str, ...]
    output: Path
    folder: Path
    said: Path
    operation: int | None = None
    user: int | None = None
    patch: Callable[[], None] | None = None


@dataclass(frozen=True)
class Ended:
    """How a process ended: exit code (negative: killed by a signal), console output, duration, and
    number of changes of files."""

    code: int
    said: str
    seconds: float
    operations: int

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def errors(self) -> list[str]:
        return [line for line in self.said.splitlines() if line.startswith("error: ")]


def _do(order: Order) -> None:
    """Runs the stage in the process and exits with its code."""
    handle = os.open(order.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.chdir(order.folder)
    if order.user is not None:
        os.setgroups([])
        os.setgid(order.user)
        os.setuid(order.user)
    if order.patch is not None:
        order.patch()
    count = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            if not isinstance(args[2], int) or not args[2] & (os.O_WRONLY | os.O_RDWR):
                return
        elif event not in _CHANGES:
            return
        if not str(args[0]).startswith(str(order.output)):
            return
        count += 1
        if count == order.operation:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    code = runpy.run_path(str(order.script))["main"](list(order.words))
    sys.stdout.flush()
    sys.stderr.flush()
    if order.user is None:
        order.said.with_suffix(".count").write_text(str(count))
    sys.exit(code)


@dataclass
class Running:
    """A started process."""

    process: Any
    order: Order
    started: float = field(default_factory=time.monotonic)

    def end(self, after: float | None = None) -> Ended:
        """Waits for its end, or kills it ``after`` seconds, if given."""
        self.process.join(120 if after is None else after)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            if after is None:
                raise AssertionError(f"hangs: {self.order.words}\n{self.order.said.read_text()}")
        said = self.order.said.read_text() if self.order.said.exists() else ""
        count = self.order.said.with_suffix(".count")
        operations = int(count.read_text()) if count.exists() else 0
        seconds = time.monotonic() - self.started
        return Ended(self.process.exitcode, said, seconds, operations)


class Lab:
    """Raw images, a config, and the results of an undisturbed run, which disturbed runs must equal.

    Args:
        folder: working folder.
    """

    def __init__(self, folder: Path) -> None:
        from unet.data.synthetic import write_dataset

        self.folder = folder
        self.raw = folder / "raw"
        write_dataset(self.raw, "nuclei", 3, 6, (160, 160), 0.5)
        write_masks(self.raw / "labels", self.raw / "tool")
        write_dataset(folder / "made", "nuclei", 4, 2, (96, 96), 0.5)
        (folder / "made" / "images").rename(self.raw / "new")
        self.config, self.applied = folder / "config.yaml", folder / "applied.yaml"
        self.write_config("results")
        text = self.config.read_text(encoding="utf-8")
        datasets = {**CONFIG["datasets"], "e": APPLIED}
        self.write_config("results", datasets=datasets)
        self.config.rename(self.applied)
        self.config.write_text(text, encoding="utf-8")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)
        # The server imports modules from Python's path, not from pytest's.
        known = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([known] if known else [])])
        self._number = 0
        self.unbroken = folder / "results"
        self.seconds: dict[str, float] = {}
        self.operations: dict[str, int] = {}
        self.sizes: dict[str, int] = {}
        for stage in STAGES:
            if stage == "quality":
                self._apply()
            before = size_of(self.unbroken)
            done = self.run(stage, self.unbroken)
            assert done.code == 0, done.said
            self.seconds[stage], self.operations[stage] = done.seconds, done.operations
            self.sizes[stage] = size_of(self.unbroken) - before
        self.tables = tables(self.unbroken)
        # Those of a run without the other dataset.
        self.of_one_dataset = {k: v for k, v in self.tables.items() if k not in QUALITY}

    def write_config(self, output: str, **more: Any) -> None:
        text = yaml.safe_dump({"output": output, **CONFIG, **more}, sort_keys=False)
        self.config.write_text(text, encoding="utf-8")

    def _apply(self) -> None:
        """Predicts the other dataset, as far as the stage quality needs it."""
        for stage in ("manifest", "prepare_applied", "predict", "stitch"):
            done = self.run(stage, self.unbroken, dataset="e")
            assert done.code == 0, done.said

    def _words(self, stage: str, dataset: str) -> list[str]:
        """The arguments that name what a stage works on."""
        if stage == "all":
            return ["--all"]
        words = ["--dataset", dataset]
        raw = ["--root", str(self.raw)]
        if stage == "manifest":
            parts = {"d": ["images/*.tif", "--labels", "labels/*.tif"], "e": ["new/*.tif"]}
            words += [*raw, "--images", *parts[dataset]]
        if stage == "prepare_applied":
            words += raw
        if stage == "compare":
            words += ["--tool", "t", "--masks", str(self.raw / "tool"), *raw]
        elif stage not in ("manifest", "splits", "prepare", "report"):
            words += ["--model", "m" if dataset == "d" else "m@d"]
        if stage in ("evaluate", "details", "audit", "compare"):
            words += ["--folds", "0"]
        if stage in ("train", "predict", "stitch"):
            words += ["--fold", "0" if dataset == "d" else "ensemble"]
        return words

    def start(
        self, stage: str, output: Path, more: Sequence[str] = (), dataset: str = "", **how: Any
    ) -> Running:
        """Starts a stage like Snakemake does; ``dataset``: "" for the one of the stage."""
        self._number += 1
        dataset = dataset or ("e" if stage == "quality" else "d")
        config = self.config if dataset == "d" else self.applied
        words = ["--output", str(output), "--config", str(config)]
        words += ["--threads", str(THREADS.get(stage, 2))]
        words += ["--log", str(output / "logs" / f"{stage}.log")]
        words += self._words(stage, dataset)
        script = ROOT / "scripts" / ("report.py" if stage == "all" else f"{stage}.py")
        said = self.folder / "said" / f"{self._number}-{stage}.txt"
        said.parent.mkdir(exist_ok=True)
        order = Order(script, (*words, *more), output, self.folder, said, **how)
        process = self._context.Process(target=_do, args=(order,))
        process.start()
        return Running(process, order)

    def run(
        self, stage: str, output: Path, more: Sequence[str] = (), after: float | None = None,
        **how: Any,
    ) -> Ended:  # fmt: skip
        """Runs a stage to its end, or kills it ``after`` seconds, if given."""
        return self.start(stage, output, more, **how).end(after)

    def before(self, stage: str, output: Path) -> Path:
        """A copy of the undisturbed run in its state before a stage started."""
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(self.unbroken, output, ignore=shutil.ignore_patterns("logs"))
        for later in STAGES[STAGES.index(stage) :]:
            for name in (*DECLARED[later], *BESIDE.get(later, ())):
                path = output / name
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        return output

    def finish(self, stage: str, output: Path) -> None:
        """Runs this and all later stages; the results must equal those of the undisturbed run."""
        for later in STAGES[STAGES.index(stage) :]:
            done = self.run(later, output)
            assert done.code == 0, done.said
        assert different(tables(output), self.tables) == []

    def is_sound(self, stage: str, output: Path) -> bool:
        """Whether every existing declared output of a failed stage has the right content."""
        for name in DECLARED[stage]:
            path = output / name
            if not path.exists() or path.suffix in (".html", ".png"):
                continue  # they contain times
            if content(path) != content(self.unbroken / name):
                return False
        return True
