"""Metrics of objects, computed from a contingency table of ids (0 = background).

One rule for empty masks: a ratio 0/0 is NaN and is left out of means. Without true and predicted
objects every metric except the two counts is NaN. If only one of them has objects, AP, F1, PQ and
RQ are 0 (see docs/metrics.md for the others).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from unet.evaluation.metrics.contingency import Contingency, Counts, Ids
from unet.evaluation.metrics.pixel import mean_of_defined
from unet.evaluation.metrics.rows import NAN, Score, count, ratio

INSTANCES = "instances"
IOU_THRESHOLDS = (0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95)


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Overlapping pairs of a true and a predicted object, without the background.

    ``truth``, ``pred``: intp [P], indices into ``truth_ids`` [T] and ``pred_ids`` [S];
    ``truth_sizes`` and ``pred_sizes``: their sizes in pixels; ``pixels``: int64 [P], size of the
    overlap.
    """

    truth_ids: Ids
    pred_ids: Ids
    truth_sizes: Counts
    pred_sizes: Counts
    truth: NDArray[np.intp]
    pred: NDArray[np.intp]
    pixels: Counts

    @property
    def coverage(self) -> NDArray[np.float64]:
        """Fraction of the true object that the predicted one covers: float [P]."""
        return self.pixels / self.truth_sizes[self.truth]

    @cached_property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of the pair: float [P]."""
        union = self.truth_sizes[self.truth] + self.pred_sizes[self.pred] - self.pixels
        return self.pixels / union


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
    """Every overlapping pair of objects.

    Sizes are those in the table: an object that reaches into pixels that were left out (not valid)
    counts with its remaining part.
    """
    truth_ids, truth_sizes = _objects(*table.truth_sizes())
    pred_ids, pred_sizes = _objects(*table.pred_sizes())
    both = (table.truth_ids != 0) & (table.pred_ids != 0)
    truth = np.searchsorted(truth_ids, table.truth_ids[both])
    pred = np.searchsorted(pred_ids, table.pred_ids[both])
    return Overlaps(truth_ids, pred_ids, truth_sizes, pred_sizes, truth, pred, table.counts[both])


def match(table: Contingency, iou_threshold: float) -> Matches:
    """Matches true and predicted objects one to one, at IoU >= ``iou_threshold`` (0 < it <= 1).

    Among all matchings it takes those with the most pairs, as StarDist and Cellpose do, and of
    these the one with the largest sum of IoUs. Above 0.5 an object has at most one candidate. At or
    below 0.5 the Hungarian method (Kuhn 1955) solves each group of competing objects.
    """
    return _match(overlaps(table), iou_threshold)


def instance_metrics(table: Contingency) -> list[Score]:
    """Scores of the objects: ap_<threshold>.., ap_mean, f1/precision/recall_0.50, pq, sq, rq,
    seg, det and its counts, n_true, n_pred.

    ap: TP/(TP+FP+FN), the "average precision" of the Data Science Bowl 2018, StarDist
    (arXiv:1806.03535) and Cellpose; pq, sq, rq: panoptic quality at IoU 0.5, its segmentation
    and recognition factors (Kirillov et al., CVPR 2019, eq. 1 and 2); seg, det: see there.
    """
    pairs = overlaps(table)
    rows: list[Score] = []
    for threshold in IOU_THRESHOLDS:
        m = _match(pairs, threshold)
        rows.append(_row(f"ap_{threshold:.2f}", m.tp, m.tp + m.fp + m.fn))
    rows.append(Score(INSTANCES, "ap_mean", mean_of_defined([row.value for row in rows])))
    half = _match(pairs, 0.5)
    weight = half.tp + 0.5 * half.fp + 0.5 * half.fn
    iou_sum = float(half.iou.sum())
    found = detection(pairs)
    return [
        *rows,
        _row("f1_0.50", half.tp, weight),
        _row("precision_0.50", half.tp, half.n_pred),
        _row("recall_0.50", half.tp, half.n_true),
        _row("pq", iou_sum, weight),
        _row("sq", iou_sum, half.tp),
        _row("rq", half.tp, weight),
        _row("seg", _seg_sum(pairs), half.n_true),
        Score(INSTANCES, "det", found.score(half.n_true)),
        count(INSTANCES, "det_missed", found.missed),
        count(INSTANCES, "det_false", found.false),
        count(INSTANCES, "det_merged", found.merged),
        count(INSTANCES, "n_true", half.n_true),
        count(INSTANCES, "n_pred", half.n_pred),
    ]


@dataclass(frozen=True)
class Detection:
    """Errors of detection as the Cell Tracking Challenge counts them.

    A true object is found if a predicted one covers MORE than half of it. ``missed``: true objects
    that are not found (FN); ``false``: predicted objects that find none (FP); ``merged``: further
    true objects that a predicted object finds after the first one (NS, the splits it needs).
    """

    missed: int
    false: int
    merged: int

    def score(self, n_true: int) -> float:
        """DET: 1 - min(AOGM-D, AOGM-D0) / AOGM-D0; NaN without true objects.

        AOGM-D = 5 NS + 10 FN + FP; AOGM-D0 is that of an empty prediction, 10 ``n_true``
        (weights of Matula et al. 2015, doi 10.1371/journal.pone.0144959).
        """
        if not n_true:
            return NAN
        cost = 5 * self.merged + 10 * self.missed + self.false
        return 1 - min(cost, 10 * n_true) / (10 * n_true)


def detection(pairs: Overlaps) -> Detection:
    """The detection errors of one image."""
    finders = pairs.pred[pairs.coverage > 0.5]
    different = len(np.unique(finders))
    return Detection(
        missed=len(pairs.truth_ids) - len(finders),
        false=len(pairs.pred_ids) - different,
        merged=len(finders) - different,
    )


def _seg_sum(pairs: Overlaps) -> float:
    """Sum over the true objects for SEG of the Cell Tracking Challenge (Maska et al. 2014, doi
    10.1093/bioinformatics/btu080), which is the mean.

    A true object is matched by the predicted object that covers MORE than half of it (there is at
    most one) and scores their IoU, else 0. One predicted object may match several true ones; false
    positives cost nothing.
    """
    return float(pairs.iou[pairs.coverage > 0.5].sum())


def _row(metric: str, above: float, below: float) -> Score:
    return ratio(INSTANCES, metric, above, below)


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
    """The candidate pairs that form the best one-to-one matching."""
    truth, pred = pairs.truth[candidates], pairs.pred[candidates]
    n_true, n_pred = len(pairs.truth_ids), len(pairs.pred_ids)
    contested = (np.bincount(truth, minlength=n_true)[truth] > 1) | (
        np.bincount(pred, minlength=n_pred)[pred] > 1
    )
    if not contested.any():
        return candidates
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # Objects that share candidates form small groups, so each assignment stays small however many
    # objects the image has.
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
    # All IoUs together weigh less than half a match, so the number of matches comes first.
    gain[rows, columns] = 1 + pairs.iou[members] / (2 * min(shape) + 1)
    found: NDArray[np.intp] = pair_at[linear_sum_assignment(gain, maximize=True)]
    return found[found >= 0]


def _objects(ids: Ids, sizes: Counts) -> tuple[Ids, Counts]:
    return ids[ids != 0], sizes[ids != 0]
