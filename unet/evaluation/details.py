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
from unet.evaluation.block_parts import (
    TABLE,
    border_ids,
    confusion_matrix,
    counts_by_probability,
)
from unet.evaluation.blockwise import ScoredPair
from unet.evaluation.fold import Fold
from unet.evaluation.metrics.precision_recall import PROBABILITY_BINS, ProbabilityCounts
from unet.evaluation.object_pairs import ObjectPair, object_pairs
from unet.evaluation.open_folds import open_folds
from unet.evaluation.scan import scanned
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
    start = (pair.image, fold_name(fold.number), groups.get(pair.image, ""))
    matrix = confusion_matrix(len(fold.class_names))
    counts = counts_by_probability(fold.class_names)
    borders = (border_ids("truth_ids"), border_ids("pred_ids"))
    instances = fold.task == "instances"
    parts = (matrix, *((TABLE, *borders) if instances else ()), counts)
    with scanned(pair, parts, fold.threads_within(), fold.block) as totals:
        table = totals[matrix].tolist()
        objects: Rows = []
        if instances:
            size = pair.pixel_size_um
            pixel = None if size is None else math.prod(size)
            found = object_pairs(totals[TABLE], *(totals[border] for border in borders))
            objects = [(*row[:-1], int(row.touches_border), pixel) for row in found]
        return (
            [(*start, *row) for row in objects],
            [(*start, *row) for row in confusion_rows(table, fold.class_names)],
            [(*start, *row) for row in threshold_rows(totals[counts])],
        )


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
