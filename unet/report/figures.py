"""The report's plots (Matplotlib, Agg backend, no global state) and their encoding for HTML."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unet.evaluation.power_law import REACH, Outlook
from unet.files import replacing
from unet.report.pooling import Bin
from unet.report.score_tables import Cell
from unet.tables import read_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Mid-tones that are readable on light and dark pages, because each plot is drawn only once.
LINES = ("#3b82c4", "#dd8424", "#2f9e6e", "#b562c4", "#d1495b", "#8c8c3a", "#5aa9b8", "#9a7b65")
# Beside the colour, for readers who do not see it.
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
INK = "#7d848d"
HistoryRow = Mapping[str, float]


def read_history(path: Path) -> list[dict[str, float]]:
    """Rows of ``history.csv`` as numbers, NaN for missing values; [] without the file."""
    if not path.exists():
        return []
    found = read_table(path, "train")
    rows = found.apply(pd.to_numeric, errors="coerce").astype(float).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def curves(history_rows: Sequence[HistoryRow]) -> Figure:
    """Loss (training and validation) and validation score of one training, over the epochs."""
    return training_curves({"": [history_rows]})


def model_style(model: str, models: Sequence[str]) -> tuple[str, str]:
    """Colour and mark of a model among all models of the page."""
    index = list(models).index(model)
    return LINES[index % len(LINES)], MARKS[index % len(MARKS)]


def training_curves(
    histories: Mapping[str, Sequence[Sequence[HistoryRow]]], models: Sequence[str] = ("",)
) -> Figure:
    """The same for the trainings of several models, model -> rows of each fold: a colour and a mark
    per model, a thin line per fold, the mark at the best epoch."""
    figure = new_figure(9.0, 2.9)
    axes = figure.subplots(1, 2)
    for model, trainings in histories.items():
        colour, mark = model_style(model, models)
        width = 1.4 if len(trainings) == 1 else 0.9
        for rows in trainings:
            _line(axes[0], rows, "train_loss", colour, "--", width / 1.4)
            _line(axes[0], rows, "val_loss", colour, "-", width)
            _line(axes[1], rows, "val_score", colour, "-", width)
            best = best_epoch(rows)
            if best is not None:
                at = ([best["epoch"]], [best["val_score"]])
                axes[1].plot(*at, mark, color=colour, markersize=5)
    every = [row for trainings in histories.values() for rows in trainings for row in rows]
    _log_scale_if_wide(axes[0], every)
    axes[0].plot([], [], "--", color=INK, label="training")
    axes[0].plot([], [], "-", color=INK, label="validation")
    for axis, title in zip(axes, ("Loss", "Validation score"), strict=True):
        plain_axis(axis, title)
        axis.set_xlabel("epoch", color=INK, fontsize=8.5)
        axis.grid(axis="y", color=INK, alpha=0.2, linewidth=0.6)
    add_legend(axes[0])
    if len(histories) > 1:
        for name in histories:
            colour, mark = model_style(name, models)
            axes[1].plot([], [], f"-{mark}", color=colour, markersize=5, label=name)
        add_legend(axes[1], columns=1 if len(histories) <= 6 else 2)
    return figure


def _log_scale_if_wide(axis: Axes, rows: Sequence[HistoryRow]) -> None:
    losses = [row.get(key, math.nan) for row in rows for key in ("train_loss", "val_loss")]
    losses = [value for value in losses if not math.isnan(value)]
    if losses and min(losses) > 0 and max(losses) > 20 * min(losses):
        axis.set_yscale("log")


def best_epoch(rows: Sequence[HistoryRow]) -> HistoryRow | None:
    """The first row with the highest validation score; None if there is no score."""
    scored = [row for row in rows if not math.isnan(row.get("val_score", math.nan))]
    return max(scored, key=lambda row: row["val_score"]) if scored else None


def _line(
    axis: Axes, rows: Sequence[HistoryRow], key: str, colour: str, style: str, width: float
) -> None:
    points = [(row.get("epoch", math.nan), row.get(key, math.nan)) for row in rows]
    points = [point for point in points if not any(map(math.isnan, point))]
    if points:
        x, y = zip(*points, strict=True)
        marker = "." if len(points) == 1 else ""
        axis.plot(x, y, style, marker=marker, color=colour, linewidth=width)


def strip_plot(
    values: Mapping[str, Sequence[float]], means: Mapping[str, Cell], label: str
) -> Figure:
    """The score of every test image, a row of dots per model, with the mean and its interval.

    Args:
        values: model -> a score per image; NaN is left out.
        means: model -> its cell in the table.
        label: label of the axis.
    """
    figure = new_figure(9.0, 0.9 + 0.62 * max(1, len(values)))
    axis = figure.subplots()
    for index, (model, scores) in enumerate(values.items()):
        shown = np.array([score for score in scores if not math.isnan(score)], float)
        # Golden-ratio steps spread the dots evenly, and in the same way in every run.
        spread = ((np.arange(len(shown)) * 0.6180339887) % 1 - 0.5) * 0.5
        colour = LINES[index % len(LINES)]
        size = 16 if len(shown) <= 300 else 5
        axis.scatter(shown, index + spread, s=size, color=colour, alpha=0.55, linewidths=0)
        cell = means[model]
        if not math.isnan(cell.low) and not math.isnan(cell.high):
            axis.plot([cell.low, cell.high], [index, index], color=INK, linewidth=2.5, zorder=4)
        axis.plot(
            [cell.mean], [index], "D", color=colour, markeredgecolor=INK, markersize=7, zorder=5
        )
    axis.set_yticks(range(len(values)), list(values))
    axis.set_ylim(len(values) - 0.5, -0.5)
    plain_axis(axis, "")
    axis.tick_params(axis="y", length=0, labelsize=9.5)
    axis.grid(axis="x", color=INK, alpha=0.2, linewidth=0.6)
    axis.set_xlabel(label, color=INK, fontsize=8.5)
    return figure


def reliability_plot(bins: Mapping[str, Sequence[Bin]]) -> Figure:
    """Reliability of each class's probability. Left: per bin, the share of pixels of the class
    against the mean probability (on the diagonal if calibrated). Right: the number of pixels."""
    figure = new_figure(7.2, 3.3)
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], "--", color=INK, linewidth=1.0)
    for index, (name, found) in enumerate(bins.items()):
        colour = LINES[index % len(LINES)]
        x = [b.confidence for b in found]
        left.plot(x, [b.right for b in found], ".-", color=colour, linewidth=1.4, label=name)
        right.plot(x, [b.pixels for b in found], ".-", color=colour, linewidth=1.4)
    for axis, title in ((left, "Reliability"), (right, "Pixels")):
        plain_axis(axis, title)
        axis.set_xlim(-0.02, 1.02)
        axis.set_xlabel("predicted probability", color=INK, fontsize=8.5)
        axis.grid(color=INK, alpha=0.2, linewidth=0.6)
    left.set_ylim(-0.02, 1.02)
    left.set_ylabel("share that is right", color=INK, fontsize=8.5)
    right.set_yscale("log")
    add_legend(left)
    return figure


def size_histogram(diameters: NDArray[np.floating[Any]], unit: str) -> Figure:
    """How many objects have which equivalent diameter; a line marks the median.

    Args:
        diameters: [N], at least one; the largest 0.5 % are in the last bin.
    """
    figure = new_figure(9.0, 2.6)
    axis = figure.subplots()
    most = float(np.percentile(diameters, 99.5)) or 1.0
    bins = min(60, max(8, round(2 * len(diameters) ** (1 / 3))))
    axis.hist(np.minimum(diameters, most), bins=bins, range=(0, most * 1.0001), color=LINES[0])
    axis.axvline(float(np.median(diameters)), color=INK, linestyle="--", linewidth=1.2)
    plain_axis(axis, "")
    axis.grid(axis="y", color=INK, alpha=0.2, linewidth=0.6)
    axis.set_xlabel(f"equivalent diameter ({unit})", color=INK, fontsize=8.5)
    axis.set_ylabel("objects", color=INK, fontsize=8.5)
    return figure


def learning_curve_plot(
    points: Sequence[tuple[float, Cell]], found: Outlook, sign: int, label: str
) -> Figure:
    """The score against the number of training images, with the fitted law and its band; a dashed
    line marks the images at hand.

    Args:
        points: (number of images, mean score with its interval).
        sign: -1 if the law is of the negative score.
        label: of the axis.
    """
    figure = new_figure(7.2, 3.6)
    axis = figure.subplots()
    axis.set_xscale("log")
    if len(found.numbers):
        low, high = sign * found.low, sign * found.high
        axis.fill_between(found.numbers, low, high, color=LINES[0], alpha=0.2, linewidth=0)
    if found.law is not None:
        ends = [x for x, _ in points] + [REACH * found.images]
        every = np.geomspace(min(ends), max(ends), 200)
        axis.plot(every, sign * found.law.at(every), "-", color=LINES[0], linewidth=1.4)
    axis.axvline(found.images, color=INK, linestyle="--", linewidth=1.0)
    for x, cell in points:
        if not math.isnan(cell.low):
            axis.plot([x, x], [cell.low, cell.high], color=INK, linewidth=2.0, zorder=4)
        axis.plot([x], [cell.mean], "o", color=LINES[0], markeredgecolor=INK, zorder=5)
    ticks = {round(x, 1) for x, _ in points}
    ticks |= {round(REACH * found.images, 1)} if found.law is not None else set()
    axis.set_xticks(sorted(ticks), [f"{x:g}" for x in sorted(ticks)])
    axis.minorticks_off()
    plain_axis(axis, "")
    axis.grid(axis="y", color=INK, alpha=0.2, linewidth=0.6)
    axis.set_xlabel("training images", color=INK, fontsize=8.5)
    axis.set_ylabel(label, color=INK, fontsize=8.5)
    return figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain_axis(axis: Axes, title: str) -> None:
    """No box and no background, in a colour that light and dark pages show."""
    axis.patch.set_alpha(0)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for spine in axis.spines.values():
        spine.set_color(INK)
    axis.tick_params(colors=INK, labelsize=8.5, which="both")
    if title:
        axis.set_title(title, loc="left", fontsize=10, color=INK, fontweight="bold")


def add_legend(axis: Axes, columns: int = 1) -> None:
    """A legend without a frame, whose texts are shown as they are."""
    legend = axis.legend(frameon=False, fontsize=8, labelcolor=INK, ncols=columns)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a class can be named $x$


def save_curves(history_csv: Path, png: Path) -> None:
    """Writes the training's curves as a PNG file with a white background, atomically."""
    data = _png(curves(read_history(history_csv)), transparent=False)
    with replacing(png) as temporary:
        temporary.write_bytes(data)


def figure_uri(figure: Figure) -> str:
    """The figure as a data URI: a small PNG with a transparent background and few colours."""
    from PIL import Image

    with Image.open(io.BytesIO(_png(figure, transparent=True))) as image:
        small = image.convert("RGBA").quantize(128, method=Image.Quantize.FASTOCTREE)
    return image_uri(small, "PNG")


def _png(figure: Figure, transparent: bool) -> bytes:
    buffer = io.BytesIO()
    # Without the library's version, so that the same rows give the same bytes.
    figure.savefig(buffer, format="png", transparent=transparent, metadata={"Software": None})
    return buffer.getvalue()


def image_uri(image: object, kind: str, **options: object) -> str:
    """A PIL image as a data URI; kind "PNG" or "JPEG"."""
    buffer = io.BytesIO()
    # Not for JPEG: Pillow then needs the whole file in one buffer with a byte per pixel, and noisy
    # images with full colour resolution exceed it.
    image.save(buffer, format=kind, optimize=kind == "PNG", **options)  # type: ignore[attr-defined]
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{text}"
