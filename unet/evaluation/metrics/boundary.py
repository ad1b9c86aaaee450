"""Distances between predicted and true outlines: boundary F1, HD95, average surface distance.

An outline is the set of pixels of a region that share a face with a pixel outside it. The border
of the image is not an outline (objects continue beyond it), and neither is that of ignored pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from unet.evaluation.metrics.nearest import Points, nearest
from unet.evaluation.metrics.rows import NAN, Score, ratio


@dataclass(frozen=True)
class Tolerance:
    """Largest distance at which an outline is still correct; ``unit`` is "px" or "um"."""

    value: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> Tolerance:
        """From a text in the config, such as ``2 px`` or ``0.5 um``."""
        value, unit = text.split()
        return cls(float(value), unit)


class Distances(NamedTuple):
    """A set of distances: distinct values float64 [U], ascending, and how often each occurs, int64
    [U]."""

    values: NDArray[np.float64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, distances: NDArray[np.float64]) -> Distances:
        """From an array of distances. They are rounded to ten decimals, so that equal ones with
        different rounding errors become one, and the set stays small even for large images."""
        values, counts = np.unique(np.round(distances, 10), return_counts=True)
        return cls(values.astype(np.float64), counts.astype(np.int64))

    @classmethod
    def merged(cls, parts: Sequence[Distances]) -> Distances:
        """The union of several sets."""
        if not parts:
            return cls(np.empty(0), np.empty(0, np.int64))
        found, at = np.unique(np.concatenate([p.values for p in parts]), return_inverse=True)
        counts = np.zeros(len(found), np.int64)
        np.add.at(counts, at, np.concatenate([p.counts for p in parts]))
        return cls(found.astype(np.float64), counts)

    @property
    def number(self) -> int:
        return int(self.counts.sum())

    @property
    def total(self) -> float:
        """Sum of the distances."""
        return float(self.values @ self.counts)

    def within(self, limit: float) -> int:
        """Number of distances that are at most ``limit``."""
        return int(self.counts[: int(np.searchsorted(self.values, limit, "right"))].sum())

    def percentile(self, share: float) -> float:
        """Like `np.percentile` with linear interpolation; NaN if there are no distances."""
        if not self.number:
            return NAN
        place = share / 100 * (self.number - 1)
        ends = np.cumsum(self.counts)
        low, high = (
            float(self.values[int(np.searchsorted(ends, where, "right"))])
            for where in (np.floor(place), np.ceil(place))
        )
        return low + (high - low) * float(place - np.floor(place))

    def scaled(self, factor: float) -> Distances:
        """Each distance multiplied by ``factor``, above 0."""
        return Distances(self.values * factor, self.counts)


class Surfaces(Protocol):
    """The true and the predicted outlines of one class."""

    @property
    def sizes(self) -> tuple[int, int]:
        """Points of the true and of the predicted outlines."""

    def distances(self, spacing: Sequence[float] | None) -> tuple[Distances, Distances]:
        """Distances from each predicted point to the nearest true one, and the other way round;
        both are empty if one of the outlines is."""


class Outlines(NamedTuple):
    """Points of the true and the predicted outlines of one class: int32 [N, axes] each, in
    pixels, axes as (Z,) Y, X."""

    truth: Points
    pred: Points

    @property
    def sizes(self) -> tuple[int, int]:
        """Points of the true and of the predicted outlines."""
        return len(self.truth), len(self.pred)

    def distances(self, spacing: Sequence[float] | None) -> tuple[Distances, Distances]:
        """See `Surfaces`."""
        if not all(self.sizes):
            return Distances.merged([]), Distances.merged([])
        scale = np.asarray(spacing or (1.0,) * self.truth.shape[1], np.float64)
        truth, pred = self
        to_truth, to_pred = nearest(pred, truth, scale), nearest(truth, pred, scale)
        return Distances.of(to_truth), Distances.of(to_pred)


def outline(labels: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Which pixels of a label array share a face with a pixel of another label: bool.

    labels: [(Z,) Y, X], class indices or ids; a pixel of label k is on the outline of k. valid:
    bool of the same shape; pixels where it is False are not on an outline and do not cause one.
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
    outlines: Surfaces,
    tolerance: Tolerance,
    spacing: Sequence[float] | None = None,
) -> list[Score]:
    """Scores of one class.

    ``boundary_precision``, ``boundary_recall``: the share of the predicted (true) outline that has
    a point of the other outline within the tolerance; ``boundary_f1``: their harmonic mean (Csurka
    et al. 2013, doi 10.5244/C.27.32). ``hd95_um``: the larger of the 95th percentiles of the
    distances from each outline to the other (Huttenlocher et al. 1993 with a percentile);
    ``asd_um``: the mean of the distances in both directions (average symmetric surface distance).

    spacing: pixel size in micrometres per axis. None = unknown: distances are in pixels, the same
    for all axes, and the names end in ``_px``.

    Both outlines empty: all NaN. One empty: F1 0, precision (recall) 0 or NaN, distances NaN.
    Raises ValueError for a tolerance in micrometres without a spacing.
    """
    if tolerance.unit == "um" and spacing is None:
        raise ValueError("a tolerance in um needs the pixel size")
    unit = "px" if spacing is None else "um"
    to_truth, to_pred = near = outlines.distances(spacing)
    if tolerance.unit == "px" and spacing is not None and set(spacing) != {1.0}:
        if len(set(spacing)) == 1:  # the same distances in pixels
            near = to_truth.scaled(1 / spacing[0]), to_pred.scaled(1 / spacing[0])
        else:
            near = outlines.distances(None)
    # A distance that equals the tolerance except for rounding is within it.
    limit = tolerance.value * (1 + 1e-9)
    hits = [float(found.within(limit)) for found in near]
    n_true, n_pred = outlines.sizes
    number = to_truth.number + to_pred.number
    hd95 = max(to_truth.percentile(95), to_pred.percentile(95)) if number else NAN
    return [
        ratio(class_, "boundary_precision", hits[0], n_pred),
        ratio(class_, "boundary_recall", hits[1], n_true),
        Score(class_, "boundary_f1", f1(hits[0], n_pred, hits[1], n_true)),
        Score(class_, f"hd95_{unit}", hd95),
        ratio(class_, f"asd_{unit}", to_truth.total + to_pred.total, number),
    ]


def f1(hits_pred: float, n_pred: float, hits_true: float, n_true: float) -> float:
    """Harmonic mean of precision and recall; 0 if either outline is missing, NaN if both are."""
    if not n_pred + n_true:
        return NAN
    if not hits_pred * hits_true:
        return 0.0
    precision, recall = hits_pred / n_pred, hits_true / n_true
    return 2 * precision * recall / (precision + recall)
