"""A plot with what it says in words, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from unet.report.figures import figure_uri

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")
# Most models in one plot; more make several plots.
TOGETHER = 6


@dataclass(frozen=True)
class ExplainedPlot:
    """One plot (or several of the same kind, if there are many models).

    Attributes:
        title: of the plot.
        note: how to read it.
        findings: what it shows, one sentence each, with the n behind it.
        pictures: (data URI, alternative text) pairs.
        heads, rows: the numbers behind it, as text; the first column names the row.
    """

    title: str
    note: str
    findings: tuple[str, ...]
    pictures: tuple[tuple[str, str], ...]
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def picture(figure: Figure, what: str, findings: Sequence[str]) -> tuple[str, str]:
    """A figure as a data URI, with an alternative text that says what it shows."""
    return figure_uri(figure), " ".join((f"{what}.", *findings))


def in_parts(items: Sequence[T], most: int = TOGETHER) -> Iterator[Sequence[T]]:
    """The items in parts of at most ``most``, as even as possible: 7 are 4 and 3."""
    parts = -(-len(items) // most)
    for k in range(parts):
        yield items[k * len(items) // parts : (k + 1) * len(items) // parts]
