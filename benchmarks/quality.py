"""Can the stage quality tell which images of another dataset are segmented badly?

    python benchmarks/quality.py --nuclei DSB2018 --family stardist=STARDIST \\
        --other phase=T98G --other em=ISBI2012
    python benchmarks/quality.py --tiny --out /tmp/quality.json
    python benchmarks/quality.py --show

A small network learns on some fluorescent nuclei and is applied to images that nothing was trained
or calibrated on: other images of the same family, nuclei of other families (other sizes of image
are other microscopes in DSB2018), and other modalities. FOLDERs hold images/ and labels/ (instance
ids); those of --other need no labels. In four turns, another quarter of the family is left out each
time, so that each of its images counts once; the table has the mean of the turns, weighted by
images. --tiny is one turn on generated images only.

Reported: the rank correlation of predicted and true score (goal: 0.8 within a family), the share of
flagged images (goal: 95 % of another modality, at most 5 % of the same family), and how often the
intervals hold the true score and count, at three levels. No constant of the stage was chosen on
these images; they were chosen on generated nuclei (unet/evaluation/quality/doubt.py). Writes
benchmarks/results/quality.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import machine
from unet.config.load import load_file
from unet.config.quality_settings import QualitySettings
from unet.data.store import Prepared
from unet.evaluation.metrics.rows import MetricRow, read_metrics
from unet.evaluation.quality.doubt import Judge
from unet.evaluation.quality.held_out import (
    HeldOut,
    Seen,
    comparisons,
    held_out_images,
    look,
    members,
)
from unet.evaluation.quality.quality_table import COUNTS, MAIN_SCORES
from unet.evaluation.quality.score_model import rank_correlation
from unet.paths import ENSEMBLE, Paths, fold_number
from unet.prediction.stitch.segmentation import Segmentation
from unet.report.judged import compared
from unet.versions import library_versions

LEVELS = (0.8, 0.9, 0.95)
TASK, SOURCE, MODEL = "instances", "source", "m"
APPLIED = f"{MODEL}@{SOURCE}"
# DSB2018 names its images after their size: 60, 30 and 30 images. The first character after it is
# that of a hash, so a glob on it draws images at random.
TURNS = ("c-f", "8-b", "4-7", "0-3")
FAMILIES = {"360x360": "360x360_*", "520x696": "520x696_*"}
SAME_FAMILY, TRAINED = "256x256_[{}]*", "256x256_[!{}]*"


def datasets(args: argparse.Namespace, turn: str) -> dict[str, Any]:
    """The datasets of a turn's config: `source`, and those that its model is applied to."""
    split = {"test": 0.6, "val": 0.2}
    applied = {"predict_with": [f"{SOURCE}/{MODEL}"]}
    if args.tiny:
        sizes = {"images": 12, "size": 96, "pixel_size_um": 0.5}
        made = {"source": ("nuclei", 30), "same-family": ("nuclei", 12), "phase": ("phase", 6)}
        found: dict[str, dict[str, Any]] = {
            name: {"synthetic": {**sizes, "kind": kind, "images": number}}
            for name, (kind, number) in made.items()
        }
        found["source"] |= {"task": TASK, "split": split}
        return {k: v if k == "source" else {**v, **applied} for k, v in found.items()}
    nuclei = Path(args.nuclei).resolve()

    def pair(folder: Path, names: str = "*") -> dict[str, Any]:
        return {"images": f"{folder}/images/{names}.tif", "labels": f"{folder}/labels/{names}.tif"}

    found = {SOURCE: {**pair(nuclei, TRAINED.format(turn)), "task": TASK, "split": split}}
    for name, names in {"same-family": SAME_FAMILY.format(turn), **FAMILIES}.items():
        found[name] = {**pair(nuclei, names), **applied}
    for name, folder in args.family:
        found[name] = {**pair(folder.resolve()), **applied}
    for name, folder in args.other:
        found[name] = {"images": f"{folder.resolve()}/images/*.tif", **applied}
    return found


