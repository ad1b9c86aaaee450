"""A doubt about a label, and the table of all doubts, ``audit.csv``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet.errors import UserError
from unet.paths import FOLD_PATTERN, fold_name, fold_number
from unet.tables import read_table, write_table

# What a kind says about the label.
KINDS: dict[str, str] = {
    "missing": "the model is sure of an object that the label lacks",
    "denied": "a labelled object that the model does not see",
    "merged": "one labelled object where the model sees several",
    "split": "several labelled objects where the model sees one",
    "shifted": "a labelled outline that lies beside the object",
    "class": "pixels that the model gives to another class",
    "exchanged": "the label seems to belong to another image",
}
# What the number is; for the table's metadata.
ABOUT = "confidence is a ranking from 0 to 1, not a probability"
# Confidence from which on a doubt stands out: it is shown on the page and outlined.
LEVEL = 0.5
# Weaker doubts than this are not in the table.
LEAST = 0.05
_AXES = ("z", "y", "x")
_PLACE = (
    *(f"centroid_{axis}_px" for axis in _AXES),
    *(f"bbox_{axis}{end}" for end in (0, 1) for axis in _AXES),
)
DOUBT_COLUMNS = (
    "rank", "image", "fold", "kind", "confidence", "what", *_PLACE, "size_px", "labels",
    "predicted", "match",
)  # fmt: skip


@dataclass(frozen=True)
class Doubt:
    """A place where a label is probably wrong.

    Attributes:
        confidence: orders the doubts, 0 to 1; not a probability.
        what: the evidence in words.
        centroid: in pixels along (Z,) Y, X; 0 is the centre of the first pixel.
        low, high: the box around it in pixels along (Z,) Y, X, end excluded.
        size: in pixels.
        labels, predicted: ids of the labelled and of the predicted objects; for task semantic the
            index of the labelled and of the predicted class.
        match: for an exchanged label: the image that it fits, "" if unknown.
    """

    image: str
    fold: int
    kind: str
    confidence: float
    what: str
    centroid: tuple[float, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    size: int
    labels: tuple[int, ...] = ()
    predicted: tuple[int, ...] = ()
    match: str = ""

    @property
    def order(self) -> tuple[object, ...]:
        """Sorts doubts, the most certain one first; does not depend on the order of the images."""
        return (-self.confidence, self.image, self.kind, self.low, self.high)


def ranked(doubts: Iterable[Doubt], most: int) -> list[Doubt]:
    """The ``most`` most certain doubts, the first one first; those below ``LEAST`` are left out."""
    certain = (doubt for doubt in doubts if doubt.confidence >= LEAST)
    return sorted(certain, key=lambda doubt: doubt.order)[:most]


def write_doubts(path: Path, doubts: Sequence[Doubt]) -> None:
    """Writes ``audit.csv`` atomically, a row per doubt in the given order."""
    write_table(path, DOUBT_COLUMNS, map(_row, range(1, len(doubts) + 1), doubts), 4)


def _row(rank: int, doubt: Doubt) -> list[object]:
    lack = [""] * (3 - len(doubt.low))
    return [
        rank, doubt.image, fold_name(doubt.fold), doubt.kind, doubt.confidence, doubt.what,
        *lack, *(f"{value:.1f}" for value in doubt.centroid), *lack, *doubt.low, *lack, *doubt.high,
        doubt.size, " ".join(map(str, doubt.labels)), " ".join(map(str, doubt.predicted)),
        doubt.match,
    ]  # fmt: skip


def read_doubts(path: Path) -> list[Doubt]:
    """The rows of ``audit.csv``, in their order.

    Raises:
        UserError: the table is missing or damaged.
    """
    rows = read_table(path, "audit", DOUBT_COLUMNS, numbers=("confidence",)).to_dict("records")
    try:
        return [_doubt({str(name): cell for name, cell in row.items()}) for row in rows]
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); remove it and run again") from None


def _doubt(row: dict[str, Any]) -> Doubt:
    if not re.fullmatch(FOLD_PATTERN, row["fold"]) or row["kind"] not in KINDS:
        raise ValueError(f"fold {row['fold']!r}, kind {row['kind']!r}")
    centroid, low, high = (
        [row[name] for name in _PLACE[at : at + 3] if row[name]] for at in (0, 3, 6)
    )
    labels, predicted = (tuple(map(int, row[name].split())) for name in ("labels", "predicted"))
    return Doubt(
        image=row["image"],
        fold=fold_number(row["fold"]),
        kind=row["kind"],
        confidence=float(row["confidence"]),
        what=row["what"],
        centroid=tuple(map(float, centroid)),
        low=tuple(map(int, low)),
        high=tuple(map(int, high)),
        size=int(row["size_px"]),
        labels=labels,
        predicted=predicted,
        match=row["match"],
    )
