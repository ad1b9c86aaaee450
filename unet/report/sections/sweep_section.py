"""Sweeps: the validation scores of all models that were tried, and which one was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from unet.config.swept_names import value_text
from unet.errors import UserError
from unet.files import read_json
from unet.report import costs
from unet.report.dataset_results import DatasetResults, PageSection
from unet.report.numbers import number
from unet.training.choice import Candidate, from_json


@dataclass(frozen=True)
class TriedModel:
    """A row of the table.

    Attributes:
        tried: the values of the candidate, in words.
        chosen: by which folds, in words; empty if by none.
        spread: standard deviation over the folds; NaN for a single one.
        seconds: of its trainings; NaN if unknown.
    """

    candidate: Candidate
    tried: tuple[str, ...]
    chosen: str
    spread: float
    seconds: float


def section(data: DatasetResults) -> PageSection | None:
    shown = [
        made
        for model, members in data.settings.sweeps.items()
        if (made := _shown(data, model, members)) is not None
    ]
    return data.section("sweep", "Sweep", sweeps=shown) if shown else None


def _shown(data: DatasetResults, model: str, members: Sequence[str]) -> dict[str, Any] | None:
    folds = data.settings.folds
    found, picked, alone = _choices(data, model)
    if not picked:
        return None
    spent = costs.stage_costs(data.paths, data.dataset, members, folds)
    seconds = {cost.model: cost.seconds for cost in spent if cost.stage == "train"}
    rows = [
        TriedModel(
            each,
            tuple(map(value_text, each.values.values())),
            _by_whom(each.name, picked, alone),
            spread(each),
            seconds.get(each.name, math.nan),
        )
        for each in ranked(found)
    ]
    best = next(each for each in found if each.name in picked.values())
    return {
        "model": model,
        "keys": list(best.values),
        "rows": rows,
        "answer": by_fold(found, picked) if alone else sentence(found, best),
        "alone": alone,
        "spent": costs.total_cost(c for c in spent if c.stage == "train") if seconds else None,
    }


def _choices(data: DatasetResults, model: str) -> tuple[list[Candidate], dict[int, str], bool]:
    """The candidates with the scores of all folds; fold -> what it chose; and whether each of
    several folds chose by its own score.

    Raises:
        UserError: a file is damaged.
    """
    scores: dict[str, dict[int, float]] = {}
    values: dict[str, Mapping[str, Any]] = {}
    picked: dict[int, str] = {}
    alone = True
    for fold in data.settings.folds:
        path = data.paths.choice(data.dataset, model, fold)
        if not path.is_file():
            continue
        try:
            found, chosen = from_json(read_json(path))
            picked[fold] = next(each.name for each in found if each.name == chosen)
        except (AttributeError, KeyError, StopIteration, TypeError, ValueError):
            raise UserError(f"{path}: damaged; remove it and run again") from None
        for each in found:
            scores.setdefault(each.name, {}).update(each.scores)
            values[each.name] = each.values
            alone = alone and set(each.scores) == {fold}
    candidates = [Candidate(name, values[name], scores[name]) for name in scores]
    return candidates, picked, alone and len(picked) > 1


def _by_whom(name: str, picked: Mapping[int, str], alone: bool) -> str:
    folds = [fold for fold, chosen in picked.items() if chosen == name]
    if not alone or not folds:
        return "chosen" if folds else ""
    return "all folds" if len(folds) == len(picked) else in_words(folds)


def in_words(folds: Sequence[int]) -> str:
    """``fold 1``, ``folds 0, 2``."""
    return f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"


def ranked(found: Sequence[Candidate]) -> list[Candidate]:
    """From the best to the worst score, then those without one; ties as they were written."""
    return sorted(found, key=lambda each: math.inf if math.isnan(each.mean) else -each.mean)


def spread(candidate: Candidate) -> float:
    """Standard deviation (n - 1) of the scores over the folds; NaN for fewer than two."""
    scores = [score for score in candidate.scores.values() if not math.isnan(score)]
    return stdev(scores) if len(scores) > 1 else math.nan


def sentence(found: Sequence[Candidate], best: Candidate) -> str:
    """What all folds together chose, and how clearly."""
    chosen = f"{best.name} was chosen, with a validation score of {number(best.mean)}"
    return chosen + _lead(found, best)


def by_fold(found: Sequence[Candidate], picked: Mapping[int, str]) -> str:
    """What each fold chose by its own score, and how clear the order is by the mean."""
    names = list(dict.fromkeys(picked.values()))
    if len(names) == 1:
        said = f"All {len(picked)} folds chose {names[0]}, each by its own validation images. "
    else:
        of = {name: [fold for fold, chosen in picked.items() if chosen == name] for name in names}
        parts = "; ".join(f"{in_words(of[n])}: {n}" for n in sorted(of, key=lambda n: -len(of[n])))
        said = f"Each fold chose by its own validation images ({parts}). "
    first = ranked(found)[0]
    if math.isnan(first.mean):
        return f"{said}No model has a score in each fold, so their means cannot be compared."
    return f"{said}Over all folds, {first.name} has the best mean: {number(first.mean)}" + _lead(
        found, first
    )


def _lead(found: Sequence[Candidate], best: Candidate) -> str:
    """How far ahead a model is of the next one. The folds of two models have the same validation
    images, so the difference of each fold is looked at."""
    others = [e for e in ranked(found) if e.name != best.name and not math.isnan(e.mean)]
    if not others:
        return ". No other model has a score in each fold."
    following = others[0]
    differences = _differences(best.scores, following.scores)
    by = f", {fmean(differences):.3f} above {following.name}"
    if len(differences) == 1:
        return f"{by}. There is one fold, so how much such a difference varies isn't known."
    varies = stdev(differences)
    over = f"{by}. Over the folds this difference varies by {varies:.3f} (standard deviation)"
    if fmean(differences) <= varies:
        return f"{over}, so the choice could as well be {following.name}."
    return f"{over}, less than its mean."


def _differences(one: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    return [one[fold] - other[fold] for fold in one]
