"""The workflow as a user runs it: a complete tiny run, and what reruns after an edit of the config
or the files."""

from __future__ import annotations

import copy
import csv
import json
import math
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tifffile
import yaml

from tests.planner import jobs_in
from unet.config.load import load_file
from unet.config.run import merge
from unet.data.synthetic import write_dataset
from unet.paths import Paths
from unet.prediction.stitch.segmentation import Segmentation

pytestmark = pytest.mark.workflow

ROOT = Path(__file__).resolve().parents[2]
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile")]

# `sem` is generated and has two folds; `own` is a user's files, given by globs.
CONFIG: dict[str, Any] = {
    "output": "out",
    "data_root": "raw",
    "device": "cpu",
    "datasets": {
        "sem": {
            "synthetic": {"kind": "membranes", "images": 4, "size": 96},
            "classes": {"cell": 255, "membrane": 0},
            "split": {"folds": 2, "val": 0.5},
            "models": ["a"],
            "evaluate": {"metrics": ["pixel", "topology"], "topology_class": "cell"},
        },
        "own": {
            "images": "images/*.tif", "labels": "labels/*.tif", "task": "instances",
            "split": {"test": 0.34, "val": 0.34}, "models": ["a", "b"],
        },
    },
    "models": {
        "a": {"preset": "unet-bn", "width": 4, "depth": 1, "train": {"patch": 48}},
        "b": {"preset": "unet2015", "width": 2, "depth": 1, "dropout": 0, "train": {"patch": 52}},
    },
    "prepare": {"tile": 64},
    "train": {"batch": 2, "epochs": 2, "steps_per_epoch": 3, "warmup_steps": 1, "lr": 0.01},
    "predict": {"tile": 64},
    "stitch": {"min_size": 4},
    "report": {"bootstrap": 100},
}  # fmt: skip
FOLDS = {"sem": [0, 1], "own": [0]}
MODELS = {"sem": ["a"], "own": ["a", "b"]}


