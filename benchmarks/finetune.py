"""Training from scratch against training from weights, on a few images and on many.

    python benchmarks/finetune.py FOLDER
    python benchmarks/finetune.py FOLDER --width 8 --depth 3 --patch 128 --batch 4 --epochs 4 \\
        --steps 50
    python benchmarks/finetune.py FOLDER --tiny --out /tmp/finetune.json
    python benchmarks/finetune.py --show

FOLDER holds dsb2018_fluo, t98g_phase and dsb2018_rgb, each with images/ and labels/ (the
examples in config/examples say where to get them). For each seed, a run of the workflow trains a
U-Net on dsb2018_fluo (grey nuclei), and then on the two others (phase contrast cells; stained
tissue, RGB) by 10, 25 and 100 % of the training images:

- scratch: random weights;
- tuned: from the weights, with the default of `train.from` (a tenth of the learning rate);
- tuned-full: from the weights, with the learning rate of scratch;
- tuned-start: the weights themselves, without a step.

All take the same number of steps. A seed has its own split. Weights and thresholds are chosen by
validation images alone; the test images of a seed are the same for all. Prints tables and writes
benchmarks/results/finetune.json: the mean AP@0.5 over the test images and the best validation
score, by seed. Hours on a CPU at the default size.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import workflow_runs
from unet.config.learning_curve import name_at
from unet.evaluation.metrics.rows import read_metrics
from unet.paths import Paths

RESULT = ROOT / "benchmarks" / "results" / "finetune.json"
SOURCE, TARGETS = "dsb2018_fluo", ("t98g_phase", "dsb2018_rgb")
USED = (SOURCE, *TARGETS)
SHARES = (0.1, 0.25, 1.0)
ARMS = ("scratch", "tuned", "tuned-full")
START = "tuned-start"
METRIC = "ap_0.50"
RATE = 1e-3


@dataclass(frozen=True)
class Effort:
    """How large the network is, and how long it is trained."""

    width: int
    depth: int
    patch: int
    batch: int
    epochs: int
    steps: int


TINY = Effort(width=4, depth=2, patch=64, batch=2, epochs=1, steps=2)


def config_of(data: Path, output: Path, seed: int, effort: Effort, device: str) -> dict[str, Any]:
    """The run of one seed."""
    shares = [share for share in SHARES if share < 1]
    net = {"preset": "unet-bn", "width": effort.width, "depth": effort.depth}
    grow = {"head": "border", "stitch": {"method": "grow", "grow_px": 5}}
    one: dict[str, Any] = {
        "task": "instances",
        "split": {"folds": 5, "run": [0], "val": 0.2},
        "evaluate": {"metrics": ["instance"]},
    }

    def dataset(name: str, models: Sequence[str]) -> dict[str, Any]:
        return {**one, "images": f"{name}/images", "labels": f"{name}/labels",
                "models": list(models)}  # fmt: skip

    def model(**train: Any) -> dict[str, Any]:
        return {**net, **grow, "train": train}

    start = f"{SOURCE}/source"
    return {
        "output": str(output),
        "data_root": str(data),
        "device": device,
        "seed": seed,
        "datasets": {
            SOURCE: dataset(SOURCE, ["source"]),
            **{name: dataset(name, ARMS) for name in TARGETS},
        },
        "models": {
            "source": model(),
            "scratch": {**model(), "learning_curve": shares},
            "tuned": {**model(**{"from": start}), "learning_curve": shares},
            # Its start is that of tuned.
            "tuned-full": {
                **model(**{"from": start, "lr": RATE, "show_start": False}),
                "learning_curve": shares,
            },
        },
        "train": {
            "patch": effort.patch,
            "batch": effort.batch,
            "epochs": effort.epochs,
            "steps_per_epoch": effort.steps,
        },
        "stitch": {"min_size": 20},
        "report": {"bootstrap": 100},
    }


def measure(effort: Effort, device: str, data: Path, folder: Path, seed: int) -> workflow_runs.Rows:
    """The scores of one seed, from a run of the workflow.

    Raises:
        CalledProcessError: the run failed.
    """
    paths = Paths(folder / f"seed-{seed}")
    names = {(arm, share): arm if share == 1 else name_at(arm, share)
             for arm in ARMS for share in SHARES}  # fmt: skip
    models = [*names.values(), START]
    wanted = [paths.metrics(target, model) for target in TARGETS for model in models]
    workflow_runs.run(config_of(data, paths.output, seed, effort, device), folder, wanted)
    rows = []
    for target in TARGETS:
        for (arm, share), name in [*names.items(), ((START, 0.0), START)]:
            found = [row.value for row in read_metrics(paths.metrics(target, name))
                     if row.metric == METRIC and row.value == row.value]  # fmt: skip
            rows.append({
                "target": target, "arm": arm, "share": share, "seed": seed,
                "images": len(found), "score": round(fmean(found), 4) if found else None,
                "validation": best(paths.history(target, name, 0)),
            })  # fmt: skip
    return rows


def best(history: Path) -> float | None:
    """The validation score of the weights that a training keeps."""
    with history.open(encoding="utf-8") as handle:
        scores = [float(row["val_score"]) for row in csv.DictReader(handle)]
    known = [score for score in scores if not math.isnan(score)]
    return round(max(known), 4) if known else None


def table(result: dict[str, Any], score: str = "score") -> str:
    """Mean over the seeds (and their standard deviation) by target, share and arm.

    Args:
        score: of the test images; or ``validation``, the score that chooses the weights.
    """
    lines = ["| from dsb2018_fluo to | images | scratch | tuned | tuned, full rate | start |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for target in TARGETS:
        for share in SHARES:
            cells = [_cell(result, target, arm, share, score) for arm in ARMS]
            cells.append(_cell(result, target, START, 0.0, score))
            lines.append(f"| {target} | {share:.0%} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(result: dict[str, Any], target: str, arm: str, share: float, score: str) -> str:
    scores = [row[score] for row in result["rows"]
              if (row["target"], row["arm"], row["share"]) == (target, arm, share)
              and row[score] is not None]  # fmt: skip
    if not scores:
        return "-"
    spread = f" ± {stdev(scores):.3f}" if len(scores) > 1 else ""
    return f"{fmean(scores):.3f}{spread}"


def tables(result: dict[str, Any]) -> str:
    """Both tables, as printed."""
    return (
        f"{METRIC}, test images:\n\n{table(result)}\n\nvalidation score:\n\n"
        f"{table(result, 'validation')}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    p = workflow_runs.parser(__doc__, RESULT, "folder with the three datasets")
    p.add_argument("--width", type=int, default=16, help="channels of the first level")
    p.add_argument("--depth", type=int, default=4, help="halvings")
    p.add_argument("--patch", type=int, default=256, help="in pixels")
    p.add_argument("--batch", type=int, default=4)
    p.add_argument("--epochs", type=int, default=20)
    p.add_argument("--steps", type=int, default=100, help="per epoch")
    p.add_argument("--tiny", action="store_true", help="a few images and steps, to try it")
    args = p.parse_args(argv)
    given = Effort(**{field.name: getattr(args, field.name) for field in fields(Effort)})
    effort, most = (TINY, 20) if args.tiny else (given, math.inf)
    return workflow_runs.measured(
        p,
        args,
        partial(measure, effort, args.device),
        tables,
        place=lambda name, number: name if name in USED and number < most else None,
        settings={**asdict(effort), "metric": METRIC},
    )


if __name__ == "__main__":
    sys.exit(main())
