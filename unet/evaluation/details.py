"""The details stage: the objects, class confusions and probabilities behind a model's scores.

It writes three tables, image by image, so a run of any size stays in bounded memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from unet.config.details_settings import DetailsSettings
from unet.config.sections import EvaluateSection
from unet.evaluation.blockwise import (
    ScoredPair,
    border_ids,
    confusion_of,
    contingency_of,
    probability_counts_of,
)
from unet.evaluation.fold import Fold
from unet.evaluation.metrics.precision_recall import PROBABILITY_BINS, ProbabilityCounts
from unet.evaluation.object_pairs import ObjectPair, object_pairs
from unet.evaluation.open_folds import open_folds
from unet.paths import fold_name
from unet.tables import table_writer

_IMAGE = ("image", "fold", "group")
MATCH_COLUMNS = (*_IMAGE, *ObjectPair._fields, "pixel_um")
CONFUSION_COLUMNS = (*_IMAGE, "true_class", "pred_class", "pixels")
THRESHOLD_COLUMNS = (*_IMAGE, "class", "threshold", "positives", "negatives")
Rows = list[tuple[Any, ...]]


class DetailTables(NamedTuple):
    """Paths of the three tables of a model."""

    matches: Path
    confusion: Path
    thresholds: Path


def write_details(
    tables: DetailTables,
    folds: Mapping[int, Path],
    prepared_path: Path,
    groups: Mapping[str, str],
    settings: DetailsSettings,
    threads: int = 1,
    block: int | None = None,
) -> dict[str, int]:
    """Writes the tables of all test images of a model, and returns the number of rows by name.

    None appears if there is an error. ``matches`` has no rows for task semantic, ``thresholds``
    none for images without probabilities.

    Args:
        folds: number of a fold -> its segmentation store.
        prepared_path: the store with the labels.
        groups: image id -> group; images that are missing here have none.
        settings: with ``applied``, test images without labels are skipped.
        block: side of the blocks in pixels, None = the store's shards; does not change any value.

    Raises:
        UserError: a store is missing, a test image has no labels, shapes or classes differ.
    """
    opened = open_folds(
        folds, prepared_path, settings.task, settings.class_names, EvaluateSection(),
        settings.applied, threads, block,
    )  # fmt: skip
    names = DetailTables._fields
    columns = (MATCH_COLUMNS, CONFUSION_COLUMNS, THRESHOLD_COLUMNS)
    written = dict.fromkeys(names, 0)
    with ExitStack() as stack:
        appends = [
            stack.enter_context(table_writer(path, header))
            for path, header in zip(tables, columns, strict=True)
        ]
        for fold in opened:
            one = partial(_rows, fold=fold, groups=groups)
            for found in fold.one_by_one(one, "test"):
                for name, append, rows in zip(names, appends, found, strict=True):
                    append(rows)
                    written[name] += len(rows)
    return written


def _rows(pair: ScoredPair, fold: Fold, groups: Mapping[str, str]) -> tuple[Rows, Rows, Rows]:
    """The rows of one image, for each table."""
    where = (fold.threads_within(), fold.block)
    start = (pair.image, fold_name(fold.number), groups.get(pair.image, ""))
    matrix = confusion_of(pair, len(fold.class_names), *where)
    counts = probability_counts_of(pair, fold.class_names, *where)
    objects = _objects(pair, *where) if fold.task == "instances" else []
    return (
        [(*start, *row) for row in objects],
        [(*start, *row) for row in confusion_rows(matrix.tolist(), fold.class_names)],
        [(*start, *row) for row in threshold_rows(counts)],
    )


def _objects(pair: ScoredPair, threads: int, block: int | None) -> Rows:
    true_ids, pred_ids = pair.truth_ids, pair.pred_ids
    if true_ids is None or pred_ids is None:
        raise ValueError(f"image {pair.image} has no instances")
    table = contingency_of(pair, threads, block)
    borders = (border_ids(pair, ids, threads, block) for ids in (true_ids, pred_ids))
    size = pair.pixel_size_um
    pixel = None if size is None else math.prod(size)
    return [(*row[:-1], int(row.touches_border), pixel) for row in object_pairs(table, *borders)]


def confusion_rows(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> Rows:
    """(true class, predicted class, pixels) of each pair of classes that occurs."""
    return [
        (true, pred, n)
        for true, row in zip(names, matrix, strict=True)
        for pred, n in zip(names, row, strict=True)
        if n
    ]


def threshold_rows(counts: Mapping[str, ProbabilityCounts]) -> Rows:
    """(class, lower edge of the bin, positives, negatives) of each bin with pixels."""
    return [
        (name, b / PROBABILITY_BINS, int(found.positives[b]), int(found.negatives[b]))
        for name, found in counts.items()
        for b in range(PROBABILITY_BINS)
        if found.positives[b] or found.negatives[b]
    ]
