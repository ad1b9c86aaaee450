"""The workflow on a real SLURM of two nodes with a fake GPU, with the profile that users start
from: a whole run in which Snakemake is killed, and jobs that the queue ends.

Runs only by `make slurm-test`, for some minutes.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.slurm.lab import CannotStart, Lab, SlurmJob, obstacle, of_rule, until
from unet.config.run import merge
from unet.paths import Paths
from unet.planning.resume import run_ids

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).resolve().parents[2]
PROFILE = ROOT / "workflow" / "profiles" / "slurm"
# Options of a user of this cluster, which has no accounting and few cores.
OPTIONS = [
    "--workflow-profile", str(PROFILE), "--slurm-status-command", "squeue",
    "--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "20", "--max-threads", "1",
]  # fmt: skip

CLUSTER = {"queue": "slurm", "workers": 2, "memory_gb": 1.5, "hours": 0.2, "interface": "lo"}
CONFIG: dict[str, Any] = {
    "output": "out",
    "device": "cpu",
    "memory_gb": 0.5,
    "datasets": {
        "cells": {
            "synthetic": {"kind": "nuclei", "images": 6, "size": 96},
            "task": "instances",
            "split": {"test": 0.34, "val": 0.34},
            "models": ["shared", "dask"],
        }
    },
    "models": {
        # Predicted by two jobs of an array, and by the workers of a dask cluster.
        "shared": {"preset": "unet-bn", "width": 4, "depth": 1, "predict": {"shards": 2}},
        "dask": {"preset": "unet-bn", "width": 4, "depth": 1, "predict": {"cluster": CLUSTER}},
    },
    "prepare": {"tile": 64},
    "train": {
        "patch": 48, "batch": 2, "epochs": 2, "steps_per_epoch": 3, "warmup_steps": 1,
        "checkpoint_seconds": 0.5,
    },
    "predict": {"tile": 64},
    "stitch": {"min_size": 4},
    "report": {"bootstrap": 100},
}  # fmt: skip


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if reason := obstacle():
        pytest.skip(f"no SLURM can be brought up: {reason}")
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="extra slurm is not installed")
    lab = Lab()
    try:
        lab.start()
        yield lab
    except CannotStart as error:
        pytest.skip(f"no SLURM can be brought up: {error}")
    finally:
        lab.stop()


@dataclass
class Site:
    """A folder where the workflow runs on the cluster."""

    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def write(self, config: dict[str, Any]) -> None:
        text = yaml.safe_dump(config, sort_keys=False)
        (self.folder / "my.yaml").write_text(text, encoding="utf-8")

    def start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        """Starts a command in this folder; its output goes to <name>.txt."""
        with (self.folder / f"{name}.txt").open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, *words], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out,
                stderr=out, env={**os.environ, "PWD": str(self.folder), "PYTHONWARNINGS": ""},
            )  # fmt: skip
        self.started.append(process)
        return process

    def snakemake(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        where = ["--snakefile", str(ROOT / "workflow" / "Snakefile"), "--configfile", "my.yaml"]
        return self.start(name, "-m", "snakemake", *words, *where, *OPTIONS)

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.txt").read_text(encoding="utf-8", errors="replace")

    def finish(self, name: str, process: subprocess.Popen[bytes]) -> str:
        """Waits for the end of the process, which must succeed; returns its output."""
        code = process.wait()
        assert code == 0, self.said(name)[-6000:]
        return self.said(name)

    def end_all(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("cluster"))
    yield site
    site.end_all()


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def overlapping(jobs: list[SlurmJob]) -> list[tuple[str, str]]:
    """Pairs of jobs that ran at the same time."""
    spans = sorted((seconds(j.start), seconds(j.end), j.id) for j in jobs if j.start != "N/A")
    return [(a[2], b[2]) for a, b in pairwise(spans) if b[0] < a[1]]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


# Jobs that the queue ends: four trainings that must give the same weights.

ENDED = ("plain", "late", "stopped", "hungry")
LONGER = {"epochs": 30, "steps_per_epoch": 40}
LIMITED = merge(
    {**CONFIG, "models": {name: {"preset": "unet-bn", "width": 4, "depth": 1} for name in ENDED}},
    {"datasets": {"cells": {"models": list(ENDED)}}, "train": LONGER},
)
LIMITS = [
    # The rule's time, except one minute (the minimum) for the first attempt of one model.
    "train:slurm_extra='-t1' if attempt == 1 and wildcards.model == 'late' else ''",
    "train:mem_mb=300 if attempt == 1 and wildcards.model == 'hungry' else 1500",
    "train:slurm_partition='gpu'",
]


def checkpoint(site: Site, model: str) -> Path | None:
    folder = Paths(site.folder / "out").checkpoints("cells", model, 0)
    return next(iter(folder.glob("*/last.pt")), None)


def training(model: str) -> psutil.Process | None:
    """The process that trains this model."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(word.endswith("scripts/train.py") for word in words[1:2]) and model in words:
            return process
    return None


