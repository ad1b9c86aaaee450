"""What is wrong with a split that is complete and disjoint: copies in several parts, nothing to
learn, hardly any images in a part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unet.config.sections import SplitSection
from unet.data.records import ImageRecord, SplitRecord
from unet.errors import UserError

Groups = Mapping[str, Sequence[str]]

# Copies that are named.
LISTED_PAIRS = 10
# Fewer training images are pointed out.
FEW = 3
# A group that holds more than this share of the images.
HUGE = 0.5


def check_copies(rows: Sequence[SplitRecord], usable: Sequence[ImageRecord]) -> None:
    """Raises:
    UserError: copies of one image in different parts of a fold: scores on an image that was
        trained on mean nothing.
    """
    copies: dict[tuple[str, int | None], list[ImageRecord]] = {}
    for record in usable:
        if record.sha256:
            copies.setdefault((record.sha256, record.page), []).append(record)
    parts = {(row.image, row.fold): row.part for row in rows}
    folds = sorted({row.fold for row in rows})
    torn = []
    for first, *others in copies.values():
        for other in others:
            pairs = [(parts[first.id, fold], parts[other.id, fold]) for fold in folds]
            apart = next((pair for pair in pairs if pair[0] != pair[1]), None)
            if apart is not None:
                torn.append((first.image, other.image, apart))
    if not torn:
        return
    (first_name, other_name, (one, two)), *more = torn
    names = "".join(f"; {a} and {b}" for a, b, _ in more[: LISTED_PAIRS - 1])
    names += f"; and {len(torn) - LISTED_PAIRS} more pairs" if len(torn) > LISTED_PAIRS else ""
    raise UserError(
        f"split: {first_name} and {other_name} are the same file, but one is in {one} and one in "
        f"{two}{', and so are' if more else ''}{names.removeprefix(';')}; scores would be too "
        "good: remove one of each or put both in one group"
    )


def check_learnable(
    rows: Sequence[SplitRecord], records: Sequence[ImageRecord], folds: int
) -> list[str]:
    """Whether the training images of each fold have something to learn.

    Returns:
        warnings: classes that some folds do not train on.

    Raises:
        UserError: no object in the training images of a fold, one class alone, or a class that no
            training image of any fold has.
    """
    # Tables of older versions do not say it.
    shares = {r.id: r.class_shares for r in records}
    lines: list[str] = []
    missing: dict[str, list[int]] = {}
    for fold in range(folds):
        trained = [shares[row.image] for row in rows if (row.fold, row.part) == (fold, "train")]
        known = [share for share in trained if share is not None]
        if not known or len(known) < len(trained):
            continue
        present = [name for name in known[0] if any(share[name] > 0 for share in known)]
        instances = list(known[0]) == ["background", "foreground"]
        if not set(present) - {"background"} and instances:
            raise UserError(
                f"split: fold {fold}: no object in any of its {len(known)} training images; check "
                "the labels (0 is background), or label more images"
            )
        if len(present) < 2 and not instances:
            raise UserError(
                f"split: fold {fold}: all labels of its {len(known)} training images are "
                f"{present[0] if present else 'ignored'}; check the values in classes, or label "
                "more images"
            )
        for name in known[0]:
            if name not in present and not (instances and name == "background"):
                missing.setdefault(name, []).append(fold)
    for name, where in missing.items():
        if len(where) == folds:
            raise UserError(
                f"split: no training image has class {name}; check its value in classes, drop it, "
                "or label images that have it"
            )
        lines.append(f"{_folds(where)}: no training image has class {name}")
    return lines


def degenerate(rows: Sequence[SplitRecord], groups: Groups, settings: SplitSection) -> list[str]:
    """Warnings about parts that are there, but hardly."""
    lines: list[str] = []
    images = sum(map(len, groups.values()))
    largest = max(groups, key=lambda group: len(groups[group]))
    size = len(groups[largest])
    if size > max(1, HUGE * images) and len(groups) > 1:
        lines.append(
            f"group {largest} holds {size} of {images} images ({size / images:.0%}), and stays "
            "together: scores depend on whether it trains or tests"
        )
    said: dict[str, list[int]] = {}
    for fold in range(settings.number):
        parts = [row.part for row in rows if row.fold == fold]
        trained, tested = parts.count("train"), parts.count("test")
        if trained < FEW:
            text = f"trains on {trained} image{'s' if trained > 1 else ''} only"
            said.setdefault(text, []).append(fold)
        asked = _asked(settings)
        off = tested / images
        far = asked is not None and not asked / 2 <= off <= 2 * asked
        if asked is not None and far and abs(off - asked) * images > 1:
            text = f"tests {tested} of {images} images ({off:.0%}); asked for were {asked:.0%}"
            said.setdefault(text, []).append(fold)
    lines += [f"{_folds(where)}: {text}" for text, where in said.items()]
    return lines


def _asked(settings: SplitSection) -> float | None:
    """The share of the images that a fold should test; None where a sheet says who does."""
    if settings.column is not None:
        return None
    if settings.folds is not None and not settings.ensemble:
        return 1 / settings.folds
    return 0.25 if settings.test is None else settings.test


def _folds(numbers: Sequence[int]) -> str:
    return f"fold{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
