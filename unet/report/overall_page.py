"""The report over all datasets: its table and its page, a self-contained file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unet.config.stage_settings import Applied, DatasetTask
from unet.export.mark_colours import COLOURS
from unet.paths import Paths
from unet.provenance import read_made_by
from unet.report import collect, costs, run_record, score_tables
from unet.report.applied import Predicted, predicted
from unet.report.overview import LISTED_WARNINGS, Summary, interval_plots, summary
from unet.report.page_file import render, write_page
from unet.report.score_tables import Cell, MeanScore, ReportRow


def report_all(paths: Paths, datasets: Mapping[str, DatasetTask]) -> list[ReportRow]:
    """Writes ``report.csv`` and ``report.html`` for all datasets and returns the rows.

    Raises:
        UserError: the report of a dataset is missing or unreadable.
    """
    rows: list[ReportRow] = []
    sections: dict[str, list[dict[str, Any]]] = {}
    summaries: list[Summary] = []
    measured: list[tuple[str, Sequence[MeanScore], Mapping[str, Sequence[Cell]]]] = []
    cost: list[tuple[str, costs.Cost]] = []
    unscored: list[tuple[str, Predicted]] = []
    for name, entry in datasets.items():
        own = score_tables.read_report(paths.dataset_report_csv(name))
        rows += own
        folds = sorted({k for m in entry.models for k in collect.folds_there(paths, name, m)})
        spent = _costs(paths, name, entry, folds)
        if spent:
            cost.append((name, costs.total_cost(spent)))
        columns = score_tables.columns_for(own, entry.task)
        names = (*entry.models, *entry.compared)
        cells = score_tables.comparison(own, [(s.class_, s.metric) for s in columns], names)
        summaries.append(summary(paths, name, entry, columns, cells, len(datasets)))
        if not entry.labelled:
            without = Applied(labelled=False, networks=dict.fromkeys(entry.models, ()))
            unscored += [(name, row) for row in predicted(paths, name, entry.task, without)]
            continue
        measured.append((name, columns, cells))
        sections.setdefault(entry.task, []).append(_scores(name, columns, cells, entry.compared))
    score_tables.write_report(paths.report_csv, rows)
    page = render(
        "overall.html.j2",
        summaries=summaries,
        listed=LISTED_WARNINGS,
        colours=COLOURS,
        plots=interval_plots(measured),
        compared={name: entry.compared for name, entry in datasets.items()},
        sections={task: (_union(task, found), found) for task, found in sections.items()},
        unscored=unscored,
        cost=cost,
        total=costs.total_cost([spent for _, spent in cost]),
        versions=collect.versions(),
        config=collect.config_text(paths),
        run=run_record.run_record(paths),
    )
    write_page(paths.report_html, page)
    return rows


def _costs(
    paths: Paths, dataset: str, entry: DatasetTask, folds: Sequence[int]
) -> list[costs.Cost]:
    """With the models of sweeps and learning curves, as the dataset's report recorded them."""
    made_by = read_made_by(paths.dataset_report_csv(dataset)) or {}
    known = {**made_by.get("settings", {}), "models": entry.models, "compared": entry.compared}
    return costs.all_costs(paths, dataset, known, folds)


def _scores(
    name: str,
    columns: Sequence[MeanScore],
    cells: Mapping[str, Sequence[Cell]],
    compared: Sequence[str],
) -> dict[str, Any]:
    """The main scores of a dataset, by model (or tool in ``compared``) and label."""
    return {
        "name": name,
        "columns": columns,
        "compared": compared,
        "models": {
            model: {s.label: cell for s, cell in zip(columns, own, strict=True)}
            for model, own in cells.items()
        },
        "cells": [cell for own in cells.values() for cell in own],
    }


def _union(task: str, found: Sequence[Mapping[str, Any]]) -> list[MeanScore]:
    """The columns of all datasets of one task, each label once, in the task's order."""
    columns = {score.label: score for entry in found for score in entry["columns"]}
    return [columns[s.label] for s in score_tables.HEADLINE[task] if s.label in columns]
