"""The benchmarks train, predict and planning by this code and by older code, as ratios.

    git worktree add ../before COMMIT
    python benchmarks/before.py --before ../before

Each benchmark runs in both checkouts in turn, small, so that all takes some 15 minutes. A ratio
above 1 is faster than before. Nothing should be below 0.97. Prints a table and writes
benchmarks/results/before.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.machine import commit_of, load, torch_machine, versions

RESULT = ROOT / "benchmarks" / "results" / "before.json"
Figures = dict[str, float]


@dataclass(frozen=True)
class Bench:
    """A benchmark in a size that takes about a minute."""

    words: tuple[str, ...]
    """Its options; {work} stands for a folder of each checkout."""
    figures: Callable[[Any], Figures]
    """What of its result is compared. Less is better; rates are turned into times."""
    out: str = "--out"


def of_training(found: Any) -> Figures:
    rates = {name: row["images per second"] for name, row in found["cases"].items()}
    return {f"train, {name.removeprefix('ours, ')}, s/image": 1 / r for name, r in rates.items()}


def of_prediction(found: Any) -> Figures:
    return {
        f"predict, {name.removeprefix('ours, ')}, processor s/Mpx": row[
            "processor seconds per megapixel"
        ]
        for name, row in found["cases"].items()
        if name.startswith("ours")
    }


def of_planning(found: Any) -> Figures:
    return {
        f"planning {case['jobs']:,} jobs, {name}, processor s": case["cpu_seconds"]
        for name, case in found["cases"].items()
    }


BENCHES = {
    "train": Bench(("--only", "ours, default", "--rounds", "3"), of_training),
    "predict": Bench(
        ("--only", "ours, float32", "ours, bfloat16", "ours, OpenVINO bfloat16", "--side", "1024",
         "--rounds", "1", "--work", "{work}"),
        of_prediction,
    ),
    "planning": Bench(
        ("--datasets", "40", "--repeats", "1", "--no-finished"), of_planning, out="--result"
    ),
}  # fmt: skip


def run(name: str, tree: Path, work: Path) -> Figures:
    """A benchmark of the checkout ``tree``, once."""
    bench, result = BENCHES[name], work / f"{name}.json"
    words = [word.format(work=work / name) for word in bench.words]
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}.py", *words, bench.out, str(result)],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{name} in {tree.name} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return bench.figures(json.loads(result.read_text(encoding="utf-8")))


def measured(names: Sequence[str], trees: Mapping[str, Path], rounds: int, work: Path) -> Any:
    """Figure -> code -> its values, sorted, by the rounds."""
    found: dict[str, dict[str, list[float]]] = {}
    for turn in range(rounds):
        for name in names:
            # Who begins changes, since the second may find the machine warmer.
            for code in sorted(trees, reverse=bool(turn % 2)):
                folder = work / code
                folder.mkdir(exist_ok=True)
                for figure, value in run(name, trees[code], folder).items():
                    found.setdefault(figure, {}).setdefault(code, []).append(value)
            print(f"round {turn + 1}, {name}: done", flush=True)
    return {
        figure: {code: sorted(values) for code, values in codes.items()}
        for figure, codes in found.items()
        if len(codes) == len(trees)
    }


def ratio(codes: Mapping[str, Sequence[float]]) -> float:
    """Of the medians: how many times less it is now."""
    return statistics.median(codes["before"]) / statistics.median(codes["now"])


def table(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    lines = ["| what | before | now | ratio |", "|---|---:|---:|---:|"]
    for figure, codes in result["figures"].items():
        before, now = (f"{statistics.median(codes[code]):.3g}" for code in ("before", "now"))
        lines.append(f"| {figure} | {before} | {now} | {ratio(codes):.2f} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, help="a checkout of the older code")
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=list(BENCHES))
    parser.add_argument("--rounds", type=int, default=3, help="of each, in turn (default 3)")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    trees = {"before": args.before.resolve(), "now": ROOT}
    if not (trees["before"] / "benchmarks").is_dir():
        parser.error(f"--before: {args.before} is no checkout of this project")
    before = load()
    with tempfile.TemporaryDirectory() as scratch:
        figures = measured(args.only, trees, max(1, args.rounds), Path(scratch))
    result = {
        "machine": {**torch_machine(), "load before": before, "load after": load()},
        "versions": versions("torch", "openvino", "zarr", "numpy", "snakemake"),
        "commits": {code: commit_of(tree) for code, tree in trees.items()},
        "rounds": args.rounds,
        "figures": figures,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\n{table(result)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
