"""A finding: something about a dataset that a person should know before training. Light."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

# stop: training would fail or be useless. warn: it looks wrong, but may be meant. note: good to
# know.
Level = Literal["stop", "warn", "note"]
LEVELS: tuple[Level, ...] = get_args(Level)


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        level: see ``Level``.
        kind: a stable name for scripts and tests, such as ``binary_mask``.
        text: one line: what was found, and what to write.
        where: the image, file or config key that it is about; "" for the dataset as a whole.
    """

    level: Level
    kind: str
    text: str
    where: str = ""


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sorted by level; within a level in the order given."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))
