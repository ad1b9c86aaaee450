"""How often the report's answer about more images is right, on simulated learning curves.

    python benchmarks/curve_band.py
    python benchmarks/curve_band.py --repetitions 20 --out /tmp/curve_band.json

Draws scores around a known power law at 10, 20, 40 and 80 training images, and passes them to the
function that the report calls. Prints a table and writes benchmarks/results/curve_band.json: the
share of the curves whose 95 % band covers the true score at 320 images, whose interval covers the
true gain, and the share of each answer. Some minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import machine
from unet.evaluation.power_law import HARDLY, MORE, REACH, UNKNOWN, PowerLaw, outlook
from unet.versions import library_versions

N = np.array([10.0, 20.0, 40.0, 80.0])
# Standard deviations: of an image (at all points), and of an image at one point.
IMAGE, OWN = 0.1, 0.03
STEEP, SLOW, FLAT = PowerLaw(0.85, 1.0, 0.5), PowerLaw(1.0, 0.8, 0.2), PowerLaw(0.85, 0.0, 0.5)


@dataclass(frozen=True)
class Case:
    """Simulated curves.

    Attributes:
        images: test images.
        folds: trainings per point.
        training: standard deviation of a training's mean score.
    """

    name: str
    law: PowerLaw
    images: int
    folds: int
    training: float


CASES = (
    Case("steep", STEEP, 20, 1, 0.003),
    Case("steep", STEEP, 20, 1, 0.01),
    Case("steep", STEEP, 20, 1, 0.02),
    Case("steep", STEEP, 200, 1, 0.01),
    Case("steep", STEEP, 60, 4, 0.01),
    Case("steep", STEEP, 60, 4, 0.02),
    Case("slow", SLOW, 60, 4, 0.01),
    Case("flat", FLAT, 60, 1, 0.003),
    Case("flat", FLAT, 60, 1, 0.01),
    Case("flat", FLAT, 60, 4, 0.01),
)


def measure(case: Case, number: int, repetitions: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng([seed, number])
    fold = np.arange(case.images) % case.folds
    last = float(case.law.at(REACH * N[-1]))
    gain = last - float(case.law.at(N[-1]))
    band = gains = 0
    answers: Counter[str] = Counter()
    for repetition in range(repetitions):
        scores = (
            case.law.at(N)
            + rng.normal(0, IMAGE, (case.images, 1))
            + rng.normal(0, OWN, (case.images, len(N)))
            + rng.normal(0, case.training, (case.folds, len(N)))[fold]
        )
        found = outlook(N.tolist(), scores, range(case.images), fold.tolist(), 1.0, seed=repetition)
        band += bool(found.low[-1] <= last <= found.high[-1])
        gains += bool(found.gain.low - 1e-9 <= gain <= found.gain.high)
        answers[found.verdict] += 1
    shares = {word: answers[word] / repetitions for word in (MORE, HARDLY, UNKNOWN)}
    return {**asdict(case), "true gain": gain, "band": band / repetitions,
            "gain": gains / repetitions, **shares}  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown, a row per case."""
    lines = [
        "| curve | true gain | test images | folds | sd of a training | band covers | gain covers "
        '| "about N" | "hardly" | "can\'t tell" |',
        "|---" * 10 + "|",
    ]
    for row in rows:
        cells = [row["name"], f"{row['true gain']:.3f}", row["images"], row["folds"]]
        cells += [row["training"]]
        cells += [f"{100 * row[key]:.0f} %" for key in ("band", "gain", MORE, HARDLY, UNKNOWN)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    p.add_argument("--repetitions", type=int, default=400)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument(
        "--out", type=Path, default=Path(__file__).resolve().parent / "results" / "curve_band.json"
    )
    args = p.parse_args(argv)
    started = time.perf_counter()
    rows = [measure(case, k, args.repetitions, args.seed) for k, case in enumerate(CASES)]
    value = {
        "machine": machine(),
        "versions": library_versions(),
        "repetitions": args.repetitions,
        "seed": args.seed,
        "seconds": round(time.perf_counter() - started, 1),
        "cases": rows,
    }
    print(table(rows))
    args.out.write_text(json.dumps(value, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
