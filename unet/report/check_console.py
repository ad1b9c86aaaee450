"""The result of the check on the console: a short table per dataset, and its findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unet.data.records import PARTS
from unet.data.survey.findings import Finding
from unet.planning.estimates import total
from unet.report.check_page import WORDS, byte_size, object_facts, percentage, understood
from unet.report.checked import Checked
from unet.report.console import duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# Facts of the page that are also shown on the console, if they say something.
FACTS = (
    "Task", "Images", "With a label", "Images without a label", "Labels without an image",
    "Files not read", "Size, px", "Type", "Pixel size, µm", "Channels", "Groups", "Measured",
)  # fmt: skip
MASKS = "Masks of "  # and the name of a tool in `compare`
STYLES = {"stop": "bold white on red", "warn": "bold yellow", "note": "dim"}


def print_checked(
    found: Mapping[str, Checked], pages: Mapping[str, Path], console: Console | None = None
) -> None:
    """Prints what was found about each dataset, to standard output unless a console is given.

    Args:
        found: by dataset.
        pages: the page of each dataset, where there is one.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console() if console is None else console
    for name, checked in found.items():
        console.print(Text(name, style="bold"))
        for label, value in _rows(checked):
            _print_row(console, Text(f"  {label:<23} ", style="dim"), value)
        for finding in checked.survey.findings:
            _print_finding(console, finding)
        if name in pages:
            # A path that is broken over lines could not be opened.
            console.print(Text(f"  page: {pages[name]}", style="dim"), soft_wrap=True)
        console.print()


def _rows(checked: Checked) -> list[tuple[str, str]]:
    survey = checked.survey
    facts = dict(understood(survey))
    rows = [(name, facts[name]) for name in FACTS if name in facts]
    rows += [(name, value) for name, value in facts.items() if name.startswith(MASKS)]
    if survey.classes:
        shares = ", ".join(
            f"{each.name} {percentage(each.share)}"
            + ("" if each.intensity is None else f" (intensity {each.intensity:.4g})")
            for each in survey.classes
        )
        rows.append(("Classes", shares))
    objects = dict(object_facts(survey))
    wanted = ("Objects", "Per image", "Diameter, px", "Touching another one")
    rows += [(name, objects[name]) for name in wanted if name in objects]
    if survey.splits:
        folds = list(survey.splits.values())
        # Always in this order; a file has its keys in another one.
        first = ", ".join(f"{part} {folds[0][part]}" for part in PARTS if part in folds[0])
        more = f" (fold 0 of {len(folds)})" if len(folds) > 1 else ""
        rows.append(("Split", first + more))
    changes = [each for each in checked.suggestions if not each.same]
    if changes:
        values = ", ".join(f"{each.key}: {each.value}" for each in changes)
        rows.append(("Suggested", f"{values} (for a full training)"))
    if checked.estimates:
        cost = total(checked.estimates)
        unknown = any(row.seconds is None for row in checked.estimates)
        about = f"{'more than ' if unknown else ''}about {duration(cost.seconds or 0.0)}"
        rows.append(
            ("On this machine", f"{about}, {byte_size(cost.memory)} of memory, "
             f"{byte_size(cost.disk)} on disk"),
        )  # fmt: skip
    return rows


def _print_row(console: Console, label: Text, text: str) -> None:
    """Prints a text beside its label; longer ones continue below their beginning. Without a
    terminal on one line each, for scripts."""
    from rich.table import Table
    from rich.text import Text

    # As Text, because a name in square brackets would be read as markup.
    if not console.is_terminal:
        console.print(label + Text(text), soft_wrap=True)
        return
    row = Table.grid()
    row.add_column(no_wrap=True)
    row.add_column(overflow="fold")
    row.add_row(label, Text(text))
    console.print(row)


def _print_finding(console: Console, finding: Finding) -> None:
    from rich.text import Text

    where = f"{finding.where}: " if finding.where else ""
    word = Text(f"{WORDS[finding.level]}:", style=STYLES[finding.level])
    _print_row(console, Text("  ") + word + Text(" "), f"{where}{finding.text}")


def stop_lines(found: Mapping[str, Checked]) -> Sequence[str]:
    """A line for each finding that must stop a run."""
    return [
        f"{name}: {finding.where}{': ' if finding.where else ''}{finding.text}"
        for name, checked in found.items()
        for finding in checked.stops
    ]
