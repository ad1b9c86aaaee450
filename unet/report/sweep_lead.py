"""Sweeps in words: how far the best model is ahead of each of the others, and on how many images
that rests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from unet.errors import how_many
from unet.evaluation.statistics import repeated_split_test
from unet.training.choice import Candidate

# Number of names in a sentence.
_NAMED = 5
# Fold -> part -> images.
Splits = Mapping[int, Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class Rival:
    """A model beside the best one.

    Attributes:
        behind: how far its mean score is below that of the best.
        p: that this is chance, corrected for the number of rivals; NaN with a single fold.
        near: whether it may be chance: the best could as well be this one.
    """

    name: str
    behind: float
    p: float
    near: bool

    @property
    def in_words(self) -> str:
        """Whether the scores tell it from the best one."""
        if math.isnan(self.p):
            return "one fold: not known"
        shown = "p < 0.001" if self.p < 0.001 else f"p {self.p:.3f}"
        return f"{'no' if self.near else 'yes'} ({shown})"


def ranked(found: Sequence[Candidate]) -> list[Candidate]:
    """From the best to the worst score, then those without one; ties as they were written."""
    return sorted(found, key=lambda each: math.inf if math.isnan(each.mean) else -each.mean)


def rivals(found: Sequence[Candidate], confidence: float, held_out: float = 0.0) -> list[Rival]:
    """All models but the best one, in their order; those that lack a fold's score are left out.

    The folds of two models have the same validation images, so the difference of each fold is
    tested, see :func:`unet.evaluation.statistics.repeated_split_test`.

    Args:
        held_out: validation images per training image.
    """
    scored = [each for each in ranked(found) if not math.isnan(each.mean)]
    if not scored:
        return []
    best = scored[0]
    others = [each for each in scored[1:] if each.scores.keys() == best.scores.keys()]
    table = np.array([[best.scores[k] - e.scores[k] for e in others] for k in best.scores])
    p = repeated_split_test(table, held_out)
    return [
        Rival(each.name, fmean(column), float(value), bool(value > 1 - confidence))
        for each, column, value in zip(others, table.T.tolist(), p, strict=True)
    ]


def lead(others: Sequence[Rival], folds: int) -> str:
    """The end of a sentence that names the best model: how clearly it is the best."""
    if not others:
        return ". No other model has a score in each fold."
    by = f", {others[0].behind:.3f} above {others[0].name}"
    if folds == 1:
        return f"{by}. There is one fold, so how much such a difference varies isn't known."
    near = [each.name for each in others if each.near]
    if not near:
        who = "the other model" if len(others) == 1 else f"each of the {len(others)} other models"
        return f"{by}. Over the {folds} folds, {who} is clearly below it."
    which = _listed(near)
    if len(near) == len(others) > 1:
        which = f"any of the {len(near)} other models"
    return (
        f"{by}. The {folds} folds don't tell it from {which}, so the choice could as well be "
        f"{'that one' if len(near) == 1 else 'one of those'}: take the cheapest"
        + (" of them." if len(near) > 1 else " of the two.")
    )


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:_NAMED])
    if len(names) > _NAMED:
        shown.append(how_many(len(names) - _NAMED, "other"))
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def held_out(splits: Splits) -> float:
    """Validation images per training image, the mean over the folds; 0 if not known."""
    known = [(len(parts["val"]), len(parts["train"])) for parts in splits.values()]
    shares = [val / train for val, train in known if train]
    return fmean(shares) if shares else 0.0


def chosen_on(splits: Splits, alone: bool) -> str:
    """On how many validation images the choice rests; "" if that is not known.

    Args:
        splits: of the folds that decide.
        alone: whether each of several folds chose by its own.
    """
    counts = {fold: len(parts["val"]) for fold, parts in splits.items()}
    if not counts or not all(counts.values()):
        return ""
    least, most = min(counts.values()), max(counts.values())
    if alone:
        of = how_many(most, "validation image") if least == most else f"{least} to {most} images"
        text = f"Each fold chose on {of}"
    else:
        images = {image for parts in splits.values() for image in parts["val"]}
        text = f"Chosen on {how_many(len(images), 'validation image')}"
        if len(counts) > 1:
            text += f", {least}{'' if least == most else f' to {most}'} in each fold"
    single = [fold for fold, count in counts.items() if count == 1]
    if not single:
        return f"{text}."
    where = ""
    if len(single) < len(counts):
        where = f" (a single one in {in_words(single)})"
    return (
        f"{text}{where}. A score on a single image says little about others: write a larger "
        "split.val, or label more images."
    )


def in_words(folds: Sequence[int]) -> str:
    """``fold 1``, ``folds 0, 2``."""
    return f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"
