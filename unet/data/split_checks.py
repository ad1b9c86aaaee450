"""Checks a complete and disjoint split for other mistakes: copies in several parts, nothing to
learn, or hardly any images in a part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unet.config.sections import SplitSection
from unet.data.records import ImageRecord, SplitRecord
from unet.errors import UserError

Groups = Mapping[str, Sequence[str]]

# Number of copies that are listed.
LISTED_PAIRS = 10
# Warn if there are fewer training images.
FEW = 3
# Warn if a group contains more than this share of the images.
HUGE = 0.5


def check_copies(
    rows: Sequence[SplitRecord],
    usable: Sequence[ImageRecord],
    key: str = "split",
    advice: str = "remove one of each or put both in one group",
) -> None:
    """Refuses copies of an image in different parts of a fold: scores on a training image mean
    nothing.

    Args:
        key, advice: the start and the end of the message.

    Raises:
        UserError: there are such copies.
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
        f"{key}: {first_name} and {other_name} are the same file, but one is in {one} and one in "
        f"{two}{', and so are' if more else ''}{names.removeprefix(';')}; scores would be too "
        f"good: {advice}"
    )


def check_learnable(
    rows: Sequence[SplitRecord], records: Sequence[ImageRecord], folds: int
) -> list[str]:
    """Checks that the training images of each fold contain something to learn.

    Returns:
        warnings: classes that are missing from the training images of some folds.

    Raises:
        UserError: the training images of a fold have no object, or a single class; or a class is
            missing from the training images of all folds.
    """
    # None in tables of older versions.
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


def part_warnings(rows: Sequence[SplitRecord], groups: Groups, settings: SplitSection) -> list[str]:
    """Warnings about parts with very few images, or far from the requested share."""
    lines: list[str] = []
    images = sum(map(len, groups.values()))
    largest = max(groups, key=lambda group: len(groups[group]))
    size = len(groups[largest])
    if size > max(1, HUGE * images) and len(groups) > 1:
        lines.append(
            f"group {largest} has {size} of {images} images ({size / images:.0%}) and is never "
            "split up: scores depend on whether it is used to train or to test"
        )
    found: dict[str, list[int]] = {}
    for fold in range(settings.number):
        parts = [row.part for row in rows if row.fold == fold]
        trained, tested = parts.count("train"), parts.count("test")
        if trained < FEW:
            text = f"trains on only {trained} image{'s' if trained > 1 else ''}"
            found.setdefault(text, []).append(fold)
        requested = _requested_share(settings)
        off = tested / images
        far = requested is not None and not requested / 2 <= off <= 2 * requested
        if requested is not None and far and abs(off - requested) * images > 1:
            text = f"tests {tested} of {images} images ({off:.0%}); {requested:.0%} were requested"
            found.setdefault(text, []).append(fold)
    lines += [f"{_folds(where)}: {text}" for text, where in found.items()]
    return lines


def _requested_share(settings: SplitSection) -> float | None:
    """The share of the images that a fold should test; None if a sheet gives the parts."""
    if settings.column is not None:
        return None
    if settings.folds is not None and not settings.ensemble:
        return 1 / settings.folds
    return 0.25 if settings.test is None else settings.test


def _folds(numbers: Sequence[int]) -> str:
    return f"fold{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
