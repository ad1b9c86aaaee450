"""Files, folders, bytes and time of a run on many small images, by stage.

    python benchmarks/many.py                        # 500 and 5,000 images of 128 x 128
    git worktree add ../before COMMIT
    python benchmarks/many.py --before ../before --before-images 500

Runs the stages on generated images until all are segmented, on one core: one model, one fold,
default outputs. Nine in ten images are predicted. Time is that of the processor and by the clock;
what a stage costs once (starting Python, loading libraries) is taken off the time per image if
there are two numbers of images. The images themselves, which a user has elsewhere, count as a row
of their own.

Prints a table and writes benchmarks/results/many.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import commit_of, load, torch_machine
from unet.data.records import read_splits
from unet.files import read_json, write_json
from unet.paths import Paths

RESULT = ROOT / "benchmarks" / "results" / "many.json"
DATASET, MODEL = "nuclei", "unet"
# Stage -> what it writes for each image; the rest of the results folder is `other`.
PLACES = {
    "synthesize": ("raw",),
    "prepare": ("prepared.zarr",),
    "predict": (f"{MODEL}/fold-0/tiles.zarr",),
    "stitch": (f"{MODEL}/fold-0/segmentation.zarr", f"{MODEL}/fold-0/masks"),
}
COUNTS = ("files", "folders", "bytes")


def config_of(output: Path, images: int, size: int) -> dict[str, Any]:
    """A network that is trained for seconds; most of the images are predicted."""
    return {
        "output": str(output),
        "device": "cpu",
        "datasets": {
            DATASET: {
                "synthetic": {"kind": "nuclei", "images": images, "size": size},
                "task": "instances",
                "split": {"test": 0.8, "val": 0.5},
            }
        },
        "models": {
            MODEL: {"preset": "unet-bn", "width": 4, "depth": 3, "train": {"patch": min(128, size)}}
        },
        "train": {
            "batch": 4, "epochs": 1, "steps_per_epoch": 50, "warmup_steps": 10, "lr": 0.003,
            "validate_every": 1,
        },
    }  # fmt: skip


def counted(folder: Path) -> dict[str, int]:
    """The files, folders and bytes below a folder, itself not counted."""
    found = dict.fromkeys(COUNTS, 0)
    for entry in _walk(folder):
        if entry.is_dir(follow_symlinks=False):
            found["folders"] += 1
        else:
            found["files"] += 1
            found["bytes"] += entry.stat(follow_symlinks=False).st_size
    return found


def _walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path))


def entries_of(paths: Paths, dataset: str = DATASET) -> dict[str, dict[str, int]]:
    """What each stage wrote, by place, and all the rest as `other`."""
    found = {}
    rest = counted(paths.output)
    for places in PLACES.values():
        for place in places:
            folder = paths.output / dataset / place
            if folder.is_dir():
                found[place] = counted(folder)
                rest = {key: rest[key] - found[place][key] for key in COUNTS}
    return {**found, "other": rest}


def stages(paths: Paths) -> list[tuple[str, tuple[str, ...]]]:
    """The scripts to run, and their words."""
    of, fold = ("--dataset", DATASET), ("--dataset", DATASET, "--model", MODEL, "--fold", "0")
    files = ("--root", str(paths.raw(DATASET)), "--images", "images", "--labels", "labels")
    return [
        ("synthesize", of), ("manifest", (*of, *files)), ("splits", of), ("prepare", of),
        ("train", (*fold, "--threads", "1")), ("predict", (*fold, "--threads", "1")),
        ("stitch", fold),
    ]  # fmt: skip


def measured(tree: Path, folder: Path, images: int, size: int) -> dict[str, Any]:
    """Runs the code of a tree until all images are segmented; finished stages are not repeated."""
    paths = Paths(folder / "results")
    folder.mkdir(parents=True, exist_ok=True)
    config, log = folder / "config.yaml", folder / "seconds.json"
    config.write_text(yaml.safe_dump(config_of(paths.output, images, size)), encoding="utf-8")
    seconds = read_json(log) if log.is_file() else {}
    for name, words in stages(paths):
        if name not in seconds:
            given = ("--output", str(paths.output), "--config", str(config), *words)
            seconds[name] = spent(tree, [str(tree / "scripts" / f"{name}.py"), *given])
            write_json(log, seconds)
            print(f"{images:,} images, {name}: {seconds[name]}", flush=True)
    predicted = sum(row.part != "train" for row in read_splits(paths.splits(DATASET)))
    return {"predicted": predicted, "entries": entries_of(paths), "seconds": seconds}


def spent(tree: Path, words: list[str]) -> dict[str, float]:
    """Seconds of a program on one core, by the clock and of the processor.

    Raises:
        SystemExit: it failed.
    """
    core = min(os.sched_getaffinity(0))
    env = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *words],
        cwd=tree, env=env, capture_output=True, text=True, check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )  # fmt: skip
    if done.returncode:
        raise SystemExit((done.stdout + done.stderr)[-3000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"clock": round(time.monotonic() - started, 2), "processor": round(cpu, 2)}


def milliseconds(runs: dict[str, Any], stage: str, how: str) -> float:
    """Per image of the largest run; the images of the smallest are taken off with their time.

    Args:
        how: by the "clock", or of the "processor".
    """
    few, many = (runs[str(n)] for n in (min(map(int, runs)), max(map(int, runs))))

    def images(run: dict[str, Any]) -> int:
        count = next(int(n) for n, each in runs.items() if each is run)
        return int(run["predicted"]) if stage in ("predict", "stitch") else count

    if few is many:
        return float(1000 * many["seconds"][stage][how] / images(many))
    more = images(many) - images(few)
    return float(1000 * (many["seconds"][stage][how] - few["seconds"][stage][how]) / more)


def table(result: dict[str, Any]) -> str:
    """The result as Markdown: per image of the run, by code and number of images."""
    head = ["code", "images", "what", "files", "folders", "bytes", "core-ms", "ms"]
    lines = [head, ["---", "---:", "---", *["---:"] * 5]]
    for code, runs in result["runs"].items():
        for count, run in runs.items():
            total = dict.fromkeys(COUNTS, 0)
            for place, found in run["entries"].items():
                stage = next((s for s, places in PLACES.items() if place == places[0]), "")
                times = ["", ""]
                if stage and int(count) == max(map(int, runs)):
                    hows = ("processor", "clock")
                    times = [f"{milliseconds(runs, stage, how):.1f}" for how in hows]
                lines.append([code, f"{int(count):,}", f"`{place}`" if place != "other" else place,
                              *_cells(found, int(count)), *times])  # fmt: skip
                if place != "raw":
                    total = {key: total[key] + found[key] for key in COUNTS}
            cells = _cells(total, int(count))
            lines.append([code, f"{int(count):,}", "all but `raw`", *cells, "", ""])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cells(found: dict[str, int], images: int) -> list[str]:
    files, folders, size = (found[key] / images for key in COUNTS)
    return [f"{files:.2f}", f"{folders:.2f}", f"{size:,.0f}"]


def main() -> None:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--images", type=int, nargs="+", default=[500, 5000])
    p.add_argument("--size", type=int, default=128, help="side of an image in px")
    p.add_argument("--before", type=Path, help="a checkout of the code to compare with")
    p.add_argument("--before-images", type=int, nargs="+", default=[500])
    p.add_argument("--work", type=Path, help="folder for the runs, to go on with them later")
    p.add_argument("--out", type=Path, default=RESULT)
    p.add_argument("--show", action="store_true", help="print the table of a result")
    args = p.parse_args()
    if args.show:
        print(table(json.loads(args.out.read_text(encoding="utf-8"))))
        return
    trees = {"now": (ROOT, args.images)}
    if args.before:
        trees["before"] = (args.before.resolve(), args.before_images)
    result: dict[str, Any] = {
        "machine": torch_machine(),
        "load": load(),
        "size": args.size,
        "commits": {name: commit_of(tree) for name, (tree, _) in trees.items()},
        "runs": {},
    }
    work = args.work or Path(tempfile.mkdtemp())
    for name, (tree, counts) in trees.items():
        result["runs"][name] = {
            str(n): measured(tree, work / f"{name}-{n}", n, args.size) for n in sorted(counts)
        }
    if not args.work:
        shutil.rmtree(work)
    write_json(args.out, result)
    print(table(read_json(args.out)))


if __name__ == "__main__":
    main()
