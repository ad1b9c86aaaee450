"""Learning curves: the score against the number of training images, and what more would bring."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from unet.data.subsets import subset_of
from unet.data.tested_units import least_units
from unet.evaluation import power_law
from unet.evaluation.metrics.rows import NAN, MetricRow
from unet.evaluation.power_law import Outlook
from unet.evaluation.statistics import Interval
from unet.report import collect, costs, figures, score_tables
from unet.report.dataset_results import DatasetResults, PageSection
from unet.report.paired import units
from unet.report.score_tables import Cell, MeanScore

# The improvement that the sentence is about.
GOAL = 0.02


class Point(NamedTuple):
    """A model of a curve.

    ``images``: training images, the mean over the folds; ``validation``: mean of the folds' best
    validation scores; ``rows``: the main score of each test image; ``cell``: their mean.
    """

    model: str
    share: float
    images: float
    validation: float
    rows: Sequence[MetricRow]
    cell: Cell


class FittedImages(NamedTuple):
    """The test images that the fit rests on: those with a score at every point.

    ``units``: independent ones, ``word``: what these are; ``folds``: those that test them, so
    trainings per point; ``unscored``: other test images, without a score at some point.
    """

    units: int
    word: str
    folds: int = 1
    unscored: int = 0


def section(data: DatasetResults) -> PageSection | None:
    curves = data.settings.curves
    if not curves or not data.columns:
        return None
    score = data.columns[0]
    shown = [_shown(model, _points(data, curve, score), data, score)
             for model, curve in curves.items()]  # fmt: skip
    folds = [*data.settings.folds, *data.tested]
    spent = costs.stage_costs(data.paths, data.dataset, data.settings.of_curves, folds)
    return data.section(
        "curve",
        "More images?",
        score=score,
        curves=shown,
        confidence=data.settings.report.confidence,
        reach=power_law.REACH,
        spent=costs.total_cost(spent) if spent else None,
        folds=max(curve["tested"].folds for curve in shown),
        ensemble=bool(data.tested),
    )


def _points(data: DatasetResults, curve: Mapping[str, float], score: MeanScore) -> list[Point]:
    """The models of a curve that were scored, by rising number of images."""
    groups = {record.id: record.group for record in data.records}
    found = []
    for model, share in curve.items():
        path = data.paths.metrics(data.dataset, model)
        if not path.exists():
            continue
        wanted = (score.class_, score.metric)
        rows = [r for r in score_tables.read_metrics(path) if (r.class_, r.metric) == wanted]
        images = [
            len(subset_of(parts["train"], groups, share, data.settings.seed, fold))
            for fold, parts in data.splits.items()
        ]
        interval = data.statistics.interval(rows, score_tables.bounds(score.metric))
        mean = sum(images) / len(images) if images else NAN
        found.append(
            Point(model, share, mean, _validation(data, model), rows, _cell(interval, score))
        )
    return sorted(found, key=lambda point: (point.images, point.share))


def _validation(data: DatasetResults, model: str) -> float:
    histories = collect.histories(data.paths, data.dataset, model, data.settings.folds)
    best = [figures.best_epoch(rows) for rows in histories.values()]
    scores = [row["val_score"] for row in best if row is not None]
    return sum(scores) / len(scores) if scores else NAN


def _cell(interval: Interval, score: MeanScore) -> Cell:
    far = interval.far if score_tables.better(score.metric) else 0
    return Cell(*interval[:4], units=interval.units, far=far)


def _shown(
    model: str, points: Sequence[Point], data: DatasetResults, score: MeanScore
) -> dict[str, Any]:
    found, tested = _outlook(points, data, score)
    sign = score_tables.better(score.metric) or 1
    cells = [(point.images, point.cell) for point in points]
    plot = figures.learning_curve_plot(cells, found, sign, score.label)
    return {
        "model": model,
        "points": points,
        "tested": tested,
        "answer": sentence(found, tested, score, sign, data.statistics.confidence),
        "law": found.law,
        "sign": sign,
        "plot": figures.figure_uri(plot),
    }


def _outlook(
    points: Sequence[Point], data: DatasetResults, score: MeanScore
) -> tuple[Outlook, FittedImages]:
    """What more images would bring, and the test images that say so."""
    sign = score_tables.better(score.metric) or 1
    tables = [{(r.image, r.fold): r for r in point.rows if r.value == r.value} for point in points]
    # Only images that were scored at every point: the same ones for all.
    shared = sorted(set.intersection(*map(set, tables))) if tables else []
    all_tested = {(row.image, row.fold) for point in points for row in point.rows}
    values = np.array([[sign * table[key].value for table in tables] for key in shared])
    rows = [tables[-1][key] for key in shared]
    of_rows = units(rows)
    found = power_law.outlook(
        [point.images for point in points],
        values.reshape(len(shared), len(points)),
        of_rows,
        [row.fold for row in rows],
        top=max(sign * end for end in score_tables.bounds(score.metric)),
        goal=GOAL,
        confidence=data.statistics.confidence,
        draws=data.statistics.draws,
        seed=data.statistics.seed,
        bottom=min(sign * end for end in score_tables.bounds(score.metric)),
    )
    grouped = any(kind == "group" for kind, _ in of_rows)
    word = "groups of test images" if grouped else "test images"
    folds = len({row.fold for row in rows})
    return found, FittedImages(len(set(of_rows)), word, folds, len(all_tested) - len(shared))


def sentence(
    found: Outlook, tested: FittedImages, score: MeanScore, sign: int, confidence: float
) -> str:
    """The answer to "would more images help?"."""
    goal = f"{'+' if sign > 0 else '−'}{found.goal:g} {score.label}"
    change = "add" if sign > 0 else "take"
    towards = "to" if sign > 0 else "off"
    times = f"{power_law.REACH:g} times as many training images"
    if found.verdict == power_law.MORE:
        low, high = (rounded(end) for end in found.needed[1:])
        return (
            f"About {rounded(found.needed.middle)} more training images for {goal} (between {low} "
            f"and {high}). Today there are {rounded(found.images)}."
        )
    if found.verdict == power_law.HARDLY:
        return (
            f"More images of this kind hardly help: {times} would {change} at most "
            f"{found.gain.high:.3f} {towards} {score.label}."
        )
    if found.reason == power_law.POINTS:
        why = (
            "three models with different numbers of training images and scores are needed; write "
            "more shares in learning_curve, or add images"
        )
    elif found.reason == power_law.FLOOR:
        why = (
            "the score is next to the worst at every number of images, so the model has not "
            "learned the task. Train for more steps, or look at images and labels"
        )
    elif found.reason == power_law.UNITS:
        why = (
            f"the score rests on {tested.units} {tested.word}, and at least "
            f"{least_units(confidence)} are needed. With split.folds every image is tested"
        )
    elif found.reason == power_law.FALLS:
        why = (
            "the score gets worse with more images, so something else than their number decides. "
            "Train for more steps, or test on more images"
        )
    else:
        why = (
            f"{_open(found, score, sign)}. More test images, more folds (split.folds) or more "
            "shares make this range narrower"
        )
    return f"Can't tell what more images would bring: {why}."


def _open(found: Outlook, score: MeanScore, sign: int) -> str:
    """What the points leave open where the range is too wide; agrees with the fit that is shown."""
    low, high = (f"{end:.3f}" for end in found.gain[1:])
    label, law = score.label, found.law
    change, towards = ("add", "to") if sign > 0 else ("take", "off")
    times = f"{power_law.REACH:g} times as many training images"
    would = f"{times} would {change} between {low} and {high} {towards} {label}"
    if law is not None and not law.b:
        return f"the fit is flat, but the points are too uneven to rule a gain out: {would}"
    gain = math.inf
    if law is not None:
        gain = float(law.at(power_law.REACH * found.images) - law.at(found.images))
    if gain < found.goal:
        return (
            f"by the fit, {times} would {change} only {gain:.3f} {towards} {label}, but the points "
            f"allow for {low} to {high}"
        )
    if math.isfinite(found.needed.low):
        goal = f"{'+' if sign > 0 else '−'}{found.goal:g} {label}"
        return f"{goal} may take {rounded(found.needed.low)} more images, or far more: {would}"
    return would


def rounded(images: float) -> str:
    """A number of images, rounded up, with two digits that count above 100."""
    whole = max(1, math.ceil(images - 1e-9))
    digits = 10 ** max(0, len(str(whole)) - 2) if whole > 100 else 1
    return f"{-(-whole // digits) * digits:,}"
