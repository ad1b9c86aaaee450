"""The report's pages: self-contained HTML without scripts, links or fonts from outside."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet.config.sections import ReportSection
from unet.data.dataset_warnings import read_warnings
from unet.data.records import read_manifest, read_splits
from unet.errors import UserError
from unet.evaluation.metrics.rows import MetricRow
from unet.files import replacing
from unet.paths import ENSEMBLE, Paths, fold_name
from unet.report import collect, console, costs, figures, overlays, score_tables
from unet.report.applied import Applied, Predicted, applied_picks, predicted
from unet.report.cuts import Cut
from unet.report.numbers import number
from unet.report.paired import Statistics
from unet.report.pooling import BINS_OF, pool, reliability_bins
from unet.report.score_tables import MeanScore, ReportRow

log = logging.getLogger(__name__)

# Ids listed per part of a split, and quarantined files: the CSV files have them all.
LISTED_WARNINGS = 200
# Beyond this many overlays the panels are made smaller, so that the file stays a few MB.
MANY_OVERLAYS = 12
DETAIL = 512


@dataclass(frozen=True)
class Overlay:
    """A picked image with its panels; ``note`` says at which scale they are."""

    pick: collect.Pick
    note: str
    panels: list[overlays.Panel]


@dataclass(frozen=True)
class DatasetTask:
    """What the overall report needs to know of a dataset."""

    task: str
    models: tuple[str, ...]
    labelled: bool = True


def report_dataset(
    paths: Paths,
    dataset: str,
    section: ReportSection,
    task: str,
    models: Sequence[str],
    folds: Sequence[int],
    class_names: Sequence[str],
    seed: int,
    tested: Sequence[int] = (),
    applied: Applied | None = None,
) -> list[ReportRow]:
    """Writes ``report.csv`` and ``report.html`` of a dataset and returns the table's rows.

    Args:
        folds: that were trained; they were tested, too, unless ``tested`` names another (the
            ensemble).
        applied: where the models are those of other datasets, what is known of them.

    Raises:
        UserError: the metrics, splits or manifest are missing or not readable.
    """
    scored = models if applied is None or applied.labelled else ()
    metrics = [
        row for model in scored for row in score_tables.read_metrics(paths.metrics(dataset, model))
    ]
    statistics = Statistics(section.confidence, section.bootstrap, seed)
    rows = score_tables.summarise(metrics, statistics)
    score_tables.write_report(paths.dataset_report_csv(dataset), rows)
    columns = score_tables.columns_for(rows, task)
    chosen = {
        model: collect.picks(metrics, model, columns[0], section.overlays)
        if columns
        else applied_picks(paths, dataset, model, task, section.overlays)
        for model in (models if columns or applied else ())
    }
    splits = {}
    if applied is None:
        splits = collect.split_counts(read_splits(paths.splits(dataset)), folds)
    records = read_manifest(paths.manifest(dataset))
    objects = collect.objects_fact(records) if task == "instances" else None
    cost = costs.stage_costs(paths, dataset, models, [*folds, *tested])
    grouped = len({row.group for row in metrics if row.group}) > 1
    headline = score_tables.comparison(rows, [(s.class_, s.metric) for s in columns], models)
    verdict = ""
    if columns:
        main = {model: cells[0] for model, cells in headline.items()}
        verdict = console.verdict(main, columns[0].label, section.confidence, grouped)
    page = (
        _environment()
        .get_template("dataset.html.j2")
        .render(
            dataset=dataset,
            warnings=read_warnings(paths.dataset(dataset), models),
            task=task,
            models=models,
            confidence=section.confidence,
            grouped=grouped,
            verdict=verdict,
            facts=[
                *collect.facts(records),
                *([objects] if objects else []),
                *collect.noted_facts(paths, dataset),
            ],
            classes=[(name, overlays.class_colour(k)) for k, name in enumerate(class_names)],
            columns=columns,
            headline=headline,
            differences=score_tables.differences(metrics, columns[0], models, statistics)
            if columns
            else [],
            skipped=collect.skipped(paths, dataset, models, tested or folds),
            everything=_everything(rows, models),
            reliability=_reliability(metrics, rows, models),
            strip=_strip(metrics, rows, columns, models),
            **_trainings(paths, dataset, models, folds, () if applied else tested),
            ensemble=ENSEMBLE in tested,
            applied=[] if applied is None else predicted(paths, dataset, task, applied),
            overlays=_overlays(paths, dataset, task, models, chosen, section.overlays),
            colours={
                "missed": overlays.MISSED,
                "false": overlays.FALSE,
                "swapped": overlays.SWAPPED,
                "matched": overlays.MATCHED,
                "ignored": overlays.IGNORED,
            },
            splits=splits,
            quarantined=[record for record in records if record.status == "quarantined"],
            listed=LISTED_WARNINGS,
            cost=cost,
            total=costs.total_cost(cost),
            versions=collect.versions(),
            config=collect.config_text(paths),
        )
    )
    _write(paths.dataset_report_html(dataset), page)
    return rows


def report_all(paths: Paths, datasets: Mapping[str, DatasetTask]) -> list[ReportRow]:
    """Writes ``report.csv`` and ``report.html`` over all datasets and returns the rows.

    Raises:
        UserError: the report of a dataset is missing or not readable.
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
            without = Applied(False, dict.fromkeys(entry.models, ()))
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
    page = (
        _environment()
        .get_template("overall.html.j2")
        .render(
            sections={task: (_union(task, found), found) for task, found in sections.items()},
            unscored=unscored,
            cost=cost,
            total=costs.total_cost([spent for _, spent in cost]),
            versions=collect.versions(),
            config=collect.config_text(paths),
        )
    )
    _write(paths.report_html, page)
    return rows


