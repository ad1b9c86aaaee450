"""Sweeps in words: how far the best model is ahead of each of the others, and on how many images
that rests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from unet.data.validation_images import chosen_on, in_words
from unet.errors import how_many
from unet.evaluation.statistics import of_all_pairs, repeated_split_test
from unet.training.choice import Candidate

# Number of names in a sentence.
_NAMED = 5
# Without any variance between folds there is nothing to compare a difference with.
_SAME = "the same difference in each fold"
# Fold -> part -> images.
Splits = Mapping[int, Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class Rival:
    """A model beside the best one.

    Attributes:
        behind: how far its mean score is below that of the best; NaN if it lacks a fold's score.
        p: that this is chance, corrected for all pairs of models; NaN if not known.
        near: whether it may be chance: the best could as well be this one.
        why: why p is not known.
        lacks: folds without a score; such a model is not compared.
    """

    name: str
    behind: float
    p: float
    near: bool
    why: str = ""
    lacks: tuple[int, ...] = ()

    @property
    def known(self) -> bool:
        """Whether the scores tell anything about it."""
        return not math.isnan(self.p)

    @property
    def in_words(self) -> str:
        """Whether the scores tell it from the best one."""
        if self.lacks:
            return f"not compared: no score in {in_words(self.lacks)}"
        if not self.known:
            return f"{self.why}: not known"
        shown = "p < 0.001" if self.p < 0.001 else f"p {self.p:.3f}"
        return f"{'no' if self.near else 'yes'} ({shown})"


def ranked(found: Sequence[Candidate]) -> list[Candidate]:
    """From the best to the worst score, then those without one; ties as they were written."""
    return sorted(found, key=lambda each: math.inf if math.isnan(each.mean) else -each.mean)


def rivals(found: Sequence[Candidate], confidence: float, held_out: float = 0.0) -> list[Rival]:
    """All models but the best one, in the order of :func:`ranked`; none if no model has a score in
    each fold.

    The folds of two models have the same validation images, so the difference of each fold is
    tested, see :func:`unet.evaluation.statistics.repeated_split_test`. The best one is chosen by
    the same scores, so the test is corrected for all pairs of models, not only for those with it.

    Args:
        held_out: validation images per training image.
    """
    folds = sorted({fold for each in found for fold in each.scores})
    lacks = {e.name: tuple(k for k in folds if math.isnan(_score(e, k))) for e in found}
    scored = [each for each in ranked(found) if not lacks[each.name]]
    if not scored:
        return []
    best = scored[0]
    p_of = of_all_pairs(
        {each.name: np.array([each.scores[k] for k in folds]) for each in scored},
        lambda differences: repeated_split_test(differences, held_out),
    )
    why = "one fold" if len(folds) == 1 else _SAME
    made = []
    for each in ranked(found):
        if lacks[each.name]:
            unknown = math.nan, math.nan, False
            made.append(Rival(each.name, *unknown, lacks=lacks[each.name]))
        elif each is not best:
            p = p_of[frozenset((best.name, each.name))]
            made.append(Rival(each.name, best.mean - each.mean, p, p > 1 - confidence, why))
    return made


def _score(candidate: Candidate, fold: int) -> float:
    return candidate.scores.get(fold, math.nan)


def lead(others: Sequence[Rival], folds: int) -> str:
    """The end of a sentence that names the best model: how clearly it is the best."""
    compared = [each for each in others if not each.lacks]
    lacking = [each for each in others if each.lacks]
    left_out = "".join(f" {each.name} is {each.in_words}." for each in lacking[:_NAMED])
    if len(lacking) > _NAMED:
        left_out += f" So are {how_many(len(lacking) - _NAMED, 'other')} (see the table)."
    if not compared:
        return f". No other model has a score in each fold.{left_out}"
    by = f", {compared[0].behind:.3f} above {compared[0].name}"
    if folds == 1:
        return (
            f"{by}. There is one fold, so how much such a difference varies isn't known.{left_out}"
        )
    return f"{by}.{_clearly(compared, folds, len(compared) == len(others))}{left_out}"


def _clearly(compared: Sequence[Rival], folds: int, whole: bool) -> str:
    """Sentences about the models that have a score in each of several folds.

    Args:
        whole: whether these are all.
    """
    near = [each.name for each in compared if each.known and each.near]
    below = [each.name for each in compared if each.known and not each.near]
    alike = [each.name for each in compared if not each.known]
    said = ""
    if near:
        which = _listed(near)
        if whole and len(near) == len(compared) > 1:
            which = f"any of the {len(near)} other models"
        said = (
            f" The {folds} folds don't tell it from {which}, so the choice could as well be "
            f"{'that one' if len(near) == 1 else 'one of those'}: take the cheapest"
            + (" of them." if len(near) > 1 else " of the two.")
        )
    elif below:
        who = _listed(below)
        if whole and not alike:
            who = "the other model" if len(below) == 1 else f"each of the {len(below)} other models"
        verb = "are" if who == _listed(below) and len(below) > 1 else "is"
        said = f" Over the {folds} folds, {who} {verb} clearly below it."
    if alike:
        said += f" It isn't known how clearly it is above {_listed(alike)}: {_SAME}."
    return said


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


def rests_on(splits: Splits, validated_by: str) -> str:
    """On how many validation images the choice rests; "" if that is not known.

    Args:
        splits: of the folds that decide.
        validated_by: of the split.
    """
    counts = {k: {part: len(ids) for part, ids in parts.items()} for k, parts in splits.items()}
    found = chosen_on(counts, validated_by)
    if found is None:
        return ""
    text = f"{'Each fold chose' if found.alone else 'Chosen'} on {found.number}."
    if found.remedy:
        text += f" A score on a single image says little about others: {found.remedy}."
    return text
