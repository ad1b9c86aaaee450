"""Versions and config of the run."""

from __future__ import annotations

from unet.report import collect, run_record
from unet.report.dataset_results import DatasetResults, PageSection


def section(data: DatasetResults) -> PageSection | None:
    text = collect.config_text(data.paths)
    run = run_record.dataset_record(data.paths, data.dataset, data.models)
    return data.section("run", "Run", versions=collect.versions(), config=text, run=run)
