"""What the labels of all images say together: values that do not mean what the config says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unet.data.label_statistics import Look

# Foreground that covers more than this share of an image is pointed out, if most images have it.
COVERED = 0.9


def doubts(looks: Mapping[str, Look], *, instances: bool) -> dict[str, list[str]]:
    """Warnings by image id.

    Args:
        looks: of the usable images with a label, by id.
        instances: whether the labels number objects.
    """
    found: dict[str, list[str]] = {}

    def warn(name: str, text: str) -> None:
        found.setdefault(name, []).append(text)

    marked = {name: look for name, look in looks.items() if _foreground(look) > 0}
    for name, look in looks.items():
        if look.copy:
            warn(name, "the label has the very pixels of the image")
        if instances and name not in marked:
            warn(name, "no object in its label")
        if look.pieces.numbers == 1 and look.shares["background"] == 0:
            warn(name, "its label is one object everywhere")
        present = [class_ for class_, share in look.shares.items() if share > 0]
        if not instances and len(present) < 2:
            warn(name, f"its label is {present[0] if present else 'ignored'} everywhere")
    # One or two odd images are no mistake of the config; most of them are.
    for wrong in (_binary, _scattered, _covered):
        texts = {name: text for name, look in marked.items() if (text := wrong(look, instances))}
        if 2 * len(texts) > len(marked):
            for name, text in texts.items():
                warn(name, text)
    return found


def _foreground(look: Look) -> float:
    """Share of all classes but the first."""
    return sum(list(look.shares.values())[1:])


def _binary(look: Look, instances: bool) -> str:
    if look.pieces.numbers != 1 or look.pieces.pieces < 2:
        return ""
    return (
        f"one number, {look.pieces.pieces} separate pieces: a binary mask? write label_kind: binary"
    )


def _scattered(look: Look, instances: bool) -> str:
    pieces = look.pieces
    if pieces.numbers < 2 or 2 * pieces.scattered < pieces.numbers:
        return ""
    if instances and (share := _foreground(look)) > COVERED:
        return (
            f"{pieces.scattered} of {pieces.numbers} numbers lie in several places and all cover "
            f"{share:.0%} of the pixels: are images and labels swapped?"
        )
    return (
        f"{pieces.scattered} of {pieces.numbers} numbers lie in several places: does each stand "
        "for one object? if they stand for classes, write task: semantic"
    )


def _covered(look: Look, instances: bool) -> str:
    share = _foreground(look)
    if share <= COVERED:
        return ""
    if instances:
        return f"objects cover {share:.0%} of the pixels: is the background 0?"
    return f"all classes but the first cover {share:.0%} of the pixels: are the values swapped?"


def class_table(looks: Mapping[str, Look]) -> list[dict[str, Any]]:
    """Name, mean share (0 to 1) and mean intensity (None: nowhere) of each class over all images;
    intensities of the first channel, in the files' values."""
    rows = []
    for name in next(iter(looks.values())).shares if looks else ():
        sums = [look.intensity[name] for look in looks.values()]
        number = sum(n for _, n in sums)
        share = sum(look.shares[name] for look in looks.values()) / len(looks)
        mean = sum(value for value, _ in sums) / number if number else None
        rows.append({"name": name, "share": share, "intensity": mean})
    return rows


def table_line(rows: list[dict[str, Any]]) -> str:
    """Such as ``background 91 % (mean intensity 500), cell 9 % (3500)``."""
    texts: list[str] = []
    for row in rows:
        mean = "none" if row["intensity"] is None else f"{row['intensity']:.4g}"
        what = "mean intensity " if not texts else ""
        texts.append(f"{row['name']} {100 * row['share']:.3g} % ({what}{mean})")
    return ", ".join(texts)
