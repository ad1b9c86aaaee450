"""Prints the main scores and the cost of finished runs as a Markdown table; saves them as JSON.

    python benchmarks/real_data.py results-isbi2012 results-dsb2018 results-t98g
    python benchmarks/real_data.py --out recipes results-dsb2018
    python benchmarks/real_data.py --show recipes

Reads each run's report.csv, metrics, splits and Snakemake's benchmark files; writes the table, with
the score of each image and a description of the machine, to benchmarks/results/real_data.json (or
another name). --show prints such a file, with intervals computed from the images' scores; if a file
lacks these, the number of images is shown instead.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import machine
from unet.config.load import load_file
from unet.data.records import read_splits
from unet.evaluation.metrics.rows import MetricRow
from unet.evaluation.statistics import mean_interval
from unet.paths import Paths
from unet.report import score_tables
from unet.report.score_tables import ReportRow, columns_for, read_report
from unet.tables import read_table
from unet.versions import library_versions

STAGES = ("manifest", "splits", "prepare", "train", "predict", "stitch", "evaluate", "report")


# The table of the U-Net paper, where it was measured.
CHALLENGE = {
    "isbi_rand_error": "Rand error (ISBI)",
    "isbi_warping_error": "Warping error (ISBI)",
    "isbi_pixel_error": "Pixel error (ISBI)",
}


def seconds(paths: Paths, stage: str, dataset: str, model: str, column: str = "s") -> float:
    """Wall seconds of a stage's jobs for this dataset and model, from Snakemake's benchmark files;
    or seconds of processor time (column ``cpu_time``).

    The files are named <dataset>.tsv, <dataset>.<model>.tsv or <dataset>.<model>.<fold>.tsv.
    """
    total = 0.0
    for path in sorted(paths.benchmark(stage, "x").parent.glob("*.tsv")):
        names = path.name.split(".")[:-1]
        if names[0] == dataset and (len(names) == 1 or names[1] == model):
            total += read_table(path, stage, numbers=[column], delimiter="\t")[column].sum()
    return total


def patches(paths: Paths, dataset: str, model: str, fold: int) -> int:
    """Number of patches in the training of a fold."""
    batch = load_file(paths.config).train_for(dataset, model).batch
    history = read_table(paths.history(dataset, model, fold), "train")
    return batch * int(history["step"].astype(int).max())


def scores(
    rows: list[ReportRow], metrics: list[MetricRow], task: str, model: str
) -> dict[str, Any]:
    """Main metrics of a model: mean, number of images, the score of each, and the difference to the
    best model."""
    wanted = [(score.class_, score.metric, score.label) for score in columns_for(rows, task)]
    wanted += [(row.class_, row.metric, CHALLENGE[row.metric])
               for row in rows if row.model == model and row.metric in CHALLENGE]  # fmt: skip
    found: dict[str, Any] = {}
    for class_, metric, label in wanted:
        own = [m for m in metrics if (m.class_, m.metric) == (class_, metric)]
        images = {f"{m.image} fold {m.fold}": m.value for m in own if not math.isnan(m.value)}
        for row in rows:
            if (row.model, row.class_, row.metric) == (model, class_, metric):
                found[label] = {"metric": metric, "mean": row.mean, "n": row.n, "images": images}
                if row.best not in ("", model):
                    found[label] |= {"best": row.best, "behind": row.difference}
    return found


def number(value: float) -> str:
    """Three decimals; small numbers with three significant digits."""
    return f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.3g}"


def interval(values: Sequence[float], bounds: tuple[float, float]) -> str:
    """The interval of the mean of the images' values, with a leading space; "" if there is none."""
    found = mean_interval(values, bounds=bounds)
    if math.isnan(found.low):
        return ""
    return f" [{number(found.low)}, {number(found.high)}]"


