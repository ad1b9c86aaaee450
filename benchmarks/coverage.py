"""How often the report's intervals contain the true mean, and equal models are called different.

    python benchmarks/coverage.py
    python benchmarks/coverage.py --repetitions 200 --out /tmp/coverage.json
    python benchmarks/coverage.py --only bootstrap

Draws thousands of image scores from known distributions, and passes them to the functions that the
report calls, and to a percentile bootstrap, which the report does not use. Prints two tables and
writes benchmarks/results/coverage.json. --only measures one part and replaces it in this file.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import ndtr

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import machine
from unet.evaluation.metrics.rows import MetricRow
from unet.evaluation.statistics import Interval, mean_interval
from unet.report.paired import YES, Statistics, versus_best
from unet.versions import library_versions

SIZES = (3, 4, 6, 8, 12, 24)
MODELS = (2, 5, 10)
# Images of the groups, repeated for as many groups as there are.
EVEN, UNEVEN = (4,), (1, 2, 4, 9)
BOOTSTRAP = "bootstrap"
DRAWS = 2000  # resamples of a bootstrap interval
ICC = 0.5  # share of the variance that is between groups
BOUNDS = (0.0, 1.0)
FAILED = 0.1
Array = NDArray[np.float64]
SKEWED, GOOD, BAD = stats.beta(12, 2), stats.beta(24, 3), stats.beta(2, 8)


def normal(z: Array, rng: np.random.Generator) -> Array:
    """Mean 0.8, standard deviation 0.05."""
    return np.asarray(0.8 + 0.05 * z)


def skewed(z: Array, rng: np.random.Generator) -> Array:
    """beta(12, 2): mean 0.857, most near 0.9, some far below."""
    return np.asarray(SKEWED.ppf(ndtr(z)))


def failed(z: Array, rng: np.random.Generator) -> Array:
    """beta(24, 3), and beta(2, 8) for every tenth image: mean 0.82, failures near 0.2."""
    bad = BAD.rvs(z.shape, random_state=rng)
    good = GOOD.ppf(ndtr(z))
    return np.asarray(np.where(rng.random(z.shape) < FAILED, bad, good))


# Kind of scores -> (function from standard normal numbers to scores, their mean, images per group;
# empty = no groups). Add new kinds at the end: the position seeds the random numbers.
KINDS: dict[str, tuple[Callable[[Array, np.random.Generator], Array], float, tuple[int, ...]]] = {
    "normal": (normal, 0.8, ()),
    "beta(12, 2)": (skewed, 12 / 14, ()),
    "10 % failed": (failed, FAILED * 0.2 + (1 - FAILED) * 24 / 27, ()),
    "normal, groups": (normal, 0.8, EVEN),
    "beta(12, 2), groups": (skewed, 12 / 14, EVEN),
    "normal, uneven groups": (normal, 0.8, UNEVEN),
}


def latent(rng: np.random.Generator, units: int, grouped: Sequence[int], models: int = 1) -> Array:
    """Standard normal numbers [image, model]. Half of the variance comes from the image, the same
    for all models. With groups, half of each part comes from the group."""
    groups = groups_of(units, grouped)

    def part(columns: int) -> Array:
        group = rng.normal(size=(units, columns))
        if not grouped:
            return np.asarray(group)
        own = rng.normal(size=(len(groups), columns))
        return np.asarray(ICC**0.5 * group[groups] + (1 - ICC) ** 0.5 * own)

    return np.asarray(0.5**0.5 * (part(1) + part(models)))


def groups_of(units: int, grouped: Sequence[int]) -> list[int]:
    """The group of each image."""
    sizes = islice(cycle(grouped or (1,)), units)
    return [unit for unit, size in enumerate(sizes) for _ in range(size)]


def coverage(kind: str, units: int, repetitions: int, rng: np.random.Generator) -> dict[str, float]:
    """Shares of the repetitions in which the ``mean``, and the ``difference`` of two equal models,
    are within their intervals; ``far apart``: share of samples with a failed image in which the
    report says so."""
    scores_of, mean, grouped = KINDS[kind]
    groups = groups_of(units, grouped)
    hits = np.zeros(2)
    seen = said = 0
    for _ in range(repetitions):
        scores = scores_of(latent(rng, units, grouped, 2), rng)
        own = mean_interval(scores[:, 0], groups, bounds=BOUNDS)
        hits[0] += _holds(own, mean)
        hits[1] += _holds(mean_interval(scores[:, 0] - scores[:, 1], groups, bounds=(-1, 1)), 0)
        if scores[:, 0].min() < 0.5 < scores[:, 0].max():
            seen += 1
            said += own.far > 0
    found = {"mean": hits[0] / repetitions, "difference": hits[1] / repetitions}
    return {**found, "far apart": said / seen} if kind == "10 % failed" else found


def _holds(interval: Interval, value: float) -> bool:
    return interval.low <= value <= interval.high


def bootstrap_coverage(units: int, repetitions: int, rng: np.random.Generator) -> float:
    """Share of the repetitions in which a 95 % percentile bootstrap interval contains the mean of
    normal scores."""
    scores_of, mean, grouped = KINDS["normal"]
    held = 0
    for _ in range(repetitions):
        scores = scores_of(latent(rng, units, grouped)[:, 0], rng)
        means = scores[rng.integers(0, units, (DRAWS, units))].mean(axis=1)
        low, high = np.quantile(means, (0.025, 0.975))
        held += bool(low <= mean <= high)
    return held / repetitions


def false_clear(
    kind: str, units: int, models: int, repetitions: int, rng: np.random.Generator
) -> float:
    """Share of the tables of equal models that call a model clearly worse than the best."""
    scores_of, _, grouped = KINDS[kind]
    groups = groups_of(units, grouped)
    found = 0
    for repetition in range(repetitions):
        scores = scores_of(latent(rng, units, grouped, models), rng)
        rows = {
            str(model): [
                MetricRow(
                    "", "", 0, f"{k:03d}", str(g) if grouped else "", "", "", scores[k, model]
                )
                for k, g in enumerate(groups)
            ]
            for model in range(models)
        }
        versus = versus_best(rows, 1, Statistics(seed=repetition), BOUNDS)
        found += any(v.clear == YES for v in versus.values())
    return found / repetitions


def table(title: str, rows: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Markdown, a column per number of images or groups."""
    lines = ["", title, "", "| n | " + " | ".join(map(str, SIZES)) + " |", "|---" * 7 + "|"]
    lines += [f"| {name} | " + " | ".join(f"{v:.3f}" for v in row) + " |" for name, row in rows]
    return "\n".join(lines)


