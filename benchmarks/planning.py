"""Seconds of a dry run of 100 datasets x 5 models x 5 folds, by the number of images.

    python benchmarks/planning.py

Makes a run of empty files in a temporary folder (planning decodes no image). It times
`snakemake -n --quiet`, which lists the number of jobs per rule, before anything is made and when
everything is made; and once `snakemake -n`, which prints each job and why it would run. Every
figure is the median of three. A workflow with as many empty jobs (``bare``) shows the time of
Snakemake itself. Prints a table and writes benchmarks/results/planning.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.machine import load, machine, versions
from unet.config.load import load as load_config
from unet.data.raw_changes import stamp
from unet.files import write_json
from unet.paths import fold_name
from unet.planning.jobs import Run

RESULT = ROOT / "benchmarks" / "results" / "planning.json"
DATASETS, MODELS, FOLDS = 100, 5, 5
IMAGES = (1, 1000)


def config_of(output: Path, data: Path, datasets: int = DATASETS) -> dict[str, Any]:
    """Datasets of plain files, each with all models and folds."""
    one = {"labels": "labels/*.tif", "task": "instances", "split": {"folds": FOLDS}}
    return {
        "output": str(output),
        "data_root": str(data),
        "datasets": {
            f"d{k:03d}": {**one, "images": f"d{k:03d}/images", "labels": f"d{k:03d}/labels"}
            for k in range(datasets)
        },
        "models": {f"m{k}": {"preset": "unet-bn", "width": 8 * (k + 1)} for k in range(MODELS)},
    }


def make_raw(data: Path, datasets: Iterable[str], images: int) -> None:
    """Makes the same number of empty images and labels in each dataset."""
    for dataset in datasets:
        for kind in ("images", "labels"):
            folder = data / dataset / kind
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(images):
                (folder / f"image_{number:05d}.tif").touch()


def snakemake(folder: Path, config: Path, *words: str) -> tuple[float, float, str]:
    """Wall seconds, CPU seconds and the output."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile")]
    command += ["--directory", str(folder), "--configfile", str(config), *words]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit((done.stdout + done.stderr)[-2000:])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, done.stdout + done.stderr


def jobs_of(text: str) -> int:
    """The number of jobs that a dry run found."""
    found = re.search(r"^total\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0


def measured(
    folder: Path, config: Path, repeats: int, words: Sequence[str] = ("--quiet",)
) -> dict[str, Any]:
    """The median of some dry runs."""
    runs = sorted(snakemake(folder, config, "--dry-run", *words) for _ in range(repeats))
    seconds, cpu, text = runs[len(runs) // 2]
    return {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2), "jobs": jobs_of(text)}


def write_seen(run: Run) -> None:
    """Writes the record of the manifest's inputs for each dataset, so that fingerprints stay the
    same."""
    for dataset in run.config.datasets:
        root = run.sources.of(dataset).root
        files = {
            f"{dataset}/{kind}/{name}": [*stamp(root / dataset / kind / name), ""]
            for kind in ("images", "labels")
            for name in sorted(os.listdir(root / dataset / kind))  # noqa: PTH208
        }
        path = run.paths.inputs(dataset)
        write_json(path, {"fingerprint": "f" * 64, "root": str(root), "files": files})


def finish(folder: Path, config: Path, run: Run) -> None:
    """Makes all outputs of the run as empty files, and Snakemake's records of them."""
    _, _, text = snakemake(folder, config, "--dry-run")
    for line in re.findall(r"^    output: (.*)", text, re.MULTILINE):
        for name in line.split(", "):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    for dataset, model in run.pairs:
        for fold in run.tested(dataset):
            for path in run.results(dataset, model, fold_name(fold)):
                if path.suffix != ".csv":
                    path.mkdir(parents=True, exist_ok=True)
    write_seen(run)
    snakemake(folder, config, "--touch", "--forceall", "--cores", "all", "--quiet", "all")


BARE = """
N = {jobs}
rule all:
    input: [f"out/{{k}}/b.txt" for k in range(N // 2)]
rule a:
    output: "out/{{k}}/a.txt"
    shell: "touch {{output}}"
rule b:
    input: "out/{{k}}/a.txt"
    output: "out/{{k}}/b.txt"
    shell: "touch {{output}}"
"""


def bare(folder: Path, jobs: int, repeats: int) -> dict[str, Any]:
    """A dry run of a chain of empty jobs, as many as in our workflow."""
    folder.mkdir()
    (folder / "Snakefile").write_text(BARE.format(jobs=jobs), encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--scheduler", "greedy"]
    found: dict[str, Any] = {"jobs": jobs}
    for name, words in (("quiet", ["--quiet"]), ("each job printed", [])):
        taken = []
        for _ in range(repeats):
            start = time.perf_counter()
            subprocess.run([*command, *words], cwd=folder, capture_output=True, check=True)
            taken.append(time.perf_counter() - start)
        found[name] = {"seconds": round(statistics.median(taken), 2)}
        print(f"bare, {name}: {found[name]}", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="of each dry run (default 3)")
    parser.add_argument("--datasets", type=int, default=DATASETS, help=f"default {DATASETS}")
    parser.add_argument("--no-finished", action="store_true", help="leave out the finished run")
    parser.add_argument("--result", type=Path, default=RESULT, help="where to write")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(Path(scratch), args)
    args.result.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    raw = config_of(Path("out"), folder / "raw", args.datasets)
    config = folder / "config.yaml"
    config.write_text(json.dumps(raw), encoding="utf-8")
    run = Run(load_config({**raw, "output": str(folder / "out")}))
    cases: dict[str, Any] = {}
    for images in IMAGES:
        make_raw(folder / "raw", raw["datasets"], images)
        cases[f"nothing made, {images} images"] = measured(folder, config, args.repeats)
        print(f"nothing made, {images} images", cases[f"nothing made, {images} images"], flush=True)
        if images == 1:
            cases["nothing made, each job printed"] = measured(folder, config, args.repeats, ())
            print("each job printed", cases["nothing made, each job printed"], flush=True)
    if not args.no_finished:
        finish(folder, config, run)
        for images in IMAGES[::-1]:
            if images == 1:
                for dataset in raw["datasets"]:
                    for path in (folder / "raw" / dataset).rglob("*.tif"):
                        if path.name != "image_00000.tif":
                            path.unlink()
                write_seen(run)
            name = f"all made, {images} images"
            cases[name] = measured(folder, config, args.repeats)
            print(name, cases[name], flush=True)
    jobs = cases[f"nothing made, {IMAGES[0]} images"]["jobs"]
    return {
        "machine": machine(),
        "versions": versions("snakemake"),
        "load": load(),
        "datasets": args.datasets,
        "models": MODELS,
        "folds": FOLDS,
        "images": "per dataset, each with a label file",
        "bare": bare(folder / "bare", jobs, args.repeats),
        "cases": cases,
    }


if __name__ == "__main__":
    sys.exit(main())