def _union(task: str, found: Sequence[Mapping[str, Any]]) -> list[MeanScore]:
    """The columns of all datasets of one task, each label once, in the order of the task's."""
    columns = {score.label: score for entry in found for score in entry["columns"]}
    return [columns[s.label] for s in score_tables.HEADLINE[task] if s.label in columns]


def _write(path: Path, page: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    log.info("wrote %s (%.1f MB)", path, len(page) / 1e6)


def _everything(
    rows: Sequence[ReportRow], models: Sequence[str]
) -> list[tuple[str, str, list[score_tables.Cell]]]:
    """(class, metric, a cell per model) of each metric but the bins of reliability plots."""
    keys = dict.fromkeys((row.class_, row.metric) for row in rows)
    shown = [key for key in keys if not key[1].startswith(BINS_OF)]
    cells = score_tables.comparison(rows, shown, models)
    return [(*key, [cells[model][k] for model in models]) for k, key in enumerate(shown)]


def _reliability(
    metrics: Sequence[MetricRow], rows: Sequence[ReportRow], models: Sequence[str]
) -> dict[str, tuple[str, list[ReportRow]]]:
    """Model -> its reliability plot and its rows of calibration errors; those without are left
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
    """``curves``: model -> data URI; ``trainings``: a row per model and fold, and ensemble."""
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


def _overlays(
    paths: Paths,
    dataset: str,
    task: str,
    models: Sequence[str],
    chosen: Mapping[str, Sequence[collect.Pick]],
    number: int,
) -> dict[str, list[Overlay]]:
    """Model -> its chosen images; models without any are left out."""
    side = 640 if number * len(models) <= MANY_OVERLAYS else 400
    shown: dict[str, list[Overlay]] = {}
    for model in models:
        found = []
        for pick in chosen.get(model, ()):
            found += _overlays_of(paths, dataset, task, model, pick, side)
        if found:
            shown[model] = found
    return shown


def _overlays_of(
    paths: Paths, dataset: str, task: str, model: str, pick: collect.Pick, side: int
) -> list[Overlay]:
    """An image as it is shown: of a volume some planes, each as an image is."""
    found = []
    for cut in collect.cuts(paths, dataset, model, pick):
        found += _overlays_of_plane(paths, dataset, task, model, pick, side, cut)
    return found


def _overlays_of_plane(
    paths: Paths,
    dataset: str,
    task: str,
    model: str,
    pick: collect.Pick,
    side: int,
    cut: Cut | None,
) -> list[Overlay]:
    """The whole plane and, where it is too large to see anything in, its worst part as well."""
    whole = collect.view(paths, dataset, model, task, pick, cut=cut)
    if whole is None:
        return []
    name = "" if cut is None else cut.note
    height, width = (size * whole.stride for size in whole.truth.shape)
    if max(height, width) <= 2 * side or (cut is not None and cut.axis > 0):
        return [Overlay(pick, name, overlays.panels(whole, task, side))]
    step = whole.stride
    y, x = overlays.worst_window(overlays.errors(whole, task), DETAIL // step)
    window = (y * step, x * step, DETAIL)
    detail = collect.view(paths, dataset, model, task, pick, window, cut)
    name = f"{name}, " if name else ""
    found = [Overlay(pick, f"{name}whole image, reduced", overlays.panels(whole, task, side))]
    if detail is not None:
        what = "errors" if whole.labelled else "in it"
        corner = f"{DETAIL} px from y = {window[0]}, x = {window[1]}"
        note = f"{name}detail with the most {what}, {corner}"
        found.append(Overlay(pick, note, overlays.panels(detail, task, side)))
    return found


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        number=number,
        interval=console.interval,
        caution=console.caution,
        arrow=console.arrow,
        duration=console.duration,
        memory=console.memory,
        percent=console.percent,
        whole=console.whole,
        fold=fold_name,
        rgb=lambda colour: "rgb({}, {}, {})".format(*colour),
    )
    return environment


def dataset_tasks(value: Mapping[str, Mapping[str, Any]]) -> dict[str, DatasetTask]:
    """The ``datasets`` entry of the settings of the overall report.

    Raises:
        UserError: an entry lacks its task or its models.
    """
    try:
        return {
            name: DatasetTask(
                entry["task"], tuple(entry["models"]), bool(entry.get("labelled", True))
            )
            for name, entry in value.items()
        }
    except (KeyError, TypeError) as error:
        raise UserError(
            f"--settings: datasets: entry without {error}; write "
            '{"<dataset>": {"task": "semantic", "models": ["<model>"]}}'
        ) from None
