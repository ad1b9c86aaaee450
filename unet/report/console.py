"""Numbers as people read them, and the run's main scores as tables for the console."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from unet.evaluation.statistics import enough
from unet.report.numbers import NO_VALUE, number
from unet.report.paired import BEST, FEW
from unet.report.score_tables import Cell, ReportRow, better, columns_for, comparison

if TYPE_CHECKING:
    from rich.table import Table
# Below so many images or groups the report says that they are few.
FEW_UNITS = 10


def interval(cell: Cell) -> str:
    """``[low, high]``, or nothing where there is no interval (a single image or group)."""
    if math.isnan(cell.low) or math.isnan(cell.high):
        return ""
    return f"[{number(cell.low)}, {number(cell.high)}]"


def caution(cell: Cell) -> str:
    """What to know before the interval is believed: ``n = 4: few``, ``3 groups: few``,
    ``far apart``; "" if there is nothing."""
    found = []
    if 0 < cell.units < FEW_UNITS:
        what = f"{cell.units} group{'s' if cell.units > 1 else ''}"
        found.append(f"{f'n = {cell.n}' if cell.units == cell.n else what}: few")
    if cell.far:
        found.append("far apart")
    return ", ".join(found)


def verdict(cells: Mapping[str, Cell], label: str, confidence: float, grouped: bool) -> str:
    """Which model is best by a score, as one sentence; "" where nothing is compared.

    Args:
        cells: model -> its cell of that score.
        label: name of the score.
    """
    compared = {model: cell for model, cell in cells.items() if cell.clear}
    first = next((model for model, cell in compared.items() if cell.clear == BEST), None)
    if first is None or len(compared) < 2:
        return ""
    best = compared[first]
    if best.best:
        value = f"{number(best.mean)} {interval(best)}".strip()
        others = "the other model" if len(compared) == 2 else "every other model"
        return f"{first} is best by {label}: {value}. It is clearly ahead of {others}."
    if any(cell.clear == FEW for cell in compared.values()):
        needed = next(n for n in range(1, 99) if enough(n, confidence))
        what = "groups of images" if grouped else "images"
        return (
            f"Too few {what} to tell which model is best by {label}: the test needs at least "
            f"{needed}."
        )
    rivals = [model for model, cell in compared.items() if cell.tied]
    shown = ", ".join(rivals[:3]) + (f" and {len(rivals) - 3} more" if len(rivals) > 3 else "")
    return (
        f"No model is clearly best by {label}: {first} has the best mean, but its difference to "
        f"{shown} may be chance."
    )


def arrow(metric: str) -> str:
    """Which direction of the metric is better."""
    return {1: "↑", -1: "↓", 0: ""}[better(metric)]


def duration(seconds: float) -> str:
    """Seconds for people: ``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if math.isnan(seconds):
        return NO_VALUE
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def memory(mebibytes: float) -> str:
    """MiB for people."""
    if math.isnan(mebibytes):
        return NO_VALUE
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.0f} MiB"


def percent(share: float) -> str:
    """A share of 1 as a whole percentage."""
    return NO_VALUE if math.isnan(share) else f"{100 * share:.0f} %"


def whole(value: float) -> str:
    """A number without decimals, such as that of an epoch."""
    return NO_VALUE if math.isnan(value) else f"{value:.0f}"


def summary_tables(rows: Sequence[ReportRow], tasks: Mapping[str, str]) -> list[Table]:
    """The main scores for the console: a table per task, a row per dataset and model.

    Only the first score has its interval, so that a table fits a terminal. A value is bold where
    its model is clearly ahead of every other one.

    Args:
        rows: of all datasets.
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
        # The topology class may differ between datasets, hence the columns of each its own.
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
            # Beside the number of images what is to know of the first score: "n = 4: few".
            warned = caution(cells[model][0]) if cells[model] else ""
            alike = warned.removeprefix(f"n = {count}: ")
            images = f"{count}{': ' if alike != warned else ', '}{alike}" if warned else f"{count}"
            # As Text: a name in square brackets would otherwise be read as markup.
            table.add_row(Text(name), Text(model), *shown, images)
        table.add_section()
    return table
