"""What a dataset's report is made from; the workflow's rule and the script both ask here."""

from __future__ import annotations

from pathlib import Path

from unet.config.stage_settings import ReportSettings
from unet.paths import Paths, compared_model


def report_inputs(paths: Paths, dataset: str, settings: ReportSettings) -> list[Path]:
    """The files without which there is no report, besides the manifest: splits, training histories,
    and the scores of each model (those of learning curves too) and compared tool, those of the
    same models on each joined dataset; without labels the segmentations."""
    models = settings.models + settings.of_curves
    folds, applied = settings.folds, settings.applied
    found = [paths.history(dataset, model, fold) for model in models for fold in folds]
    found += [] if applied else [paths.splits(dataset)]
    found += [paths.choice(dataset, model, fold) for model in settings.sweeps for fold in folds]
    # Models that were trained on one of the joined datasets alone.
    found += [paths.metrics(name, each) for name, own in settings.joined.items() for each in own]
    if applied is None or applied.labelled:
        compared = map(compared_model, settings.compared)
        return found + [paths.metrics(dataset, model) for model in (*models, *compared)]
    tested = settings.tested or folds
    return found + [paths.segmentation_done(dataset, m, fold) for m in models for fold in tested]


def explaining_tables(paths: Paths, dataset: str, settings: ReportSettings) -> list[Path]:
    """The tables that explain the scores. Results of earlier versions have none of them; their
    report has fewer sections."""
    found: list[Path] = []
    for model in settings.models:
        if model in settings.starts.values():
            continue  # its scores stand beside those of the result, and are not explained
        if settings.applied is None or settings.applied.labelled:
            found += paths.details(dataset, model)
        judged = paths.audit if settings.applied is None else paths.quality
        found.append(judged(dataset, model))
    return found
