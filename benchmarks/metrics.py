"""Time to compute the metrics of one image, compared with packages for the same metrics.

    python benchmarks/metrics.py [--side 2048] [--objects 2000] [--rounds 3]

One pair of label images with touching objects, some shifted, split, merged, missed and added, on
one core. Prints a Markdown table of medians and writes benchmarks/results/metrics.json, with the
machine and the largest difference between our values and the package's.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

# Before numpy is loaded: the benchmark measures one core.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import load, machine, versions
from unet.evaluation.metrics.boundary import Outlines, Tolerance, boundary_metrics, outline
from unet.evaluation.metrics.contingency import contingency
from unet.evaluation.metrics.instance import IOU_THRESHOLDS, instance_metrics
from unet.evaluation.metrics.isbi2012 import Slice, warping_errors
from unet.evaluation.metrics.object_errors import object_metrics
from unet.evaluation.metrics.rand import rand_metrics
from unet.evaluation.metrics.rows import Score

RESULT = ROOT / "benchmarks" / "results" / "metrics.json"
Labels = NDArray[np.uint32]


def pair(side: int, objects: int, seed: int = 0) -> tuple[Labels, Labels]:
    """Truth and prediction: discs on a jittered grid. All predicted discs are shifted; a tenth is
    missing, a tenth split, a tenth merged with the previous disc, and a tenth is added."""
    rng = np.random.default_rng(seed)
    rows = int(np.ceil(np.sqrt(objects)))
    step = side / rows
    truth, pred = np.zeros((2, side, side), np.uint32)
    for k in range(objects):
        centre = (np.array(divmod(k, rows)) + 0.5) * step + rng.normal(0, step / 15, 2)
        radius = step * rng.uniform(0.3, 0.5)
        _disc(truth, centre, radius, k + 1)
        fate = rng.integers(0, 10)
        if fate:
            moved = centre + rng.normal(0, step / 20, 2)
            # Fate 1: takes the id of the previous object, so that the two are merged.
            _disc(pred, moved, radius, max(1, k) if fate == 1 else k + 1, cut=fate == 2)
        if fate == 3:
            _disc(pred, centre + step / 2, step / 8, 2 * truth.size + k)
    return truth, pred


def _disc(
    labels: Labels, centre: NDArray[np.float64], radius: float, number: int, cut: bool = False
) -> None:
    low = np.maximum(0, np.floor(centre - radius).astype(int))
    high = np.minimum(labels.shape, np.ceil(centre + radius).astype(int) + 1)
    part = labels[low[0] : high[0], low[1] : high[1]]
    y, x = (np.arange(a, b) - c for a, b, c in zip(low, high, centre, strict=True))
    inside = y[:, None] ** 2 + x[None] ** 2 < radius**2
    part[inside] = number
    if cut:
        part[inside & (x[None] < 0)] = number + labels.size


def ours(truth: Labels, pred: Labels) -> list[Score]:
    """All object metrics, from one table."""
    table = contingency(truth, pred)
    return [*instance_metrics(table), *object_metrics(table), *rand_metrics(table)]


def stardist(truth: Labels, pred: Labels) -> dict[str, float]:
    """AP at ten thresholds, F1 and PQ."""
    from stardist.matching import matching

    found = matching(truth, pred, thresh=list(IOU_THRESHOLDS))
    half = found[0]
    return {
        **{f"ap_{t:.2f}": m.accuracy for t, m in zip(IOU_THRESHOLDS, found, strict=True)},
        "f1_0.50": half.f1,
        "pq": half.panoptic_quality,
    }


def skimage(truth: Labels, pred: Labels) -> dict[str, float]:
    """Adapted Rand error and variation of information."""
    from skimage.metrics import adapted_rand_error, variation_of_information

    split, merge = variation_of_information(truth, pred, ignore_labels=(0,))
    error = adapted_rand_error(truth, pred)[0]
    return {"adapted_rand_error": error, "voi_split": split, "voi_merge": merge}


def boundaries(truth: Labels, pred: Labels) -> list[Score]:
    """Boundary F1, HD95 and average distance of all objects' outlines."""
    points = [np.argwhere(outline(x) & (x > 0)).astype(np.int32) for x in (truth, pred)]
    return boundary_metrics("instances", Outlines(*points), Tolerance(2, "px"))


