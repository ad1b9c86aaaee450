"""Confusion of classes and curves of their probabilities, pooled over the test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unet.evaluation.metrics.precision_recall import (
    PROBABILITY_BINS,
    PrecisionRecall,
    ProbabilityCounts,
    precision_recall,
)
from unet.report.numbers import number

if TYPE_CHECKING:
    from unet.report.detail_tables import ConfusionTable, ThresholdTable


@dataclass(frozen=True, eq=False)
class ClassConfusion:
    """Pixels of each true and predicted class over all test images.

    Attributes:
        names: in the order of the class index.
        pixels: int64 [true, predicted].
        images: number of images.
    """

    names: tuple[str, ...]
    pixels: NDArray[np.int64]
    images: int

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of the true class's pixels, float64 [true, predicted]; NaN for a class that does
        not occur."""
        total = self.pixels.sum(axis=1, keepdims=True).astype(float)
        empty = np.full(self.pixels.shape, np.nan)
        shares: NDArray[np.float64] = np.divide(self.pixels, total, out=empty, where=total > 0)
        return shares


def class_confusion(table: ConfusionTable, names: Sequence[str]) -> ClassConfusion:
    """The table as an array; classes that are not in ``names`` are left out."""
    pixels = np.zeros((len(names), len(names)), np.int64)
    columns = (table.pixels[name] for name in ("true_class", "pred_class", "pixels"))
    for true, pred, n in zip(*columns, strict=True):
        if true in names and pred in names:
            pixels[names.index(true), names.index(pred)] = int(n)
    return ClassConfusion(tuple(names), pixels, len(table.images))


def confusion_finding(model: str, found: ClassConfusion) -> str:
    """The true class that is most often predicted as another one."""
    shares = found.shares.copy()
    np.fill_diagonal(shares, np.nan)
    if np.isnan(shares).all() or np.nanmax(shares) == 0:
        return f"{model}: no pixel has the wrong class."
    true, pred = np.unravel_index(np.nanargmax(shares), shares.shape)
    total = int(found.pixels[true].sum())
    share = shares[true, pred]
    text = f"{100 * share:.0f}" if share >= 0.095 else f"{100 * share:.2g}"
    return (
        f"{model}: the most frequent confusion is {found.names[true]} predicted as "
        f"{found.names[pred]}, {text} % of the true pixels of {found.names[true]} (n = {total:,} "
        f"pixels in {found.images} image{'' if found.images == 1 else 's'})."
    )


def class_curve(table: ThresholdTable, name: str) -> PrecisionRecall | None:
    """The curve of a class over all test images; None without pixels."""
    rows = table.bins[table.bins["class"] == name]
    at = np.asarray((rows["threshold"] * PROBABILITY_BINS).round(), np.intp)
    counts = [
        np.bincount(at, np.asarray(rows[side]), PROBABILITY_BINS).astype(np.int64)
        for side in ("positives", "negatives")
    ]
    return precision_recall(ProbabilityCounts(*counts))


def curve_finding(
    model: str, name: str, curve: PrecisionRecall, thresholds: Sequence[float], images: int
) -> str:
    """Average precision, and how far the chosen threshold is from the best one.

    Args:
        thresholds: those of the folds, in their order; none if the most probable class is taken.
    """
    n = f"n = {curve.positives:,} pixels in {images} image{'' if images == 1 else 's'}"
    text = f"{model}: average precision of {name} {number(curve.average_precision)}"
    if not thresholds:
        return f"{text} ({n})."
    chosen = float(np.median(thresholds))
    at, best = curve.at(chosen), int(np.argmax(curve.f1))
    each = [f"{threshold:.2f}" for threshold in thresholds]
    where = (
        f"the chosen threshold of {chosen:.2f}"
        if len(set(each)) == 1
        else f"{chosen:.2f}, the median of the thresholds of the folds ({', '.join(each)}),"
    )
    return (
        f"{text}; at {where} precision {number(curve.precision[at])}, "
        f"recall {number(curve.recall[at])}, F1 {number(curve.f1[at])}; the highest F1 of any "
        f"threshold is {number(curve.f1[best])} at {curve.thresholds[best]:.2f} ({n})."
    )
