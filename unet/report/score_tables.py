"""Turns the tidy metrics into the report's tables: means with intervals, the best model marked."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from unet.evaluation.metrics.rows import NAN, SEAM_SCORE, MetricRow
from unet.evaluation.metrics.rows import read_metrics as read_metrics
from unet.report.numbers import number
from unet.report.paired import BEST, FEW, NO, YES, Statistics, Versus, versus_best
from unet.report.pooling import pool
from unet.tables import read_table, write_table


@dataclass(frozen=True)
class MeanScore:
    """One of the main metrics. ``class_`` "*" means any class that has the metric."""

    metric: str
    class_: str
    label: str
    meaning: str


_V_RAND = MeanScore(
    "v_rand",
    "*",
    "V_rand",
    "Rand score of the cells after thinning their boundaries: falls when cells are merged or split",
)
_V_INFO = MeanScore(
    "v_info", "*", "V_info", "like V_rand, but based on the information that both cell maps share"
)
_ERROR = MeanScore("pixel_error", "*", "Pixel error", "share of pixels with the wrong class")
_SEAM = MeanScore(
    SEAM_SCORE,
    "",
    "Seam score (1 = none)",
    "jump of the probabilities across tile borders, divided by their jump elsewhere; for images "
    "with several tiles",
)

# The main metrics of each task, in the order of the columns. The first one that was measured ranks
# models and images.
HEADLINE: dict[str, tuple[MeanScore, ...]] = {
    "semantic": (
        MeanScore(
            "iou",
            "foreground-mean",
            "IoU",
            "pixels in both prediction and truth, divided by pixels in either; mean over the "
            "classes after the first",
        ),
        MeanScore(
            "boundary_f1",
            "foreground-mean",
            "Boundary F1",
            "share of the predicted and true outlines that lie within "
            "evaluate.boundary_tolerance of each other (harmonic mean of the two)",
        ),
        _V_RAND,
        _V_INFO,
        _ERROR,
        _SEAM,
    ),
    "instances": (
        MeanScore(
            "ap_0.50",
            "instances",
            "AP@0.5",
            "true positives / (true positives + false positives + misses); an object is found if "
            "its IoU is at least 0.5",
        ),
        MeanScore(
            "f1_0.50", "instances", "F1@0.5", "harmonic mean of precision and recall of objects"
        ),
        MeanScore(
            "pq", "instances", "PQ", "panoptic quality: F1 times the mean IoU of found objects"
        ),
        MeanScore("seg", "instances", "SEG", "mean IoU of all true objects; a miss counts as 0"),
        MeanScore(
            "iou", "foreground", "IoU", "overlap of all foreground pixels, regardless of objects"
        ),
        _V_RAND,
        _V_INFO,
        _SEAM,
    ),
}
# All metrics that are not named here are better when higher.
NEITHER = re.compile(r"n_true|n_pred|.*_threshold|reliability_\d+|confidence_\d+|seam_score")
LOWER_IS_BETTER = re.compile(
    r".*_error|voi|voi_split|voi_merge|(hd95|asd)_(um|px)|ece|brier"
    r"|(split|merged|missed|added)_rate|n_(split|merged|missed|added)|det_(missed|false|merged)"
)


# Metrics that are not in 0..1: counts, distances, bits. None is below 0.
OPEN_ENDED = re.compile(
    r"n_.*|det_(missed|false|merged)|(hd95|asd)_(um|px)|voi|voi_split|voi_merge|brier|seam_score"
)


def bounds(metric: str) -> tuple[float, float]:
    """The smallest and the largest possible value of the metric."""
    return (0.0, math.inf) if OPEN_ENDED.fullmatch(metric) else (0.0, 1.0)


def better(metric: str) -> int:
    """1 if higher values of the metric are better, -1 if lower ones are, 0 if neither."""
    if NEITHER.fullmatch(metric):
        return 0
    return -1 if LOWER_IS_BETTER.fullmatch(metric) else 1


class ReportRow(NamedTuple):
    """One row of ``report.csv``.

    ``mean`` over ``n`` test images with its interval; ``pooled``: the metric of the pixels or
    objects of all images together (unet/report/pooling.py); ``best`` .. ``p``: this model compared
    with the best one, image by image (unet/report/paired.py, `Versus`); ``units``: number of
    independent units behind the mean, groups or else images; ``far``: how many of these are far
    from the rest (`far_apart`).
    """

    dataset: str
    model: str
    class_: str
    metric: str
    mean: float
    low: float
    high: float
    n: int
    pooled: float = NAN
    best: str = ""
    difference: float = NAN
    difference_low: float = NAN
    difference_high: float = NAN
    clear: str = ""
    p: float = NAN
    units: int = 0
    far: int = 0


REPORT_COLUMNS = tuple(name.rstrip("_") for name in ReportRow._fields)
_TEXTS = ("dataset", "model", "class", "metric", "best", "clear")
_NUMBERS = tuple(name for name in REPORT_COLUMNS if name not in _TEXTS)


def read_report(path: Path) -> list[ReportRow]:
    """Reads ``report.csv``."""
    found = read_table(path, "report", REPORT_COLUMNS, numbers=_NUMBERS)
    for name in ("n", "units", "far"):
        found[name] = found[name].astype(int)
    return [ReportRow(*row) for row in found[list(REPORT_COLUMNS)].itertuples(index=False)]


def write_report(path: Path, rows: Iterable[ReportRow]) -> None:
    """Writes ``report.csv``; undefined values are empty cells."""
    write_table(path, REPORT_COLUMNS, rows, digits=6)


def summarise(metrics: Iterable[MetricRow], statistics: Statistics) -> list[ReportRow]:
    """A row for each model, class and metric, in the order in which they first appear."""
    parts: dict[tuple[str, str, str, str], list[MetricRow]] = {}
    whole: dict[tuple[str, str], list[MetricRow]] = {}
    rivals: dict[tuple[str, str, str], dict[str, list[MetricRow]]] = {}
    for row in metrics:
        part = parts.setdefault((row.dataset, row.model, row.class_, row.metric), [])
        part.append(row)
        whole.setdefault((row.dataset, row.model), []).append(row)
        rivals.setdefault((row.dataset, row.class_, row.metric), {})[row.model] = part
    pooled = {key: pool(rows) for key, rows in whole.items()}
    versus = {
        key: versus_best(rows_of, better(key[2]), statistics, bounds(key[2]))
        for key, rows_of in rivals.items()
    }
    result = []
    for (dataset, model, class_, metric), own in parts.items():
        interval = statistics.interval(own, bounds(metric))
        summary = ReportRow(dataset, model, class_, metric, *interval[:4])
        beside = versus[dataset, class_, metric][model]
        result.append(
            summary._replace(
                pooled=pooled[dataset, model][class_, metric].value,
                best=beside.best,
                difference=beside.difference,
                difference_low=beside.low,
                difference_high=beside.high,
                clear=beside.clear,
                p=beside.p,
                units=interval.units,
                # No warning for metrics that are neither good nor bad, such as object counts.
                far=interval.far if better(metric) else 0,
            )
        )
    return result


@dataclass(frozen=True)
class Cell:
    """A mean with its interval, to show; the rest as in `ReportRow`.

    ``best``: clearly ahead of every other model; ``tied``: the difference to the best model may be
    chance, or is too small for the shown digits.
    """

    mean: float = NAN
    low: float = NAN
    high: float = NAN
    n: int = 0
    best: bool = False
    pooled: float = NAN
    clear: str = ""
    tied: bool = False
    units: int = 0
    far: int = 0


def columns_for(rows: Sequence[ReportRow], task: str) -> list[MeanScore]:
    """The task's main metrics that were measured, with their classes filled in."""
    found: list[MeanScore] = []
    for score in HEADLINE[task]:
        classes = [
            row.class_
            for row in rows
            if row.metric == score.metric and score.class_ in ("*", row.class_)
        ]
        if classes:
            found.append(replace(score, class_=classes[0]))
    return found


