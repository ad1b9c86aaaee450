"""The report of a dataset: its table and its page, a self-contained file."""

from __future__ import annotations

from collections.abc import Callable

from unet.config.stage_settings import ReportSettings
from unet.data.dataset_warnings import read_warnings, write_warnings
from unet.evaluation.audit.exchanged_warnings import exchanged_warnings
from unet.paths import Paths, compared_model
from unet.report import score_tables
from unet.report.dataset_results import DatasetResults, PageSection
from unet.report.failed_models import failed_lines
from unet.report.page_file import render, write_page
from unet.report.paired import Statistics
from unet.report.score_tables import ReportRow
from unet.report.sections import (
    applied_section,
    audit_section,
    confusion_section,
    cost_section,
    curve_section,
    data_section,
    groups_section,
    images_section,
    members_section,
    objects_section,
    plate_section,
    quality_section,
    run_section,
    scores_section,
    start_section,
    sweep_section,
    thresholds_section,
    training_section,
)

# Number of warnings to list; the files have all.
LISTED_WARNINGS = 200
# In the order of the page.
SECTIONS: tuple[Callable[[DatasetResults], PageSection | None], ...] = (
    applied_section.section,
    quality_section.section,
    scores_section.section,
    start_section.section,
    members_section.section,
    groups_section.section,
    objects_section.section,
    plate_section.section,
    confusion_section.section,
    thresholds_section.section,
    images_section.section,
    audit_section.section,
    training_section.section,
    sweep_section.section,
    curve_section.section,
    data_section.section,
    cost_section.section,
    run_section.section,
)


def report_dataset(paths: Paths, dataset: str, settings: ReportSettings) -> list[ReportRow]:
    """Writes ``report.csv`` and ``report.html`` of a dataset, with warnings about models that
    failed and about exchanged labels, and returns the table's rows.

    Raises:
        UserError: the metrics, splits or manifest are missing or unreadable.
    """
    applied, section = settings.applied, settings.report
    scored = settings.models if applied is None or applied.labelled else ()
    tables = [*scored, *map(compared_model, settings.compared)]
    metrics = [
        row for model in tables for row in score_tables.read_metrics(paths.metrics(dataset, model))
    ]
    statistics = Statistics(section.confidence, section.bootstrap, settings.seed)
    rows = score_tables.summarise(metrics, statistics)
    score_tables.write_report(paths.dataset_report_csv(dataset), rows)
    failed = failed_lines(rows, settings.task, settings.models)
    data = DatasetResults(paths, dataset, settings, metrics, rows, statistics)
    spoiled = [*failed, *exchanged_warnings(data.audits)]
    write_warnings(paths.warnings(dataset, "report"), [], first=spoiled)
    page = render(
        "dataset.html.j2",
        dataset=dataset,
        task=settings.task,
        models=settings.models,
        applied=applied is not None,
        splits=data.splits,
        warnings=read_warnings(paths.dataset(dataset), data.scored),
        listed=LISTED_WARNINGS,
        sections=[made for make in SECTIONS if (made := make(data)) is not None],
    )
    write_page(paths.dataset_report_html(dataset), page)
    return rows
