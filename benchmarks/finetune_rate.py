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

import csv
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import workflow_runs
from benchmarks.finetune import RATE, SOURCE, USED, best
from unet.paths import Paths

RESULT = ROOT / "benchmarks" / "results" / "finetune_rate.json"
SAME = "same_kind"
TARGETS = (SAME, "t98g_phase", "dsb2018_rgb")
FACTORS = (0.1, 0.3, 1.0)
EPOCHS = 4
SHARE = 0.25


def place(name: str, number: int) -> str | None:
    """Every second image of the source is a target; the others are the source."""
    if name == SOURCE and number % 2:
        return SAME
    return name if name in USED else None


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


def measure(
    steps: Sequence[int], device: str, data: Path, folder: Path, seed: int
) -> workflow_runs.Rows:
    """The validation scores of one seed, from a run of the workflow.

    Raises:
        CalledProcessError: the run failed.
    """
    paths = Paths(folder / f"seed-{seed}")
    config = config_of(data, paths.output, seed, steps, device)
    models = [name for name in config["models"] if name != "source"]
    workflow_runs.run(config, folder, [paths.model(t, m, 0) for t in TARGETS for m in models])
    rows = []
    for target in TARGETS:
        for number in steps:
            for factor in (None, *FACTORS):
                history = paths.history(target, model_name(factor, number), 0)
                with history.open(encoding="utf-8") as handle:
                    first = float(next(csv.DictReader(handle))["val_score"])
                rows.append({"target": target, "steps": number, "factor": factor, "seed": seed,
                             "first": round(first, 4), "best": best(history)})  # fmt: skip
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
    p = workflow_runs.parser(__doc__, RESULT, "folder with the three datasets")
    p.add_argument("--steps", type=int, nargs="+", default=[200, 800])
    args = p.parse_args(argv)
    return workflow_runs.measured(
        p, args, partial(measure, args.steps, args.device), table,
        place=place, settings={"steps": args.steps},
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