def measure(part: str, repetitions: int, seed: int) -> dict[str, Any]:
    """Measures a part of the result file: a kind of scores, or the bootstrap."""

    def rng(*place: int) -> np.random.Generator:
        return np.random.default_rng([seed, *place])

    if part == BOOTSTRAP:
        k = 1000  # not the index of a kind
        shares = {n: bootstrap_coverage(n, repetitions, rng(k, n)) for n in SIZES}
        return {"coverage": {f"{BOOTSTRAP}, normal": {n: {"mean": shares[n]} for n in SIZES}}}
    k = list(KINDS).index(part)
    return {
        "coverage": {part: {n: coverage(part, n, repetitions, rng(k, n)) for n in SIZES}},
        "false clear": {
            part: {
                m: {n: false_clear(part, n, m, repetitions, rng(k, n, m)) for n in SIZES}
                for m in MODELS
            }
        },
    }


def show(found: Mapping[str, Any]) -> None:
    """Prints the tables of a result file, as loaded from JSON."""
    sizes = [str(n) for n in SIZES]
    covered = [
        (f"{kind}, {what}", [of[n][what] for n in sizes])
        for kind, of in found["coverage"].items()
        for what in of[sizes[0]]
    ]
    apart = [
        (f"{kind}, {m} models", [of[n] for n in sizes])
        for kind, by_models in found["false clear"].items()
        for m, of in by_models.items()
    ]
    print(
        table('Share of the 95 % intervals that hold the true value ("far apart": said)', covered)
    )
    print(table("Share of the tables of equal models with a false difference", apart))


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    p.add_argument("--repetitions", type=int, default=3000)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--only", choices=[*KINDS, BOOTSTRAP], help="measure this part alone")
    p.add_argument(
        "--out", type=Path, default=Path(__file__).resolve().parent / "results" / "coverage.json"
    )
    args = p.parse_args(argv)
    value: dict[str, Any] = {"parts": {}, "coverage": {}, "false clear": {}}
    if args.only is not None and args.out.exists():
        value = json.loads(args.out.read_text())
    for part in [*KINDS, BOOTSTRAP] if args.only is None else [args.only]:
        started = time.perf_counter()
        for what, found in measure(part, args.repetitions, args.seed).items():
            value[what] |= found
        value["parts"][part] = {
            "machine": machine(),
            "versions": library_versions(),
            "repetitions": args.repetitions,
            "seed": args.seed,
            "seconds": round(time.perf_counter() - started, 1),
        }
    text = json.dumps(value, indent=1)
    show(json.loads(text))
    args.out.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
