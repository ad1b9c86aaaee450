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
        spread: standard deviation over the folds; NaN for a single one.
        seconds: of its trainings; NaN if unknown.
    """

    candidate: Candidate
    tried: tuple[str, ...]
    chosen: bool
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
    # All folds have the same choice.
    path = data.paths.choice(data.dataset, model, folds[0]) if folds else None
    if path is None or not path.is_file():
        return None
    try:
        found, chosen = from_json(read_json(path))
        best = next(each for each in found if each.name == chosen)
    except (AttributeError, KeyError, StopIteration, TypeError, ValueError):
        raise UserError(f"{path}: damaged; remove it and run again") from None
    spent = costs.stage_costs(data.paths, data.dataset, members, folds)
    seconds = {cost.model: cost.seconds for cost in spent if cost.stage == "train"}
    rows = [
        TriedModel(
            each,
            tuple(map(value_text, each.values.values())),
            each.name == chosen,
            spread(each),
            seconds.get(each.name, math.nan),
        )
        for each in ranked(found)
    ]
    return {
        "model": model,
        "keys": list(best.values),
        "rows": rows,
        "best": best,
        "answer": sentence(found, best),
        "spent": costs.total_cost(c for c in spent if c.stage == "train") if seconds else None,
    }


def ranked(found: Sequence[Candidate]) -> list[Candidate]:
    """From the best to the worst score, then those without one; ties as they were written."""
    return sorted(found, key=lambda each: math.inf if math.isnan(each.mean) else -each.mean)


def spread(candidate: Candidate) -> float:
    """Standard deviation (n - 1) of the scores over the folds; NaN for fewer than two."""
    scores = [score for score in candidate.scores.values() if not math.isnan(score)]
    return stdev(scores) if len(scores) > 1 else math.nan


def sentence(found: Sequence[Candidate], best: Candidate) -> str:
    """What was chosen, and how clearly. The folds of two models have the same validation images, so
    the difference of each fold is looked at."""
    others = [e for e in ranked(found) if e.name != best.name and not math.isnan(e.mean)]
    chosen = f"{best.name} was chosen, with a validation score of {number(best.mean)}"
    if not others:
        return f"{chosen}. No other model has a score in each fold."
    following = others[0]
    differences = _differences(best.scores, following.scores)
    by = f"{chosen}: {fmean(differences):.3f} above {following.name}"
    if len(differences) == 1:
        return f"{by}. There is one fold, so how much such a difference varies isn't known."
    varies = stdev(differences)
    over = f"{by}. Over the folds this difference varies by {varies:.3f} (standard deviation)"
    if fmean(differences) <= varies:
        return f"{over}, so the choice could as well be {following.name}."
    return f"{over}, less than its mean."


def _differences(one: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    return [one[fold] - other[fold] for fold in one]
