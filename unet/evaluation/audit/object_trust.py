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
Counts = NDArray[np.int64]


def _zeros(size: int) -> Counts:
    return np.zeros(size, np.int64)


@dataclass
class ObjectTrust:
    """Counts of agreements and disagreements of a model with the labels; counts add up.

    Attributes:
        found, denied: labelled objects by size that the model sees, or does not.
        confirmed, missing: predicted objects by size that the label has, or lacks.
        probabilities: mean probabilities of the confirmed ones.
        shifts: distance between the centres of a labelled and a predicted object.
        matched, merged, split: objects that agree one to one, and those that do not.
    """

    found: Counts = field(default_factory=lambda: _zeros(SIZES))
    denied: Counts = field(default_factory=lambda: _zeros(SIZES))
    confirmed: Counts = field(default_factory=lambda: _zeros(SIZES))
    missing: Counts = field(default_factory=lambda: _zeros(SIZES))
    probabilities: Counts = field(default_factory=lambda: _zeros(STEPS + 1))
    shifts: Counts = field(default_factory=lambda: _zeros(SHIFTS + 1))
    pairs: Counts = field(default_factory=lambda: _zeros(3))

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
        """Share of all labelled and predicted objects that the other side has, too; 0 to 1."""
        yes = int(self.found.sum() + self.confirmed.sum())
        all_ = yes + int(self.denied.sum() + self.missing.sum())
        return yes / all_ if all_ else 1.0

    def of_missing(self, size: int) -> float:
        """Trust in a predicted object of this size that the label lacks; 0 to 1."""
        return _of_size(self.confirmed, self.missing, size)

    def of_denied(self, size: int) -> float:
        """Trust in the denial of a labelled object of this size; 0 to 1."""
        return _of_size(self.found, self.denied, size)

    def of_pairs(self, kind: int) -> float:
        """Trust in a merged (1) or split (2) object; 0 to 1."""
        return trusted(self.pairs[0], self.pairs[kind])

    def usual_probability(self, probability: float) -> float:
        """How usual this mean probability is for an object that the label has: 1 from the median
        of those on, 0 where none is as low."""
        total = int(self.probabilities.sum())
        if not total:
            return 0.0
        below = int(self.probabilities[: probability_step(probability) + 1].sum())
        return min(1.0, 2 * below / total)

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
    # The whole is worth ten objects.
    share = 10 / max(10.0, all_yes + all_no)
    return trusted(yes + share * all_yes, no + share * all_no)


def trusts_of(parts: dict[int, ObjectTrust]) -> dict[int, ObjectTrust]:
    """Fold -> its own counts, or those of all folds where it has too few objects."""
    everything = sum(parts.values(), ObjectTrust())
    return {
        fold: trust if trust.labelled >= ENOUGH else everything for fold, trust in parts.items()
    }
