"""Trains nnU-Net v2 (2D) on the same split of a dataset and scores it like our models.

    snakemake ... --until prepare splits            # or the whole run, to compare with our model
    python benchmarks/peers/nnunet.py results-dsb2018 dsb2018 --minutes 20 --threads 2
    python benchmarks/peers/nnunet.py results-dsb2018 dsb2018 --megapixels same --model unet-bn

"same" takes the amount from our own model's training in that results folder. Writes
benchmarks/results/peer_nnunet_<dataset>.json, one entry per kind of budget, and keeps nnU-Net's
files in the work folder. docs/benchmarks.md lists what is equal and what is not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.machine import load, machine, usable_cores, versions
from benchmarks.peers import environment, scoring
from benchmarks.peers.budget import Budget, Kind
from benchmarks.peers.nnunet_raw import ENDING, dataset_name, parts_of, split_file, write_raw
from unet.config.data_settings import PrepareSettings
from unet.config.load import load_file
from unet.config.run import Config
from unet.data.store import Prepared
from unet.errors import UserError
from unet.files import remove
from unet.paths import Paths
from unet.report.paired import Statistics

WORKER = Path(__file__).with_name("nnunet_worker.py")
RESULTS = ROOT / "benchmarks" / "results"
SAME = "same"


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    cores = usable_cores()
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("results", type=Path, help="results folder of our workflow")
    p.add_argument("dataset", help="name of the dataset in it")
    p.add_argument("--model", help="our model to compare with (default: the dataset's first)")
    p.add_argument("--fold", type=int, default=0)
    budget = p.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", help="minutes of training, or 'same' as our model")
    budget.add_argument("--megapixels", help="megapixels to be trained on, or 'same'")
    p.add_argument("--threads", type=int, default=cores, help=f"for torch (default: {cores})")
    p.add_argument("--workers", type=int, help="augmentation processes (default: min(12, threads))")
    p.add_argument("--memory-gb", type=float, help="of its planner (default: its own, 8)")
    p.add_argument("--no-mirroring", action="store_true", help="predict once instead of 4 times")
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--venv", type=Path, default=environment.DEFAULT, help="for the peers")
    p.add_argument("--work", type=Path, help="default: results-peers/nnunet-<dataset>-<budget>")
    p.add_argument("--score-only", action="store_true", help="score the last prediction again")
    p.add_argument("--out", type=Path, help="result file")
    return p.parse_args(argv)


def budget_of(args: argparse.Namespace, config: Config, paths: Paths, model: str) -> Budget:
    """The requested length of the training.

    Raises:
        UserError: "same" without a training of ours, or no number.
    """
    kind: Kind = "minutes" if args.minutes is not None else "megapixels"
    text = args.minutes if kind == "minutes" else args.megapixels
    if text == SAME:
        ours = scoring.our_training(config, paths, args.dataset, model, args.fold)
        if ours is None:
            raise UserError(f"--{kind} same: {model} was not trained here; give a number")
        return ours.budget(kind)
    try:
        return Budget(kind, float(text))
    except ValueError:
        raise UserError(f"--{kind}: got {text!r}, write a number above 0 or 'same'") from None


def folders(work: Path, dataset: str) -> dict[str, Path]:
    """nnU-Net's three folders and the dataset's own in two of them."""
    base = {name: work / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    name = dataset_name(dataset)
    return {
        **base,
        "raw": base["nnUNet_raw"] / name,
        "preprocessed": base["nnUNet_preprocessed"] / name,
        "predicted": work / "predicted",
    }


def predictions(
    where: dict[str, Path], parts: dict[str, str], channels: int
) -> list[tuple[list[str], str]]:
    """Files of each image to predict (to test, and to choose thresholds on) and their target."""
    jobs = []
    for image, part in sorted(parts.items()):
        if part != "train":
            folder = where["raw"] / ("imagesTs" if part == "test" else "imagesTr")
            files = [str(folder / f"{image}_{c:04d}{ENDING}") for c in range(channels)]
            jobs.append((files, str(where["predicted"] / image)))
    return jobs


def worker_environment(where: dict[str, Path], threads: int, workers: int) -> dict[str, str]:
    """nnU-Net's folders, and as many threads and processes as our stages use."""
    return {
        **os.environ,
        **{n: str(where[n]) for n in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")},
        "nnUNet_n_proc_DA": str(workers),
        "nnUNet_def_n_proc": str(threads),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
    }


def run_worker(
    python: Path, job: dict[str, Any], work: Path, env: dict[str, str]
) -> dict[str, Any]:
    """Runs the peer; its own lines go to the console, everything to nnunet.log."""
    (work / "job.json").write_text(json.dumps(job, indent=1))
    command = [str(python.absolute()), str(WORKER), str((work / "job.json").absolute())]
    log = work / "nnunet.log"
    with (
        log.open("w") as out,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
        ) as process,
    ):
        for line in process.stdout or ():
            out.write(line)
            if line.startswith("[peer] "):
                print(line[7:], end="", flush=True)
    if process.returncode:
        tail = "\n".join(log.read_text().splitlines()[-15:])
        raise UserError(f"{log}: nnU-Net failed:\n{tail}")
    result: dict[str, Any] = json.loads((work / "result.json").read_text())
    return result


