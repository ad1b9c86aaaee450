"""Core-seconds of each stage, for 1,000 images of 2,048 x 2,048, beside the network's own time.

    git worktree add ../before COMMIT
    python benchmarks/stages.py --before ../before

Runs the workflow on generated images, with all jobs on one core, so that the seconds of a job are
those of a core. Two runs, with few and with more images, separate what a job costs once (starting
Python, loading libraries) from what an image costs; that is scaled to 1,000 images. With --before,
the same is done by the code in that folder, in turn, and the ratio is shown; the masks and scores
must be the same to the byte. All figures are medians of --rounds.

Prints a table and writes benchmarks/results/stages.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import commit_of, load, torch_machine
from unet.data.records import read_splits
from unet.files import write_json
from unet.paths import Paths
from unet.tables import read_table

RESULT = ROOT / "benchmarks" / "results" / "stages.json"
MANY = 1000
DATASET = "nuclei"
# By the way that objects are made of probabilities.
MODELS: dict[str, dict[str, Any]] = {
    "components": {"head": "classes", "stitch": {"method": "components"}},
    "grow": {"head": "border", "stitch": {"method": "grow"}},
    "watershed": {"head": "distance", "stitch": {"method": "watershed"}},
}
# Stage -> the parts of the split that it works on; None: all images.
STAGES: dict[str, tuple[str, ...] | None] = {
    "manifest": None,
    "prepare": None,
    "predict": ("val", "test"),
    "stitch": ("val", "test"),
    "evaluate": ("test",),
    "details": ("test",),
    "audit": ("test",),
    "quality": ("test",),
    "report": ("test",),
}


def config_of(
    output: Path, images: int, size: int, width: int, models: Sequence[str]
) -> dict[str, Any]:
    """A small network for each way to make objects; most of the images are tested."""
    network = {"preset": "unet-bn", "width": width, "depth": 3, "train": {"patch": 128}}
    return {
        "output": str(output),
        "device": "cpu",
        "datasets": {
            DATASET: {
                "synthetic": {"kind": "nuclei", "images": images, "size": size},
                "task": "instances",
                "split": {"test": 0.6, "val": 0.5},
            }
        },
        "models": {name: {**network, **MODELS[name]} for name in models},
        "train": {
            "batch": 4, "epochs": 3, "steps_per_epoch": 50, "warmup_steps": 10, "lr": 0.003,
            "validate_every": 3,
        },
        "report": {"bootstrap": 100},
    }  # fmt: skip


def on_one_core(command: Sequence[str], folder: Path) -> None:
    """Runs a command; all its processes and threads share one core."""
    core = min(os.sched_getaffinity(0))
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    if done.returncode:
        raise SystemExit((done.stdout + done.stderr)[-3000:])


class Workflow:
    """A run by the code in a folder, on a number of images."""

    def __init__(
        self, tree: Path, folder: Path, images: int, size: int, width: int, models: Sequence[str]
    ) -> None:
        self.tree, self.folder, self.models = tree, folder, models
        self.paths = Paths(folder / "results")
        folder.mkdir(parents=True)
        config = config_of(self.paths.output, images, size, width, models)
        (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    def run(self) -> dict[str, float]:
        """Seconds by stage, or by stage and model."""
        words = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "all"]
        words += ["--snakefile", str(self.tree / "workflow" / "Snakefile")]
        on_one_core([*words, "--configfile", "config.yaml"], self.folder)
        found: dict[str, float] = {}
        for path in sorted((self.paths.output / "benchmarks").glob("*/*.tsv")):
            stage, names = path.parent.name, path.name.split(".")
            if stage not in STAGES:
                continue
            model = names[1] if len(names) > 2 and names[1] in self.models else ""
            key = " ".join(filter(None, (stage, model)))
            rows = read_table(path, stage, numbers=["s"], delimiter="\t")
            found[key] = found.get(key, 0.0) + float(rows["s"].sum())
        return found

    def images(self, stage: str) -> int:
        """The number of images that a stage works on, per model."""
        parts = STAGES[stage]
        rows = read_splits(self.paths.splits(DATASET))
        return sum(parts is None or row.part in parts for row in rows)

    def content(self) -> str:
        """A hash of the masks, tables of objects and scores."""
        digest = hashlib.sha256()
        for model in self.models:
            files = [self.paths.metrics(DATASET, model), self.paths.objects(DATASET, model, 0)]
            files += sorted(self.paths.masks(DATASET, model, 0).rglob("*.tif"))
            for path in files:
                digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()


def per_image(few: Workflow, many: Workflow, times: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Seconds of each stage: once per job, and per image."""
    found = {}
    for key in times[1]:
        a, b = (run.images(key.split()[0]) for run in (few, many))
        each = (times[1][key] - times[0][key]) / (b - a)
        found[key] = {"each": each, "once": times[0][key] - a * each}
    return found


