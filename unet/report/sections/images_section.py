"""Some test images of each model, from the best to the worst score."""

from __future__ import annotations

from unet.report import collect
from unet.report.applied import applied_picks
from unet.report.dataset_results import DatasetResults, PageSection
from unet.report.shown_overlays import COLOURS, shown_overlays


def section(data: DatasetResults) -> PageSection | None:
    settings, number = data.settings, data.settings.report.overlays
    where = (data.paths, data.dataset)
    chosen = {
        model: collect.picks(data.metrics, model, data.columns[0], number)
        if data.columns
        else applied_picks(*where, model, settings.task, number)
        for model in (data.models if data.columns or settings.applied else ())
    }
    shown = shown_overlays(*where, settings.task, data.models, chosen, number)
    return data.section("images", "Images", overlays=shown, colours=COLOURS)