def comparison(
    rows: Iterable[ReportRow], keys: Sequence[tuple[str, str]], models: Sequence[str]
) -> dict[str, list[Cell]]:
    """Per model the cells of ``keys`` (class, metric); the best model is marked, if there is one.

    Nothing is marked if only one model was measured, if neither direction is better, or if the best
    model is not ahead of every other one by more than chance.
    """
    found = {(row.model, row.class_, row.metric): row for row in rows}
    table: dict[str, list[Cell]] = {model: [] for model in models}
    same = [field.name for field in fields(Cell) if field.name in ReportRow._fields]
    same.remove("best")  # in `ReportRow` it is the name of the best model
    for key in keys:
        measured = {m: found[m, *key] for m in models if (m, *key) in found}
        tied = _tied(measured)
        leads = not any(tied.values()) and any(r.clear == YES for r in measured.values())
        for model in models:
            cell = Cell()
            if row := measured.get(model):
                values: dict[str, Any] = {name: getattr(row, name) for name in same}
                best = leads and row.clear == BEST
                cell = Cell(**values, best=best, tied=tied[model])
            table[model].append(cell)
    return table


def _tied(rows: Mapping[str, ReportRow]) -> dict[str, bool]:
    """Model -> whether it may be as good as the best one by a metric."""
    best = [number(row.mean) for row in rows.values() if row.clear == BEST]
    return {
        model: row.clear in (NO, FEW) or (row.clear == YES and number(row.mean) in best)
        for model, row in rows.items()
    }


def differences(
    metrics: Sequence[MetricRow], score: MeanScore, models: Sequence[str], statistics: Statistics
) -> list[tuple[str, str, Versus]]:
    """(best model, other model, their comparison) for one score, see `versus_best`."""
    rows_of: dict[str, list[MetricRow]] = {model: [] for model in models}
    for row in metrics:
        if row.model in rows_of and (row.class_, row.metric) == (score.class_, score.metric):
            rows_of[row.model].append(row)
    found = versus_best(rows_of, better(score.metric), statistics, bounds(score.metric))
    return [(v.best, model, v) for model, v in found.items() if v.n]
