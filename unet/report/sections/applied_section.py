"""What models of another dataset predicted."""

from __future__ import annotations

from unet.report.applied import predicted
from unet.report.dataset_results import DatasetResults, PageSection


def section(data: DatasetResults) -> PageSection | None:
    applied = data.settings.applied
    if applied is None:
        return None
    rows = predicted(data.paths, data.dataset, data.settings.task, applied)
    return data.section("applied", "Predicted", rows=rows)
