"""The report's pages: self-contained HTML without scripts, external links or fonts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unet.config.stage_settings import Applied, DatasetTask, ReportSettings
from unet.data.dataset_warnings import read_warnings
from unet.data.records import read_manifest, read_splits
from unet.evaluation.metrics.rows import MetricRow
from unet.paths import ENSEMBLE, Paths, fold_number
from unet.report import collect, console, costs, figures, overlays, score_tables
from unet.report.applied import Predicted, applied_picks, predicted
from unet.report.page_file import render, write_page
from unet.report.paired import Statistics
from unet.report.pooling import BINS_OF, pool, reliability_bins
from unet.report.score_tables import MeanScore, ReportRow
from unet.report.shown_overlays import COLOURS, shown_overlays

# Number of warnings, ids per part of a split, and quarantined files to list; the files have all.
LISTED_WARNINGS = 200


def report_dataset(paths: Paths, dataset: str, settings: ReportSettings) -> list[ReportRow]:
    """Writes ``report.csv`` and ``report.html`` of a dataset and returns the table's rows.

    Raises:
        UserError: the metrics, splits or manifest are missing or unreadable.
    """
    models, applied, section = settings.models, settings.applied, settings.report
    scored = models if applied is None or applied.labelled else ()
    metrics = [
        row for model in scored for row in score_tables.read_metrics(paths.metrics(dataset, model))
    ]
    statistics = Statistics(section.confidence, section.bootstrap, settings.seed)
    rows = score_tables.summarise(metrics, statistics)
    score_tables.write_report(paths.dataset_report_csv(dataset), rows)
    columns = score_tables.columns_for(rows, settings.task)
    chosen = {
        model: collect.picks(metrics, model, columns[0], section.overlays)
        if columns
        else applied_picks(paths, dataset, model, settings.task, section.overlays)
        for model in (models if columns or applied else ())
    }
    page = render(
        "dataset.html.j2",
        dataset=dataset,
        task=settings.task,
        models=models,
        confidence=section.confidence,
        **score_values(metrics, rows, columns, models, statistics),
        **_images(paths, dataset, settings),
        **_runs(paths, dataset, settings),
        overlays=shown_overlays(paths, dataset, settings.task, models, chosen, section.overlays),
        colours=COLOURS,
        config=collect.config_text(paths),
    )
    write_page(paths.dataset_report_html(dataset), page)
    return rows


def score_values(
    metrics: Sequence[MetricRow],
    rows: Sequence[ReportRow],
    columns: Sequence[MeanScore],
    models: Sequence[str],
    statistics: Statistics,
    what: str = "model",
) -> dict[str, Any]:
    """The page's values about scores; ``columns``: the main scores, empty if there are none;
    ``what``: what is compared."""
    grouped = len({row.group for row in metrics if row.group}) > 1
    headline = score_tables.comparison(rows, [(s.class_, s.metric) for s in columns], models)
    verdict, differences = "", []
    if columns:
        main = {model: cells[0] for model, cells in headline.items()}
        verdict = console.verdict(main, columns[0].label, statistics.confidence, grouped, what)
        differences = score_tables.differences(metrics, columns[0], models, statistics)
    return {
        "grouped": grouped,
        "verdict": verdict,
        "columns": columns,
        "headline": headline,
        "differences": differences,
        "everything": _everything(rows, models),
        "reliability": _reliability(metrics, rows, models),
        "strip": _strip(metrics, rows, columns, models),
    }


def _images(paths: Paths, dataset: str, settings: ReportSettings) -> dict[str, Any]:
    """The page's values about the dataset's images."""
    splits = {}
    if settings.applied is None:
        splits = collect.split_counts(read_splits(paths.splits(dataset)), settings.folds)
    records = read_manifest(paths.manifest(dataset))
    objects = collect.objects_fact(records) if settings.task == "instances" else None
    names = enumerate(settings.class_names)
    return {
        "warnings": read_warnings(paths.dataset(dataset), settings.models),
        "facts": [
            *collect.facts(records),
            *([objects] if objects else []),
            *collect.noted_facts(paths, dataset),
        ],
        "classes": [(name, overlays.class_colour(k)) for k, name in names],
        "splits": splits,
        "quarantined": [record for record in records if record.status == "quarantined"],
        "listed": LISTED_WARNINGS,
    }


def _runs(paths: Paths, dataset: str, settings: ReportSettings) -> dict[str, Any]:
    """The page's values about trainings and predictions, and their cost."""
    models, folds, applied = settings.models, settings.folds, settings.applied
    # The trained folds were also tested, unless others are named.
    tested = tuple(map(fold_number, settings.tested))
    cost = costs.stage_costs(paths, dataset, models, [*folds, *tested])
    return {
        **_trainings(paths, dataset, models, folds, () if applied else tested),
        "skipped": collect.skipped(paths, dataset, models, tested or folds),
        "ensemble": ENSEMBLE in tested,
        "applied": predicted(paths, dataset, settings.task, applied) if applied else [],
        "cost": cost,
        "total": costs.total_cost(cost),
        "versions": collect.versions(),
    }