def train_and_predict(
    args: argparse.Namespace, config: Config, paths: Paths, model: str, work: Path
) -> dict[str, Any]:
    """Converts, trains and predicts; returns the results to keep."""
    budget = budget_of(args, config, paths, model)
    parts = parts_of(paths, args.dataset, args.fold)
    remove(work)
    work.mkdir(parents=True)
    where = {name: path.absolute() for name, path in folders(work, args.dataset).items()}
    where["predicted"].mkdir()
    head = write_raw(
        paths,
        args.dataset,
        parts,
        PrepareSettings.of(config, args.dataset),
        config.models[model].border_width,
        where["raw"],
    )
    about = json.loads((where["raw"] / "dataset.json").read_text())
    workers = args.workers or min(12, args.threads)
    job = {
        "preprocessed": str(where["preprocessed"]),
        "splits": split_file(parts),
        "threads": args.threads,
        "memory_gb": args.memory_gb,
        "device": args.device,
        "seed": args.seed,
        "budget": asdict(budget),
        "mirroring": not args.no_mirroring,
        "predict": predictions(where, parts, len(about["channel_names"])),
    }
    print(f"nnU-Net on {args.dataset}: {budget.amount:.4g} {budget.kind}, {args.threads} threads")
    before = load()
    python = environment.ensure(args.venv)
    result = run_worker(python, job, work, worker_environment(where, args.threads, workers))
    settings = {
        "fold": args.fold,
        "budget": asdict(budget),
        "threads": args.threads,
        "workers": workers,
        "memory_gb": args.memory_gb or 8.0,
        "mirroring": not args.no_mirroring,
        "device": args.device,
        "precision": "float32" if args.device == "cpu" else "float16 autocast",
        "seed": args.seed,
        "labels": about["labels"],
    }
    counts = {part: list(parts.values()).count(part) for part in ("train", "val", "test")}
    found = {
        "settings": settings,
        "images": counts,
        **result,
        "head": list(head),
        "machine": {**machine(), "load before": before, "load after": load()},
        "versions": peer_versions(python),
    }
    (work / "found.json").write_text(json.dumps(found, indent=1))
    return found


def peer_versions(python: Path) -> dict[str, str]:
    """Versions in the peers' environment."""
    wanted = ("nnunetv2", "dynamic_network_architectures", "batchgeneratorsv2", "torch", "numpy")
    code = f"import importlib.metadata as m, json; n = {wanted}\n"
    code += "print(json.dumps({x: m.version(x) for x in n}))"
    out = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(out.stdout)
    return found


def scored(
    args: argparse.Namespace,
    config: Config,
    paths: Paths,
    model: str,
    work: Path,
    found: dict[str, Any],
) -> dict[str, Any]:
    """The peer's scores and ours."""
    dataset, task = args.dataset, config.datasets[args.dataset].task
    parts = parts_of(paths, dataset, args.fold)
    files = {i: work / "predicted" / f"{i}.npz" for i, part in parts.items() if part != "train"}
    head = found["head"]
    dtype = config.predict_for(dataset, model).dtype
    prepared = Prepared(paths.prepared(dataset))
    scoring.write_tiles(work / "tiles.zarr", files, parts, prepared, head, dtype)
    rows = scoring.score(
        config, paths, dataset, model, args.fold, work / "tiles.zarr", head, work, args.threads
    )
    section = config.report
    statistics = Statistics(section.confidence, section.bootstrap, config.seed)
    stitched = json.loads((work / "segmentation.json").read_text())
    result = {**found, "threshold": stitched["threshold"]}
    result["scores"] = scoring.summary(rows, task, statistics)
    ours = scoring.our_rows(paths, dataset, model, args.fold)
    cost = scoring.our_training(config, paths, dataset, model, args.fold)
    if ours:
        scores = scoring.summary(ours, task, statistics)
        result["ours"] = {
            "model": model,
            "training": None if cost is None else asdict(cost),
            "scores": scores,
            "ours minus theirs": scoring.differences(scores, result["scores"], section.confidence),
        }
    return result


def keep(path: Path, dataset: str, kind: str, result: dict[str, Any], ours: dict[str, Any]) -> None:
    """Adds the result to its file, which may contain that of the other kind of budget."""
    value = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    runs = {**value.get("runs", {}), kind: result}
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {"peer": "nnU-Net v2, 2d", "dataset": dataset, "our versions": ours, "runs": runs}
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def table(result: dict[str, Any]) -> str:
    """The scores as Markdown."""
    lines = ["| metric | nnU-Net | ours | ours minus theirs |", "|---|---|---|---|"]
    ours = result.get("ours", {})
    for label, theirs in result["scores"].items():
        cells = [theirs, ours.get("scores", {}).get(label)]
        cells.append(ours.get("ours minus theirs", {}).get(label))
        lines.append(f"| {label} | " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join(lines)


def _cell(value: dict[str, Any] | None) -> str:
    if value is None or value["mean"] is None:
        return ""
    if value["low"] is None:
        return f"{value['mean']:.3f}"
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    started = time.monotonic()
    try:
        paths = Paths(args.results)
        config = load_file(paths.config)
        if args.dataset not in config.datasets:
            raise UserError(f"{args.dataset}: there are {', '.join(sorted(config.datasets))}")
        model = args.model or config.models_for(args.dataset)[0]
        if model not in config.models:
            raise UserError(f"--model {model}: there are {', '.join(sorted(config.models))}")
        kind = "minutes" if args.minutes is not None else "megapixels"
        work = args.work or Path("results-peers") / f"nnunet-{args.dataset}-{kind}"
        if args.score_only:
            found = json.loads((work / "found.json").read_text())
        else:
            found = train_and_predict(args, config, paths, model, work)
        result = scored(args, config, paths, model, work, found)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    target = args.out or RESULTS / f"peer_nnunet_{args.dataset}.json"
    keep(target, args.dataset, kind, result, versions("torch", "numpy", "scipy", "scikit-image"))
    training = result["training"]
    print(
        f"\n{training['steps']} steps, {training['megapixels']:.1f} Mpx, "
        f"{training['minutes']:.1f} min of training; {time.monotonic() - started:.0f} s in all\n"
    )
    print(table(result))
    print(f"\nwrote {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
