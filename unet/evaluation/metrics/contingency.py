"""Sparse contingency tables: the number of pixels of each pair (true id, predicted id).

Every metric of objects or segments is computed from such a table. It is sparse because 20 000 by
20 000 objects would need 3.2 GB. Tables of blocks add up, so an image is evaluated block by block
and is never completely in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.evaluation.metrics.chunks import runs
from unet.prediction.objects.counted_pairs import counted_pairs

Ids = NDArray[np.uint64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Contingency:
    """The distinct pairs of ids that occur together, sorted by (truth id, predicted id).

    ``truth_ids`` and ``pred_ids`` are uint64 [P], ``counts`` int64 [P], all positive (pixels).
    Id 0 is the background, or "no segment".
    """

    truth_ids: Ids
    pred_ids: Ids
    counts: Counts

    @property
    def total(self) -> int:
        """Number of pixels counted."""
        return int(self.counts.sum())

    def truth_sizes(self) -> tuple[Ids, Counts]:
        """Ids of the truth (sorted uint64 [T]) and their sizes in pixels (int64 [T])."""
        return marginal(self.truth_ids, self.counts)

    def pred_sizes(self) -> tuple[Ids, Counts]:
        """Ids of the prediction (sorted uint64 [S]) and their sizes in pixels (int64 [S])."""
        return marginal(self.pred_ids, self.counts)


def contingency(
    truth: NDArray[Any], pred: NDArray[Any], valid: NDArray[np.bool_] | None = None
) -> Contingency:
    """Counts the pairs of ids in two label arrays of the same shape.

    truth, pred: non-negative integers (any integer dtype, or bool) of any equal shape, e.g.
    [(Z,) Y, X]. valid: bool of that shape; only pixels where it is True are counted.

    Ids must mean the same in every block if tables are to be merged.
    Raises ValueError for different shapes, a dtype that is not integer, or negative ids.
    """
    if truth.shape != pred.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {pred.shape}")
    t, p = _flat_ids(truth, "truth"), _flat_ids(pred, "prediction")
    if valid is not None and (valid.shape != truth.shape or valid.dtype != np.bool_):
        raise ValueError(f"valid is {valid.dtype} {valid.shape}, it must be bool {truth.shape}")
    starts, lengths = runs(t, p) if valid is None else runs(t, p, valid.reshape(-1))
    if valid is not None:
        inside = valid.reshape(-1)[starts]
        starts, lengths = starts[inside], lengths[inside]
    run_t, run_p = t[starts], p[starts]
    for name, ids in (("truth", run_t), ("prediction", run_p)):
        if ids.size and ids.min() < 0:
            raise ValueError(f"{name} contains the negative id {ids.min()}")
    return _sum_pairs(run_t.astype(np.uint64), run_p.astype(np.uint64), lengths)


def summed(tables: Iterable[Contingency]) -> Contingency:
    """Adds up the tables of blocks that do not overlap; without tables the result is empty."""
    parts = list(tables)
    return _sum_pairs(
        np.concatenate([np.empty(0, np.uint64), *(table.truth_ids for table in parts)]),
        np.concatenate([np.empty(0, np.uint64), *(table.pred_ids for table in parts)]),
        np.concatenate([np.empty(0, np.int64), *(table.counts for table in parts)]),
    )


def of_counted(table: Contingency) -> Contingency:
    """The table of an image with sparse labels: whole objects, without the predicted ones that do
    not count (:mod:`unet.prediction.objects.counted_pairs`).

    Args:
        table: with UNLABELLED_ID for the truth of unlabelled pixels.
    """
    ids = counted_pairs(table.truth_ids, table.pred_ids, table.counts)
    return _sum_pairs(*ids, table.counts)


def marginal(ids: Ids, counts: Counts) -> tuple[Ids, Counts]:
    """The distinct ids, sorted, and the sum of the counts of each."""
    unique, inverse = np.unique(ids, return_inverse=True)
    sizes = np.zeros(len(unique), np.int64)
    np.add.at(sizes, inverse, counts)
    return unique, sizes


def _flat_ids(labels: NDArray[Any], name: str) -> NDArray[Any]:
    if labels.dtype.kind not in "biu":
        raise ValueError(f"{name} must contain integer ids, found {labels.dtype}")
    flat = labels.reshape(-1)
    return flat.view(np.uint8) if flat.dtype == np.bool_ else flat


def _sum_pairs(truth: Ids, pred: Ids, counts: Counts) -> Contingency:
    """Sorts pairs by (truth, pred) and adds up the counts of equal ones."""
    if not counts.size:
        return Contingency(truth, pred, counts)
    order = _pair_order(truth, pred)
    truth, pred, counts = truth[order], pred[order], counts[order]
    new = np.concatenate([[True], (truth[1:] != truth[:-1]) | (pred[1:] != pred[:-1])])
    first = np.flatnonzero(new)
    return Contingency(truth[first], pred[first], np.add.reduceat(counts, first))


def _pair_order(truth: Ids, pred: Ids) -> NDArray[np.intp]:
    if max(int(truth.max()), int(pred.max())) < 2**32:
        # Sorting one joint key takes about half the time of lexsort, which sorts twice.
        return np.argsort((truth << np.uint64(32)) | pred)
    return np.lexsort((pred, truth))
