"""What the settings of :mod:`unet.allocator` save: prediction and training with and without them.

    python benchmarks/allocator.py

The same U-Net runs in processes that differ only in these settings, in turns. Prints a table and
writes benchmarks/results/allocator.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.machine import load, torch_machine, usable_cores, versions
from unet import allocator

RESULT = ROOT / "benchmarks" / "results" / "allocator.json"
# What is done, windows at once, side of a window, precision.
CASES = {
    "predict, 1024 px, bfloat16": ("predict", 1, 1024, "bfloat16"),
    "predict, 1024 px, float32": ("predict", 1, 1024, "float32"),
    "predict, 512 px, bfloat16": ("predict", 4, 512, "bfloat16"),
    "train, 8 x 256 px, bfloat16": ("train", 8, 256, "bfloat16"),
    "train, 8 x 256 px, float32": ("train", 8, 256, "float32"),
}
REPEATS = 5


def run(case: str, threads: int) -> dict[str, float]:
    """Megapixels per second, page faults per repetition and peak memory, in this process."""
    import torch
    import torch.nn.functional as F

    from unet.config.presets import architecture_of
    from unet.models.build import build
    from unet.models.engines import autocast
    from unet.models.inference import to_device

    what, windows, side, precision = CASES[case]
    torch.set_num_threads(threads)
    cpu = torch.device("cpu")
    network = to_device(build(1, 2, architecture_of("unet-bn", width=16), 0), cpu)
    network.train(what == "train")
    x = torch.randn(windows, 1, side, side).contiguous(memory_format=torch.channels_last)
    target = torch.zeros(windows, side, side, dtype=torch.int64)

    def once() -> None:
        with torch.set_grad_enabled(what == "train"), autocast(precision, cpu):
            scores = network(x)
        if what == "train":
            F.cross_entropy(scores.float(), target).backward()

    once()
    times = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(REPEATS):
        started = time.perf_counter()
        once()
        times.append(time.perf_counter() - started)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "rate": windows * side * side / 1e6 / median(times),
        "faults": (usage.ru_minflt - before) / REPEATS,
        "peak MB": usage.ru_maxrss / 1e3,
    }


def in_process(case: str, threads: int, settings: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", case, "--threads", str(threads)]
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), **settings}
    done = subprocess.run(command, env=env, text=True, capture_output=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--threads", type=int, default=usable_cores())
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--case", help=argparse.SUPPRESS)
    p.add_argument("--out", type=Path, default=RESULT)
    args = p.parse_args(argv)
    if args.case:
        print(json.dumps(run(args.case, args.threads)))
        return 0
    before = load()
    new = allocator.settings_for({})
    rows: dict[str, Any] = {}
    print("| case | system's, Mpx/s | ours, Mpx/s | ratio | page faults | ours | peak, MB | ours |")
    print("|" + "---|" * 8)
    for case in CASES:
        plain, ours = [], []
        for _ in range(args.rounds):
            plain.append(in_process(case, args.threads, {}))
            ours.append(in_process(case, args.threads, new))
        a, b = ({k: median(r[k] for r in rs) for k in rs[0]} for rs in (plain, ours))
        rows[case] = {"system": a, "ours": b, "ratio": b["rate"] / a["rate"]}
        print(
            f"| {case} | {a['rate']:.2f} | {b['rate']:.2f} | {b['rate'] / a['rate']:.2f} "
            f"| {a['faults']:.0f} | {b['faults']:.0f} | {a['peak MB']:.0f} | {b['peak MB']:.0f} |",
            flush=True,
        )
    value = {
        "machine": {**torch_machine(), "load before": before, "load after": load()},
        "versions": versions("torch", "numpy"),
        "settings": {"threads": args.threads, "rounds": args.rounds, **new},
        "cases": rows,
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(value, indent=1) + "\n")
    print(f"\nwrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