@dataclass
class Limited:
    site: Site
    process: subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def limited(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limited]:
    """The running trainings: one was cancelled, and one is stopped until its time is over.

    They continue while the other test runs."""
    site = Site(tmp_path_factory.mktemp("limited"))
    site.write(LIMITED)
    where = ["--snakefile", str(ROOT / "workflow" / "Snakefile"), "--configfile", "my.yaml"]
    local = site.start("local", "-m", "snakemake", "--until", "splits", "prepare", *where)
    site.finish("local", local)
    process = site.snakemake("limited", "--until", "train", "--set-resources", *LIMITS)
    try:
        until(lambda: checkpoint(site, "stopped") is not None, 600, site.said("limited"))
        job = of_rule(lab.jobs(), "train", "cells", "stopped", "0")[0]
        subprocess.run(["scancel", job.id], check=True)
        until(lambda: checkpoint(site, "late") is not None, 600, site.said("limited"))
        # So that even a fast machine does not finish it within a minute.
        late = training("late")
        assert late is not None, "finished before it could be stopped"
        late.send_signal(signal.SIGSTOP)
        yield Limited(site, process)
    finally:
        site.end_all()


def submissions(lab: Lab, name: str) -> list[SlurmJob]:
    return [job for job in lab.jobs() if job.name == name]


