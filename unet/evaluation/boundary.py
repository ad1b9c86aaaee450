"""How far predicted outlines lie from true ones: boundary F1, HD95, average surface distance.

An outline is the set of pixels of a region that share a face with a pixel outside it. The border
of the image is none (objects go on beyond it), nor is that of pixels to be ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unet.evaluation.rows import NAN, Score, ratio

Points = NDArray[np.int32]


@dataclass(frozen=True)
class Tolerance:
    """How far an outline may be off and still be right; ``unit`` is "px" or "um"."""

    value: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> Tolerance:
        """Of text as the config has it, such as ``2 px`` or ``0.5 um``."""
        value, unit = text.split()
        return cls(float(value), unit)


class Outlines(NamedTuple):
    """Points of the true and the predicted outlines of one class: int32 [N, axes] each, in
    pixels, axes as (Z,) Y, X."""

    truth: Points
    pred: Points


def outline(labels: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Which pixels of a label array share a face with a pixel of another label: bool.

    labels: [(Z,) Y, X], class indices or ids; a pixel of label k is on the outline of k. valid:
    bool of the same shape; pixels where it is False are on no outline and make none.
    """
    found = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        first = (slice(None),) * axis + (slice(None, -1),)
        second = (slice(None),) * axis + (slice(1, None),)
        differ = labels[first] != labels[second]
        if valid is not None:
            differ &= valid[first] & valid[second]
        found[first] |= differ
        found[second] |= differ
    return found


def boundary_metrics(
    class_: str,
    outlines: Outlines,
    tolerance: Tolerance,
    spacing: Sequence[float] | None = None,
) -> list[Score]:
    """Scores of one class.

    ``boundary_precision``, ``boundary_recall``: the share of the predicted (true) outline with a
    point of the other within the tolerance; ``boundary_f1``: their harmonic mean (Csurka et al.
    2013, doi 10.5244/C.27.32). ``hd95_um``: the larger of the 95th percentiles of the distances
    from each outline to the other (Huttenlocher et al. 1993 with a percentile); ``asd_um``: the
    mean of all these distances of both (average symmetric surface distance).

    spacing: pixel size in micrometres per axis; None = unknown: distances are in pixels, each
    axis alike, and the names end in ``_px``.

    Both outlines empty: all NaN. One empty: F1 0, precision (recall) 0 or NaN, distances NaN.
    Raises ValueError for a tolerance in micrometres without a spacing.
    """
    if tolerance.unit == "um" and spacing is None:
        raise ValueError("a tolerance in um needs the pixel size")
    unit = "px" if spacing is None else "um"
    distances = _distances(outlines, spacing)
    near = distances
    if tolerance.unit == "px" and spacing is not None and set(spacing) != {1.0}:
        near = _scaled(distances, spacing) or _distances(outlines, None)
    # A distance that is the tolerance but for rounding is within it.
    limit = tolerance.value * (1 + 1e-9)
    hits = [float((d <= limit).sum()) for d in near]
    to_truth, to_pred = distances
    n_pred, n_true = len(outlines.pred), len(outlines.truth)
    both = np.concatenate([to_truth, to_pred])
    return [
        ratio(class_, "boundary_precision", hits[0], n_pred),
        ratio(class_, "boundary_recall", hits[1], n_true),
        Score(class_, "boundary_f1", f1(hits[0], n_pred, hits[1], n_true)),
        Score(class_, f"hd95_{unit}", _hd95(to_truth, to_pred)),
        ratio(class_, f"asd_{unit}", float(both.sum()), len(both)),
    ]


def f1(hits_pred: float, n_pred: float, hits_true: float, n_true: float) -> float:
    """Harmonic mean of precision and recall; 0 if either outline is missing, NaN if both are."""
    if not n_pred + n_true:
        return NAN
    if not hits_pred * hits_true:
        return 0.0
    precision, recall = hits_pred / n_pred, hits_true / n_true
    return 2 * precision * recall / (precision + recall)


def _hd95(to_truth: NDArray[np.float64], to_pred: NDArray[np.float64]) -> float:
    if not len(to_truth):
        return NAN
    return float(max(np.percentile(to_truth, 95), np.percentile(to_pred, 95)))


def _distances(
    outlines: Outlines, spacing: Sequence[float] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance of each predicted point to the nearest true one [M], and the other way [N]; both
    empty where either outline is."""
    from scipy.spatial import cKDTree

    scale = 1.0 if spacing is None else np.asarray(spacing, np.float64)
    truth, pred = (points * scale for points in outlines)
    if not len(truth) or not len(pred):
        return np.empty(0), np.empty(0)
    # Trees of the points alone: memory and time follow the outlines' length, not the image's size.
    # Unbalanced trees are far faster to build on points that lie on a grid.
    trees = [cKDTree(points, balanced_tree=False) for points in (truth, pred)]
    return trees[0].query(pred)[0], trees[1].query(truth)[0]


def _scaled(
    distances: tuple[NDArray[np.float64], NDArray[np.float64]], spacing: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """The same distances in pixels, if the pixel is as long on every axis; else None."""
    if len(set(spacing)) > 1:
        return None
    to_truth, to_pred = distances
    return to_truth / spacing[0], to_pred / spacing[0]
