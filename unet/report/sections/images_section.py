"""All test images, from the worst to the best, with what each model predicted."""

from __future__ import annotations

from unet.export.mark_colours import COLOURS
from unet.report.dataset_results import DatasetResults, PageSection
from unet.report.gallery.gallery_cards import gallery
from unet.report.score_tables import better


def section(data: DatasetResults) -> PageSection | None:
    columns = [{"label": score.label, "better": better(score.metric)} for score in data.columns]
    return data.section(
        "images",
        "Images",
        gallery=gallery(data),
        colours=COLOURS,
        about={
            # The masks of other tools come last, and have no part in the mean of the models.
            "models": data.scored,
            "own": len(data.models),
            "columns": columns,
            "task": data.settings.task,
        },
    )
