"""Doubts about classes (task semantic): regions that the model surely gives to another class.

Outlines of labels are rarely exact to the pixel, so pixels next to an outline that labels and model
share do not count: a pixel is in doubt only if it lies more than `NEAR` pixels from all labels of
the class that the model sees there, or from all pixels where the model sees the labelled class. A
class is sure where its probability is at least its mean over the pixels with this label, the
threshold of confident learning (Northcutt et al. 2021, doi 10.1613/jair.1.12125).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.config.heads import IGNORE
from unet.data.blocks import grid_of, ordered
from unet.data.tiling import Slices
from unet.evaluation.audit.doubts import Doubt
from unet.evaluation.audit.object_trust import trusted
from unet.evaluation.blockwise import ScoredPair
from unet.export.object_sums import Sums, add, sums
from unet.prediction.objects.components import components
from unet.prediction.objects.temporary_arrays import scratch

BLOCK = 1024
# Distance in pixels (along axes and diagonals) within which outlines may differ.
NEAR = 2
# Smallest region in pixels, and the size of a region that has half of the full confidence: a square
# as wide as the tolerance on both sides. Smaller ones are often outlines that wander.
SMALLEST, HALF = 4, (1 + 2 * NEAR) ** 2


@dataclass
class ClassTrust:
    """Sums over the pixels of a model's images, by class; they add up.

    Attributes:
        labelled: int64 [K], pixels with this label.
        probability: float64 [K], sum of the class's probability there.
        agreed: int64 [K], pixels with this label where the model is sure of it, too.
        doubted: int64 [K, K], pixels in doubt by labelled and by predicted class.
    """

    labelled: NDArray[np.int64]
    probability: NDArray[np.float64]
    agreed: NDArray[np.int64]
    doubted: NDArray[np.int64]

    @staticmethod
    def empty(classes: int) -> ClassTrust:
        ints = (np.zeros(classes, np.int64) for _ in range(2))
        return ClassTrust(
            next(ints), np.zeros(classes), next(ints), np.zeros((classes, classes), np.int64)
        )

    def __add__(self, other: ClassTrust) -> ClassTrust:
        names = ("labelled", "probability", "agreed", "doubted")
        return ClassTrust(*(getattr(self, name) + getattr(other, name) for name in names))

    def __sub__(self, other: ClassTrust) -> ClassTrust:
        names = ("labelled", "probability", "agreed", "doubted")
        return ClassTrust(*(getattr(self, name) - getattr(other, name) for name in names))

    @property
    def thresholds(self) -> NDArray[np.float32]:
        """Probability from which on the model is sure of each class, float32 [K]; 1 where no pixel
        has the label."""
        some = self.labelled > 0
        mean = np.divide(self.probability, self.labelled, out=np.ones_like(self.probability),
                         where=some)  # fmt: skip
        return mean.astype(np.float32)

    def of(self, label: int, pred: int) -> float:
        """Trust in a region with this label where the model is sure of another class; 0 to 1.

        As a missing and a denied object are both compared with the objects that labels and model
        agree on, both directions are compared with the rarer of the two classes: of a class that
        covers nearly everything, even a poor model denies only a small share.
        """
        agreed = min(float(self.agreed[label]), float(self.agreed[pred]))
        return trusted(agreed, float(self.doubted[label, pred]))

    @property
    def agreement(self) -> float:
        """Of the class with the least: the share of pixels that labels and model agree on, among
        those that are sure or in doubt (as the Dice coefficient); 0 to 1."""
        differ = self.doubted.sum(axis=0) + self.doubted.sum(axis=1)
        both = 2 * self.agreed
        some = both + differ > 0
        return float(np.min(both[some] / (both + differ)[some])) if some.any() else 1.0


@dataclass(frozen=True)
class Region:
    """A connected region in doubt.

    Attributes:
        margin: mean over its pixels of the probability of the predicted class minus that of the
            labelled one.
    """

    doubt: Doubt
    margin: float

    @property
    def order(self) -> tuple[object, ...]:
        """Sorts regions, the one with the most evidence first."""
        return (-self.margin * self.doubt.size, *self.doubt.order)


def class_sums(pair: ScoredPair, threads: int = 1, block: int = BLOCK) -> ClassTrust:
    """The sums from which the thresholds follow, without ignored pixels."""
    classes = len(pair.head)

    def one(region: Slices) -> ClassTrust:
        label, p = np.asarray(pair.truth[region]), _probabilities(pair, region)
        found = ClassTrust.empty(classes)
        for k in range(classes):
            inside = label == k
            found.labelled[k] = np.count_nonzero(inside)
            found.probability[k] = p[k][inside].sum(dtype=np.float64)
        return found

    regions = grid_of(tuple(pair.truth.shape), block).regions()
    return sum(ordered(one, regions, threads), ClassTrust.empty(classes))


def regions_in_doubt(
    pair: ScoredPair,
    fold: int,
    thresholds: NDArray[np.float32],
    names: Sequence[str],
    folder: Path,
    threads: int = 1,
    block: int = BLOCK,
) -> tuple[list[Region], ClassTrust]:
    """The regions of an image, and its share of how sure and how often in doubt the model is.

    Args:
        thresholds: see :attr:`ClassTrust.thresholds`.
        names: of the classes, in the order of the index.
        folder: for temporary files of an image of several blocks.
    """
    classes, shape = len(names), tuple(pair.truth.shape)
    grid = grid_of(shape, block)

    def read(region: Slices) -> NDArray[np.bool_]:
        return doubted(pair, region, thresholds)[0]

    with scratch(folder, grid) as temporary:
        found = components(
            read, grid, temporary, connectivity="full", min_size=SMALLEST, threads=threads
        )

        def one(region: Slices) -> tuple[Sums, ClassTrust]:
            _, label, pred, margin, trust = doubted(pair, region, thresholds)
            part = found.read(region).astype(np.int64)
            code = label.astype(np.int64) * classes + pred
            keys = np.where(part > 0, part * classes**2 + code, 0)
            around = np.pad(keys, 1)
            return sums(around, margin[None], region), trust

        parts = list(ordered(one, grid.regions(), threads))
    every = add((part for part, _ in parts), len(shape), 1)
    trust = sum((trust for _, trust in parts), ClassTrust.empty(classes))
    return _regions(every, pair, fold, names), trust


def _regions(found: Sums, pair: ScoredPair, fold: int, names: Sequence[str]) -> list[Region]:
    classes, regions = len(names), []
    code = found.labels % classes**2
    for at in np.flatnonzero(found.size >= SMALLEST).tolist():
        label, pred = divmod(int(code[at]), classes)
        size, margin = int(found.size[at]), float(found.total[at, 0] / found.size[at])
        what = f"labelled {names[label]}, predicted {names[pred]}; mean margin {margin:.2f}"
        doubt = Doubt(
            pair.image, fold, "class", 0.0, what,
            tuple((found.positions[at] / size).tolist()), tuple(found.low[at].tolist()),
            tuple((found.high[at] + 1).tolist()), size, (label,), (pred,),
        )  # fmt: skip
        regions.append(Region(doubt, margin))
    return sorted(regions, key=lambda region: region.order)


def region_confidence(region: Region, trust: ClassTrust) -> float:
    """The confidence that the label is wrong there, 0 to 1: how sure the model is, how far it can
    be believed, and how large the region is."""
    size = region.doubt.size
    believed = trust.of(region.doubt.labels[0], region.doubt.predicted[0])
    return region.margin * believed * size / (size + HALF)


def doubted(
    pair: ScoredPair, region: Slices, thresholds: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], NDArray[Any], NDArray[Any], NDArray[np.float32], ClassTrust]:
    """The pixels of a block in doubt, bool [(Z,) Y, X]; the labelled and the predicted class, and
    the margin between their probabilities, of all its pixels; and what they say about the model.

    Class and margin are 0 at ignored pixels.
    """
    from scipy import ndimage

    classes, shape = len(thresholds), pair.truth.shape
    wide = tuple(
        slice(max(0, s.start - NEAR), min(size, s.stop + NEAR))
        for s, size in zip(region, shape, strict=True)
    )
    inner = tuple(
        slice(s.start - w.start, s.stop - w.start) for s, w in zip(region, wide, strict=True)
    )
    truth, p = np.asarray(pair.truth[wide]), _probabilities(pair, wide)
    valid = truth != IGNORE
    label, pred = np.where(valid, truth, 0), p.argmax(axis=0)
    sure = np.take_along_axis(p, pred[None], 0)[0] >= np.maximum(thresholds[pred], 1 / classes)
    margin = np.where(
        valid,
        np.take_along_axis(p, pred[None], 0)[0] - np.take_along_axis(p, label[None], 0)[0],
        np.float32(0),
    )
    found = sure & valid & (pred != label)
    if found[inner].any():
        around = np.ones((1 + 2 * NEAR,) * truth.ndim, bool)
        at_label, at_pred = np.zeros(truth.shape, bool), np.zeros(truth.shape, bool)
        for k in range(classes):
            near = ndimage.binary_dilation((label == k) & valid | ~valid, around)
            at_label |= near & (pred == k)
            near = ndimage.binary_dilation((pred == k) | ~valid, around)
            at_pred |= near & (label == k)
        found &= ~(at_label & at_pred)
    trust = ClassTrust.empty(classes)
    agreed = (sure & valid & (pred == label))[inner]
    trust.agreed += np.bincount(label[inner][agreed], minlength=classes)
    pairs = (label * classes + pred)[inner][found[inner]]
    trust.doubted += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    return found[inner], label[inner], pred[inner], margin[inner], trust


def _probabilities(pair: ScoredPair, region: Slices) -> NDArray[np.float32]:
    if pair.probabilities is None:
        raise ValueError(f"image {pair.image} has no probabilities")
    return np.asarray(pair.probabilities[(slice(None), *region)], np.float32)
