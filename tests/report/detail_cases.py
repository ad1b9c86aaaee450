"""Small tables of the details stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from unet.evaluation.details import CONFUSION_COLUMNS, MATCH_COLUMNS, THRESHOLD_COLUMNS
from unet.evaluation.object_pairs import MATCHED, MISSED
from unet.paths import Paths
from unet.report.detail_tables import (
    Details,
    ObjectTable,
    summed,
    summed_confusion,
    summed_thresholds,
)
from unet.report.object_numbers import Sizes, SizeUnit
from unet.report.score_tables import MeanScore
from unet.tables import write_table

NAN = float("nan")
NAMES = ("sky", "wall", "cell")
PX = SizeUnit("px", False)
AP = MeanScore("ap_0.50", "instances", "AP@0.5", "")


Match = tuple[str, str, float, float, float]


def matches_of(rows: Sequence[Match], pixel: float = NAN) -> pd.DataFrame:
    """Matches of (image, kind, IoU, true size, predicted size)."""
    names = ["image", "kind", "iou", "true_px", "pred_px"]
    return pd.DataFrame(list(rows), columns=names).assign(pixel_um=pixel)


def table(*rows: Match, pixel: float = NAN) -> ObjectTable:
    return summed([matches_of(rows, pixel)])


def sizes(values: Any) -> Sizes:
    return Sizes(*np.unique(np.asarray(values, float), return_counts=True))


def details(matches: ObjectTable, images: Sequence[str]) -> Details:
    confusion = pd.DataFrame(
        [(image, "a", "a", 1.0) for image in images],
        columns=["image", "true_class", "pred_class", "pixels"],
    )
    empty = pd.DataFrame(columns=["image", "class", "threshold", "positives", "negatives"])
    return Details(matches, summed_confusion([confusion]), summed_thresholds([empty]))


def write_details(
    paths: Paths,
    dataset: str,
    model: str,
    task: str,
    classes: Sequence[str],
    images: Sequence[tuple[str, str]],
) -> None:
    """The tables behind the scores, made by hand; ``images``: ids and groups."""
    matches: list[tuple[Any, ...]] = []
    for i, g in images if task == "instances" else ():
        matches += [
            (i, 0, g, MATCHED if k % 3 else MISSED, k, k, 0.8, 20 + k, 22 + k, 0, 0.25)
            for k in range(1, 7)
        ]
    confusion = [(i, 0, g, a, b, 5) for i, g in images for a in classes for b in classes]
    bins = [(i, 0, g, name, k / 4, 2 * k, 6 - 2 * k) for i, g in images
            for name in classes[1:] for k in range(4)]  # fmt: skip
    columns = (MATCH_COLUMNS, CONFUSION_COLUMNS, THRESHOLD_COLUMNS)
    rows = (matches, confusion, bins)
    for path, names, own in zip(paths.details(dataset, model), columns, rows, strict=True):
        write_table(path, names, own)
