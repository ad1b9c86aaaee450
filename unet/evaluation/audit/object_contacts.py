"""How sure the model is that two objects are parted, or that they are one: what it predicts where
they meet.

The mean probability of a whole object says nothing about the place where two touch. A model that
does not part neighbours well is unsure there, one that sees a single object is as sure as in its
middle.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from unet.config.heads import IGNORE
from unet.data.tiling import Slices
from unet.evaluation.audit.object_doubts import Suspect
from unet.evaluation.audit.object_overlaps import channel_of, foreground
from unet.evaluation.blockwise import ScoredPair

# Larger boxes are not read: so large an object is judged by its mean probability alone.
MOST_PIXELS = 1 << 24
# Pixels (along axes and diagonals) around each of two objects; where both overlap, they meet.
REACH = 2
# Pieces of an object that are compared, the largest ones.
PIECES = 4


def inside(pair: ScoredPair, region: Slices) -> NDArray[np.float32]:
    """Probability that a pixel lies inside an object and not at its border, float32 [(Z,) Y, X]."""
    p = foreground(pair, region)
    if "border" in pair.head:
        return p - channel_of(pair, pair.head.index("border"), region)
    if "distance" in pair.head:
        # 0 at the edge of an object.
        return p * channel_of(pair, pair.head.index("distance"), region)
    return p


def contact(pair: ScoredPair, suspect: Suspect) -> float:
    """For a merged object how surely the model parts its pieces, for a split one how surely it
    joins them: 0 to 1. The surest pair of pieces counts; 1 if none of them meet.
    """
    label_ids, pred_ids = pair.truth_ids, pair.pred_ids
    if label_ids is None or pred_ids is None:
        return 0.0
    doubt = suspect.doubt
    region = tuple(
        slice(max(0, a - REACH), min(size, b + REACH))
        for a, b, size in zip(doubt.low, doubt.high, pair.truth.shape, strict=True)
    )
    if math.prod(s.stop - s.start for s in region) > MOST_PIXELS:
        return 1.0
    merged = doubt.kind == "merged"
    whole, pieces = (label_ids, pred_ids) if merged else (pred_ids, label_ids)
    one, several = (doubt.labels, doubt.predicted) if merged else (doubt.predicted, doubt.labels)
    valid = np.asarray(pair.truth[region]) != IGNORE
    within = (np.asarray(whole[region]) == one[0]) & valid
    p = inside(pair, region)
    if merged:
        p = 1 - p
    ids = np.asarray(pieces[region])
    near = [_near(ids == k) for k in several[:PIECES]]
    meeting = [a & b & within for a, b in combinations(near, 2)]
    return max((float(p[place].mean()) for place in meeting if place.any()), default=1.0)


def _near(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy import ndimage

    return np.asarray(ndimage.binary_dilation(mask, np.ones((1 + 2 * REACH,) * mask.ndim, bool)))
