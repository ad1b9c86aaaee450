"""How far a model can be believed, from what it says about the labels that it did not see.

A poor model's denial means little. As in confident learning (Northcutt et al. 2021, J. Artif.
Intell. Res. 70, doi 10.1613/jair.1.12125), the model's own out-of-fold agreement sets the scale,
here for each size of object: where the model often disagrees with the labels, most of its
disagreements are its own mistakes. The counts have a fixed size, whatever the number of images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

# Sizes in pixels are counted by quarters of an octave.
QUARTERS, SIZES = 4, 160
# Steps of a probability, and of a displacement (tenths of a pixel).
STEPS, SHIFTS = 100, 400
# How much more likely a disagreement is a mistake of the model than one of the label: so many
# agreements outweigh a disagreement.
DOUBLE = 3.0
# Below this number of labelled objects a fold is judged by all folds together.
ENOUGH = 50
# All objects together count as much as so many of the kind in question.
FEW = 10.0
Counts = NDArray[np.int64]


def _zeros(size: int) -> Counts:
    return np.zeros(size, np.int64)


@dataclass
class ObjectTrust:
    """Counts of agreements and disagreements of a model with the labels; counts add up.

    Attributes:
        found, denied: labelled objects by size that the model sees, or does not.
        confirmed, missing: predicted objects by size that the label has, or lacks.
        parts: parts of confirmed objects by size that look like objects without a label.
        probabilities: mean probabilities of the confirmed ones.
        background: pixels that are background for labels and model, and the sum of the foreground
            probability there.
        shifts: distance between the centres of a labelled and a predicted object.
        pairs: labelled objects that agree with a predicted one, one to one; and merged ones.
        neighbours: pairs of neighbouring labels that the model parts; and split objects.
        matched: twice the pairs with an IoU of 0.5 or more; labelled plus predicted objects.
    """

    found: Counts = field(default_factory=lambda: _zeros(SIZES))
    denied: Counts = field(default_factory=lambda: _zeros(SIZES))
    confirmed: Counts = field(default_factory=lambda: _zeros(SIZES))
    missing: Counts = field(default_factory=lambda: _zeros(SIZES))
    parts: Counts = field(default_factory=lambda: _zeros(SIZES))
    probabilities: Counts = field(default_factory=lambda: _zeros(STEPS + 1))
    background: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    shifts: Counts = field(default_factory=lambda: _zeros(SHIFTS + 1))
    pairs: Counts = field(default_factory=lambda: _zeros(2))
    neighbours: Counts = field(default_factory=lambda: _zeros(2))
    matched: Counts = field(default_factory=lambda: _zeros(2))

    def __add__(self, other: ObjectTrust) -> ObjectTrust:
        names = [f.name for f in fields(self)]
        return ObjectTrust(*(getattr(self, name) + getattr(other, name) for name in names))

    def __sub__(self, other: ObjectTrust) -> ObjectTrust:
        names = [f.name for f in fields(self)]
        return ObjectTrust(*(getattr(self, name) - getattr(other, name) for name in names))

    @property
    def labelled(self) -> int:
        """Number of labelled objects that the model sees or denies."""
        return int(self.found.sum() + self.denied.sum())

    @property
    def agreement(self) -> float:
        """Share of all labelled and predicted objects that have a partner of an IoU of 0.5 or more
        on the other side (the F1 score of objects); 0 to 1."""
        both, all_ = self.matched.tolist()
        return both / all_ if all_ else 1.0

    def of_missing(self, size: int) -> float:
        """Trust in a predicted object of this size that the label lacks; 0 to 1."""
        return _of_size(self.confirmed, self.missing, size)

    def of_parts(self, size: int) -> float:
        """Trust in a part of a predicted object that the label lacks; 0 to 1."""
        return _of_size(self.confirmed, self.parts, size)

    def of_denied(self, size: int) -> float:
        """Trust in the denial of a labelled object of this size; 0 to 1."""
        return _of_size(self.found, self.denied, size)

    def of_merged(self) -> float:
        """Trust in a merged object; 0 to 1."""
        return trusted(*self.pairs.tolist())

    def of_split(self) -> float:
        """Trust in a split object, from how often the model parts neighbours; 0 to 1. Where there
        are few neighbours, all objects count more."""
        parted, split = self.neighbours.tolist()
        alike = int(self.pairs[0])
        share = FEW / max(FEW, alike + split)
        return trusted(parted + share * alike, split * (1 + share))

    def as_object(self, probability: float) -> float:
        """How far this mean probability is above one half, on the way to what is usual for objects
        that labels and model agree on; 0 to 1."""
        total = int(self.probabilities.sum())
        usual = float(np.searchsorted(self.probabilities.cumsum(), total / 2)) / STEPS
        return _on_the_way(probability, usual if total else 1.0)

    def as_background(self, probability: float) -> float:
        """How far it is below one half, on the way to what is usual for the background."""
        pixels, total = self.background.tolist()
        return _on_the_way(1 - probability, 1 - total / pixels if pixels else 1.0)

    def usual_size(self, size: int) -> float:
        """1 unless the object is smaller than nearly all that labels and model agree on."""
        total = int(self.confirmed.sum())
        if not total:
            return 0.0
        below = int(self.confirmed[: size_bin(size) + 1].sum())
        return min(1.0, 20 * (below + 1) / (total + 20))

    def as_piece(self, size: int) -> float:
        """How usual an object of this size is: 1 unless most of those that labels and model agree
        on are larger. A model that cuts an object in two makes small ones."""
        return self._rank(size, 0, 1)

    def as_whole(self, size: int) -> float:
        """The same for large objects: a model that does not part neighbours makes them."""
        return self._rank(size, 1, 0)

    def _rank(self, size: int, above: int, below: int) -> float:
        counts, at = self.confirmed, size_bin(size)
        total = int(counts.sum())
        if not total:
            return 0.0
        side = int(counts[at:].sum()) * above + int(counts[: at + 1].sum()) * below
        return min(1.0, 4 * side / total)

    def usual_shift(self) -> float:
        """Displacement in pixels that four of five objects stay below; at least half a pixel."""
        total = int(self.shifts.sum())
        if not total:
            return 0.5
        at = int(np.searchsorted(self.shifts.cumsum(), 0.8 * total))
        return max(0.5, (at + 1) / 10)


def trusted(agreed: float, differed: float) -> float:
    """Confidence in a disagreement, from how often the model agrees and disagrees: 0 to 1."""
    return float((agreed + 1) / (agreed + 1 + DOUBLE * differed))


def _on_the_way(probability: float, usual: float) -> float:
    return min(1.0, max(0.0, (probability - 0.5) / max(0.1, usual - 0.5)))


def size_bin(size: int) -> int:
    """Number of the size's quarter of an octave."""
    return min(SIZES - 1, max(0, math.floor(QUARTERS * math.log2(max(1, size)))))


def probability_step(probability: float) -> int:
    return round(STEPS * min(1.0, max(0.0, probability)))


def _of_size(agreed: Counts, differed: Counts, size: int) -> float:
    """As :func:`trusted`, for objects of about this size; where there are few, all count more."""
    at = size_bin(size)
    near = slice(max(0, at - QUARTERS), at + QUARTERS + 1)
    yes, no = float(agreed[near].sum()), float(differed[near].sum())
    all_yes, all_no = float(agreed.sum()), float(differed.sum())
    share = FEW / max(FEW, all_yes + all_no)
    return trusted(yes + share * all_yes, no + share * all_no)


def trusts_of(parts: dict[int, ObjectTrust]) -> dict[int, ObjectTrust]:
    """Fold -> its own counts, or those of all folds where it has too few objects."""
    everything = sum(parts.values(), ObjectTrust())
    return {
        fold: trust if trust.labelled >= ENOUGH else everything for fold, trust in parts.items()
    }