def membranes(side: int, seed: int = 0) -> Slice:
    """Cells with membranes between them, and noisy probabilities of the membranes."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=(side, side)), 8)
    noise = gaussian_filter(rng.normal(size=(side, side)), 2)
    truth = np.abs(field) > 0.15 * field.std()
    shifted = np.abs(field + 0.12 * field.std() / noise.std() * noise) / field.std()
    probability = np.clip(shifted / 0.3, 0, 1).astype(np.float32)
    return Slice(truth, probability, np.ones(truth.shape, bool))


def timed(function: Callable[[], Any], rounds: int) -> tuple[Any, dict[str, float]]:
    """The result, and the median wall and CPU seconds of ``rounds`` calls. A first call, in which
    packages compile and load code, is not timed."""
    result = function()
    wall, cpu = [], []
    for _ in range(rounds):
        start, busy = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - busy)
    return result, {"seconds": round(median(wall), 4), "cpu_seconds": round(median(cpu), 4)}


def measure(side: int, objects: int, rounds: int) -> dict[str, Any]:
    truth, pred = pair(side, objects)
    _, table = timed(lambda: contingency(truth, pred), rounds)
    mine, all_seconds = timed(lambda: ours(truth, pred), rounds)
    values = {row.metric: row.value for row in mine}
    rows = [
        {"what": "contingency table of the ids", "by": "unet", **table},
        {"what": f"all {len(mine)} metrics of objects", "by": "unet", **all_seconds},
    ]
    for name, what, peer in (
        ("stardist", "AP at ten thresholds, F1, PQ", stardist),
        ("scikit-image", "adapted Rand error, VOI", skimage),
    ):
        try:
            theirs, seconds = timed(partial(peer, truth, pred), rounds)
        except ImportError as error:
            print(f"{name} is not installed ({error}); left out", file=sys.stderr)
            continue
        off = max(abs(values[metric] - value) for metric, value in theirs.items())
        rows.append({"what": what, "by": name, **seconds, "largest_difference": off})
    _, seconds = timed(lambda: boundaries(truth, pred), rounds)
    rows.append({"what": "boundary F1, HD95, ASD of objects", "by": "unet", **seconds})
    image = membranes(512)
    (found, _), seconds = timed(lambda: warping_errors(image, 0.5), rounds)
    rows.append({"what": "warping error, 512 x 512", "by": "unet", **seconds})
    return {
        "side": side,
        "objects": {"true": int(values["n_true"]), "predicted": int(values["n_pred"])},
        "fates": {
            name: int(values[f"n_{name}"]) for name in ("split", "merged", "missed", "added")
        },
        "pairs": len(contingency(truth, pred).counts),
        "warping_mismatches": found.above,
        "rounds": rounds,
        "rows": rows,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--side", type=int, default=2048, help="pixels a side")
    parser.add_argument("--objects", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3, help="timed calls; the median counts")
    args = parser.parse_args()
    found = measure(args.side, args.objects, args.rounds)
    print(
        f"{args.side} x {args.side}, {found['objects']['true']} true and "
        f"{found['objects']['predicted']} predicted objects, one core\n"
    )
    print(
        "| what | by | seconds | CPU seconds | largest difference to ours |\n|---|---|---|---|---|"
    )
    for row in found["rows"]:
        off = row.get("largest_difference")
        print(
            f"| {row['what']} | {row['by']} | {row['seconds']:.3f} | {row['cpu_seconds']:.3f} "
            f"| {'' if off is None else f'{off:.1e}'} |"
        )
    packages = versions("numpy", "scipy", "scikit-image", "stardist", "numba")
    value = {"machine": {**machine(), "load": load()}, "versions": packages, **found}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(value, indent=1) + "\n")
    print(f"\nMachine: {value['machine']['processor']}, {value['machine']['cores']} cores.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
