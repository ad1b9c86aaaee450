"""How the networks were trained: curves, best epochs, thresholds."""

from __future__ import annotations

from unet.paths import ENSEMBLE
from unet.report import collect, figures
from unet.report.dataset_results import DatasetResults, PageSection


def section(data: DatasetResults) -> PageSection | None:
    if data.settings.applied is not None:
        return None
    curves: dict[str, str] = {}
    rows: list[collect.Training] = []
    where = (data.paths, data.dataset)
    for model in data.models:
        found = collect.histories(*where, model, data.settings.folds)
        rows += [collect.training(*where, model, k, r) for k, r in found.items()]
        rows += [collect.training(*where, model, k, []) for k in data.tested]
        if found:
            named = {f"fold {fold}": history for fold, history in found.items()}
            curves[model] = figures.figure_uri(figures.fold_curves(named))
    ensemble = ENSEMBLE in data.tested
    return data.section("training", "Training", curves=curves, trainings=rows, ensemble=ensemble)
