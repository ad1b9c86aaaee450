"""Makes the drawings of docs/methods.md: U-Net 2015, halo and grid, border weights, intervals, the
sliding window.

    python docs/methods_drawings.py

Sizes, windows, weights and intervals are computed by the package, so a drawing cannot disagree with
the code.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, Rectangle

from unet.config.geometry import footprint
from unet.config.layers import layers_of, map_shapes
from unet.config.presets import PRESET_TABLE
from unet.data.synthetic import generate
from unet.evaluation.statistics import mean_interval
from unet.training.targets.borders import border_weight_map

IMAGES = ROOT / "docs" / "images"
SEED = 8
# Okabe and Ito, as in the reports.
BLUE, ORANGE, GREEN, GREY = "#56b4e9", "#e69f00", "#009e73", "#999999"
STYLE: Any = {"svg.hashsalt": "unet", "svg.fonttype": "none", "font.family": "sans-serif"}


def save(figure: Any, name: str) -> None:
    """Writes the figure with the same bytes each time."""
    what = {"Date": None} if name.endswith(".svg") else {"Software": ""}
    figure.savefig(IMAGES / name, metadata=what, dpi=90)
    plt.close(figure)


def arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=11, color=colour, linewidth=1.4
        )
    )


def maps_of() -> list[tuple[str, str, int, int]]:
    """(block, kind, channels, side) of the maps of `unet2015` for an image of 572 x 572."""
    layers = layers_of(PRESET_TABLE["unet2015"].architecture, 1, 2)
    sides = [shape[0] for shape in map_shapes(layers, (572, 572))]
    kept = ("conv", "pool", "up", "join", "head")
    found = [("image", "image", 1, sides[0])]
    for layer, side in zip(layers[1:], sides[1:], strict=True):
        if layer.kind in kept:
            block = ".".join(layer.name.split(".")[:2])
            found.append((block, layer.kind, layer.outputs, side))
    return found


def u_net() -> None:
    """The figure 1 of the paper, as a path of maps: level by level, with sizes and channels."""
    figure, axes = plt.subplots(figsize=(11, 5.4), layout="constrained")
    x, level = 0.0, 0
    ends: dict[int, tuple[float, float]] = {}
    colours = {"conv": BLUE, "pool": "#d55e00", "up": GREEN, "join": GREY, "head": "#cc79a7"}
    before: tuple[float, float] | None = None
    for _, kind, channels, side in maps_of():
        if kind == "up":
            continue  # the map is the coloured half of the next one
        level += {"pool": 1, "join": -1}.get(kind, 0)
        x += 1.2 if kind in ("pool", "join") else 1.5
        high, wide, y = 0.25 + 0.75 * side / 572, 0.12 + 0.38 * channels / 1024, -1.35 * level
        axes.add_patch(Rectangle((x, y), wide, high, facecolor="white", edgecolor="black"))
        if kind == "join":
            axes.add_patch(Rectangle((x, y), wide / 2, high, facecolor=GREEN, alpha=0.5))
            start = ends[level]
            axes.plot([start[0], x], [start[1], y + 0.12], color=GREY, linestyle=":", linewidth=1.5)
        axes.text(x + wide / 2, y + high + 0.05, f"{side}²", ha="center", va="bottom", fontsize=8)
        axes.text(x + wide / 2, y - 0.05, str(channels), ha="center", va="top", fontsize=8)
        if before is not None:
            arrow(axes, before, (x, y + 0.12), colours["up" if kind == "join" else kind])
        before = (x + wide, y + 0.12)
        if kind == "conv":
            ends[level] = before
    words = {
        "conv": "3x3 convolution without padding, ReLU", "pool": "2x2 max pooling",
        "up": "2x2 up-convolution, and join (left half)", "join": "copy and crop",
        "head": "1x1 convolution",
    }  # fmt: skip
    for kind, text in words.items():
        style = ":" if kind == "join" else "-"
        axes.plot([], [], color=colours[kind], label=text, linestyle=style, linewidth=2)
    axes.legend(loc="upper center", fontsize=8, frameon=False, bbox_to_anchor=(0.5, 1.0))
    axes.set(xlim=(1.0, x + 0.6), ylim=(-5.8, 1.9))
    axes.set_axis_off()
    save(figure, "methods_unet.svg")


def halo() -> None:
    """Two neighbouring windows of a padded network along one axis."""
    fp = footprint(PRESET_TABLE["unet-bn"].architecture)[0]
    window, stride = 576, 576 - 2 * fp.halo
    figure, axes = plt.subplots(figsize=(10, 3.0), layout="constrained")
    for row, start in enumerate((0, stride)):
        y = -row
        axes.add_patch(
            Rectangle((start, y), window, 0.7, facecolor=ORANGE, alpha=0.35, edgecolor=ORANGE)
        )
        axes.add_patch(
            Rectangle((start + fp.halo, y), stride, 0.7, facecolor=BLUE, edgecolor="black")
        )
        axes.text(
            start + window / 2, y + 0.35, f"core, {stride} px: kept", ha="center", va="center"
        )
        for middle in (start + fp.halo / 2, start + window - fp.halo / 2):
            axes.text(middle, y + 0.35, f"halo\n{fp.halo}", ha="center", va="center", fontsize=8)
    for at in range(0, stride + window + 1, fp.grid):
        axes.axvline(at, color=GREY, linewidth=0.3, zorder=0)
    axes.text(
        0, 0.95, f"pooling grid: a line every {fp.grid} px; both windows start on one", fontsize=9
    )
    axes.annotate(
        "the cores meet without gap or overlap", (stride + fp.halo, -0.02), (stride - 60, -1.35),
        arrowprops={"arrowstyle": "->"}, ha="right", fontsize=9,
    )  # fmt: skip
    axes.set(xlim=(-10, stride + window + 10), ylim=(-1.6, 1.2), yticks=[], xlabel="pixels")
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    save(figure, "methods_halo.svg")


def border_weights() -> None:
    """Objects of a generated image, and the paper's weight map of them."""
    image, labels = generate("nuclei", 0, 0, (128, 128))
    weights = border_weight_map(labels.astype(np.int64))
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.7), layout="constrained")
    left.imshow(image, cmap="gray")
    left.set_title("image", fontsize=10)
    shown = np.random.default_rng(3).permutation(np.arange(1, labels.max() + 1)) % 19 + 1
    middle.imshow(np.ma.masked_equal(np.r_[0, shown][labels], 0), cmap="tab20")
    middle.set_title("labels: a number per object", fontsize=10)
    drawn = right.imshow(weights, cmap="magma")
    right.set_title("weight w(x), without class weights", fontsize=10)
    figure.colorbar(drawn, ax=right, shrink=0.85)
    for axes in (left, middle, right):
        axes.set_axis_off()
    save(figure, "methods_border.png")


