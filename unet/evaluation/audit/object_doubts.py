"""Doubts about labelled objects: where labels and a model's objects disagree.

The first pass over the images finds suspects and counts how often model and labels agree; then the
counts of all images say how much each suspect is worth (:data:`WORTH`). To add a kind: a function
that finds suspects in `FINDERS`, one that weighs them in `WORTH`, and its name in
:data:`unet.evaluation.audit.doubts.KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unet.evaluation.audit.doubts import Doubt
from unet.evaluation.audit.object_overlaps import Ints, ObjectOverlaps, Objects
from unet.evaluation.audit.object_trust import (
    SHIFTS,
    SIZES,
    STEPS,
    ObjectTrust,
    probability_step,
    size_bin,
)
from unet.evaluation.audit.unlabelled_parts import UnlabelledParts

# Covered to less than this by the other side, an object is missing there; from `SEEN` on it is
# there. In between, outlines differ, which is no doubt about the object.
UNSEEN, SEEN = 0.25, 0.5
# Objects of which a larger share is ignored are not judged.
MOST_IGNORED = 0.2
# Mean probability below which a predicted object is not sure.
SURE = 0.5
# Least share of the whole that a piece of a merged or split object has, and the share from which
# on the piece is no crumb.
CRUMB, PIECE = 0.1, 0.25
# Least IoU of an outline beside its object, and least ratio of their sizes.
BESIDE, ALIKE = 0.2, 0.6
# Least displacement in pixels.
LEAST_SHIFT = 1.0
# An object at the image's border may be cut, and is often left out on purpose.
AT_BORDER = 0.7


@dataclass(frozen=True)
class Suspect:
    """A possible doubt, before the model's quality is known.

    Attributes:
        evidence: 0 to 1; orders the suspects of a kind.
        probability: mean foreground probability in the object.
        piece: size in pixels of the second largest piece of a merged or split object.
        shift: for a shifted one the displacement from label to prediction in pixels along (Z,) Y,
            X; else ().
        factor: below 1 for an object at the image's border.
        compact: for a part of a predicted object how compact it is, 0 to 1; else None.
    """

    doubt: Doubt
    evidence: float
    probability: float
    piece: int = 0
    shift: tuple[float, ...] = ()
    factor: float = 1.0
    compact: float | None = None

    @property
    def order(self) -> tuple[object, ...]:
        return (-self.evidence, *self.doubt.order)


@dataclass(frozen=True)
class _Image:
    """An image's objects, with the pairs that several kinds need.

    Attributes:
        seen: share of each labelled object that predicted ones cover.
        confirmed: share of each predicted object that labelled ones cover.
        partners: pairs that are each other's best partner.
        merged, split: label -> pairs of its pieces; predicted object -> pairs of its pieces.
        parts: those of predicted objects that the labels cover only in part.
    """

    image: str
    fold: int
    overlaps: ObjectOverlaps
    seen: NDArray[np.float64]
    confirmed: NDArray[np.float64]
    partners: NDArray[np.intp]
    merged: dict[int, NDArray[np.intp]]
    split: dict[int, NDArray[np.intp]]
    parts: UnlabelledParts

    def doubt(
        self, kind: str, of: Objects, at: int, labels: Sequence[int], predicted: Sequence[int]
    ) -> Doubt:
        """A doubt at the place of object number ``at``; labels and predicted: indices."""
        o = self.overlaps
        return Doubt(
            self.image, self.fold, kind, 0.0, "",
            tuple(of.centroid[at].tolist()), tuple(of.low[at].tolist()),
            tuple(of.high[at].tolist()), int(of.size[at]),
            tuple(o.labels.ids[list(labels)].tolist()),
            tuple(o.predicted.ids[list(predicted)].tolist()),
        )  # fmt: skip


def with_labels(o: ObjectOverlaps) -> Ints:
    """Ids of the predicted objects of which labels cover enough that they are not missing."""
    return o.predicted.ids[_confirmed(o) >= UNSEEN]


def _confirmed(o: ObjectOverlaps) -> NDArray[np.float64]:
    return np.bincount(o.pred, o.pixels, len(o.predicted)) / o.predicted.size


def suspects(
    overlaps: ObjectOverlaps, parts: UnlabelledParts, image: str, fold: int
) -> tuple[dict[str, list[Suspect]], ObjectTrust]:
    """The suspects of one image by kind, and its share of what the model's quality follows from."""
    there = _image(overlaps, parts, image, fold)
    found = {kind: sorted(find(there), key=lambda s: s.order) for kind, find in FINDERS.items()}
    return found, _trust(there)


