"""Precision and recall of a class at every threshold of its probability.

Everything follows from the number of pixels in bins of the probability, which add up over blocks
and images. A threshold is the lower edge of a bin: pixels in this bin and above count as the class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.evaluation.metrics.chunks import chunks

# Enough for a smooth curve; few enough for a table with a row per image, class and bin.
PROBABILITY_BINS = 64


@dataclass(frozen=True, eq=False)
class ProbabilityCounts:
    """Pixels by bin of the probability: int64 [PROBABILITY_BINS] each.

    ``positives`` belong to the class, ``negatives`` do not. Bin b of n has probabilities from b / n
    (included) to (b + 1) / n; 1 is in the last bin.
    """

    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]

    def __add__(self, other: ProbabilityCounts) -> ProbabilityCounts:
        return ProbabilityCounts(self.positives + other.positives, self.negatives + other.negatives)


def probability_counts(
    positive: NDArray[np.bool_], probability: NDArray[np.floating[Any]]
) -> ProbabilityCounts:
    """Counts the pixels of one block.

    positive: whether a pixel belongs to the class, bool [N]. probability: of the class, float [N];
    NaN counts as 0.
    """
    if positive.shape != probability.shape:
        raise ValueError(f"truth has shape {positive.shape}, probability {probability.shape}")
    counts = np.zeros(2 * PROBABILITY_BINS, np.int64)
    for chunk in chunks(positive.size):
        scaled = np.nan_to_num(probability[chunk].astype(np.float64)) * PROBABILITY_BINS
        at = np.clip(scaled, 0, PROBABILITY_BINS - 1).astype(np.intp)
        at += PROBABILITY_BINS * positive[chunk]
        counts += np.bincount(at, minlength=2 * PROBABILITY_BINS)
    return ProbabilityCounts(counts[PROBABILITY_BINS:], counts[:PROBABILITY_BINS])


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """The curve of a class, float [T] each, by falling threshold; thresholds without a pixel
    between them and the next higher one are left out.

    Attributes:
        average_precision: area under the curve as scikit-learn defines it: the sum of precision
            times the step of recall. It does not interpolate, which would be too optimistic (Davis
            and Goadrich 2006, doi 10.1145/1143844.1143874).
        positives: pixels of the class.
    """

    thresholds: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    average_precision: float
    positives: int

    @property
    def f1(self) -> NDArray[np.float64]:
        """Harmonic mean of precision and recall (Dice); 0 where both are 0."""
        total = self.precision + self.recall
        product = 2 * self.precision * self.recall
        return np.divide(product, total, out=np.zeros_like(total), where=total > 0)

    def at(self, threshold: float) -> int:
        """Index of the point that belongs to a threshold: that of the lowest listed threshold that
        is not below it, to the precision of the bins."""
        # The bin that contains the threshold is rounded to its nearer edge.
        edge = round(threshold * PROBABILITY_BINS) / PROBABILITY_BINS
        return max(0, int(np.flatnonzero(self.thresholds >= edge).max(initial=0)))


def precision_recall(counts: ProbabilityCounts) -> PrecisionRecall | None:
    """The curve of the counted pixels; None without pixels of the class.

    Precision = TP / (TP + FP), recall = TP / (TP + FN) of the pixels from each threshold on.
    """
    total = int(counts.positives.sum())
    if not total:
        return None
    true = np.cumsum(counts.positives[::-1])
    false = np.cumsum(counts.negatives[::-1])
    kept = (counts.positives + counts.negatives)[::-1] > 0
    thresholds = (np.arange(PROBABILITY_BINS)[::-1] / PROBABILITY_BINS)[kept]
    precision = true[kept] / (true + false)[kept]
    recall = true[kept] / total
    area = float((np.diff(recall, prepend=0.0) * precision).sum())
    return PrecisionRecall(thresholds, precision, recall, area, total)