def intervals() -> None:
    """Forty tests of the same model on other images: the interval of each, and the true mean."""
    # A seed with which 38 of the 40 intervals hold the mean, as is expected of 95 %.
    rng, number, n = np.random.default_rng(SEED), 40, 8
    a, b = 12.0, 2.0
    true = a / (a + b)
    figure, axes = plt.subplots(figsize=(10, 3.4), layout="constrained")
    missed = 0
    for at in range(number):
        found = mean_interval(rng.beta(a, b, n), bounds=(0.0, 1.0))
        holds = found.low <= true <= found.high
        missed += not holds
        colour = BLUE if holds else "#d55e00"
        axes.plot([at, at], [found.low, found.high], color=colour, linewidth=3)
        axes.plot(at, found.mean, "o", color="black", markersize=3)
    axes.axhline(true, color=GREEN, linewidth=1.5)
    axes.text(number - 0.3, true, " true mean", color=GREEN, va="center")
    axes.set(
        xlim=(-1, number + 4), xticks=[], ylabel="score",
        xlabel=f"{number} tests of {n} images each: {number - missed} intervals hold the true mean",
    )  # fmt: skip
    save(figure, "methods_interval.svg")


def sliding_window() -> None:
    """A window for each pixel, beside a tile in one pass."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    window = 95
    for step, colour in enumerate((BLUE, ORANGE, GREEN)):
        x, y = 60 + 18 * step, 70 + 10 * step
        left.add_patch(Rectangle((x, y), window, window, fill=False, edgecolor=colour, linewidth=2))
        left.plot(x + window / 2, y + window / 2, "s", color=colour, markersize=6)
    left.set_title(
        f"sliding window: {window} x {window} px for the class\nof one pixel in its middle",
        fontsize=10,
    )
    right.add_patch(Rectangle((30, 30), 196, 196, facecolor=ORANGE, alpha=0.3, edgecolor=ORANGE))
    right.add_patch(Rectangle((62, 62), 132, 132, facecolor=BLUE, edgecolor="black"))
    right.text(128, 128, "classes of all\nthese pixels", ha="center", va="center")
    right.text(128, 45, "context", ha="center", va="center")
    right.set_title(
        "U-Net: one pass for all pixels of a tile;\neach intermediate map is computed once",
        fontsize=10,
    )
    for axes in (left, right):
        axes.set(xlim=(0, 256), ylim=(256, 0), xticks=[], yticks=[], aspect="equal")
    save(figure, "methods_window.svg")


def main() -> None:
    with matplotlib.rc_context(STYLE):
        u_net()
        halo()
        border_weights()
        intervals()
        sliding_window()
    print(f"wrote {IMAGES}/methods_*")


if __name__ == "__main__":
    main()
