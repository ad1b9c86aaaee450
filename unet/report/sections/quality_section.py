"""Whether the results of models of another dataset can be believed, a line per image."""

from __future__ import annotations

from unet.evaluation.metrics.rows import NAN
from unet.evaluation.quality.poor_scores import POOR
from unet.report.dataset_results import DatasetResults, PageSection
from unet.report.judged import judged_model

# Number of images in the table; quality.csv has all.
LISTED = 50


def section(data: DatasetResults) -> PageSection | None:
    applied = data.settings.applied
    if applied is None:
        return None
    where, task = (data.paths, data.dataset), data.settings.task
    found = [judged_model(*where, model, task, data.metrics) for model in data.models]
    judged = [one for one in found if one is not None]
    if not judged:
        return None
    return data.section(
        "quality", "Can it be believed", judged=judged, listed=LISTED, nan=NAN, poor=POOR
    )