def cell(label: str, s: dict[str, Any], best: dict[str, Any] | None) -> str:
    """One score as text for the table.

    best: the same score of the best model, if that is another model.
    """
    limits = score_tables.bounds(s["metric"])
    images = s.get("images", {})
    shown = interval(list(images.values()), limits) or (f" (n = {s['n']})" if s["n"] > 1 else "")
    text = f"{label} **{number(s['mean'])}**{shown}"
    if best is None:
        return text
    others, width = best.get("images", {}), limits[1] - limits[0]
    sign = -1 if s["behind"] < 0 else 1
    change = [sign * (others[k] - images[k]) for k in images if k in others]
    return f"{text} (behind by {number(abs(s['behind']))}{interval(change, (-width, width))})"


def table(runs: list[dict[str, Any]]) -> str:
    """All runs as Markdown."""
    lines = [
        "| dataset | model | train / val / test images | scores on the test images "
        "| training patches | minutes |",
        "|---|---|---|---|---|---|",
    ]
    scores_of = {(run["dataset"], run["model"]): run["scores"] for run in runs}
    for run in runs:
        cells = [
            cell(label, s, scores_of[run["dataset"], s["best"]][label] if "best" in s else None)
            for label, s in run["scores"].items()
        ]
        images = " / ".join(str(run["images"].get(p, 0)) for p in ("train", "val", "test"))
        train, total = run["seconds"]["train"] / 60, sum(run["seconds"].values()) / 60
        busy = run.get("processor_seconds_of_training")
        spent = "" if busy is None else f" ({busy / 60:.1f} of processor time)"
        lines.append(
            f"| {run['dataset']} | {run['model']}, width {run['width']}, head {run['head']} "
            f"| {images} | {'<br>'.join(cells)} | {run['patches']} "
            f"| {train:.1f} training{spent}, {total:.1f} in all |"
        )
    return "\n".join(lines)


def collect(folder: Path) -> list[dict[str, Any]]:
    paths = Paths(folder)
    config = load_file(paths.config)
    runs = []
    for dataset, data in sorted(config.datasets.items()):
        rows = read_report(paths.dataset_report_csv(dataset))
        parts: dict[str, int] = {}
        # An ensemble's test images are the same in all of its folds.
        counted: set[tuple[str, str]] = set()
        for row in read_splits(paths.splits(dataset)):
            if row.fold in data.split.to_run and not (
                data.split.ensemble and (row.image, row.part) in counted
            ):
                counted.add((row.image, row.part))
                parts[row.part] = parts.get(row.part, 0) + 1
        for model in config.models_for(dataset):
            arch = config.architecture_for(model)
            runs.append(
                {
                    "dataset": dataset,
                    "model": model,
                    "width": arch.width if arch is not None else "auto",
                    "head": config.models[model].head,
                    "images": parts,
                    "patches": sum(patches(paths, dataset, model, k) for k in data.split.to_run),
                    "scores": scores(
                        rows,
                        score_tables.read_metrics(paths.metrics(dataset, model)),
                        data.task,
                        model,
                    ),
                    "seconds": {s: round(seconds(paths, s, dataset, model), 1) for s in STAGES},
                    "processor_seconds_of_training": round(
                        seconds(paths, "train", dataset, model, "cpu_time"), 1
                    ),
                }
            )
    return runs


def main() -> int:
    p = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    p.add_argument("folders", nargs="*", type=Path, metavar="RESULTS_FOLDER")
    p.add_argument("--out", default="real_data", help="name of the result file (real_data)")
    p.add_argument("--show", metavar="NAME", help="print the table of a result file")
    args = p.parse_args()
    if bool(args.folders) == bool(args.show):
        p.error("name either the folders of finished runs or, with --show, a result file")
    results = Path(__file__).resolve().parent / "results"
    if args.show:
        print(table(json.loads((results / f"{args.show}.json").read_text())["runs"]))
        return 0
    runs = [run for folder in args.folders for run in collect(folder)]
    print(table(runs))
    target = results / f"{args.out}.json"
    target.parent.mkdir(exist_ok=True)
    here = machine()
    value = {"machine": here, "versions": library_versions(), "runs": runs}
    target.write_text(json.dumps(value, indent=1) + "\n")
    print(f"\nMachine: {here['processor']}, {here['cores']} cores.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
