"""The evaluate stage: computes every metric of every test image, one row each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean

from unet.config.stage_settings import EvaluateSettings
from unet.evaluation.families import FAMILIES, seams
from unet.evaluation.fold import Fold, score_image
from unet.evaluation.metrics.rows import METRIC_COLUMNS, MetricRow, Score
from unet.evaluation.open_folds import open_folds
from unet.paths import fold_name
from unet.tables import write_table


def evaluate_model(
    dataset: str,
    model: str,
    folds: Mapping[int, Path],
    prepared_path: Path,
    groups: Mapping[str, str],
    settings: EvaluateSettings,
    threads: int = 1,
    block: int | None = None,
    thresholds: Mapping[tuple[str, str], float] | None = None,
) -> list[MetricRow]:
    """Scores the test images of each fold against their labels.

    Args:
        folds: number of a fold -> its segmentation store. Images whose part is "val" are used only
            to choose thresholds.
        prepared_path: the store with the labels.
        groups: image id -> group; images that are missing here have none.
        settings: with ``applied``, test images without labels are skipped.
        block: side of the blocks in pixels, None = the store's shards; does not change any value.
        thresholds: see :class:`unet.evaluation.fold.Fold`.

    Returns:
        Rows ordered by fold, image and family, then in the order of the family's metrics.

    Raises:
        UserError: a store is missing, a test image has no labels, shapes or classes differ.
    """
    opened = open_folds(
        folds, prepared_path, settings.task, settings.class_names, settings.evaluate,
        settings.applied, threads, block, thresholds,
    )  # fmt: skip
    return [
        MetricRow(dataset, model, fold.number, image, groups.get(image, ""), *score)
        for fold in opened
        for image, scores in zip(fold.ids("test"), _scores(fold), strict=True)
        for score in scores
    ]


def _scores(fold: Fold) -> list[list[Score]]:
    """All scores of each test image."""
    wanted = [make for family, make in FAMILIES.items() if family in fold.settings.metrics]
    scorers = [scorer for make in [*wanted, seams] if (scorer := make(fold)) is not None]
    return fold.each(lambda pair: score_image(pair, scorers, fold), "test")


def chosen_thresholds(rows: Iterable[MetricRow]) -> dict[tuple[str, str], float]:
    """The thresholds that were chosen on validation images: (class, metric) -> mean over the folds.

    Args:
        rows: ``metrics.csv`` of the dataset that the model was trained on.
    """
    by_fold: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        if row.metric.endswith("_threshold"):
            by_fold.setdefault((row.class_, row.metric), {})[row.fold] = row.value
    return {key: fmean(found.values()) for key, found in by_fold.items()}


def write_metrics(path: Path, rows: Iterable[MetricRow]) -> None:
    """Writes ``metrics.csv`` atomically; undefined values are empty cells."""
    named = ([*row[:2], fold_name(row.fold), *row[3:]] for row in rows)
    write_table(path, METRIC_COLUMNS, named)
