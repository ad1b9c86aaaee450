"""The scores of the models on the test images, and how they compare."""

from __future__ import annotations

from unet.report import collect
from unet.report.dataset_results import DatasetResults, PageSection
from unet.report.score_values import score_values


def section(data: DatasetResults) -> PageSection | None:
    settings = data.settings
    if not data.columns and settings.applied is not None:
        return None
    folds = data.tested or settings.folds
    return data.section(
        "scores",
        "Scores",
        confidence=settings.report.confidence,
        skipped=collect.skipped(data.paths, data.dataset, data.models, folds),
        **score_values(data.metrics, data.rows, data.columns, data.models, data.statistics),
    )