def report_all(paths: Paths, datasets: Mapping[str, DatasetTask]) -> list[ReportRow]:
    """Writes ``report.csv`` and ``report.html`` for all datasets and returns the rows.

    Raises:
        UserError: the report of a dataset is missing or unreadable.
    """
    rows: list[ReportRow] = []
    sections: dict[str, list[dict[str, Any]]] = {}
    cost: list[tuple[str, costs.Cost]] = []
    unscored: list[tuple[str, Predicted]] = []
    for name, entry in datasets.items():
        own = score_tables.read_report(paths.dataset_report_csv(name))
        rows += own
        folds = sorted({k for m in entry.models for k in collect.folds_there(paths, name, m)})
        spent = costs.stage_costs(paths, name, entry.models, folds)
        if spent:
            cost.append((name, costs.total_cost(spent)))
        if not entry.labelled:
            without = Applied(labelled=False, networks=dict.fromkeys(entry.models, ()))
            unscored += [(name, row) for row in predicted(paths, name, entry.task, without)]
            continue
        columns = score_tables.columns_for(own, entry.task)
        cells = score_tables.comparison(own, [(s.class_, s.metric) for s in columns], entry.models)
        by_label = {
            model: {s.label: cell for s, cell in zip(columns, cells[model], strict=True)}
            for model in entry.models
        }
        sections.setdefault(entry.task, []).append(
            {
                "name": name,
                "columns": columns,
                "models": by_label,
                "cells": [cell for own_cells in cells.values() for cell in own_cells],
            }
        )
    score_tables.write_report(paths.report_csv, rows)
    page = render(
        "overall.html.j2",
        sections={task: (_union(task, found), found) for task, found in sections.items()},
        unscored=unscored,
        cost=cost,
        total=costs.total_cost([spent for _, spent in cost]),
        versions=collect.versions(),
        config=collect.config_text(paths),
    )
    write_page(paths.report_html, page)
    return rows


def _union(task: str, found: Sequence[Mapping[str, Any]]) -> list[MeanScore]:
    """The columns of all datasets of one task, each label once, in the task's order."""
    columns = {score.label: score for entry in found for score in entry["columns"]}
    return [columns[s.label] for s in score_tables.HEADLINE[task] if s.label in columns]


def _everything(
    rows: Sequence[ReportRow], models: Sequence[str]
) -> list[tuple[str, str, list[score_tables.Cell]]]:
    """(class, metric, a cell per model) of each metric except the bins of reliability plots."""
    keys = dict.fromkeys((row.class_, row.metric) for row in rows)
    shown = [key for key in keys if not key[1].startswith(BINS_OF)]
    cells = score_tables.comparison(rows, shown, models)
    return [(*key, [cells[model][k] for model in models]) for k, key in enumerate(shown)]


def _reliability(
    metrics: Sequence[MetricRow], rows: Sequence[ReportRow], models: Sequence[str]
) -> dict[str, tuple[str, list[ReportRow]]]:
    """Model -> its reliability plot and its rows of calibration errors; models without are left
    out."""
    found = {}
    for model in models:
        errors = [r for r in rows if r.model == model and r.metric == "ece"]
        table = pool(row for row in metrics if row.model == model)
        bins = {r.class_: b for r in errors if (b := reliability_bins(table, r.class_))}
        if bins:
            found[model] = (figures.figure_uri(figures.reliability_plot(bins)), errors)
    return found


def _strip(
    metrics: Sequence[MetricRow],
    rows: Sequence[ReportRow],
    columns: Sequence[MeanScore],
    models: Sequence[str],
) -> str:
    if not columns:
        return ""
    score = columns[0]
    cells = score_tables.comparison(rows, [(score.class_, score.metric)], models)
    values: dict[str, list[float]] = {model: [] for model in models}
    for row in sorted(metrics, key=lambda row: (row.image, row.fold)):
        if (row.class_, row.metric) == (score.class_, score.metric):
            values[row.model].append(row.value)
    means = {model: cells[model][0] for model in models}
    return figures.figure_uri(figures.strip_plot(values, means, score.label))


def _trainings(
    paths: Paths, dataset: str, models: Sequence[str], folds: Sequence[int], tested: Sequence[int]
) -> dict[str, Any]:
    """``curves``: model -> data URI; ``trainings``: a row per model and fold or ensemble."""
    curves: dict[str, str] = {}
    rows: list[collect.Training] = []
    for model in models:
        found = collect.histories(paths, dataset, model, folds)
        rows += [collect.training(paths, dataset, model, k, r) for k, r in found.items()]
        rows += [collect.training(paths, dataset, model, k, []) for k in tested]
        if found:
            named = {f"fold {fold}": history for fold, history in found.items()}
            curves[model] = figures.figure_uri(figures.fold_curves(named))
    return {"curves": curves, "trainings": rows}
