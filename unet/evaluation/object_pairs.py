"""Every true and predicted object of an image with its partner, from the table of their ids."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unet.evaluation.metrics.contingency import Contingency
from unet.evaluation.metrics.instance import Overlaps, match, overlaps

# An object is found if the IoU with its partner is at least this.
FOUND_IOU = 0.5
MATCHED, MISSED, FALSE = "matched", "missed", "false"


class ObjectPair(NamedTuple):
    """A true object, or a predicted one that matches none.

    Attributes:
        kind: MATCHED (found at IoU >= 0.5, one to one), MISSED (a true object that is not), FALSE
            (a predicted object that matches no true one).
        true_id, pred_id: its own id and that of its partner: the matched object, else the one with
            the highest IoU; None: it overlaps no object.
        iou: with the partner; 0 without one.
        true_px, pred_px: sizes in pixels without ignored ones; None without that object.
        touches_border: whether the object reaches the image's border (for a matched pair, the true
            one).
    """

    kind: str
    true_id: int | None
    pred_id: int | None
    iou: float
    true_px: int | None
    pred_px: int | None
    touches_border: bool


def object_pairs(
    table: Contingency, true_border: Collection[int] = (), pred_border: Collection[int] = ()
) -> Iterator[ObjectPair]:
    """A row per true object by id, then a row per predicted object that matches none.

    So MATCHED + MISSED rows are the true objects, MATCHED + FALSE rows the predicted ones.

    Args:
        table: pixels of each pair of true and predicted ids.
        true_border, pred_border: ids of the objects that touch the image's border.
    """
    pairs, matches = overlaps(table), match(table, FOUND_IOU)
    partner = dict(zip(matches.truth_ids.tolist(), matches.pred_ids.tolist(), strict=True))
    taken = set(partner.values())
    best_pred = _best(pairs, pairs.truth, pairs.pred, len(pairs.truth_ids))
    best_true = _best(pairs, pairs.pred, pairs.truth, len(pairs.pred_ids))
    true_ids, pred_ids = pairs.truth_ids.tolist(), pairs.pred_ids.tolist()
    true_sizes, pred_sizes = pairs.truth_sizes.tolist(), pairs.pred_sizes.tolist()
    pred_at = {each: k for k, each in enumerate(pred_ids)}
    matched_iou = dict(zip(matches.truth_ids.tolist(), matches.iou.tolist(), strict=True))
    for k, own in enumerate(true_ids):
        if own in partner:
            other = pred_at[partner[own]]
            iou, kind = matched_iou[own], MATCHED
        else:
            other, iou = best_pred[k]
            kind = MISSED
        pred = (None, None) if other < 0 else (pred_ids[other], pred_sizes[other])
        border = own in true_border
        yield ObjectPair(kind, own, pred[0], iou, true_sizes[k], pred[1], border)
    for k, own in enumerate(pred_ids):
        if own not in taken:
            other, iou = best_true[k]
            true = (None, None) if other < 0 else (true_ids[other], true_sizes[other])
            border = own in pred_border
            yield ObjectPair(FALSE, true[0], own, iou, true[1], pred_sizes[k], border)


def _best(
    pairs: Overlaps, of: NDArray[np.intp], other: NDArray[np.intp], number: int
) -> list[tuple[int, float]]:
    """Index of the partner with the highest IoU, and that IoU, per object; (-1, 0) without one.

    Args:
        of, other: intp [P], indices of the objects and of their partners in each pair.
        number: of objects.
    """
    found = [(-1, 0.0)] * number
    # By rising IoU, so that the last one of an object stays; of equal ones the first listed.
    for at in np.lexsort((-np.arange(len(of)), pairs.iou)).tolist():
        found[of[at]] = (int(other[at]), float(pairs.iou[at]))
    return found
