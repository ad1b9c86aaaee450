"""Checks the labels of all images together for values that do not mean what the config says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unet.errors import how_many

if TYPE_CHECKING:
    from unet.data.label_statistics import LabelStatistics

# Warn if the foreground covers more than this share of most images.
COVERED = 0.9


def label_warnings(
    labels: Mapping[str, LabelStatistics], *, instances: bool
) -> dict[str, list[str]]:
    """Warnings by image id.

    Args:
        labels: statistics of the usable images with a label, by image id.
        instances: whether the labels number objects.
    """
    found: dict[str, list[str]] = {}

    def warn(name: str, text: str) -> None:
        found.setdefault(name, []).append(text)

    marked = {name: label for name, label in labels.items() if _foreground(label) > 0}
    for name, label in labels.items():
        if label.copy:
            warn(name, "the label is identical to the image")
        if instances and name not in marked:
            warn(name, "its label contains no object")
        alone = label.numbering.numbers == 1 and label.shares["background"] == 0
        if alone and label.labelled is None:
            warn(name, "its label is one object that covers the whole image")
        present = [class_ for class_, share in label.shares.items() if share > 0]
        if not instances and len(present) < 2:
            warn(name, f"its label is {present[0] if present else 'ignored'} everywhere")
    # One or two odd images are not the config's fault, but most images are.
    for wrong in (_binary, _scattered, _covered):
        texts = {name: text for name, label in marked.items() if (text := wrong(label, instances))}
        if 2 * len(texts) > len(marked):
            for name, text in texts.items():
                warn(name, text)
    return found


def _foreground(label: LabelStatistics) -> float:
    """Share of all classes except the first."""
    return sum(list(label.shares.values())[1:])


def _binary(label: LabelStatistics, instances: bool) -> str:
    if label.numbering.numbers != 1 or label.numbering.regions < 2:
        return ""
    return (
        f"one number, {label.numbering.regions} separate regions: a binary mask? write "
        "label_kind: binary"
    )


def _scattered(label: LabelStatistics, instances: bool) -> str:
    found = label.numbering
    if found.numbers < 2 or 2 * found.scattered < found.numbers:
        return ""
    places = f"{found.scattered} of {found.numbers} numbers occur in several places"
    if instances and (share := _foreground(label)) > COVERED:
        return (
            f"{places}, and the objects cover {share:.0%} of the pixels: are images and labels "
            "swapped?"
        )
    return f"{places}: is each one object? if they stand for classes, write task: semantic"


def _covered(label: LabelStatistics, instances: bool) -> str:
    share = _foreground(label)
    if label.labelled is not None:
        return ""  # nothing says how much of the image objects cover
    if share <= COVERED:
        return ""
    if instances:
        return f"objects cover {share:.0%} of the pixels: is the background 0?"
    question = (
        "are the values swapped?" if len(label.shares) == 2 else "is the first the background?"
    )
    return f"all classes but the first cover {share:.0%} of the pixels: {question}"


def class_table(labels: Mapping[str, LabelStatistics]) -> list[dict[str, Any]]:
    """Name, mean share (0 to 1) and mean intensity of each class over all images; of sparse labels
    also the share without a label.

    Intensities are those of the first channel, as stored in the files; None for a class without
    pixels.
    """
    rows = []
    for name in next(iter(labels.values())).shares if labels else ():
        sums = [label.intensity[name] for label in labels.values()]
        number = sum(n for _, n in sums)
        share = sum(label.shares[name] * _labelled(label) for label in labels.values())
        share /= len(labels)
        mean = sum(value for value, _ in sums) / number if number else None
        rows.append({"name": name, "share": share, "intensity": mean})
    if any(label.labelled is not None for label in labels.values()):
        share = 1 - sum(map(_labelled, labels.values())) / len(labels)
        rows.append({"name": "no label", "share": share, "intensity": None})
    return rows


def _labelled(label: LabelStatistics) -> float:
    return 1.0 if label.labelled is None else label.labelled


def sparse_notice(labels: Mapping[str, LabelStatistics], *, instances: bool) -> list[str]:
    """What scores on sparse labels say, in one line; none if all pixels have a label."""
    found = [label.labelled for label in labels.values() if label.labelled is not None]
    if not found:
        return []
    share = 100 * sum(found) / len(found)
    what = (
        "scores say how many labelled objects are found, and how well; predicted objects that lie "
        "mostly on unlabelled pixels count as neither right nor wrong, so precision, AP, F1 and PQ "
        "see few false objects"
        if instances
        else "scores count labelled pixels alone"
    )
    return [
        f"unlabelled: ignore: {share:.3g} % of the pixels of {how_many(len(found), 'label')} have "
        f"a label, the others are unknown; {what} (docs/metrics.md)"
    ]


def table_line(rows: list[dict[str, Any]]) -> str:
    """Such as ``background 91 % (mean intensity 500), cell 9 % (3500)``."""
    texts: list[str] = []
    for row in rows:
        mean = "none" if row["intensity"] is None else f"{row['intensity']:.4g}"
        what = "mean intensity " if not texts else ""
        texts.append(f"{row['name']} {100 * row['share']:.3g} % ({what}{mean})")
    return ", ".join(texts)
