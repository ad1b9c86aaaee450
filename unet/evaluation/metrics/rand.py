"""Adapted Rand error and variation of information of objects, as in scikit-image.

Both use the true foreground pixels (truth != 0) and the predicted segment of each. Predicted
background counts as ONE segment, so missed objects count as merged with each other. Objects
predicted where there are none cost nothing. (`topology.v_rand` and `v_info` instead count each
predicted background pixel as a segment of its own.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unet.evaluation.metrics.contingency import Contingency, marginal
from unet.evaluation.metrics.instance import INSTANCES
from unet.evaluation.metrics.rows import NAN, Score, error, ratio


class Segments(NamedTuple):
    """Sizes in pixels, float64 [..], of overlaps, true and predicted segments within the true
    foreground."""

    pairs: NDArray[np.float64]
    truth: NDArray[np.float64]
    pred: NDArray[np.float64]


def segments(table: Contingency) -> Segments:
    """Restricts a table of ids to the true foreground."""
    inside = table.truth_ids != 0
    counts = table.counts[inside]
    _, truth = marginal(table.truth_ids[inside], counts)
    _, pred = marginal(table.pred_ids[inside], counts)
    return Segments(*(sizes.astype(np.float64) for sizes in (counts, truth, pred)))


def rand_metrics(table: Contingency) -> list[Score]:
    """Scores of class "instances".

    ``adapted_rand_error``: 1 - 2 P / (T + S), with P, T, S the numbers of ordered pairs of
    different pixels that share an overlap, a true, a predicted segment; ``_merge`` P / S,
    ``_split`` P / T (Arganda-Carreras et al. 2015, doi 10.3389/fnana.2015.00142; SNEMI3D).
    ``voi_split`` H(S|T), ``voi_merge`` H(T|S) in bits and their sum ``voi`` (Meila 2007, doi
    10.1016/j.jmva.2006.11.013); NaN without true foreground.
    """
    parts = segments(table)
    both, true, pred = (_ordered_pairs(sizes) for sizes in parts)
    split, merge = variation_of_information(parts)
    pixels = float(parts.truth.sum())
    return [
        error(INSTANCES, "adapted_rand_error", 2 * both, true + pred),
        ratio(INSTANCES, "adapted_rand_merge", both, pred),
        ratio(INSTANCES, "adapted_rand_split", both, true),
        Score(INSTANCES, "voi", split + merge, pixels),
        Score(INSTANCES, "voi_split", split, pixels),
        Score(INSTANCES, "voi_merge", merge, pixels),
    ]


def variation_of_information(parts: Segments) -> tuple[float, float]:
    """(H(S|T), H(T|S)) in bits: how much true segments are split, and merged."""
    total = float(parts.truth.sum())
    if not total:
        return NAN, NAN
    h_both, h_true, h_pred = (_entropy(sizes / total) for sizes in parts)
    return max(0.0, h_both - h_true), max(0.0, h_both - h_pred)


def _ordered_pairs(sizes: NDArray[np.float64]) -> float:
    return float((sizes * (sizes - 1)).sum())


def _entropy(p: NDArray[np.float64]) -> float:
    return float(-(p * np.log2(p)).sum())
