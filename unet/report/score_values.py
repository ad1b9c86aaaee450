"""What a page says about scores: tables, verdict, differences and their plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unet.evaluation.metrics.rows import MetricRow
from unet.report import console, figures, score_tables
from unet.report.paired import Statistics
from unet.report.pooling import BINS_OF, pool, reliability_bins
from unet.report.score_tables import MeanScore, ReportRow


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
