"""Versions and config of the run."""

from __future__ import annotations

from unet.report import collect
from unet.report.dataset_results import DatasetResults, PageSection


def section(data: DatasetResults) -> PageSection | None:
    text = collect.config_text(data.paths)
    return data.section("run", "Run", versions=collect.versions(), config=text)
