"""Classifies the errors of objects: split, merged, missed, added.

The classes of Hoover et al. 1996 (doi 10.1109/34.506791, section 3) with a tolerance just above
one half, so that "belongs to" is never ambiguous. With o the pixels of an overlap, t and s the
sizes of a true and a predicted object:

- a true object and a predicted one match if o > t/2 and o > s/2;
- a true object is *split* if two or more predicted objects lie in it (o > s/2 each) and together
  cover more than half of it;
- true objects are *merged* if two or more lie in one predicted object (o > t/2 each) and together
  cover more than half of it;
- a true object that has no match and is neither split nor merged is *missed*; a predicted object
  that has no match and neither splits nor merges is *added*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unet.evaluation.metrics.contingency import Contingency
from unet.evaluation.metrics.instance import INSTANCES, overlaps
from unet.evaluation.metrics.rows import Score, count, ratio


@dataclass(frozen=True)
class ObjectErrors:
    """Number of true objects that are ``split``, ``merged`` or ``missed``, of predicted objects
    that are ``added``, and of all objects. An object can be matched and split, or split and
    merged."""

    split: int
    merged: int
    missed: int
    added: int
    n_true: int
    n_pred: int


def object_errors(table: Contingency) -> ObjectErrors:
    """Counts the errors from a table of ids (0 = background); sizes are those in the table."""
    pairs = overlaps(table)
    true, pred, overlap = pairs.truth, pairs.pred, pairs.pixels
    in_true = 2 * overlap > pairs.pred_sizes[pred]  # the predicted object lies in the true one
    in_pred = 2 * overlap > pairs.truth_sizes[true]
    split = _combined(true[in_true], overlap[in_true], pairs.truth_sizes)
    merging = _combined(pred[in_pred], overlap[in_pred], pairs.pred_sizes)
    matched = in_true & in_pred
    explained_true, explained_pred = split.copy(), merging.copy()
    explained_true[true[matched]] = True
    explained_pred[pred[matched]] = True
    merged = np.zeros(len(split), bool)
    merged[true[in_pred & merging[pred]]] = True
    explained_true |= merged
    explained_pred[pred[in_true & split[true]]] = True
    return ObjectErrors(
        split=int(split.sum()),
        merged=int(merged.sum()),
        missed=int((~explained_true).sum()),
        added=int((~explained_pred).sum()),
        n_true=len(split),
        n_pred=len(merging),
    )


def object_metrics(table: Contingency) -> list[Score]:
    """Scores ``n_split``, ``n_merged``, ``n_missed``, ``n_added`` and their rates: the first
    three per true object, ``added_rate`` per predicted object."""
    f = object_errors(table)
    numbers = {
        "split": (f.split, f.n_true),
        "merged": (f.merged, f.n_true),
        "missed": (f.missed, f.n_true),
        "added": (f.added, f.n_pred),
    }
    counts = [count(INSTANCES, f"n_{name}", number) for name, (number, _) in numbers.items()]
    rates = [ratio(INSTANCES, f"{name}_rate", *pair) for name, pair in numbers.items()]
    return [*counts, *rates]


def _combined(
    container: NDArray[np.intp], overlap: NDArray[np.int64], size: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which objects contain two or more others that cover more than half of them: bool [objects].

    ``container``: index of the containing object of each pair; ``overlap``: pixels of the pair.
    """
    number = np.bincount(container, minlength=len(size))
    covered = np.bincount(container, overlap, minlength=len(size))
    return (number >= 2) & (2 * covered > size)
