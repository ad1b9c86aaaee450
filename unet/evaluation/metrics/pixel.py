"""Metrics of class maps, computed from a confusion matrix that can be summed over blocks.

One rule for empty masks: a ratio 0/0 is NaN and is left out of means; there are no other special
cases. If a class is absent from both maps, everything is NaN; only from the truth: precision, IoU
and Dice are 0, recall is NaN; only from the prediction: recall, IoU and Dice are 0, precision is
NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.config.heads import IGNORE
from unet.evaluation.metrics.chunks import runs
from unet.evaluation.metrics.rows import Score, ratio

ALL = "all"
FOREGROUND_MEAN = "foreground-mean"


def confusion(
    truth: NDArray[Any], pred: NDArray[Any], num_classes: int, ignore: int | None = IGNORE
) -> NDArray[np.int64]:
    """Pixels of each pair of classes: int64 [K, K], rows the truth, columns the prediction.

    truth, pred: integer class maps of equal shape [(Z,) Y, X]; pixels whose truth is ``ignore``
    are left out, whatever is predicted there. Matrices of blocks add up.
    Raises ValueError for different shapes or a class outside 0..K-1.
    """
    if truth.shape != pred.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {pred.shape}")
    for name, classes in (("truth", truth), ("prediction", pred)):
        if classes.dtype.kind not in "biu":
            raise ValueError(f"{name} must contain integer classes, found {classes.dtype}")
    t, p = truth.reshape(-1), pred.reshape(-1)
    starts, lengths = runs(t, p)
    t, p = t[starts], p[starts]
    if ignore is not None:
        keep = t != ignore
        t, p, lengths = t[keep], p[keep], lengths[keep]
    for name, classes in (("truth", t), ("prediction", p)):
        if classes.size and (classes.max() >= num_classes or classes.min() < 0):
            raise ValueError(
                f"{name} contains classes {classes.min()}..{classes.max()}, "
                f"expected 0..{num_classes - 1}"
            )
    joint = t.astype(np.intp) * num_classes + p
    counts = np.bincount(joint, lengths, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def pixel_metrics(matrix: NDArray[np.int64], names: Sequence[str]) -> list[Score]:
    """Scores of a confusion matrix [K, K] with the K class names.

    ``pixel_error`` (class "all"): the fraction of pixels with a wrong class. Per class, with
    TP, FP, FN in pixels: ``precision`` TP/(TP+FP), ``recall`` TP/(TP+FN), ``iou`` (Jaccard 1912)
    TP/(TP+FP+FN), ``dice`` (Dice 1945) 2TP/(2TP+FP+FN). Class "foreground-mean": mean of iou and
    dice over the classes after the first whose value is not NaN.
    """
    if matrix.shape != (len(names), len(names)):
        raise ValueError(f"confusion matrix {matrix.shape} does not fit {len(names)} classes")
    total = float(matrix.sum())
    rows = [ratio(ALL, "pixel_error", total - float(np.trace(matrix)), total)]
    for index, name in enumerate(names):
        tp = float(matrix[index, index])
        predicted, true = float(matrix[:, index].sum()), float(matrix[index].sum())
        rows += [
            ratio(name, "precision", tp, predicted),
            ratio(name, "recall", tp, true),
            ratio(name, "iou", tp, predicted + true - tp),
            ratio(name, "dice", 2 * tp, predicted + true),
        ]
    return rows + foreground_means(rows, names, ("iou", "dice"))


def foreground_means(
    rows: Sequence[Score], names: Sequence[str], metrics: Sequence[str]
) -> list[Score]:
    """Class "foreground-mean" of each metric: the mean over the classes after the first."""
    return [
        Score(
            FOREGROUND_MEAN,
            metric,
            mean_of_defined(
                [r.value for r in rows if r.metric == metric and r.class_ in names[1:]]
            ),
        )
        for metric in metrics
    ]


def mean_of_defined(values: NDArray[np.float64] | Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN if there are none (without numpy's warning)."""
    array = np.asarray(values, np.float64)
    array = array[~np.isnan(array)]
    return float(array.mean()) if array.size else float("nan")
