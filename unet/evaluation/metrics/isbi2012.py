"""Metrics of the first leader board of the ISBI 2012 challenge, which the U-Net paper reports.

Warping error, Rand error and pixel error of cells against membranes, as defined on the challenge's
page of metrics and in its code (Trainable Weka Segmentation). The later metrics, V_rand and V_info
after thinning, are in `unet.evaluation.metrics.topology`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unet.evaluation.metrics.contingency import contingency
from unet.evaluation.metrics.topology import connected_cells, partition
from unet.evaluation.metrics.warping import warping


class Slice(NamedTuple):
    """A 2D image; all arrays are [Y, X]. ``truth``: bool, inside a cell; ``probability``: float,
    of being inside a cell; ``valid``: bool, False where the truth is unknown (``truth`` is False
    there)."""

    truth: NDArray[np.bool_]
    probability: NDArray[Any]
    valid: NDArray[np.bool_]


class Ratio(NamedTuple):
    """An error ``above / below``; both parts add up over slices and images."""

    above: float
    below: float

    def __add__(self, other: tuple[Any, ...]) -> Ratio:
        return Ratio(self.above + other[0], self.below + other[1])


def rand_error(image: Slice, threshold: float) -> Ratio:
    """1 - the F-score of the foreground-restricted Rand index.

    Counts pairs of different pixels of true cells: TP are in the same true and the same predicted
    cell, FP only in the same predicted cell, FN only in the same true cell; F = 2 TP / (2 TP + FP +
    FN). Cells are 4-connected and labelled without thinning, so wide membranes cost points: a pixel
    predicted as membrane is in no pair.
    """
    pred = connected_cells((image.probability > threshold) & image.valid)
    parts = partition(contingency(connected_cells(image.truth), pred))
    both, true, predicted = (
        float((sizes * (sizes - 1)).sum()) for sizes in (parts.pairs, parts.truth, parts.pred)
    )
    return Ratio(true + predicted - 2 * both, true + predicted)


def pixel_error(image: Slice, threshold: float) -> Ratio:
    """1 - the F-score of cell pixels: (FP + FN) / (2 TP + FP + FN)."""
    pred = (image.probability > threshold) & image.valid
    cells = float(image.truth.sum()) + float(pred.sum())
    return Ratio(cells - 2 * float((image.truth & pred).sum()), cells)


def warping_errors(image: Slice, threshold: float) -> tuple[Ratio, Ratio]:
    """(splits and mergers, all mismatches), each per pixel, after warping. The challenge ranked by
    the first; the second is the error as Jain et al. 2010 define it."""
    found = warping(image.truth, image.probability, threshold, image.valid)
    pixels = float(image.valid.sum())
    return Ratio(found.splits + found.mergers, pixels), Ratio(found.mismatches, pixels)
