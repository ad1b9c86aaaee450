"""Metrics of objects, computed from a contingency table of ids (0 = background).

One rule for empty masks: a ratio 0/0 is NaN and is left out of means. With neither true nor
predicted objects every metric but the two counts is NaN; with predicted objects alone, or true
objects alone, AP, F1, PQ and RQ are 0 (see docs/metrics.md for the others).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unet.evaluation.contingency import Contingency, Counts, Ids
from unet.evaluation.pixel import mean_of_defined

THRESHOLDS = (0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95)


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Overlapping pairs of a true and a predicted object, both not background.

    ``truth``, ``pred``: intp [P], indices into ``truth_ids`` [T] and ``pred_ids`` [S];
    ``coverage``: float [P], the fraction of the true object covered by the predicted one;
    ``iou``: float [P], intersection over union of the pair.
    """

    truth_ids: Ids
    pred_ids: Ids
    truth: NDArray[np.intp]
    pred: NDArray[np.intp]
    coverage: NDArray[np.float64]
    iou: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Matches:
    """One-to-one pairs: ids uint64 [M] of truth and prediction, their IoU [M], and counts."""

    truth_ids: Ids
    pred_ids: Ids
    iou: NDArray[np.float64]
    n_true: int
    n_pred: int

    @property
    def tp(self) -> int:
        """Matched pairs."""
        return len(self.iou)

    @property
    def fp(self) -> int:
        """Predicted objects without a partner."""
        return self.n_pred - self.tp

    @property
    def fn(self) -> int:
        """True objects without a partner."""
        return self.n_true - self.tp


def overlaps(table: Contingency) -> Overlaps:
    """IoU and coverage of every overlapping pair of objects.

    Areas are those within the table: an object that reaches into pixels left out of it (not
    valid) counts with its remaining part.
    """
    truth_ids, truth_sizes = _objects(*table.truth_sizes())
    pred_ids, pred_sizes = _objects(*table.pred_sizes())
    both = (table.truth_ids != 0) & (table.pred_ids != 0)
    truth = np.searchsorted(truth_ids, table.truth_ids[both])
    pred = np.searchsorted(pred_ids, table.pred_ids[both])
    inter = table.counts[both]
    union = truth_sizes[truth] + pred_sizes[pred] - inter
    return Overlaps(truth_ids, pred_ids, truth, pred, inter / truth_sizes[truth], inter / union)


def match(table: Contingency, iou_threshold: float) -> Matches:
    """Match true to predicted objects one to one, at IoU >= ``iou_threshold`` (0 < it <= 1).

    Most matches first, as in StarDist and Cellpose, then the largest sum of their IoU. Above 0.5
    an object has at most one candidate, so there is nothing to choose; at or below, groups of
    objects that compete are solved by the Hungarian method (Kuhn 1955), group by group.
    """
    return _match(overlaps(table), iou_threshold)


def instance_metrics(
    table: Contingency, thresholds: Sequence[float] = THRESHOLDS
) -> list[tuple[str, float]]:
    """Rows (metric, value): ap_<threshold>.., ap_mean, f1/precision/recall_0.50, pq, sq, rq,
    seg, n_true, n_pred.

    ap: TP/(TP+FP+FN), the "average precision" of the Data Science Bowl 2018, StarDist
    (arXiv:1806.03535) and Cellpose; pq, sq, rq: panoptic quality at IoU 0.5, its segmentation
    and recognition factors (Kirillov et al., CVPR 2019, eq. 1 and 2); seg: see `seg`.
    """
    pairs = overlaps(table)
    rows: list[tuple[str, float]] = []
    for threshold in thresholds:
        m = _match(pairs, threshold)
        rows.append((f"ap_{threshold:.2f}", _ratio(m.tp, m.tp + m.fp + m.fn)))
    rows.append(("ap_mean", mean_of_defined([value for _, value in rows])))
    half = _match(pairs, 0.5)
    weight = half.tp + 0.5 * half.fp + 0.5 * half.fn
    iou_sum = float(half.iou.sum())
    return [
        *rows,
        ("f1_0.50", _ratio(half.tp, weight)),
        ("precision_0.50", _ratio(half.tp, half.n_pred)),
        ("recall_0.50", _ratio(half.tp, half.n_true)),
        ("pq", _ratio(iou_sum, weight)),
        ("sq", _ratio(iou_sum, half.tp)),
        ("rq", _ratio(half.tp, weight)),
        ("seg", _seg(pairs)),
        ("n_true", float(half.n_true)),
        ("n_pred", float(half.n_pred)),
    ]


