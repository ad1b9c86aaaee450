"""Which learning rate to go on with from trained weights: the choice behind the default.

    python benchmarks/finetune_rate.py FOLDER
    python benchmarks/finetune_rate.py --show

FOLDER as in benchmarks/finetune.py. A U-Net is trained on every second image of dsb2018_fluo. Its
weights are trained further on few images (a quarter, at least three) of the others of that set
(the same kind of images), of t98g_phase and of dsb2018_rgb (other kinds), at several multiples of
the rate of a training from scratch, with few and with more steps. Prints the best validation score
(of the weights that a training keeps; the start counts as epoch 0), the mean over the seeds, and
writes benchmarks/results/finetune_rate.json. Test images play no part: a default is chosen.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.finetune import RATE, SNAKEFILE, SOURCE
from benchmarks.machine import load, torch_machine
from unet.paths import Paths
from unet.versions import library_versions

RESULT = ROOT / "benchmarks" / "results" / "finetune_rate.json"
SAME = "same_kind"
TARGETS = (SAME, "t98g_phase", "dsb2018_rgb")
FACTORS = (0.1, 0.3, 1.0)
EPOCHS = 4
SHARE = 0.25


def linked(data: Path, folder: Path) -> Path:
    """A folder with links to the images: every second one of the source is a target."""
    for name in (SOURCE, "t98g_phase", "dsb2018_rgb"):
        for part in ("images", "labels"):
            for place, path in enumerate(sorted((data / name / part).iterdir())):
                to = SAME if name == SOURCE and place % 2 else name
                (folder / to / part).mkdir(parents=True, exist_ok=True)
                (folder / to / part / path.name).symlink_to(path.resolve())
    return folder


def model_name(factor: float | None, steps: int) -> str:
    return f"scratch-{steps}" if factor is None else f"rate-{round(100 * factor)}-{steps}"


def config_of(data: Path, output: Path, seed: int, steps: Sequence[int], device: str) -> Any:
    """The run of one seed: every model is trained by this many steps."""
    net = {"preset": "unet-bn", "width": 8, "depth": 3, "head": "border",
           "stitch": {"method": "grow", "grow_px": 5}}  # fmt: skip
    models: dict[str, Any] = {"source": {**net, "train": {"steps_per_epoch": 50}}}
    for number in steps:
        more = {"steps_per_epoch": number // EPOCHS, "subset": SHARE}
        models[model_name(None, number)] = {**net, "train": more}
        for factor in FACTORS:
            start = {"from": f"{SOURCE}/source", "lr": RATE * factor, "show_start": False}
            models[model_name(factor, number)] = {**net, "train": {**more, **start}}

    def dataset(name: str, own: Sequence[str]) -> dict[str, Any]:
        return {"images": f"{name}/images", "labels": f"{name}/labels", "task": "instances",
                "split": {"test": 0.2, "val": 0.3}, "models": list(own)}  # fmt: skip

    others = [name for name in models if name != "source"]
    return {
        "output": str(output), "data_root": str(data), "device": device, "seed": seed,
        "datasets": {SOURCE: dataset(SOURCE, ["source"]),
                     **{name: dataset(name, others) for name in TARGETS}},
        "models": models,
        "train": {"patch": 128, "batch": 4, "epochs": EPOCHS, "lr": RATE},
        "report": {"bootstrap": 100},
    }  # fmt: skip


def measure(data: Path, folder: Path, seed: int, steps: Sequence[int], device: str) -> Any:
    """The validation scores of one seed, from a run of the workflow.

    Raises:
        CalledProcessError: the run failed.
    """
    output, file = folder / f"seed-{seed}", folder / f"seed-{seed}.yaml"
    config = config_of(data, output, seed, steps, device)
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    paths = Paths(output)
    models = [name for name in config["models"] if name != "source"]
    wanted = [paths.model(target, model, 0) for target in TARGETS for model in models]
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", SNAKEFILE, "--configfile", str(file),
        "--directory", str(folder), "--cores", "all", "--quiet", "rules",
    ]  # fmt: skip
    subprocess.run([*command, "--", *map(str, wanted)], check=True, cwd=ROOT)
    rows = []
    for target in TARGETS:
        for number in steps:
            for factor in (None, *FACTORS):
                with paths.history(target, model_name(factor, number), 0).open() as handle:
                    scores = [float(row["val_score"]) for row in csv.DictReader(handle)]
                known = [score for score in scores if not math.isnan(score)]
                rows.append({"target": target, "steps": number, "factor": factor, "seed": seed,
                             "first": scores[0], "best": max(known)})  # fmt: skip
    return rows


def table(result: dict[str, Any]) -> str:
    """The mean best validation score by target, steps and rate."""
    heads = ["scratch", *(f"{factor:g} of its rate" for factor in FACTORS)]
    lines = [f"| images | steps | start | {' | '.join(heads)} |", "|---" * (len(heads) + 3) + "|"]
    rows = result["rows"]
    for target in TARGETS:
        for number in sorted({row["steps"] for row in rows}):
            own = [row for row in rows if (row["target"], row["steps"]) == (target, number)]
            start = fmean(row["first"] for row in own if row["factor"] is not None)
            cells = [
                fmean(row["best"] for row in own if row["factor"] == factor)
                for factor in (None, *FACTORS)
            ]
            shown = " | ".join(f"{value:.3f}" for value in (start, *cells))
            lines.append(f"| {target} | {number} | {shown} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("data", type=Path, nargs="?", help="folder with the three datasets")
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--steps", type=int, nargs="+", default=[200, 800])
    p.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    p.add_argument("--work", type=Path, help="folder for the runs, to go on with them later")
    p.add_argument("--out", type=Path, default=RESULT)
    p.add_argument("--show", action="store_true", help="print the table of a result")
    args = p.parse_args(argv)
    if args.show:
        print(table(json.loads(args.out.read_text(encoding="utf-8"))))
        return 0
    if args.data is None:
        p.error("give the folder with the three datasets")
    started, before, rows = time.monotonic(), load(), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.work or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        data = linked(args.data.resolve(), Path(tempfile.mkdtemp(dir=temporary)))
        for seed in range(args.seeds):
            rows += measure(data, folder, seed, args.steps, args.device)
    result = {
        "machine": torch_machine(),
        "load": [before, load()],
        "versions": library_versions(),
        "seconds": round(time.monotonic() - started),
        "rows": rows,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
