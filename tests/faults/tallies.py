"""The table of faults: what was broken, how, with what result, and how often."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- faults -->", "<!-- /faults -->"
HEAD = ("| fault | how it is made | what happens | times |", "|---|---|---|---|")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"

Row = tuple[str, str, str]


@dataclass
class Tally:
    """Counts faults. A test calls it at its end, after the fault had the expected result.

    The three texts must be the same in every run (no times, paths or random numbers), because they
    are copied to the documentation. The first must be a literal, because a test searches for it.
    """

    counts: dict[Row, int] = field(default_factory=dict)

    def __call__(self, fault: str, how: str, outcome: str, times: int = 1) -> None:
        if times < 1:
            raise ValueError(f"times must be at least 1, got {times}")
        row = (fault, how, outcome)
        self.counts[row] = self.counts.get(row, 0) + times

    def plain(self) -> list[list[Any]]:
        """The counts as plain lists, for :meth:`add` in another process."""
        return [[*row, times] for row, times in self.counts.items()]

    def add(self, counted: Iterable[Sequence[Any]]) -> None:
        """Adds the counts of another process."""
        for fault, how, outcome, times in counted:
            self(fault, how, outcome, times)

    def lines(self) -> list[str]:
        """The rows as Markdown, sorted."""
        return [_line((*row, str(times))) for row, times in sorted(self.counts.items())]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(" ".join(c.replace("|", "\\|").split()) for c in cells) + " |"


def fault_of(line: str) -> str:
    """The first cell of a row, as it was passed to ``tally``."""
    return line.replace("\\|", "\0").split("|")[1].strip().replace("\0", "|")


def rows_of(text: str) -> list[str]:
    """The rows between the markers of a page.

    Raises:
        ValueError: the page does not have exactly one pair of markers.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"the page must have one {BEGIN} and one {END}")
    inner = text.split(BEGIN)[1].split(END)[0]
    return [line for line in inner.splitlines() if line.startswith("| ") and line != HEAD[0]]


def rewritten(text: str, rows: list[str]) -> str:
    """The page with these rows. Rows of other faults stay, because a run of some tests, or one
    without root, makes only some of the faults."""
    made = {fault_of(row) for row in rows}
    kept = [row for row in rows_of(text) if fault_of(row) not in made]
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return "\n".join([before + BEGIN, *HEAD, *sorted(rows + kept), END + after])