@dataclass
class Workplace:
    """A folder with raw data and a config, in which the workflow runs."""

    folder: Path

    def snakemake(
        self, *words: str, config: dict[str, Any] = CONFIG
    ) -> subprocess.CompletedProcess[str]:
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        return subprocess.run(
            [*SNAKEMAKE, "--directory", str(self.folder), "--configfile", str(path), *words],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def wanted(self, config: dict[str, Any] = CONFIG) -> set[str]:
        """The jobs of a dry run: `rule dataset model fold` (those that the rule has)."""
        done = self.snakemake("--dry-run", config=config)
        assert done.returncode == 0, done.stdout + done.stderr
        text = done.stdout + done.stderr
        jobs = set(jobs_in(text))
        assert jobs or "Nothing to be done" in text, text
        return jobs


def finish(folder: Path) -> Workplace:
    """Makes the raw data and a complete run, once for all tests (see conftest.py)."""
    place = Workplace(folder)
    write_dataset(place.folder / "raw", "nuclei", 3, 5, (96, 96), 0.5)
    assert len(list((place.folder / "raw" / "images").glob("*.tif"))) == 5
    done = place.snakemake("--cores", "2", "--quiet", "rules")
    assert done.returncode == 0, done.stdout + done.stderr
    return place


@pytest.fixture(scope="module")
def place(finished_run: Path) -> Workplace:
    return Workplace(finished_run)


# The jobs of a run.

STAGES = ["synthesize", "manifest", "splits", "prepare", "train", "predict", "stitch", "evaluate",
          "details", "audit", "report_dataset"]  # fmt: skip


def jobs_of(
    stages: list[str], dataset: str, models: list[str] | None = None, folds: list[int] | None = None
) -> set[str]:
    """The jobs of these stages for one dataset."""
    found = set()
    for stage in stages:
        if stage in ("train", "predict", "stitch"):
            found |= {
                f"{stage} {dataset} {model} {fold}"
                for model in models or MODELS[dataset]
                for fold in folds or FOLDS[dataset]
            }
        elif stage in ("evaluate", "details", "audit"):
            found |= {f"{stage} {dataset} {model}" for model in models or MODELS[dataset]}
        else:
            found.add(f"{stage} {dataset}")
    return found


def since(
    first: str, *datasets: str, models: list[str] | None = None, without: tuple[str, ...] = ()
) -> set[str]:
    """All jobs from a stage on, for these datasets (default: all), and the overall report."""
    # These three read the segmentations; none reads another's tables.
    if first in ("evaluate", "details", "audit"):
        without = (*without, *({"evaluate", "details", "audit"} - {first}))
    stages = [s for s in STAGES[STAGES.index(first) :] if s not in without]
    found = {"report"}
    for dataset in datasets or ("sem", "own"):
        chosen = [m for m in MODELS[dataset] if models is None or m in models]
        if chosen:
            found |= jobs_of(stages, dataset, chosen)
    return found


# The results of a run.


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_all_results_exist(place: Workplace) -> None:
    paths = Paths(place.folder / "out")
    for dataset in ("sem", "own"):
        images = {path.name for path in paths.prepared(dataset).iterdir() if path.is_dir()}
        for path in (paths.manifest(dataset), paths.splits(dataset), paths.inputs(dataset),
                     paths.prepared_done(dataset), paths.dataset_report_csv(dataset),
                     paths.dataset_report_html(dataset)):  # fmt: skip
            assert path.stat().st_size > 0, path
        for model in MODELS[dataset]:
            rows = table(paths.metrics(dataset, model))
            assert paths.audit(dataset, model).read_text().startswith("rank,image,fold,kind,")
            assert {row["fold"] for row in rows} == {str(fold) for fold in FOLDS[dataset]}
            tested = {row["image"] for row in rows}
            assert tested <= images
            if dataset == "sem":
                assert tested == images  # each image is tested once
            for fold in FOLDS[dataset]:
                where = (dataset, model, fold)
                for path in (paths.model(*where), paths.history(*where), paths.curves(*where),
                             paths.tiles_done(*where), paths.segmentation_done(*where),
                             paths.objects(*where)):  # fmt: skip
                    assert path.stat().st_size > 0, path
                segmentation = Segmentation(paths.segmentation(*where))
                parts = json.loads(paths.segmentation_done(*where).read_text())["images"]
                assert set(segmentation.ids()) == set(parts)
                for name in segmentation.ids():
                    p = segmentation.probabilities(name)
                    assert p.shape == (2, 96, 96)
                    classes = segmentation.classes(name)
                    assert classes.shape == (96, 96)
                masks = list(paths.masks(*where).rglob("*.tif"))
                assert masks
                assert tifffile.imread(masks[0]).shape == (96, 96)
    rows = table(paths.report_csv)
    assert {(r["dataset"], r["model"]) for r in rows} == {("sem", "a"), ("own", "a"), ("own", "b")}
    numbers = [float(row["mean"]) for row in rows if row["metric"] == "iou"]
    assert numbers
    assert all(0 <= value <= 1 for value in numbers if not math.isnan(value))
    assert "<table" in paths.report_html.read_text(encoding="utf-8")


def test_logs_benchmarks_and_config(place: Workplace) -> None:
    paths = Paths(place.folder / "out")
    for job in since("synthesize", without=()) - {"synthesize own"}:
        rule, *wildcards = job.split()
        rule = {"report_dataset": "report"}.get(rule, rule)
        assert paths.log(rule, *wildcards).exists(), job
        assert paths.benchmark(rule, *wildcards).read_text().startswith("s\t"), job
    assert "Traceback" not in "".join(
        path.read_text() for path in (paths.output / "logs").rglob("*.log")
    )
    kept = load_file(paths.config)
    assert set(kept.datasets) == {"sem", "own"}
    assert kept.train.epochs == 2
    assert not list(paths.output.rglob("*.tmp"))


def test_a_second_run_has_nothing_to_do(place: Workplace) -> None:
    assert place.wanted() == set()


# What reruns after an edit of the config.


def without(config: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The config without one entry."""
    changed = copy.deepcopy(config)
    inner = changed
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return changed


def turned(value: Any) -> Any:
    """The same mapping with its keys in reverse order, except the classes, whose order counts."""
    if not isinstance(value, dict):
        return value
    return {k: value[k] if k == "classes" else turned(value[k]) for k in reversed(value)}


NO_RESULT = {
    "memory_gb": 3,
    "predict": {"batch": 2, "gpus": 2, "cluster": {"workers": 3}},
    "train": {"checkpoint_seconds": 7, "cache_gb": 1},
    "seed": 0,  # its default, written out
}
# A few edits with the real command line; tests/planning/test_reruns.py has every key.
EDITS: list[tuple[str, dict[str, Any], set[str]]] = [
    ("memory, batch, cluster, checkpoints", merge(CONFIG, NO_RESULT), set()),
    ("train.lr", merge(CONFIG, {"train": {"lr": 0.02}}), since("train")),
]


@pytest.mark.parametrize(
    ("config", "expected"), [edit[1:] for edit in EDITS], ids=[edit[0] for edit in EDITS]
)
def test_what_an_edit_reruns(place: Workplace, config: dict[str, Any], expected: set[str]) -> None:
    assert place.wanted(config) == expected


# Mistakes show before anything runs.


@pytest.mark.parametrize(
    ("over", "line"),
    [
        ({"train": {"lr": 0}}, "config: train.lr: must be greater than 0 (got 0)"),
        ({"trian": {}}, "config: trian: unknown key"),
        ({"data_root": "nowhere"}, "config: datasets.own: "),
    ],
)
def test_a_mistake_is_one_line(place: Workplace, over: dict[str, Any], line: str) -> None:
    done = place.snakemake("--dry-run", config=merge(CONFIG, over))
    assert done.returncode != 0
    said = [text for text in (done.stdout + done.stderr).splitlines() if text.strip()]
    said = [
        text for text in said if not text.startswith(("Using profile", "Using workflow", "host"))
    ]
    assert len(said) == 1, said
    assert said[0].startswith(line)


# Folds that make an ensemble.

ENSEMBLE: dict[str, Any] = {
    "output": "out",
    "device": "cpu",
    "datasets": {
        "ens": {
            "synthetic": {"kind": "nuclei", "images": 6, "size": 64},
            "task": "instances",
            "split": {"test": 0.33, "folds": 3, "run": [0, 2]},
        }
    },
    "models": {"a": CONFIG["models"]["a"]},
    **{key: CONFIG[key] for key in ("prepare", "train", "predict", "stitch", "report")},
}


def test_an_ensemble_of_folds(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    once = {f"{stage} ens a ensemble" for stage in ("predict", "stitch")} | {
        "evaluate ens a",
        "details ens a",
        "audit ens a",
    }
    shared = jobs_of(
        ["synthesize", "manifest", "splits", "prepare", "report_dataset"], "ens", ["a"]
    )
    reports = {"report_dataset ens", "report"}
    assert place.wanted(ENSEMBLE) == {"train ens a 0", "train ens a 2", *once, *shared, *reports}
    done = place.snakemake("--cores", "2", "--quiet", "rules", config=ENSEMBLE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert place.wanted(ENSEMBLE) == set()

    paths = Paths(tmp_path / "out")
    rows = table(paths.splits("ens"))
    tested = {row["image"] for row in rows if row["part"] == "test"}
    assert len(tested) == 2
    validated = {row["image"] for row in rows if row["part"] == "val" and row["fold"] in ("0", "2")}
    images = json.loads(paths.tiles_done("ens", "a", "ensemble").read_text())["images"]
    assert {name: entry["part"] for name, entry in images.items()} == {
        **dict.fromkeys(tested, "test"), **dict.fromkeys(validated, "val"),
    }  # fmt: skip
    metrics = table(paths.metrics("ens", "a"))
    assert {(row["fold"], row["image"]) for row in metrics} == {("ensemble", i) for i in tested}
    page = paths.dataset_report_html("ens").read_text(encoding="utf-8")
    for shown in (">fold ensemble", "<td>0</td>", "<td>2</td>", "<td>ensemble</td>", "Ensemble:"):
        assert shown in page
    assert not paths.tiles("ens", "a", 0).exists()

    # The same with several jobs that share it.
    whole = json.loads(paths.tiles_done("ens", "a", "ensemble").read_text())
    shared_out = merge(ENSEMBLE, {"predict": {"shards": 2}})
    assert place.wanted(shared_out) >= {f"predict_shard ens a ensemble {i}" for i in range(2)}
    shutil.rmtree(paths.tiles("ens", "a", "ensemble"))
    paths.tiles_done("ens", "a", "ensemble").unlink()
    done = place.snakemake("--cores", "2", "--quiet", "rules", config=shared_out)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads(paths.tiles_done("ens", "a", "ensemble").read_text())
    # Made from more files, with the same content.
    assert parts.pop("made_by")["models"] == whole.pop("made_by")["models"]
    assert parts == whole
    assert place.wanted(shared_out) == set()

    # One more network: only it is trained.
    more = merge(ENSEMBLE, {"datasets": {"ens": {"split": {"run": [0, 1, 2]}}}})
    assert place.wanted(more) == {"train ens a 1", *once, *reports}