def network_seconds(size: int, width: int) -> float:
    """Seconds of a network alone for an image, on one core, in the precision that the stage
    chooses."""
    import torch

    from unet.config.presets import architecture_of
    from unet.models.build import build
    from unet.models.devices import choose_precision
    from unet.models.engines import autocast
    from unet.models.inference import to_device

    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    network = build(1, 3, architecture_of("unet-bn", width=width, depth=3), 0)
    network = to_device(network, cpu).eval()
    window = torch.zeros(1, 1, 512, 512).contiguous(memory_format=torch.channels_last)
    seconds = []
    with torch.inference_mode(), autocast(choose_precision("auto", cpu), cpu):
        for _ in range(6):
            started = time.perf_counter()
            network(window)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:]) * (size / 512) ** 2


def measured(args: argparse.Namespace, trees: dict[str, Path], work: Path) -> dict[str, Any]:
    """Seconds of each stage by each code: the median over the rounds."""
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in trees}
    for turn in range(args.rounds):
        contents = []
        for name, tree in trees.items():
            runs, times = [], []
            for images in args.images:
                folder = work / f"{name}-{turn}-{images}"
                runs.append(Workflow(tree, folder, images, args.size, args.width, args.models))
                times.append(runs[-1].run())
            rounds[name].append(per_image(runs[0], runs[1], times))
            contents.append([run.content() for run in runs])
            for run in runs:
                shutil.rmtree(run.folder)
            print(f"round {turn + 1}, {name}: done", flush=True)
        if any(content != contents[0] for content in contents):
            raise SystemExit("the results differ between the two codes")
    return {
        name: {
            key: {
                part: round(statistics.median(found[key][part] for found in all_rounds), 3)
                for part in ("each", "once")
            }
            | {"rounds": sorted(round(found[key]["each"], 3) for found in all_rounds)}
            for key in all_rounds[0]
        }
        for name, all_rounds in rounds.items()
    }


def _ratio(before: dict[str, Any], now: dict[str, Any]) -> str:
    """How many times as fast it is now; "~" if the rounds of the two codes overlap, so that the
    difference may be chance."""
    (a, *_, b), (c, *_, d) = before["rounds"], now["rounds"]
    apart = b < c or d < a
    return f"{before['each'] / now['each']:.2f}" if apart and min(a, c) > 0 else "~"


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    codes, mpx = result["stages"], result["size"] ** 2 / 1e6
    now, before = codes["now"], codes.get("before")
    head = ["stage", "s per image", "Mpx per core-second", f"{MANY:,} images on one core"]
    lines = [[*head, *(["s per image before", "ratio"] if before else [])]]
    rows = {**now, "the network alone": {"each": result["network"], "once": 0.0}}
    for key, row in rows.items():
        each = max(row["each"], 0.0)
        minutes = (row["once"] + MANY * each) / 60
        rate = f"{mpx / each:.1f}" if each > 0 else ""
        cells = [key, f"{each:.2f}", rate, f"{minutes:.0f} min"]
        if before:
            old = before.get(key)
            cells += [f"{max(old['each'], 0.0):.2f}", _ratio(old, row)] if old else ["", ""]
        lines.append(cells)
    lines.insert(1, ["---", *["---:"] * (len(lines[0]) - 1)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main() -> None:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--before", type=Path, help="a checkout of the code to compare with")
    p.add_argument("--images", type=int, nargs=2, default=[4, 10], metavar=("FEW", "MANY"))
    p.add_argument("--size", type=int, default=2048, help="side of an image in px")
    p.add_argument("--width", type=int, default=4, help="of the networks")
    p.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--out", type=Path, default=RESULT)
    p.add_argument("--show", action="store_true", help="print the table of a result")
    args = p.parse_args()
    if args.show:
        print(table(json.loads(args.out.read_text(encoding="utf-8"))))
        return
    trees = {"now": ROOT, **({"before": args.before.resolve()} if args.before else {})}
    result: dict[str, Any] = {
        "machine": torch_machine(),
        "load": load(),
        **{key: getattr(args, key) for key in ("size", "width", "rounds", "images", "models")},
        "commits": {name: commit_of(tree) for name, tree in trees.items()},
        "network": round(network_seconds(args.size, args.width), 3),
    }
    with tempfile.TemporaryDirectory() as work:
        result["stages"] = measured(args, trees, Path(work))
    write_json(args.out, result)
    print(table(result))


if __name__ == "__main__":
    main()
