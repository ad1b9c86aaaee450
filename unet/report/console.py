"""Formats numbers for people, and prints the run's main scores as tables on the console."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from unet.data.tested_units import enough
from unet.evaluation.statistics import FEW_UNITS
from unet.report.numbers import NO_VALUE, number
from unet.report.paired import BEST, FEW
from unet.report.score_tables import Cell, ReportRow, better, columns_for, comparison

if TYPE_CHECKING:
    from rich.table import Table


def interval(cell: Cell) -> str:
    """``[low, high]``, or "" if there is no interval (a single image or group)."""
    if math.isnan(cell.low) or math.isnan(cell.high):
        return ""
    return f"[{number(cell.low)}, {number(cell.high)}]"


def caution(cell: Cell) -> str:
    """A caution about the interval: ``n = 4: few``, ``3 groups: few``, ``far apart``; "" if there
    is none."""
    found = []
    if 0 < cell.units < FEW_UNITS:
        what = f"{cell.units} group{'s' if cell.units > 1 else ''}"
        found.append(f"{f'n = {cell.n}' if cell.units == cell.n else what}: few")
    if cell.far:
        found.append("far apart")
    return ", ".join(found)


def verdict(
    cells: Mapping[str, Cell], label: str, confidence: float, grouped: bool, what: str = "model"
) -> str:
    """Which model is best by a score, in one sentence; "" if there is nothing to compare.

    Args:
        cells: model -> its cell for that score.
        label: name of the score.
        what: what is compared.
    """
    first = next((model for model, cell in cells.items() if cell.clear == BEST), None)
    others = {model: cell for model, cell in cells.items() if model != first and cell.n}
    if first is None or not any(cell.clear for cell in others.values()):
        return ""
    # Without a shared image there is not even a difference.
    untested = [model for model, cell in others.items() if cell.clear in (FEW, "")]
    needed = next(n for n in range(1, 99) if enough(n, confidence))
    units = "groups of images" if grouped else "images"
    if len(untested) == len(others):
        return (
            f"Too few {units} to tell which {what} is best by {label}: the test needs at least "
            f"{needed}."
        )
    best = cells[first]
    rivals = [model for model, cell in others.items() if cell.tied and model not in untested]
    if rivals:
        found = (
            f"No {what} is clearly best by {label}: {first} has the best mean, but its difference "
            f"to {_listed(rivals)} may be chance."
        )
    else:
        value = f"{number(best.mean)} {interval(best)}".strip()
        rest = f"the other {what}" if len(others) == 1 else f"every other {what}"
        rest += " that could be tested" if untested else ""
        found = f"{first} is best by {label}: {value}. It is clearly ahead of {rest}."
    if not untested:
        return found
    share = "shares" if len(untested) == 1 else "share"
    return (
        f"{found} Not tested: {_listed(untested)}, which {share} too few {units} with {first}: "
        f"the test needs at least {needed}."
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def arrow(metric: str) -> str:
    """An arrow for the direction in which the metric is better."""
    return {1: "↑", -1: "↓", 0: ""}[better(metric)]


def duration(seconds: float) -> str:
    """Formats seconds: ``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if math.isnan(seconds):
        return NO_VALUE
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def memory(mebibytes: float) -> str:
    """Formats MiB: ``512 MiB``, ``1.5 GiB``."""
    if math.isnan(mebibytes):
        return NO_VALUE
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.0f} MiB"


def percent(share: float) -> str:
    """Formats a share (0..1) as a percentage without decimals."""
    return NO_VALUE if math.isnan(share) else f"{100 * share:.0f} %"


def share(value: float) -> str:
    """Formats a share (0..1) as a percentage with one decimal."""
    return NO_VALUE if math.isnan(value) else f"{100 * value:.1f} %"


def integer(value: float) -> str:
    """Formats a number without decimals, such as an epoch."""
    return NO_VALUE if math.isnan(value) else f"{value:.0f}"


def summary_tables(rows: Sequence[ReportRow], tasks: Mapping[str, str]) -> list[Table]:
    """The main scores for the console: a table per task, a row per dataset and model.

    Only the first score has its interval, so that the table fits in a terminal. A value is bold if
    its model is clearly ahead of every other one.

    Args:
        rows: the rows of all datasets.
        tasks: dataset -> task ("semantic" or "instances").
    """
    return [
        _summary_table(rows, task, [name for name in tasks if tasks[name] == task])
        for task in dict.fromkeys(tasks.values())
    ]


def _summary_table(rows: Sequence[ReportRow], task: str, datasets: Sequence[str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    scores = columns_for([row for row in rows if row.dataset in datasets], task)
    table = Table(title=f"Main scores, {task} (mean over the test images)", title_justify="left")
    for header in ("dataset", "model"):
        table.add_column(header, no_wrap=True)
    for score in scores:
        table.add_column(f"{score.label} {arrow(score.metric)}", justify="right", no_wrap=True)
    table.add_column("images", justify="right")
    for name in datasets:
        own = [row for row in rows if row.dataset == name]
        models = list(dict.fromkeys(row.model for row in own))
        # The topology class may differ between datasets, so each one has its own columns.
        keys = {score.metric: (score.class_, score.metric) for score in columns_for(own, task)}
        cells = comparison(own, [keys.get(s.metric, ("", s.metric)) for s in scores], models)
        for model in models:
            shown = [
                Text(
                    f"{number(cell.mean)} {interval(cell) if index == 0 else ''}".strip(),
                    style="bold" if cell.best else "",
                )
                for index, cell in enumerate(cells[model])
            ]
            count = max((cell.n for cell in cells[model]), default=0)
            # The caution about the first score goes next to the number of images: "4: few".
            warned = caution(cells[model][0]) if cells[model] else ""
            alike = warned.removeprefix(f"n = {count}: ")
            images = f"{count}{': ' if alike != warned else ', '}{alike}" if warned else f"{count}"
            # As Text, because a name in square brackets would be read as markup.
            table.add_row(Text(name), Text(model), *shown, images)
        table.add_section()
    return table
