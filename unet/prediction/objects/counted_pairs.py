"""Overlaps of true and predicted objects where only some objects have a label.

Labels of some objects say nothing about the pixels without a label: what is predicted there is
neither right nor wrong. The rules:

- A labelled object is labelled as a whole. So sizes and IoU are those of whole objects, and what a
  predicted object covers beyond the labelled one counts against it (as SEG of the Cell Tracking
  Challenge does with its sparse labels: Maska et al. 2014, doi 10.1093/bioinformatics/btu080).
- A predicted object of which more than half lies on unlabelled pixels does not count (as segments
  on void pixels in panoptic quality: Kirillov et al., CVPR 2019, section 4.2), unless it covers
  more than half of a labelled object: then it is this object, drawn too large or merged.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# The id that unlabelled pixels have among the true ones; no object has it with sparse labels.
UNLABELLED_ID = 2**32 - 1

Ids = NDArray[np.uint64]
Counts = NDArray[np.int64]


def counted_pairs(truth: Ids, pred: Ids, counts: Counts) -> tuple[Ids, Ids]:
    """True and predicted ids of the overlaps, with 0 for unlabelled pixels and for predicted
    objects that do not count.

    Args:
        truth, pred: uint64 [P], ids that overlap, each pair once; 0 is the background,
            UNLABELLED_ID in ``truth`` stands for unlabelled pixels.
        counts: int64 [P], pixels of each pair.

    Returns:
        the ids in the same order; pairs may now occur more than once.
    """
    unlabelled = truth == UNLABELLED_ID
    labelled = (truth != 0) & ~unlabelled
    _, truth_at = np.unique(truth, return_inverse=True)
    pred_ids, pred_at = np.unique(pred, return_inverse=True)
    size = _sums(pred_at, counts)
    unknown = _sums(pred_at[unlabelled], counts[unlabelled], len(size))
    finds = np.zeros(len(size), bool)
    finds[pred_at[labelled & (2 * counts > _sums(truth_at, counts)[truth_at])]] = True
    counted = finds | (2 * unknown <= size)
    zero = np.uint64(0)
    return np.where(unlabelled, zero, truth), np.where(counted, pred_ids, zero)[pred_at]


def _sums(at: NDArray[np.intp], counts: Counts, least: int = 0) -> Counts:
    """Sum of the counts at each index."""
    found: Any = np.zeros(max(int(at.max(initial=-1)) + 1, least), np.int64)
    np.add.at(found, at, counts)
    return np.asarray(found)
