"""Heat maps of plates: a number per well, where the well is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from unet.data.file_patterns import row_letters
from unet.report.explained_plot import ExplainedPlot, picture
from unet.report.figures import INK, new_figure
from unet.report.numbers import NO_VALUE, number
from unet.report.well_numbers import Well, place, plate_shape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Most heat maps of one kind on a page; wells.csv has every well.
MOST_MAPS = 12
# Most classes that are shown.
MOST_CLASSES = 3
# Readable without colours, too: it gets lighter from low to high.
COLOURS = "viridis"


def heat_map(
    wells: Sequence[Well],
    name: str,
    shape: tuple[int, int],
    ends: tuple[float, float],
    label: str,
    *,
    whole: bool = False,
) -> Figure:
    """A square per well, coloured by its value; wells without one are empty squares.

    Args:
        name: of the value.
        shape: rows and columns of the plate.
        ends: the values at the ends of the colour bar.
        label: of the colour bar.
        whole: whether the values are whole numbers.
    """
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator

    rows, columns = shape
    values = np.full(shape, math.nan)
    for well in wells:
        at = place(well.row)[0] - 1, place(well.column)[0] - 1
        if at[0] < rows and at[1] < columns:
            values[at] = well.values.get(name, math.nan)
    figure = new_figure(7.6, 0.55 + 6.1 * rows / columns)
    axis = figure.subplots()
    # With gaps, because neighbours may have the same colour.
    squares = {at: Rectangle((at[1] - 0.43, at[0] - 0.43), 0.86, 0.86) for at in np.ndindex(shape)}
    known = [at for at in squares if not math.isnan(values[at])]
    filled = PatchCollection([squares[at] for at in known], cmap=COLOURS, linewidths=0)
    filled.set_array(np.array([values[at] for at in known]))
    filled.set_clim(*ends)
    empty = PatchCollection(
        [one for at, one in squares.items() if at not in set(known)],
        facecolors="none", edgecolors=INK, linewidths=0.6, alpha=0.45,
    )  # fmt: skip
    axis.add_collection(filled)
    axis.add_collection(empty)
    axis.patch.set_alpha(0)
    axis.set_aspect("equal")
    axis.set_xlim(-0.5, columns - 0.5)
    axis.set_ylim(rows - 0.5, -0.5)
    size = 8.5 if columns <= 24 else 5.5
    axis.set_yticks(range(rows), [row_letters(k + 1) for k in range(rows)], fontsize=size)
    axis.set_xticks(range(columns), [str(k + 1) for k in range(columns)], fontsize=size)
    axis.xaxis.tick_top()
    axis.tick_params(colors=INK, length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    ticks = MaxNLocator(6, integer=whole)
    bar = figure.colorbar(filled, ax=axis, shrink=0.85, pad=0.02, aspect=18, ticks=ticks)
    bar.set_label(label, color=INK, fontsize=8.5)
    bar.ax.tick_params(colors=INK, labelsize=8.5)
    bar.outline.set_visible(False)
    return figure


def plate_plot(
    models: dict[str, list[Well]], name: str, title: str, label: str, *, whole: bool = False
) -> ExplainedPlot | None:
    """The heat maps of one value, for each plate and model, with one scale of colours; None if no
    well has a value.

    Args:
        models: model -> its wells; the name "" is not shown (for a single model).
        name: of the value.
        label: what it is.
        whole: whether it is a whole number.
    """
    values = [w.values.get(name, math.nan) for wells in models.values() for w in wells]
    values = [value for value in values if not math.isnan(value)]
    if not values:
        return None
    ends = colour_ends(values)
    shape = plate_shape(w for wells in models.values() for w in wells)

    def text(value: float) -> str:
        return f"{value:.0f}" if whole and not math.isnan(value) else number(value)

    pictures, findings = list[tuple[str, str]](), list[str]()
    maps = [(m, p) for m in models for p in dict.fromkeys(w.plate for w in models[m])]
    for model, plate in maps:
        wells = [w for w in models[model] if w.plate == plate]
        head = ", ".join(filter(None, (model, plate and f"plate {plate}")))
        sentence = _finding(head, wells, name, label, text)
        findings.append(sentence)
        if len(pictures) < MOST_MAPS:
            figure = heat_map(wells, name, shape, ends, label, whole=whole)
            what = f"Heat map of a plate with {shape[0]} rows and {shape[1]} columns: {label}"
            pictures.append(picture(figure, what, [sentence]))
    more = len(maps) - len(pictures)
    note = "Empty squares are wells without a value." + (
        f" {more} more are not drawn; wells.csv has all." if more else ""
    )
    return ExplainedPlot(
        title, note, tuple(findings), tuple(pictures), *_numbers(models, name, text)
    )


def colour_ends(values: Sequence[float]) -> tuple[float, float]:
    """The values at the ends of the colour bar; from 0 if all are the same, since counts, shares
    and scores are never below it."""
    low, high = min(values), max(values)
    return (low, high) if low < high else (min(0.0, low), max(1.0, high))


def result_plots(
    models: dict[str, list[Well]], task: str, class_names: Sequence[str]
) -> list[ExplainedPlot]:
    """The heat maps of what was found: objects per well, or the share of each class."""
    plots = []
    if task == "instances":
        several = any(len(w.images) > 1 for wells in models.values() for w in wells)
        name = "objects_per_image" if several else "objects"
        label = name.replace("_", " ")
        plots.append(plate_plot(models, name, "Objects in each well", label, whole=not several))
    else:
        for name in class_names[1 : 1 + MOST_CLASSES]:
            label = f"share of {name}"
            plots.append(plate_plot(models, f"share_{name}", f"S{label[1:]} in each well", label))
    return [plot for plot in plots if plot is not None]


def _finding(
    head: str, wells: Sequence[Well], name: str, label: str, text: Callable[[float], str]
) -> str:
    known = [w for w in wells if not math.isnan(w.values.get(name, math.nan))]
    start = f"{head}: " if head else ""
    if not known:
        return f"{start}no well has a value."
    known.sort(key=lambda w: w.values[name])
    low, high = known[0], known[-1]
    middle = float(np.median([w.values[name] for w in known]))
    many = f"{len(known)} well{'s' if len(known) != 1 else ''}"
    return (
        f"{start}{label} in {many}: from {text(low.values[name])} ({low.well}) to "
        f"{text(high.values[name])} ({high.well}), median {text(middle)}."
    )


def _numbers(
    models: dict[str, list[Well]], name: str, text: Callable[[float], str]
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """The table behind the maps: a row per well, a column per model."""
    cells = {
        (model, w.plate, w.well): text(w.values.get(name, math.nan))
        for model, wells in models.items()
        for w in wells
    }
    every = dict.fromkeys((w.plate, w.well) for wells in models.values() for w in wells)
    rows = [
        (f"{plate} {well}".strip(), *(cells.get((m, plate, well), NO_VALUE) for m in models))
        for plate, well in every
    ]
    heads = tuple(model or "Value" for model in models)
    return ("Well", *heads), tuple(rows)