def test_the_whole_chain_with_snakemake_killed(lab: Lab, limited: Limited, site: Site) -> None:
    site.write(CONFIG)
    first = site.snakemake("first", "--slurm-array-jobs", "predict_shard")

    def trains() -> list[SlurmJob]:
        own = set(run_ids(site.folder))
        return [job for job in of_rule(lab.jobs(), "train") if job.name in own]

    until(lambda: [j.state for j in trains()] == ["RUNNING"] * 2, 900, "the trainings do not run")
    resume = [str(ROOT / "scripts" / "resume.py")]
    refused = site.start("refused", *resume)
    assert refused.wait() == 2
    assert site.said("refused") == (
        f"error: the workflow is still running here (process {first.pid}); nothing to resume\n"
    )
    first.send_signal(signal.SIGKILL)
    first.wait()
    (name,) = run_ids(site.folder)
    assert len(lab.active(name)) == 2  # the jobs still run

    again = site.start("again", *resume)
    said = site.finish("again", again)
    assert "cancelling 2 jobs of the last run" in said
    assert lab.active(*run_ids(site.folder)) == []
    names = run_ids(site.folder)
    assert len(names) == 2

    # Each job ran once, and never twice at the same time.
    jobs = [job for job in lab.jobs() if job.name in names]
    expected = {("synthesize", "cells"), ("manifest", "cells"), ("prepare", "cells"),
                ("report_dataset", "cells")}  # fmt: skip
    for model in ("shared", "dask"):
        expected |= {(rule, "cells", model, "0") for rule in ("train", "predict", "stitch")}
        expected |= {(rule, "cells", model) for rule in ("evaluate", "details", "audit")}
    for rule, *wildcards in expected:
        own = of_rule(jobs, rule, *wildcards)
        ended = [job.state for job in own]
        if rule == "train":
            assert ended == ["CANCELLED", "COMPLETED"], (rule, wildcards, own)
        else:
            assert ended == ["COMPLETED"], (rule, wildcards, own)
        assert overlapping(own) == []
    shards = of_rule(jobs, "predict_shard")
    assert [job.state for job in shards] == ["COMPLETED"] * 2
    assert len({job.id.partition("_")[0] for job in shards}) == 1, "not one array"
    workers = [job for job in jobs if job.comment == "(null)"]
    assert len(workers) == 2
    assert len(jobs) == len(expected) + 2 + len(shards) + len(workers)

    # The nodes and GPUs that the jobs used.
    assert {job.nodes for job in jobs if job.state == "COMPLETED"} | {
        job.nodes for job in workers
    } == {"n1", "n2"}
    for job in jobs:
        wants_gpu = job.comment.startswith(("rule_train", "rule_predict"))
        gathers = job.comment == "rule_predict_wildcards_cells_shared_0"
        elsewhere = job.comment == "rule_predict_wildcards_cells_dask_0"
        assert (job.gpus == "gres:gpu:1") == (wants_gpu and not gathers and not elsewhere), job

    # The results of an array of jobs and of the workers of a cluster are the same.
    paths = Paths(site.folder / "out")
    kept = []
    for model in ("shared", "dask"):
        rows = table(paths.metrics("cells", model))
        assert len(rows) > 10
        kept.append([{k: v for k, v in row.items() if k != "model"} for row in rows])
        content = json.loads(paths.tiles_done("cells", model, 0).read_text())["images"]
        kept.append(content)
    assert kept[0] == kept[2]
    assert kept[1] == kept[3]
    assert "<table" in paths.report_html.read_text(encoding="utf-8")
    logs = "".join(path.read_text() for path in (paths.output / "logs").rglob("*.log"))
    assert "Traceback" not in logs
    dry = site.snakemake("dry", "--dry-run")
    assert "Nothing to be done" in site.finish("dry", dry)


def test_jobs_that_the_queue_ends_run_again_and_continue(lab: Lab, limited: Limited) -> None:
    import torch

    site = limited.site
    site.finish("limited", limited.process)
    (name,) = run_ids(site.folder)
    own = [job for job in lab.jobs() if job.name == name]
    tries = {model: of_rule(own, "train", "cells", model, "0") for model in ENDED}
    states = {model: [job.state for job in jobs] for model, jobs in tries.items()}
    assert states == {
        "plain": ["COMPLETED"],
        "late": ["TIMEOUT", "COMPLETED"],
        "stopped": ["CANCELLED", "COMPLETED"],
        "hungry": ["FAILED", "COMPLETED"],
    }
    # More with each attempt: twice the rule's time.
    assert [job.limit for job in tries["late"]] == ["1:00", "1:00:00"]
    assert [job.limit for job in tries["plain"]] == ["30:00"]
    assert [job.memory for job in tries["hungry"]] == ["300M", "1500M"]
    for jobs in tries.values():
        assert overlapping(jobs) == []

    # They resumed where they were, and ended with the weights of the undisturbed one.
    paths = Paths(site.folder / "out")
    for model in ("late", "stopped"):
        assert "resumed at step" in paths.log("train", "cells", model, "0").read_text()
    assert "resumed" not in paths.log("train", "cells", "plain", "0").read_text()
    weights = {
        model: torch.load(paths.model("cells", model, 0), weights_only=True)["weights"]
        for model in ENDED
    }
    columns = ("epoch", "step", "lr", "train_loss", "val_loss", "val_score")
    histories = {
        model: [[row[c] for c in columns] for row in table(paths.history("cells", model, 0))]
        for model in ENDED
    }
    assert len(histories["plain"]) == LONGER["epochs"]
    for model in ENDED[1:]:
        assert histories[model] == histories["plain"], model
        assert weights[model].keys() == weights["plain"].keys()
        for key, value in weights["plain"].items():
            assert torch.equal(weights[model][key], value), (model, key)
