"""Plots of what is behind the scores: groups, objects, probabilities.

Each takes model -> values, and ``models``: all models of the page, so that a model has the same
colour and mark in all plots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from unet.evaluation.metrics.precision_recall import PrecisionRecall
from unet.report.figures import INK, add_legend, model_style, new_figure, plain_axis
from unet.report.group_numbers import GroupScore
from unet.report.object_numbers import ImageCount, SizeBin, Sizes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Size in points² of a dot, and of one where there are many.
DOT, SMALL_DOT, MANY = 26, 8, 300
# The F1 scores whose contours are drawn.
CONTOURS = (0.5, 0.7, 0.8, 0.9)


def _named(axis: Axes, x: str, y: str, title: str = "") -> None:
    plain_axis(axis, title)
    axis.set_xlabel(x, color=INK, fontsize=8.5)
    axis.set_ylabel(y, color=INK, fontsize=8.5)
    axis.grid(color=INK, alpha=0.2, linewidth=0.6)


def group_plot(
    values: Mapping[str, Sequence[GroupScore]],
    order: Sequence[str],
    label: str,
    models: Sequence[str],
) -> Figure:
    """A row per group (``order``, from top to bottom): a dot per image, a line at each mean."""
    figure = new_figure(9.0, 0.9 + (0.12 + 0.17 * max(1, len(values))) * len(order))
    axis = figure.subplots()
    step = 0.7 / max(1, len(values))
    for index, (model, groups) in enumerate(values.items()):
        colour, mark = model_style(model, models)
        for each in groups:
            if each.group not in order:
                continue
            y = order.index(each.group) + (index - (len(values) - 1) / 2) * step
            at = np.full(len(each.scores), y)
            axis.scatter(each.scores, at, s=DOT, color=colour, marker=mark, alpha=0.6, linewidths=0)
            ends = [y - step / 2, y + step / 2]
            axis.plot([each.mean, each.mean], ends, color=colour, linewidth=2.5)
        axis.scatter([], [], s=DOT, color=colour, marker=mark, label=model)
    ticks = axis.set_yticks(range(len(order)), list(order))
    for tick in ticks:
        tick.label1.set_parse_math(False)
    axis.set_ylim(len(order) - 0.5, -0.5)
    _named(axis, label, "")
    axis.grid(visible=False, axis="y")
    add_legend(axis)
    return figure


def count_plot(counts: Mapping[str, Sequence[ImageCount]], models: Sequence[str]) -> Figure:
    """Predicted against true number of objects, a dot per image; on the diagonal if equal."""
    figure = new_figure(4.6, 3.7)
    axis = figure.subplots()
    every = [n for found in counts.values() for c in found for n in (c.true, c.pred)]
    most, least = max([1, *every]), min(every, default=0)
    # From 0 unless all images have many objects, when the marks would be in one corner.
    least = 0 if least < most / 3 else least
    axis.plot([least, most], [least, most], "--", color=INK, linewidth=1.0)
    for model, found in counts.items():
        colour, mark = model_style(model, models)
        axis.scatter(
            [c.true for c in found], [c.pred for c in found], label=model, color=colour,
            marker=mark, s=DOT if len(found) <= MANY else SMALL_DOT, alpha=0.8, linewidths=0,
        )  # fmt: skip
    margin = max(0.5, 0.06 * (most - least))
    axis.set_xlim(least - margin, most + margin)
    axis.set_ylim(least - margin, most + margin)
    axis.set_aspect("equal")
    _named(axis, "true objects in the image", "predicted objects")
    add_legend(axis)
    return figure


def size_plot(true: Sizes, pred: Mapping[str, Sizes], unit: str, models: Sequence[str]) -> Figure:
    """How many true (filled) and predicted (lines) objects have which size, on a log scale."""
    figure = new_figure(9.0, 2.9)
    axis = figure.subplots()
    every = np.concatenate([own.values for own in (true, *pred.values())])
    low, high = float(every.min()), float(every.max())
    number = min(40, max(8, round(2 * len(true) ** (1 / 3))))
    edges = np.geomspace(low, max(high, 1.01 * low) * 1.0001, number + 1)
    bars, *lines = (
        np.histogram(own.values, edges, weights=own.n)[0] for own in (true, *pred.values())
    )
    axis.stairs(bars, edges, fill=True, color=INK, alpha=0.35, label="true")
    middle = np.sqrt(edges[1:] * edges[:-1])
    for model, heights in zip(pred, lines, strict=True):
        colour, mark = model_style(model, models)
        axis.plot(
            middle, heights, f"-{mark}", color=colour, linewidth=1.4, markersize=4, label=model
        )
    axis.set_xscale("log")
    _plain_numbers(axis)
    axis.set_ylim(bottom=0)
    _named(axis, f"size of the object ({unit})", "objects")
    add_legend(axis)
    return figure


def _plain_numbers(axis: Axes) -> None:
    """Sizes on a log axis as 200, not as 2 x 10^2."""
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.4g}"))
    axis.xaxis.set_minor_formatter("")


def found_plot(bins: Mapping[str, Sequence[SizeBin]], unit: str, models: Sequence[str]) -> Figure:
    """By size of the true object: the share that is found, and the mean IoU of the found ones."""
    figure = new_figure(9.0, 3.1)
    left, right = figure.subplots(1, 2)
    for model, found in bins.items():
        colour, mark = model_style(model, models)
        x = [float(np.sqrt(max(b.low, 1e-9) * max(b.high, 1e-9))) for b in found]
        look = {"color": colour, "linewidth": 1.4, "markersize": 5}
        left.plot(x, [b.found for b in found], f"-{mark}", label=model, **look)
        right.plot(x, [b.iou for b in found], f"-{mark}", **look)
    for axis, title in ((left, "Share found"), (right, "Mean IoU of the found ones")):
        axis.set_xscale("log")
        _plain_numbers(axis)
        _named(axis, f"size of the true object ({unit})", "", title)
    left.set_ylim(-0.03, 1.03)
    right.set_ylim(0.47, 1.03)
    add_legend(left)
    return figure


def precision_recall_plot(
    curves: Mapping[str, PrecisionRecall],
    thresholds: Mapping[str, Sequence[float]],
    models: Sequence[str],
) -> Figure:
    """Precision against recall over all thresholds, with thin contours of equal F1; and F1 against
    the threshold. A mark at each chosen threshold."""
    figure = new_figure(8.0, 3.5)
    left, right = figure.subplots(1, 2)
    for f1 in CONTOURS:
        recall = np.linspace(f1 / (2 - f1), 1, 60)
        left.plot(recall, f1 * recall / (2 * recall - f1), color=INK, linewidth=0.6, alpha=0.6)
        left.annotate(f"F1 {f1:g}", (f1, f1), color=INK, fontsize=6.5, ha="right", va="top")
    for model, curve in curves.items():
        colour, mark = model_style(model, models)
        at = sorted({curve.at(threshold) for threshold in thresholds.get(model, ())})
        for axis, x, y in (
            (left, curve.recall, curve.precision),
            (right, curve.thresholds, curve.f1),
        ):
            axis.plot(x, y, color=colour, linewidth=1.4)
            axis.plot(x[at], y[at], mark, color=colour, markeredgecolor=INK, markersize=7)
        left.plot([], [], f"-{mark}" if at else "-", color=colour, markersize=6, label=model)
    for axis in (left, right):
        axis.set_xlim(-0.02, 1.04)
        axis.set_ylim(-0.02, 1.04)
    _named(left, "recall", "precision", "Precision and recall")
    _named(right, "threshold", "", "F1 of each threshold")
    add_legend(left)
    return figure
