"""Sweeps: the validation scores of all models that were tried, and which one was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import Any

from unet.config.swept_names import value_text
from unet.data.validation_images import in_words
from unet.errors import UserError
from unet.files import read_json
from unet.report import costs
from unet.report.dataset_results import DatasetResults, PageSection
from unet.report.numbers import number
from unet.report.sweep_lead import Rival, held_out, lead, ranked, rests_on, rivals
from unet.training.choice import Candidate, from_json, none_improved, nothing_chosen


@dataclass(frozen=True)
class TriedModel:
    """A row of the table.

    Attributes:
        tried: the values of the candidate, in words.
        chosen: by which folds, in words; empty if by none.
        spread: standard deviation over the folds; NaN for a single one.
        seconds: of its trainings; NaN if unknown.
        behind: how far it is below the best one; NaN for that one itself.
        apart: whether it is clearly below the best one, in words.
        at_start: in which folds it kept the weights of its start, in words; empty if in none.
    """

    candidate: Candidate
    tried: tuple[str, ...]
    chosen: str
    spread: float
    seconds: float
    behind: float
    apart: str
    at_start: str


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
    decide = {fold: parts for fold, parts in data.splits.items() if fold in picked}
    others = rivals(found, data.statistics.confidence, held_out(decide))
    beside = {each.name: each for each in others}
    nothing = nothing_chosen(found)
    rows = [
        TriedModel(
            each,
            tuple(map(value_text, each.values.values())),
            "" if nothing else _by_whom(each.name, picked, alone),
            spread(each),
            seconds.get(each.name, math.nan),
            beside[each.name].behind if each.name in beside else math.nan,
            beside[each.name].in_words if each.name in beside else "",
            _in_folds(each),
        )
        for each in ranked(found)
    ]
    best = next(each for each in found if each.name in picked.values())
    answer = by_fold(found, picked, others) if alone else sentence(best, others)
    if remark := none_improved(found):
        answer = f"{remark[0].upper()}{remark[1:]}."
    return {
        "model": model,
        "members": len(members),
        "keys": list(best.values),
        "rows": rows,
        "answer": answer,
        "chosen_on": "" if nothing else rests_on(decide, data.settings.validated_by),
        "kept_start": any(row.at_start for row in rows),
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
    at_start: dict[str, set[int]] = {}
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
            at_start.setdefault(each.name, set()).update(each.at_start)
            alone = alone and set(each.scores) == {fold}
    folds = sorted({fold for own in scores.values() for fold in own})
    candidates = [
        # A fold that does not know the model is a fold without a score: its mean is of no use.
        Candidate(
            name,
            values[name],
            {fold: own.get(fold, math.nan) for fold in folds},
            tuple(sorted(at_start[name])),
        )
        for name, own in scores.items()
    ]
    return candidates, picked, alone and len(picked) > 1


def _by_whom(name: str, picked: Mapping[int, str], alone: bool) -> str:
    folds = [fold for fold, chosen in picked.items() if chosen == name]
    if not alone or not folds:
        return "chosen" if folds else ""
    return "all folds" if len(folds) == len(picked) else in_words(folds)


def _in_folds(candidate: Candidate) -> str:
    kept = candidate.at_start
    return "yes" if len(kept) == len(candidate.scores) > 0 else in_words(kept) if kept else ""


def spread(candidate: Candidate) -> float:
    """Standard deviation (n - 1) of the scores over the folds; NaN for fewer than two."""
    scores = [score for score in candidate.scores.values() if not math.isnan(score)]
    return stdev(scores) if len(scores) > 1 else math.nan


def sentence(best: Candidate, others: Sequence[Rival]) -> str:
    """What all folds together chose, and how clearly."""
    chosen = f"{best.name} was chosen, with a validation score of {number(best.mean)}"
    return chosen + lead(others, len(best.scores))


def by_fold(found: Sequence[Candidate], picked: Mapping[int, str], others: Sequence[Rival]) -> str:
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
    mean = f"Over all folds, {first.name} has the best mean: {number(first.mean)}"
    return f"{said}{mean}{lead(others, len(first.scores))}"