def seg(table: Contingency) -> float:
    """SEG of the Cell Tracking Challenge (Maska et al. 2014, doi 10.1093/bioinformatics/btu080).

    A true object is matched by the predicted object that covers MORE than half of it (at most
    one can) and scores their IoU, else 0; SEG is the mean over the true objects, NaN if there is
    none. One predicted object may serve several true ones; false positives cost nothing.
    """
    return _seg(overlaps(table))


def _seg(pairs: Overlaps) -> float:
    return _ratio(float(pairs.iou[pairs.coverage > 0.5].sum()), len(pairs.truth_ids))


def _match(pairs: Overlaps, threshold: float) -> Matches:
    if not 0 < threshold <= 1:
        raise ValueError(f"IoU threshold must be above 0 and at most 1, got {threshold}")
    candidates = np.flatnonzero(pairs.iou >= threshold)
    chosen = _one_to_one(pairs, candidates)
    return Matches(
        pairs.truth_ids[pairs.truth[chosen]],
        pairs.pred_ids[pairs.pred[chosen]],
        pairs.iou[chosen],
        n_true=len(pairs.truth_ids),
        n_pred=len(pairs.pred_ids),
    )


def _one_to_one(pairs: Overlaps, candidates: NDArray[np.intp]) -> NDArray[np.intp]:
    """Those of the candidate pairs that make the best one-to-one matching."""
    truth, pred = pairs.truth[candidates], pairs.pred[candidates]
    n_true, n_pred = len(pairs.truth_ids), len(pairs.pred_ids)
    contested = (np.bincount(truth, minlength=n_true)[truth] > 1) | (
        np.bincount(pred, minlength=n_pred)[pred] > 1
    )
    if not contested.any():
        return candidates
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # Objects joined by a candidate form small groups: the assignment stays small however many
    # objects an image holds.
    size = n_true + n_pred
    graph = coo_array((np.ones(len(truth)), (truth, n_true + pred)), shape=(size, size))
    _, group = connected_components(graph, directed=False)
    of_pair = group[truth]
    order = np.argsort(of_pair, kind="stable")
    bounds = np.flatnonzero(np.diff(of_pair[order])) + 1
    keep = [_assign(pairs, candidates[members]) for members in np.split(order, bounds)]
    return np.sort(np.concatenate(keep))


def _assign(pairs: Overlaps, members: NDArray[np.intp]) -> NDArray[np.intp]:
    """Hungarian method on one connected group of candidate pairs."""
    if len(members) == 1:
        return members
    from scipy.optimize import linear_sum_assignment

    _, rows = np.unique(pairs.truth[members], return_inverse=True)
    _, columns = np.unique(pairs.pred[members], return_inverse=True)
    shape = (int(rows.max()) + 1, int(columns.max()) + 1)
    pair_at = np.full(shape, -1, np.intp)
    pair_at[rows, columns] = members
    gain = np.zeros(shape)
    # All IoUs of a matching sum to less than half a match, so the number of matches comes first.
    gain[rows, columns] = 1 + pairs.iou[members] / (2 * min(shape) + 1)
    found: NDArray[np.intp] = pair_at[linear_sum_assignment(gain, maximize=True)]
    return found[found >= 0]


def _objects(ids: Ids, sizes: Counts) -> tuple[Ids, Counts]:
    return ids[ids != 0], sizes[ids != 0]


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below else float("nan")
