"""How the networks were trained: curves, best epochs, thresholds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from unet.paths import ENSEMBLE
from unet.report import collect, figures
from unet.report.dataset_results import DatasetResults, PageSection
from unet.report.explained_plot import in_parts, picture
from unet.report.numbers import number


def section(data: DatasetResults) -> PageSection | None:
    if data.settings.applied is not None:
        return None
    histories: dict[str, list[list[dict[str, float]]]] = {}
    rows: list[collect.Training] = []
    where = (data.paths, data.dataset)
    for model in data.models:
        found = collect.histories(*where, model, data.settings.folds)
        rows += [collect.training(*where, model, k, r) for k, r in found.items()]
        rows += [collect.training(*where, model, k, []) for k in data.tested]
        if found:
            histories[model] = list(found.values())
    curves = []
    for part in in_parts(list(histories)):
        figure = figures.training_curves({m: histories[m] for m in part}, data.models)
        curves.append(picture(figure, "Training: loss and validation score", _findings(part, rows)))
    ensemble = ENSEMBLE in data.tested
    return data.section("training", "Training", curves=curves, trainings=rows, ensemble=ensemble)


def _findings(models: Sequence[str], rows: Sequence[collect.Training]) -> list[str]:
    """The best validation score of each model, for readers who do not see the curves."""
    found = []
    for model in models:
        best = [r.best_score for r in rows if r.model == model and not math.isnan(r.best_score)]
        if best:
            several = f" (mean of {len(best)} folds)" if len(best) > 1 else ""
            found.append(f"{model}: best validation score {number(fmean(best))}{several}.")
    return found
