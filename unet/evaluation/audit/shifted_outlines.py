"""Checks a displaced outline: does it fit the predicted object if it is moved back?"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from unet.config.heads import IGNORE
from unet.evaluation.audit.object_doubts import Suspect
from unet.evaluation.blockwise import ScoredPair

# Larger boxes are not read: the displacement of so large an object is judged by its centre alone.
MOST_PIXELS = 1 << 24
# Share of the mismatch that the move must explain, for full confidence.
FULL = 0.5


def explained(pair: ScoredPair, suspect: Suspect) -> float:
    """How far the displacement explains that label and predicted object differ: 0 to 1.

    The gain of the IoU by moving the label, as a share of what was lacking.
    """
    label_ids, pred_ids = pair.truth_ids, pair.pred_ids
    if label_ids is None or pred_ids is None:
        return 0.0
    step = tuple(round(part) for part in suspect.shift)
    room = max(abs(part) for part in step) + 1
    low, high = suspect.doubt.low, suspect.doubt.high
    region = tuple(
        slice(max(0, a - room), min(size, b + room))
        for a, b, size in zip(low, high, pair.truth.shape, strict=True)
    )
    if math.prod(s.stop - s.start for s in region) > MOST_PIXELS:
        return 1.0
    valid = np.asarray(pair.truth[region]) != IGNORE
    label = (np.asarray(label_ids[region]) == suspect.doubt.labels[0]) & valid
    pred = (np.asarray(pred_ids[region]) == suspect.doubt.predicted[0]) & valid
    before, after = _iou(label, pred), _iou(_moved(label, step), pred)
    return min(1.0, max(0.0, after - before) / (1 - before) / FULL) if before < 1 else 0.0


def _iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    union = int(np.count_nonzero(one | other))
    return int(np.count_nonzero(one & other)) / union if union else 0.0


def _moved(mask: NDArray[np.bool_], step: tuple[int, ...]) -> NDArray[np.bool_]:
    """The mask, moved; what leaves the array is lost."""
    out = np.zeros_like(mask)
    sizes = list(zip(step, mask.shape, strict=True))
    to = tuple(slice(max(s, 0), n + min(s, 0)) for s, n in sizes)
    of = tuple(slice(max(-s, 0), n + min(-s, 0)) for s, n in sizes)
    out[to] = mask[of]
    return out