def config(args: argparse.Namespace, turn: str) -> dict[str, Any]:
    epochs, steps = (2, 20) if args.tiny else (12, 60)
    network = {"preset": "unet-bn", "width": 8 if args.tiny else 16, "depth": 2 if args.tiny else 3}
    return {
        "output": "results",
        "device": "cpu",
        "seed": args.seed,
        "datasets": datasets(args, turn),
        "models": {
            MODEL: {
                **network, "head": "border", "stitch": {"method": "grow", "grow_px": 4},
                "train": {"patch": 64 if args.tiny else 128, "batch": 8},
            }
        },
        "train": {"epochs": epochs, "steps_per_epoch": steps, "lr": 2e-3, "ema": 0.98},
        "stitch": {"threshold": "auto", "tiff": False},
        "evaluate": {"metrics": ["instance"]},
        "report": {"bootstrap": 100},
    }  # fmt: skip


def run(folder: Path, args: argparse.Namespace, turn: str) -> None:
    """Runs the workflow up to the judged images; finished work in the folder is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config(args, turn), sort_keys=False), encoding="utf-8")
    words = ["--snakefile", str(ROOT / "workflow" / "Snakefile"), "--directory", str(folder)]
    words += ["--configfile", str(path), "--cores", str(args.cores), "--quiet", "rules"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "snakemake", *words], check=True, env=environment)


def seen_images(paths: Paths, dataset: str, settings: QualitySettings) -> list[Seen]:
    known = comparisons([paths.model(dataset, APPLIED, fold) for fold in settings.networks])
    segmentation = Segmentation(paths.segmentation(dataset, APPLIED, ENSEMBLE))
    prepared = Prepared(paths.prepared(dataset, APPLIED))
    return [look(image, segmentation, prepared, known, TASK) for image in segmentation.ids()]


def calibration(paths: Paths, settings: QualitySettings) -> list[HeldOut]:
    folds = [fold_number(name) for name in settings.held_out]
    return held_out_images(
        {fold: paths.segmentation(SOURCE, MODEL, fold) for fold in folds},
        lambda fold: [paths.model(SOURCE, MODEL, k) for k in members(fold, settings.networks)],
        paths.prepared(SOURCE),
        read_metrics(paths.metrics(SOURCE, MODEL)),
        TASK,
        1,
    )


def values_of(rows: Sequence[MetricRow], key: tuple[str, str]) -> dict[str, float]:
    known = [row for row in rows if (row.class_, row.metric) == key]
    return {row.image: row.value for row in known if row.value == row.value}


def measure(folder: Path) -> dict[str, Any]:
    """What is reported of each dataset, from the finished run."""
    loaded = load_file(folder / "config.yaml")
    paths = Paths(folder / loaded.output)
    applied = [name for name in loaded.datasets if name != SOURCE]
    settings = QualitySettings.of(loaded, applied[0], APPLIED)
    known = calibration(paths, settings)
    judges = {level: Judge.of(known, TASK, level, settings.same_networks) for level in LEVELS}
    middle = judges[LEVELS[-1]]
    found: dict[str, Any] = {"held out": held_out_facts(middle, known)}
    for name in applied:
        images = seen_images(paths, name, settings)
        table = paths.metrics(name, APPLIED)
        metrics = read_metrics(table) if table.exists() else []
        true, counts = values_of(metrics, MAIN_SCORES[TASK]), values_of(metrics, COUNTS[0])
        rows = [middle.row(image) for image in images]
        entry: dict[str, Any] = {
            "images": len(rows),
            "flagged": sum(row.flagged for row in rows) / len(rows),
            "drift above 1": sum(row.drift > 1 for row in rows) / len(rows),
            "mean predicted": mean([row.predicted_score for row in rows]),
        }
        if true:
            by_level = {
                level: compared([judge.row(image) for image in images], true, counts)
                for level, judge in judges.items()
            }
            whole = by_level[LEVELS[-1]]
            entry |= {
                "mean true": mean(list(true.values())),
                "rank correlation": number(whole.correlation),
                "score in interval": {k: number(v.within) for k, v in by_level.items()},
                "counted": whole.counted,
                "count in interval": {k: number(v.covered) for k, v in by_level.items()},
            }
        found[name] = entry
    return found


def held_out_facts(judge: Judge, known: Sequence[HeldOut]) -> dict[str, Any]:
    rows = [judge.row(one.seen) for one in known]
    scored = [one.score for one in known if one.score == one.score and not one.seen.empty]
    left = [] if judge.model is None else judge.model.left_out.tolist()
    weights = [] if judge.model is None else judge.model.fitted.weights.tolist()
    return {
        "images": len(known),
        "flagged": sum(row.flagged for row in rows) / max(1, len(rows)),
        "mean true": mean(scored),
        "rank correlation": number(rank_correlation(left, scored)) if left else None,
        "weights": {f.name: w for f, w in zip(judge.features, weights, strict=False)},
    }


def mean_of_turns(turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of what :func:`measure` found in each turn, weighted by images, and for the counts
    in their interval by images that have one; `images` and `counted` are sums.

    A value that a turn does not have (a correlation of images that all score the same) does not
    count in the mean.
    """

    def merged(values: Sequence[tuple[int, Any]]) -> Any:
        known = [(n, value) for n, value in values if value is not None]
        if not known:
            return None
        if isinstance(known[0][1], dict):
            keys = dict.fromkeys(key for _, value in known for key in value)
            return {key: merged([(n, value.get(key)) for n, value in known]) for key in keys}
        return sum(n * value for n, value in known) / sum(n for n, _ in known)

    found = {}
    for name in turns[0]:
        entries = [turn[name] for turn in turns]
        whole: dict[str, Any] = merged([(entry["images"], entry) for entry in entries])
        whole["images"] = sum(entry["images"] for entry in entries)
        if "counted" in whole:
            within = [(entry["counted"], entry["count in interval"]) for entry in entries]
            whole["count in interval"] = merged([(n, value) for n, value in within if n])
            whole["counted"] = sum(n for n, _ in within)
        found[name] = whole
    return found


def mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else None


def number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if value == value else None


def show(found: dict[str, Any]) -> str:
    """Markdown, a row per dataset."""
    lines = [
        "| images | n | flagged | true / predicted score | rank correlation | score in interval at "
        "80 / 90 / 95 % | count in interval (n with one) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, entry in found.items():
        scores = " / ".join(shown(entry.get(key)) for key in ("mean true", "mean predicted"))
        covered = [
            " / ".join(shown(value) for value in (entry.get(key) or {}).values())
            for key in ("score in interval", "count in interval")
        ]
        if "counted" in entry:
            covered[-1] += f" ({entry['counted']})"
        lines.append(
            f"| {name} | {entry['images']} | {100 * entry['flagged']:.0f} % | {scores} "
            f"| {shown(entry.get('rank correlation'))} | {covered[0]} | {covered[1].strip()} |"
        )
    return "\n".join(lines)


def shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def named_folder(text: str) -> tuple[str, Path]:
    name, mark, folder = text.partition("=")
    if not mark or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"got {text!r}; write NAME=FOLDER, an existing folder")
    return name, Path(folder)


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    p.add_argument("--nuclei", type=Path, help="folder of DSB2018's fluorescent nuclei")
    named: dict[str, Any] = {
        "type": named_folder,
        "action": "append",
        "default": [],
        "metavar": "NAME=FOLDER",
    }
    p.add_argument("--family", help="labelled nuclei of another family", **named)
    p.add_argument("--other", help="images of another modality", **named)
    p.add_argument("--tiny", action="store_true", help="generated images, about two minutes")
    p.add_argument("--work", type=Path, help="folder of the run; kept, and continued if it exists")
    p.add_argument("--cores", type=int, default=2)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--show", action="store_true", help="print the table of the result file")
    p.add_argument(
        "--out", type=Path, default=Path(__file__).resolve().parent / "results" / "quality.json"
    )
    args = p.parse_args(argv)
    if args.show:
        print(show(json.loads(args.out.read_text())["datasets"]))
        return 0
    if args.tiny == (args.nuclei is not None):
        p.error("give either --nuclei FOLDER or --tiny")
    with tempfile.TemporaryDirectory() as temporary:
        turns = []
        for turn in TURNS[: 1 if args.tiny else None]:
            folder = (args.work or Path(temporary)) / turn
            run(folder, args, turn)
            turns.append(json.loads(json.dumps(measure(folder))))
    found = mean_of_turns(turns)
    print(show(found))
    value = {
        "machine": machine(),
        "versions": library_versions(),
        "seed": args.seed,
        "tiny": args.tiny,
        "datasets": found,
        "turns": turns,
    }
    args.out.write_text(json.dumps(value, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
