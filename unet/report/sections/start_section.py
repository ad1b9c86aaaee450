"""Trainings from trained weights: the start beside the result, and which layers were taken."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unet.errors import UserError, how_many
from unet.files import read_json
from unet.report import score_tables
from unet.report.dataset_results import DatasetResults, PageSection
from unet.report.numbers import number
from unet.report.paired import FEW, YES
from unet.report.score_tables import Cell, MeanScore, better

NAN = math.nan


@dataclass(frozen=True)
class StartedFold:
    """A training from trained weights: validation scores (mean IoU), NaN if unknown.

    Attributes:
        random: whether the start's last layer was random.
    """

    fold: int
    start: float
    best: float
    last: float
    random: bool = False

    @property
    def remark(self) -> str:
        """What became of the start, if the training ended below it or never got above it."""
        if self.best <= self.start and self.random:
            return "no epoch was better than a random last layer"
        if self.best <= self.start:
            return "no epoch was better, so the start's weights were kept"
        return "ended below the start" if self.last < self.start and not self.random else ""


def section(data: DatasetResults) -> PageSection | None:
    if not data.settings.starts:
        return None
    shown = [_shown(data, model, start) for model, start in data.settings.starts.items()]
    return data.section("start", "Start", starts=shown)


def _shown(data: DatasetResults, model: str, start: str) -> dict[str, Any]:
    found = _accounts(data, model)
    keys = [(score.class_, score.metric) for score in data.columns]
    cells = score_tables.comparison(data.rows, keys, (start, model))
    layers: Mapping[str, Any] = next(iter(found.values()), {}).get("layers", {})
    answer, worse = _answer(data, model, start, cells) if data.columns else ("", False)
    return {
        "model": model,
        "start": start,
        "answer": answer,
        "worse": worse,
        "cells": cells,
        "folds": [_fold(fold, about) for fold, about in found.items()],
        "layers": {name: list(layers.get(name, ())) for name in ("adapted", "new", "left_out")},
        "taken": len(layers.get("taken", ())),
    }


def _accounts(data: DatasetResults, model: str) -> dict[int, dict[str, Any]]:
    """Fold -> ``start.json``; folds without one are left out.

    Raises:
        UserError: a file is damaged.
    """
    found = {}
    for fold in data.settings.folds:
        path = data.paths.start(data.dataset, model, fold)
        if not path.is_file():
            continue
        about = read_json(path)
        if not {"layers", "validation_score"} <= about.keys():
            raise UserError(f"{path}: damaged; remove it and run again")
        found[fold] = about
    return found


def _fold(fold: int, about: Mapping[str, Any]) -> StartedFold:
    scores = about["validation_score"]

    def known(key: str) -> float:
        return NAN if scores.get(key) is None else float(scores[key])

    random = bool(about.get("random_outputs"))
    return StartedFold(fold, known("start"), known("best"), known("last"), random)


def _answer(
    data: DatasetResults, model: str, start: str, cells: Mapping[str, list[Cell]]
) -> tuple[str, bool]:
    """Whether the training was worth it by the first score, and whether it made things worse."""
    score: MeanScore = data.columns[0]
    before, after = cells[start][0].mean, cells[model][0].mean
    text = f"{score.label} {number(after)} against {number(before)} of the start"
    found = score_tables.differences(data.metrics, score, (start, model), data.statistics)
    compared = [versus for _, other, versus in found if other != versus.best]
    if not compared or math.isnan(before) or math.isnan(after):
        return f"{model} cannot be compared with its start: {text}.", False
    (versus,) = compared
    interval = f", {100 * data.statistics.confidence:g} % interval {number(versus.low)} to "
    # Without any variation there is no interval.
    interval = "" if math.isnan(versus.low) else f"{interval}{number(versus.high)}"
    by = f"{text} (difference {number(versus.difference)}{interval}; {how_many(versus.n, 'image')})"
    if versus.clear == FEW:
        said = f"Too few test images to tell whether training on improved the start: {by}."
        return said, better(score.metric) * (after - before) < 0
    if versus.clear != YES:
        return f"No clear difference between {model} and its start: {by}.", False
    if versus.best == model:
        return f"{model} is better than its start: {by}.", False
    return f"{model} is worse than its start: {by}. Use {start}, or train more gently.", True
