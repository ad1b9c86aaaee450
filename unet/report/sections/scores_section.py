"""The scores of the models on the test images, and how they compare."""

from __future__ import annotations

from typing import NamedTuple

from unet.report import collect
from unet.report.dataset_results import DatasetResults, PageSection
from unet.report.score_values import score_values


class ComparedTool(NamedTuple):
    """A tool whose masks are compared, and how many test images have one that could be scored."""

    name: str
    scored: int
    tested: int


def compared_tools(data: DatasetResults) -> list[ComparedTool]:
    """The tools of ``datasets.<name>.compare``."""
    images: dict[str, set[tuple[str, int]]] = {name: set() for name in data.scored}
    for row in data.metrics:
        images[row.model].add((row.image, row.fold))
    tested = len(set().union(*images.values()))
    return [ComparedTool(name, len(images[name]), tested) for name in data.compared]


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
        compared=compared_tools(data),
        **{
            **score_values(data.metrics, data.rows, data.columns, data.scored, data.statistics),
            "models": data.scored,
        },
    )
