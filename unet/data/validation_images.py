"""On how many validation images a sweep chooses, in words; the check and the report both ask
here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unet.errors import how_many

# What gives more validation images, by SplitSection.validated_by.
_MORE = {
    "val": "write a larger split.val",
    "sheet": "write val for more images in the sheet",
    "folds": "name more folds in split.run",
}


@dataclass(frozen=True)
class ChosenOn:
    """What a choice by validation scores rests on.

    Attributes:
        alone: whether each of several folds chooses by its own images.
        number: of images, such as "4 validation images, 2 in each fold".
        remedy: what to do about a choice on a single image; "" if none is.
    """

    alone: bool
    number: str
    remedy: str


def chosen_on(parts: Mapping[int, Mapping[str, int]], validated_by: str) -> ChosenOn | None:
    """None if it is not known.

    Args:
        parts: of the folds that decide: fold -> part -> number of images.
        validated_by: see :attr:`unet.config.dataset_sections.SplitSection.validated_by`.
    """
    counts = {fold: numbers.get("val", 0) for fold, numbers in parts.items()}
    if not counts or not all(counts.values()):
        return None
    alone = validated_by != "folds" and len(counts) > 1
    least, most = min(counts.values()), max(counts.values())
    # The folds of an ensemble validate on different images, and choose by the mean of all.
    single = [fold for fold, count in counts.items() if count == 1]
    if alone:
        number = how_many(most, "validation image")
        if least < most:
            number = f"{least} to {number}"
            number += f" (a single one in {in_words(single)})" if single else ""
    else:
        number = how_many(sum(counts.values()), "validation image")
        if len(counts) > 1:
            number += f", {least}{'' if least == most else f' to {most}'} in each fold"
            single = []
    remedy = ""
    if single:
        # With one training image left, none can be moved.
        moved = validated_by in _MORE and all(parts[k].get("train", 0) > 1 for k in single)
        remedy = f"label more images{f', or {_MORE[validated_by]}' if moved else ''}"
    return ChosenOn(alone, number, remedy)


def in_words(folds: Sequence[int]) -> str:
    """``fold 1``, ``folds 0, 2``."""
    return f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"