def _image(o: ObjectOverlaps, parts: UnlabelledParts, image: str, fold: int) -> _Image:
    iou = o.iou
    seen = np.bincount(o.label, o.pixels, len(o.labels)) / o.labels.size
    best_of_label, best_of_pred = np.zeros(len(o.labels)), np.zeros(len(o.predicted))
    np.maximum.at(best_of_label, o.label, iou)
    np.maximum.at(best_of_pred, o.pred, iou)
    mutual = (iou == best_of_label[o.label]) & (iou == best_of_pred[o.pred])
    merged = _pieces(o.label, o.of_pred, o.of_label)
    split = _pieces(o.pred, o.of_label, o.of_pred)
    whole = np.array([int(t) not in merged for t in o.label], bool)
    whole &= np.array([int(p) not in split for p in o.pred], bool)
    partners = np.flatnonzero(mutual & (iou >= BESIDE) & whole)
    return _Image(image, fold, o, seen, _confirmed(o), partners, merged, split, parts)


def _pieces(
    whole: NDArray[np.intp], of_piece: NDArray[np.float64], of_whole: NDArray[np.float64]
) -> dict[int, NDArray[np.intp]]:
    """Objects in which two or more of the other side lie that cover most of it, with their pairs,
    the largest piece first."""
    inside = np.flatnonzero((of_piece > 0.5) & (of_whole >= CRUMB))
    found = {}
    for at in np.unique(whole[inside]).tolist():
        pairs = inside[whole[inside] == at]
        if len(pairs) > 1 and of_whole[pairs].sum() > 0.5:
            found[at] = pairs[np.argsort(-of_whole[pairs], kind="stable")]
    return found


def _trust(there: _Image) -> ObjectTrust:
    o, trust = there.overlaps, ObjectTrust()
    judged = o.labels.ignored <= MOST_IGNORED
    _count(trust.found, o.labels.size[judged & (there.seen >= SEEN)])
    _count(trust.denied, o.labels.size[judged & (there.seen < UNSEEN)])
    judged = (o.predicted.ignored <= MOST_IGNORED) & (o.predicted.probability >= SURE)
    yes = judged & (there.confirmed >= SEEN)
    _count(trust.confirmed, o.predicted.size[yes])
    _count(trust.missing, o.predicted.size[judged & (there.confirmed < UNSEEN)])
    steps = [probability_step(p) for p in o.predicted.probability[yes].tolist()]
    trust.probabilities += np.bincount(steps, minlength=STEPS + 1)
    distances = [float(np.hypot.reduce(_shift(o, pair))) for pair in there.partners.tolist()]
    tenths = np.minimum(np.array(distances) * 10, SHIFTS).astype(np.int64)
    trust.shifts += np.bincount(tenths, minlength=SHIFTS + 1)
    _count(trust.parts, there.parts.objects.size)
    trust.background += np.array(o.background)
    trust.pairs += np.array([len(there.partners), len(there.merged)])
    trust.neighbours += np.array([_parted(o), len(there.split)])
    both = 2 * int(np.count_nonzero(o.iou > 0.5))
    trust.matched += np.array([both, len(o.labels) + len(o.predicted)])
    return trust


def _parted(o: ObjectOverlaps) -> int:
    """Number of pairs of neighbouring labels of which the model sees each as another object."""
    home = np.full(len(o.labels), -1, np.intp)
    most = o.of_label > 0.5
    home[o.label[most]] = o.pred[most]
    one, other = home[o.neighbours].T
    return int(np.count_nonzero((one != other) & (one >= 0) & (other >= 0)))


