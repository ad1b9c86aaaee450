"""Makes the pictures of docs/prediction.md: halo, exactness and memory.

    python docs/prediction_pictures.py      # a minute: trains a small network first

Halo and exactness are computed by a network trained for a minute on generated nuclei; the plot of
the memory is of benchmarks/results/memory.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle

from benchmarks.predict_cases import Task, cells, trained
from unet.data.blending import blended_plan, weights_of
from unet.data.tiling import WindowPlan, read_window
from unet.models.inference import Predictor

IMAGES = ROOT / "docs" / "images"
SIDE, WINDOW = 512, 288


def box(axes: Any, rows: slice, columns: slice, **style: Any) -> None:
    """A rectangle around these pixels."""
    corner = (columns.start - 0.5, rows.start - 0.5)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    axes.add_patch(Rectangle(corner, *size, fill=False, linewidth=2, **style))


def halo(predictor: Predictor, image: Any) -> None:
    """A window with its core, and which pixels the core depends on."""
    layout = predictor.plan(image.shape[1:], WINDOW)
    fp = predictor.footprint[0]
    # A window that lies inside along both axes is whole: halo on all sides.
    tile = next(t for t in layout.tiles if all(w[0] > 0 and w[1] < SIDE for w in t.window))
    window = tuple(slice(*w) for w in tile.window)
    network = predictor.networks[0]
    x = torch.from_numpy(image[None]).requires_grad_()
    core = (slice(None), slice(None), *tile.core)
    network(x)[core].square().sum().backward()
    if x.grad is None:
        raise ValueError("the network does not depend on its input")
    reach = x.grad[0].abs().sum(0).numpy()
    rows, columns = (np.flatnonzero(reach.any(axis=a)) for a in (1, 0))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 6.4), layout="constrained")
    left.imshow(image[0], cmap="gray", vmin=0, vmax=1)
    for at in range(0, SIDE, fp.grid):
        for line in (left.axhline, left.axvline):
            line(at - 0.5, color="white", alpha=0.15, linewidth=0.5)
    side = window[0].stop - window[0].start
    left.set_title(
        f"a window of {side} px, its core, the pooling grid of {fp.grid} px",
        fontsize=9,
    )
    right.imshow(np.maximum(reach, 1e-12), cmap="magma", norm=LogNorm(1e-9, reach.max()))
    spans = [(rows[0], rows[-1]), (columns[0], columns[-1])]
    reached, taken = (
        f"rows {a[0]} to {a[1]}, columns {b[0]} to {b[1]}"
        for a, b in (spans, [(s.start, s.stop - 1) for s in window])
    )
    right.set_title(f"|gradient| of the core: not 0 on {reached};\nthe window: {taken}", fontsize=9)
    for axes in (left, right):
        box(axes, *window, edgecolor="tab:orange")
        box(axes, *tile.core, edgecolor="tab:cyan")
        axes.set_axis_off()
    figure.savefig(IMAGES / "halo.png", dpi=90)
    plt.close(figure)


def blended(predictor: Predictor, image: Any, layout: WindowPlan) -> Any:
    """The mean of overlapping windows under a Gaussian."""
    total = np.zeros((2, *image.shape[1:]))
    weight = np.zeros(image.shape[1:])
    for tile in layout.tiles:
        p = predictor(read_window(image, tile.window)[None])[0][(slice(None), *tile.inner)]
        w = weights_of(tile.core, tuple(slice(0, n) for n in p.shape[1:]))
        total[(slice(None), *tile.core)] += w * p
        weight[tile.core] += w
    return total / weight


def exactness(predictor: Predictor, image: Any) -> None:
    """How far three ways of tiling are from the network applied to the whole image."""
    whole = predictor.whole(image)
    side = 256
    apart = np.zeros_like(whole)
    for y in range(0, SIDE, side):
        for x in range(0, SIDE, side):
            part = (slice(None), slice(y, y + side), slice(x, x + side))
            apart[part] = predictor(image[part][None])[0]
    layout = blended_plan(image.shape[1:], (side, side), predictor.footprint, 0.5)
    ways = {
        f"windows of {side} px without halo": apart,
        f"windows of {side} px, half overlap, Gaussian": blended(predictor, image, layout),
        f"windows of {WINDOW} px with halo": predictor.image(image, WINDOW),
    }
    figure, axes = plt.subplots(1, 4, figsize=(15, 4.6), layout="constrained")
    axes[0].imshow(whole[1], cmap="gray", vmin=0, vmax=1)
    axes[0].set_title("probability, whole image at once", fontsize=10)
    for panel, (text, p) in zip(axes[1:], ways.items(), strict=True):
        difference = np.abs(p - whole)[1]
        shown = panel.imshow(np.maximum(difference, 1e-8), cmap="magma", norm=LogNorm(1e-8, 1))
        flips = int(((p[1] > 0.5) != (whole[1] > 0.5)).sum())
        panel.set_title(
            f"{text}:\ndifference at most {difference.max():.2g}, {flips} pixels flip", fontsize=10
        )
    for panel in axes:
        panel.set_axis_off()
    figure.colorbar(shown, ax=axes[1:], shrink=0.8, label="difference to the whole image")
    figure.savefig(IMAGES / "exactness.png", dpi=90)
    plt.close(figure)


def memory() -> None:
    """Peak memory of the stages against the size of the image."""
    found = json.loads((ROOT / "benchmarks" / "results" / "memory.json").read_text())
    sides = [int(side) for side in found["sides"]]
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for stage in ("predict", "stitch", "evaluate"):
        peaks = [found["sides"][str(side)][stage]["peak MB"] for side in sides]
        axes.plot([s * s / 1e6 for s in sides], peaks, "o-", label=stage)
    axes.axhline(
        found["settings"]["memory_gb"] * 1e3, color="gray", linestyle="--", label="memory_gb"
    )
    pixels = np.geomspace(min(sides) ** 2, max(sides) ** 2)
    whole = "the image itself, float32"
    axes.plot(pixels / 1e6, 4 * pixels / 1e6, ":", color="gray", label=whole)
    axes.set(xscale="log", xlabel="image, megapixels", ylabel="peak memory of the process, MB")
    axes.set_ylim(0, 1.3 * found["settings"]["memory_gb"] * 1e3)
    axes.set_xticks([s * s / 1e6 for s in sides], [f"{s * s / 1e6:.0f}" for s in sides])
    axes.minorticks_off()
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=3, frameon=False)
    figure.savefig(IMAGES / "memory.png", dpi=90)
    plt.close(figure)


def main() -> None:
    # An image and a network of depth 4 with room for a whole window inside.
    image = cells(0, SIDE)[0][None]
    network = trained(Task(SIDE, 8, 100)).network()
    predictor = Predictor([network], torch.device("cpu"), "float32")
    halo(predictor, image)
    exactness(predictor, image)
    memory()
    print(f"wrote {IMAGES}/halo.png, exactness.png, memory.png")


if __name__ == "__main__":
    main()
