"""Megapixels per second of prediction: ours from zarr to zarr, compared with MONAI and nnU-Net.

    python benchmarks/train.py --setup      # once: installs the peers into .venv-peers
    python benchmarks/predict.py

All cases use one image and one set of weights (a U-Net trained for a minute on generated cells).
The limit is the bare network on the whole image in memory, in its second run. Every case runs in
its own process, round by round, so that its peak memory can be measured. Prints a table and writes
benchmarks/results/predict.json; docs/benchmarks.md lists what is equal and what is not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

from benchmarks.machine import load, torch_machine, usable_cores, versions
from benchmarks.peers import environment
from benchmarks.predict_cases import ALLOCATOR, CASES, Task, prepare
from unet import allocator

RESULT = ROOT / "benchmarks" / "results" / "predict.json"
# Of ours: the limit that a case is held against, by its arithmetic.
LIMITS = {
    "ours, float32": "limit, float32",
    "ours, bfloat16": "limit, bfloat16",
    "ours, OpenVINO float32": "limit, OpenVINO float32",
    "ours, OpenVINO bfloat16": "limit, OpenVINO bfloat16",
    "ours, OpenVINO int8": "limit, OpenVINO int8",
    "ours, ONNX Runtime float32": "limit, ONNX Runtime float32",
}
# (a name, ours, the peer's): ratios that are printed.
RATIOS = [
    (f"ours, OpenVINO int8, over {other}", "ours, OpenVINO int8", f"ours, {other}")
    for other in ("float32", "bfloat16", "OpenVINO float32", "OpenVINO bfloat16")
] + [
    (f"{how}, over {peer}", f"ours, {mine}", f"{peer}{theirs}")
    for peer in (
        "MONAI, overlap 0.25",
        "MONAI, overlap 0.5 Gaussian",
        "nnU-Net, no mirroring",
        "nnU-Net, mirroring",
    )
    for how, mine, theirs in (
        ("equal precision and engine (bfloat16)", "bfloat16", ", bfloat16"),
        ("equal precision and engine (float32)", "float32", ""),
        ("equal precision, engine and allocator", "bfloat16", f", bfloat16, {ALLOCATOR}"),
        ("our best over its default", "OpenVINO bfloat16", ""),
    )
]


# Instructions that products of 8 or 16 bits are faster with.
INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8", "avx512_bf16", "amx_bf16")


def instructions() -> list[str]:
    """Those of INSTRUCTIONS that this processor has; Linux only."""
    info = Path("/proc/cpuinfo")
    words = set(info.read_text(encoding="utf-8").split()) if info.exists() else set()
    return [name for name in INSTRUCTIONS if name in words]


def run_case(name: str, args: argparse.Namespace) -> dict[str, Any] | None:
    """Runs a case once in its own process; None if a package that it needs is not installed."""
    case = CASES[name]
    python = str(environment.python_of(args.venv)) if case.peer else sys.executable
    if not Path(python).exists():
        return None
    command = [python, str(ROOT / "benchmarks" / "predict_cases.py"), str(args.work), name]
    env = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "PYTHONPATH": str(ROOT)}
    if case.allocator:
        env |= allocator.settings_for(os.environ)
    done = subprocess.run(
        [*command, str(args.threads)], env=env, text=True, capture_output=True, check=False
    )
    if done.returncode == 3:
        return None
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def differences(work: Path, names: list[str]) -> dict[str, dict[str, float]]:
    """How each case's probabilities differ from whole-image inference in the same arithmetic, and
    in float32; and the pixels whose class differs in float32."""
    found = {}
    exact = np.load(work / "limit, float32.npy", mmap_mode="r")
    for name in names:
        p = np.load(work / f"{name}.npy", mmap_mode="r")
        whole = np.load(work / f"{same_arithmetic(name)}.npy", mmap_mode="r")
        found[name] = {
            "max": float(np.abs(p - whole).max()),
            "max to float32": float(np.abs(p - exact).max()),
            "flips of float32": float((p.argmax(axis=0) != exact.argmax(axis=0)).mean()),
        }
    return found


def same_arithmetic(name: str) -> str:
    """The limit with the arithmetic of this case."""
    if name in LIMITS:
        return LIMITS[name]
    if name.startswith("limit"):
        return name
    return "limit, bfloat16" if "bfloat16" in name else "limit, float32"


def selected_cases(texts: list[str] | None) -> list[str]:
    """The cases whose name contains one of the texts, and those that they are compared with."""
    found = [name for name in CASES if not texts or any(text in name for text in texts)]
    needed = {"limit, float32", *map(same_arithmetic, found)}
    return [name for name in CASES if name in found or name in needed]


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The result as Markdown."""
    lines = [
        "| case | Mpx/s | of its limit | processor, s/Mpx | computed twice | start-up, s "
        "| peak memory, MB | largest difference to the whole image "
        "| pixels of another class than in float32 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        share = "" if row["share of limit"] is None else f"{100 * row['share of limit']:.0f} %"
        extra = "" if row["overhead"] is None else f"{100 * (row['overhead'] - 1):.0f} %"
        cpu = row["processor seconds per megapixel"]
        lines.append(
            f"| {name} | {row['megapixels per second']:.3f} | {share} "
            f"| {'' if cpu is None else format(cpu, '.2f')} | {extra} "
            f"| {row['start-up seconds']:.1f} | {row['peak memory in MB']:.0f} "
            f"| {row['difference']['max']:.2g} "
            f"| {1e6 * row['difference']['flips of float32']:.0f} per million |"
        )
    return "\n".join(lines)


def rows_of(
    rounds: dict[str, list[dict[str, Any]]], apart: dict[str, dict[str, float]]
) -> dict[str, dict[str, Any]]:
    """The numbers of each case, medians of its rounds."""
    rates = {name: median(r["rate"] for r in found) for name, found in rounds.items()}
    return {
        name: {
            "megapixels per second": rates[name],
            "rounds": [r["rate"] for r in found],
            "share of limit": rates[name] / rates[LIMITS[name]]
            if LIMITS.get(name) in rates
            else None,
            "processor seconds per megapixel": median(r["processor"] for r in found)
            if "processor" in found[0]
            else None,
            "overhead": found[0].get("overhead"),
            "start-up seconds": median(r["start-up"] for r in found),
            "peak memory in MB": max(r["peak"] for r in found),
            "difference": apart[name],
        }
        for name, found in rounds.items()
    }


def ratios_of(rows: dict[str, dict[str, Any]]) -> dict[str, float]:
    """How many times as fast ours is, by the clock and, among ours, by the processor's time."""
    found = {}
    for text, ours, other in RATIOS:
        if ours not in rows or other not in rows:
            continue
        rate, cpu = "megapixels per second", "processor seconds per megapixel"
        found[text] = rows[ours][rate] / rows[other][rate]
        if rows[other][cpu] is not None:
            found[f"{text}, by processor time"] = rows[other][cpu] / rows[ours][cpu]
    return found


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--venv", type=Path, default=environment.DEFAULT)
    p.add_argument("--work", type=Path, default=Path("results-predict"), help="weights, image")
    p.add_argument("--threads", type=int, default=usable_cores())
    p.add_argument("--side", type=int, default=2048, help="of the image, in pixels")
    p.add_argument("--width", type=int, default=16)
    p.add_argument("--steps", type=int, default=150, help="of the training")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--only", nargs="+", metavar="TEXT", help="cases whose name has this in it")
    p.add_argument("--out", type=Path, default=RESULT)
    return p.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    args.work = args.work.resolve()
    task = Task(args.side, args.width, args.steps)
    prepare(args.work, task, args.threads)
    before = load()
    wanted = selected_cases(args.only)
    rounds: dict[str, list[dict[str, Any]]] = {}
    missing = []
    for number in range(args.rounds):
        for name in wanted:
            if name in missing:
                continue
            found = run_case(name, args)
            if found is None:
                missing.append(name)
                print(f"{name}: not installed", flush=True)
                continue
            rounds.setdefault(name, []).append(found)
            print(f"round {number + 1}  {name}: {found['rate']:.3f} Mpx/s", flush=True)
    rows = rows_of(rounds, differences(args.work, list(rounds)))
    ratios = ratios_of(rows)
    value = {
        "machine": {
            **torch_machine(),
            "instructions": instructions(),
            "load before": before,
            "load after": load(),
        },
        "versions": versions("torch", "openvino", "nncf", "onnxruntime", "zarr", "numpy"),
        "settings": {k: getattr(args, k) for k in ("threads", "side", "width", "steps", "rounds")},
        "cases": rows,
        "ratios": ratios,
        "missing": missing,
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(value, indent=1) + "\n")
    print("\n" + table(rows) + "\n")
    for text, ratio in ratios.items():
        print(f"{text}: {ratio:.2f}")
    print(f"\nwrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