def _count(counts: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
    counts += np.bincount([size_bin(size) for size in sizes.tolist()], minlength=SIZES)


def _shift(o: ObjectOverlaps, pair: int) -> NDArray[np.float64]:
    """Displacement [D] in pixels from the label to the predicted object."""
    moved = o.predicted.centroid[o.pred[pair]] - o.labels.centroid[o.label[pair]]
    return np.asarray(moved, np.float64)


def _factor(of: Objects, at: int) -> float:
    return AT_BORDER if of.at_border[at] else 1.0


def _missing(there: _Image) -> Iterator[Suspect]:
    o = there.overlaps.predicted
    sure = (there.confirmed < UNSEEN) & (o.probability >= SURE) & (o.ignored <= MOST_IGNORED)
    for at in np.flatnonzero(sure).tolist():
        p = float(o.probability[at])
        yield Suspect(
            there.doubt("missing", o, at, (), (at,)), p, p, factor=_factor(o, at)
        )  # fmt: skip
    parts = there.parts
    whole = np.searchsorted(o.ids, parts.of)
    for at in np.flatnonzero(parts.objects.probability >= SURE).tolist():
        p, compact = float(parts.objects.probability[at]), float(parts.compact[at])
        doubt = there.doubt("missing", parts.objects, at, (), (int(whole[at]),))
        factor = _factor(parts.objects, at)
        yield Suspect(doubt, p * compact, p, factor=factor, compact=compact)


def _denied(there: _Image) -> Iterator[Suspect]:
    o = there.overlaps.labels
    for at in np.flatnonzero((there.seen < UNSEEN) & (o.ignored <= MOST_IGNORED)).tolist():
        p = float(o.probability[at])
        yield Suspect(there.doubt("denied", o, at, (at,), ()), 1 - p, p, factor=_factor(o, at))


def _merged(there: _Image) -> Iterator[Suspect]:
    o = there.overlaps
    for at, pairs in there.merged.items():
        if o.labels.ignored[at] > MOST_IGNORED:
            continue
        pieces = o.pred[pairs]
        share = min(1.0, float(o.of_label[pairs[1]]) / PIECE)
        p = float(o.predicted.probability[pieces[:2]].min())
        doubt = there.doubt("merged", o.labels, at, (at,), pieces.tolist())
        piece = int(o.predicted.size[pieces[1]])
        yield Suspect(doubt, share * p, p, piece, factor=_factor(o.labels, at))


def _split(there: _Image) -> Iterator[Suspect]:
    o = there.overlaps
    for at, pairs in there.split.items():
        if o.predicted.ignored[at] > MOST_IGNORED:
            continue
        share = min(1.0, float(o.of_pred[pairs[1]]) / PIECE)
        p = float(o.predicted.probability[at])
        doubt = there.doubt("split", o.predicted, at, o.label[pairs].tolist(), (at,))
        piece = int(o.labels.size[o.label[pairs[1]]])
        yield Suspect(doubt, share * p, p, piece, factor=_factor(o.predicted, at))


def _shifted(there: _Image) -> Iterator[Suspect]:
    o = there.overlaps
    for pair in there.partners.tolist():
        label, pred = int(o.label[pair]), int(o.pred[pair])
        one, other = int(o.labels.size[label]), int(o.predicted.size[pred])
        shift = _shift(o, pair)
        far = float(np.hypot.reduce(shift))
        ignored = max(o.labels.ignored[label], o.predicted.ignored[pred])
        if far < LEAST_SHIFT or min(one, other) < ALIKE * max(one, other) or ignored > MOST_IGNORED:
            continue
        doubt = there.doubt("shifted", o.labels, label, (label,), (pred,))
        p = float(o.predicted.probability[pred])
        evidence = far / (far + LEAST_SHIFT)
        moved = tuple(float(step) for step in shift)
        yield Suspect(doubt, evidence, p, 0, moved, _factor(o.labels, label))


FINDERS: dict[str, Callable[[_Image], Iterator[Suspect]]] = {
    "missing": _missing,
    "denied": _denied,
    "merged": _merged,
    "split": _split,
    "shifted": _shifted,
}


def _worth_missing(suspect: Suspect, trust: ObjectTrust) -> float:
    size = suspect.doubt.size
    usual = trust.as_object(suspect.probability) * trust.usual_size(size)
    if suspect.compact is None:
        return usual * trust.of_missing(size)
    return usual * suspect.compact * trust.of_parts(size)


def _worth_denied(suspect: Suspect, trust: ObjectTrust) -> float:
    return trust.as_background(suspect.probability) * trust.of_denied(suspect.doubt.size)


def _worth_merged(suspect: Suspect, trust: ObjectTrust) -> float:
    return suspect.evidence * trust.of_merged() * trust.as_piece(suspect.piece)


def _worth_split(suspect: Suspect, trust: ObjectTrust) -> float:
    return suspect.evidence * trust.of_split() * trust.as_whole(suspect.doubt.size)


def _worth_shifted(suspect: Suspect, trust: ObjectTrust) -> float:
    """1 from four times the usual displacement on, 0 up to twice as much."""
    far = float(np.hypot.reduce(suspect.shift)) / trust.usual_shift()
    return min(1.0, max(0.0, far / 2 - 1)) * trust.agreement


# Kind -> what a suspect is worth for a model of this quality, 0 to 1.
WORTH: dict[str, Callable[[Suspect, ObjectTrust], float]] = {
    "missing": _worth_missing,
    "denied": _worth_denied,
    "merged": _worth_merged,
    "split": _worth_split,
    "shifted": _worth_shifted,
}


def confidence(suspect: Suspect, trust: ObjectTrust) -> float:
    """The confidence that the label is wrong there, 0 to 1."""
    return suspect.factor * WORTH[suspect.doubt.kind](suspect, trust)


def words(suspect: Suspect) -> str:
    """The evidence in words."""
    doubt, p = suspect.doubt, f"mean probability {suspect.probability:.2f}"
    if doubt.kind == "merged":
        return f"{len(doubt.predicted)} predicted objects in one label; {p}"
    if doubt.kind == "split":
        return f"{len(doubt.labels)} labels in one predicted object; {p}"
    if doubt.kind == "shifted":
        axes = "zyx"[-len(suspect.shift) :]
        moved = ", ".join(f"{a} {s:+.1f}" for a, s in zip(axes, suspect.shift, strict=True))
        return f"the object lies {moved} px from its label"
    if suspect.compact is not None:
        return f"a part of a predicted object that no label covers; {p}"
    what = "no label here" if doubt.kind == "missing" else "the model sees nothing here"
    return f"{what}; {p}"
