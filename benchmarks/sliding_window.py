"""Why U-Net: compares it with the sliding-window classifier of Ciresan et al. 2012.

    python benchmarks/sliding_window.py                        # time per image of 512 x 512
    python benchmarks/sliding_window.py --accuracy FOLDER      # accuracy by window size, then time

FOLDER contains images/ and labels/ of ISBI 2012 (see config/examples/isbi2012.yaml). The trainings
go to --work; finished ones are not repeated. Writes benchmarks/results/sliding_window.json and,
with accuracies, docs/sliding_window.png.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.machine import load, torch_machine
from benchmarks.window_accuracy import STAGES, Row, accuracies, counted, equal_unet
from unet.config.layers import flop, window_layers
from unet.config.presets import (
    Architecture,
    WindowArchitecture,
    architecture_from,
)
from unet.config.sections import Precision
from unet.models.build import build
from unet.models.engines import autocast
from unet.models.inference import Predictor, to_device
from unet.models.network import parameter_counts
from unet.models.sliding_window import WindowClassifier

RESULT = ROOT / "benchmarks" / "results" / "sliding_window.json"
PICTURE = ROOT / "docs" / "sliding_window.png"
N4 = WindowArchitecture()
SIDE = 512

# Work, counted.


def multiplications(
    arch: WindowArchitecture, channels: int, classes: int, shape: Sequence[int]
) -> tuple[int, int]:
    """(patch by patch, densely): multiplications that classify ``shape`` (Y, X) pixels."""
    window = window_layers(arch, channels, classes, dense=False)
    each = flop(window, [arch.window] * arch.dims) // 2
    image = [n + arch.window - 1 for n in shape]
    shared = flop(window_layers(arch, channels, classes), image) // 2
    return math.prod(shape) * each, shared


def fragments(network: WindowClassifier, x: Tensor) -> Tensor:
    """The scores of ``network(x)`` by the method of Giusti et al. 2013 (arXiv:1302.1700).

    Each pooling gives one fragment per offset of its grid: smaller maps without dilation. They are
    processed as further images of the batch, and interleaved at the end.
    """
    pool, window = network.arch.pool, network.arch.window
    shape = [n - window + 1 for n in x.shape[2:]]
    # Up to a multiple of the grid, so that all fragments are of one size.
    grid = pool ** len(network.convs)
    x = F.pad(x, (0, -shape[1] % grid, 0, -shape[0] % grid))
    for conv in network.convs:
        x = conv(x)
        rows, columns = ((n - pool + 1) // pool * pool for n in x.shape[2:])
        offsets = [(a, b) for a in range(pool) for b in range(pool)]
        parts = [F.max_pool2d(x[:, :, a : a + rows, b : b + columns], pool) for a, b in offsets]
        x = torch.cat(parts).relu_()
    x = network.classified(x)
    for _ in network.convs:
        n, k, rows, columns = x.shape
        x = x.view(pool, pool, n // pool**2, k, rows, columns).permute(2, 3, 4, 0, 5, 1)
        x = x.reshape(n // pool**2, k, rows * pool, columns * pool)
    return x[:, :, : shape[0], : shape[1]]


# Time.


def fastest(work: Callable[[], object], repeats: int) -> float:
    """Wall seconds of the fastest of some repeats: the time when nothing else runs."""
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


def time_of_window(
    arch: WindowArchitecture, side: int, rows: int, repeats: int, precision: Precision
) -> Row:
    """Seconds per image for the three ways to compute the same scores."""
    network = to_device(build(1, 2, arch).eval(), torch.device("cpu"))
    assert isinstance(network, WindowClassifier)
    image = np.random.default_rng(0).normal(size=(1, side, side)).astype(np.float32)
    around = np.pad(image, ((0, 0), *((arch.window // 2,) * 2,) * 2), mode="reflect")
    whole = torch.from_numpy(around)[None]
    predictor = Predictor([network], torch.device("cpu"), precision)
    each, shared = multiplications(arch, 1, 2, (side, side))
    work = {"patches": each, "dense": shared, "dense, counted by torch": counted(network, side)}
    with torch.inference_mode(), autocast(predictor.precision, torch.device("cpu")):
        strip = whole[:, :, : arch.window + rows - 1]
        per_row = fastest(lambda: network.patches(strip), 1) / rows
        woven = fastest(lambda: fragments(network, whole), repeats)
        densely = fastest(lambda: predictor.whole(image), repeats)
        difference = (network.patches(strip) - network(whole)[:, :, :rows]).abs().max()
    return {
        "architecture": arch.to_json(),
        "parameters": parameter_counts(network)[0],
        "multiplications": work,
        "seconds": {"patches": per_row * side, "dense": densely, "fragments": woven},
        "precision": predictor.precision,
        "rows_measured": rows,
        "redundancy": {"counted": each / shared, "measured": per_row * side / densely},
        "largest_difference_of_scores": float(difference),
    }


def time_of_unet(arch: Architecture, side: int, repeats: int, precision: Precision) -> Row:
    """Seconds per image of a U-Net."""
    network = build(1, 2, arch).eval()
    image = np.random.default_rng(0).normal(size=(1, side, side)).astype(np.float32)
    predictor = Predictor([network], torch.device("cpu"), precision)
    return {
        "architecture": arch.to_json(),
        "parameters": parameter_counts(network)[0],
        "multiplications": {"dense": counted(network, side)},
        "precision": predictor.precision,
        "seconds": {"dense": fastest(lambda: predictor.whole(image), repeats)},
    }


def equally_accurate(rows: Sequence[Row], metric: str = "pixel_error") -> Row | None:
    """The cheapest U-Net that is at least as accurate as the best window classifier."""
    windows = [row for row in rows if row["kind"] == "window"]
    if not windows:
        return None
    best = min(row["scores"][metric] for row in windows)
    enough = [r for r in rows if r["kind"] == "unet" and r["scores"][metric] <= best]
    return min(enough, key=lambda row: row["multiplications"]) if enough else None


def speed(
    rows: Sequence[Row], side: int, measured_rows: int, repeats: int, precision: Precision
) -> dict[str, Any]:
    """Times per image: N4, the U-Net of equal parameters and, by ``rows``, of equal accuracy."""
    n4 = time_of_window(N4, side, measured_rows, repeats, precision)
    networks = {"N4": n4}
    equal = equal_unet(n4["parameters"])
    networks["U-Net of equal parameters"] = time_of_unet(equal, side, repeats, precision)
    same = equally_accurate(rows)
    if same is not None:
        arch = architecture_from(same["architecture"])
        networks["U-Net of equal accuracy"] = {
            **time_of_unet(cast(Architecture, arch), side, repeats, precision),
            "trained_as": same["name"],
        }
    return {"side": side, "load": load(), "networks": networks}


# What is printed, kept and drawn.


def print_speed(found: Mapping[str, Any]) -> None:
    side = found["side"]
    precision = found["networks"]["N4"]["precision"]
    print(f"\nSeconds per {side} x {side} pixels, {precision}, load {found['load']}\n")
    print("| network | parameters | way | multiplications | seconds |")
    print("|---|---|---|---|---|")
    for name, row in found["networks"].items():
        for way, seconds in row["seconds"].items():
            work = row["multiplications"].get(way, row["multiplications"]["dense"])
            note = ""
            if way == "patches":
                note = f" (from {row['rows_measured']} of {side} rows, extrapolated)"
            print(f"| {name} | {row['parameters']:,} | {way} | {work:.3g} | {seconds:.3g}{note} |")
    n4 = found["networks"]["N4"]
    print(
        f"\nRedundancy of patch by patch: {n4['redundancy']['counted']:.0f} times the "
        f"multiplications, {n4['redundancy']['measured']:.0f} times the time; the scores differ by "
        f"at most {n4['largest_difference_of_scores']:.1g}."
    )


def print_accuracy(rows: Sequence[Row]) -> None:
    print("\n| network | parameters | trained on | minutes | pixel error | V_rand |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['name']} | {row['parameters']:,} | {row['trained_on']} "
            f"| {row['train_seconds'] / 60:.1f} | {row['scores']['pixel_error']:.4f} "
            f"| {row['scores']['v_rand']:.4f} |"
        )


def draw(rows: Sequence[Row], path: Path) -> None:
    """Accuracy against the window's side, U-Nets as lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    # Colours that remain apart for the colour-blind (Okabe, Ito).
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
    windows = sorted((r for r in rows if r["name"] == f"w{r['window']}"), key=lambda r: r["window"])
    lines = [r for r in rows if r["kind"] == "unet" or r["name"].endswith("-dense")]
    labels = {"pixel_error": "pixel error (less is better)", "v_rand": "V_rand (more is better)"}
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, (metric, label) in zip(axes, labels.items(), strict=True):
        axis.plot(
            [r["window"] for r in windows], [r["scores"][metric] for r in windows], "o-",
            color=colours[0], label="sliding window",
        )  # fmt: skip
        for row, colour in zip(lines, colours[1:] * 3, strict=False):
            axis.axhline(row["scores"][metric], color=colour, ls="--", lw=1.2, label=row["label"])
        axis.set_xlabel("window (px)")
        axis.set_ylabel(label)
        axis.set_xticks([r["window"] for r in windows])
    entries = axes[0].get_legend_handles_labels()
    figure.legend(*entries, loc="outside lower center", ncol=2, fontsize=8, frameon=False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    p.add_argument("--accuracy", type=Path, metavar="FOLDER", help="images of ISBI 2012: train too")
    p.add_argument("--work", type=Path, default=Path("results-sliding-window"), help="for those")
    p.add_argument("--sizes", type=int, nargs="+", default=list(STAGES), help="window sizes in px")
    p.add_argument("--windows", type=int, default=20_000, help="windows that each is trained on")
    p.add_argument("--accuracies", type=Path, help="rows of an earlier run's JSON, for the speed")
    p.add_argument("--no-speed", action="store_true", help="no times per image")
    p.add_argument("--side", type=int, default=SIDE, help="side of the image that is timed")
    p.add_argument("--rows", type=int, default=4, help="rows that are timed patch by patch")
    p.add_argument("--repeats", type=int, default=5, help="repeats, of which the fastest counts")
    p.add_argument("--precision", choices=("float32", "bfloat16", "auto"), default="float32")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--result", type=Path, default=RESULT)
    p.add_argument("--picture", type=Path, default=PICTURE)
    return p.parse_args()


def main() -> int:
    args = options()
    torch.set_num_threads(args.threads)
    kept = json.loads(args.result.read_text()) if args.result.exists() else {}
    rows: list[Row] = kept.get("accuracy", {}).get("rows", [])
    if args.accuracies is not None:
        rows = json.loads(args.accuracies.read_text())["accuracy"]["rows"]
    if args.accuracy is not None:
        rows = accuracies(args.accuracy, args.work, args.sizes, args.windows, args.threads)
        kept["accuracy"] = {"windows": args.windows, "machine": torch_machine(), "rows": rows}
        print_accuracy(rows)
        draw(rows, args.picture)
    if not args.no_speed:
        found = speed(rows, args.side, args.rows, args.repeats, args.precision)
        kept["speed"] = {"machine": torch_machine(), **found}
        print_speed(kept["speed"])
    args.result.parent.mkdir(exist_ok=True)
    args.result.write_text(json.dumps(kept, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
