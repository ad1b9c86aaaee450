"""Numbers as people read them, and the run's main scores as tables for the console."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from unet.report.tables import Cell, ReportRow, better, columns_for, comparison

if TYPE_CHECKING:
    from rich.table import Table

MISSING = "–"


def number(value: float) -> str:
    """A score for people: three decimals, three digits below 0.1, fewer for large numbers."""
    if math.isnan(value):
        return MISSING
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.3f}" if size >= 0.0995 or size == 0 else f"{value:#.3g}"


def interval(cell: Cell) -> str:
    """``[low, high]``, or nothing where there is no interval (a single image or group)."""
    if math.isnan(cell.low) or math.isnan(cell.high):
        return ""
    return f"[{number(cell.low)}, {number(cell.high)}]"


def arrow(metric: str) -> str:
    """Which direction of the metric is better."""
    return {1: "↑", -1: "↓", 0: ""}[better(metric)]


def duration(seconds: float) -> str:
    """Seconds for people: ``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if math.isnan(seconds):
        return MISSING
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
        return MISSING
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.0f} MiB"


def percent(share: float) -> str:
    """A share of 1 as a whole percentage."""
    return MISSING if math.isnan(share) else f"{100 * share:.0f} %"


def whole(value: float) -> str:
    """A number without decimals, such as that of an epoch."""
    return MISSING if math.isnan(value) else f"{value:.0f}"


def summary_tables(rows: Sequence[ReportRow], tasks: Mapping[str, str]) -> list[Table]:
    """The main scores for the console: a table per task, a row per dataset and model.

    Only the first score has its interval, so that a table fits a terminal.

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
            # As Text: a name in square brackets would otherwise be read as markup.
            table.add_row(Text(name), Text(model), *shown, str(count))
        table.add_section()
    return table
