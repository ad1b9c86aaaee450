"""What the console shows at the end of a run: main scores, warnings, the path of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unet.data.dataset_warnings import warning_lines
from unet.paths import Paths
from unet.report.console import summary_tables
from unet.report.score_tables import ReportRow


def print_summary(
    paths: Paths,
    rows: Sequence[ReportRow],
    tasks: Mapping[str, str],
    models: Mapping[str, Sequence[str]],
) -> None:
    """Prints the main scores, the warnings and the path of the report.

    Args:
        rows: the rows of the report over all datasets.
        tasks: dataset -> task ("semantic" or "instances").
        models: dataset -> its models.
    """
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        # Log files and pipes have no fixed width.
        console.width = 120
    for table in summary_tables(rows, tasks):
        console.print(table)
    for line in warning_lines(paths, models):
        print(line)  # noqa: T201 - this is the command's output
    print(f"Report: {paths.report_html}")  # noqa: T201
