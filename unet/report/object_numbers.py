"""Numbers about true and predicted objects, from the summed table of matches, and what they say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unet.evaluation.metrics.rows import MetricRow
from unet.report.console import percent

if TYPE_CHECKING:
    import pandas as pd

    from unet.report.detail_tables import Details, ObjectTable

# With fewer objects than this, a share says little.
LEAST_OBJECTS = 20
# Objects that a bin of sizes should have, and the most bins.
BIN_OBJECTS, MOST_BINS = 15, 8


@dataclass(frozen=True, eq=False)
class Sizes:
    """Sizes of objects, and how many objects have each.

    Attributes:
        values: float64 [S], rising.
        n: int64 [S], at least 1.
    """

    values: NDArray[np.float64]
    n: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of objects."""
        return int(self.n.sum())

    def quantiles(self, shares: ArrayLike) -> NDArray[np.float64]:
        """As np.quantile of the single objects, which interpolates between neighbours."""
        at = (len(self) - 1) * np.asarray(shares, np.float64)
        ends = np.cumsum(self.n)
        low, high = (
            self.values[np.searchsorted(ends, end(at), side="right")] for end in (np.floor, np.ceil)
        )
        part = at - np.floor(at)
        # From the nearer end, as numpy does, so that not even the last digit differs.
        up, down = low + (high - low) * part, high - (high - low) * (1 - part)
        return np.where(part < 0.5, up, down)


@dataclass(frozen=True)
class ImageCount:
    """Numbers of true and predicted objects in an image."""

    image: str
    true: int
    pred: int


def image_counts(details: Details) -> list[ImageCount]:
    """The numbers of each image, sorted by id; images without objects have zeros."""
    every = details.objects.counts.reindex(details.images, fill_value=0)
    return [ImageCount(i, *n) for i, n in zip(every.index, every.to_numpy().tolist(), strict=True)]


def scored_counts(metrics: Iterable[MetricRow], name: str) -> tuple[list[ImageCount], int | None]:
    """The same from the scores ``n_true`` and ``n_pred`` of a tool, whose masks have no table of
    matches; none if these were not scored. Also how many true objects are found, by its recall at
    IoU 0.5; None if that was not scored."""
    values: dict[tuple[str, int], dict[str, float]] = {}
    for row in metrics:
        counted = row.class_ == "instances" and row.metric in ("n_true", "n_pred", "recall_0.50")
        if counted and row.model == name and not math.isnan(row.value):
            values.setdefault((row.image, row.fold), {})[row.metric] = row.value
    sums: dict[str, list[int]] = {}
    found: int | None = 0
    for (image, _), own in sorted(values.items()):
        if {"n_true", "n_pred"} <= own.keys():
            image_sum = sums.setdefault(image, [0, 0])
            image_sum[0] += round(own["n_true"])
            image_sum[1] += round(own["n_pred"])
            # Without true objects there is no recall, and nothing to find.
            recall = own.get("recall_0.50") if own["n_true"] else 0
            if found is not None:
                found = None if recall is None else found + round(own["n_true"] * recall)
    return [ImageCount(image, *both) for image, both in sums.items()], found


def count_finding(model: str, counts: Sequence[ImageCount], found: int | None) -> str:
    """How many objects there are, how many were predicted, and whether they are the same ones.

    Args:
        found: number of true objects that are found (IoU >= 0.5); None = not known.
    """
    true, pred = sum(c.true for c in counts), sum(c.pred for c in counts)
    more = sum(c.pred > c.true for c in counts)
    fewer = sum(c.pred < c.true for c in counts)
    change = f" ({100 * (pred - true) / true:+.0f} %)" if true else ""
    # Numbers can agree, or be off by little, where hardly any object is right.
    caution = (
        " Most true objects are not found, so a number near the true one means nothing."
        if pred and found is not None and found < true / 2
        else ""
    )
    are = "is" if found == 1 else "are"
    right = "" if found is None else f", of which {found} {are} found (IoU at least 0.5)"
    return (
        f"{model}: {pred} objects predicted, {true} in the labels{change}{right}; too many "
        f"predicted in {more} and too few in {fewer} of {_images(len(counts))}.{caution}"
    )


def found_number(table: ObjectTable) -> int:
    """How many true objects are found."""
    return int(table.sizes["found"].sum())


def _images(number: int) -> str:
    return f"{number} image{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class SizeUnit:
    """The unit of object sizes.

    Attributes:
        name: for axes and texts.
        physical: whether sizes are in micrometres, not in pixels.
    """

    name: str
    physical: bool


def size_unit(tables: Iterable[ObjectTable], volumes: bool) -> SizeUnit:
    """Micrometres if the pixel size of every object is known, else pixels."""
    known = all(not table.sizes["pixel_um"].isna().any() for table in tables)
    if known:
        return SizeUnit("µm³" if volumes else "µm²", True)
    return SizeUnit("voxels" if volumes else "px", False)


def _rows(table: ObjectTable, side: str, unit: SizeUnit) -> pd.DataFrame:
    """The rows with true (or "pred") objects, by their ``size`` in the unit."""
    rows = table.sizes[table.sizes[side] > 0]
    size = rows["px"] * rows["pixel_um"] if unit.physical else rows["px"]
    return rows.assign(size=size).sort_values("size")


def _sizes(table: ObjectTable, side: str, unit: SizeUnit) -> Sizes:
    rows = _rows(table, side, unit)
    return Sizes(rows["size"].to_numpy(float), rows[side].to_numpy(np.int64))


def true_sizes(table: ObjectTable, unit: SizeUnit) -> Sizes:
    return _sizes(table, "true", unit)


def pred_sizes(table: ObjectTable, unit: SizeUnit) -> Sizes:
    return _sizes(table, "pred", unit)


def size_finding(model: str, true: Sizes, pred: Sizes, unit: SizeUnit) -> str:
    """How the median sizes compare; that there are too few objects if so."""
    n = f"n = {len(pred)} predicted and {len(true)} true"
    if min(len(true), len(pred)) < LEAST_OBJECTS:
        return f"{model}: too few objects to tell ({n})."
    median = float(true.quantiles(0.5)), float(pred.quantiles(0.5))
    return (
        f"{model}: the median predicted object has {size_text(median[1])} {unit.name}, the median "
        f"true one {size_text(median[0])} {unit.name} ({100 * (median[1] / median[0] - 1):+.0f} %; "
        f"{n})."
    )


def size_text(size: float) -> str:
    """A size to three digits, without an exponent."""
    digits = 0 if size >= 100 else 1 if size >= 10 else 2
    return f"{size:,.{digits}f}"


@dataclass(frozen=True)
class SizeBin:
    """True objects of similar size.

    Attributes:
        low, high: smallest and largest size in it.
        n: number of true objects.
        found: share of them that is found (IoU >= 0.5).
        iou: mean IoU of the found ones; NaN if there is none.
    """

    low: float
    high: float
    n: int
    found: float
    iou: float


def size_edges(true: Sizes) -> NDArray[np.float64]:
    """Edges of bins with about equally many objects, at least about BIN_OBJECTS; float64 [B + 1].

    Objects of one size are in one bin, so there may be fewer bins. The last edge is included.
    """
    if not len(true):
        return np.empty(0)
    number = max(1, min(MOST_BINS, len(true) // BIN_OBJECTS))
    return np.unique(true.quantiles(np.linspace(0, 1, number + 1)))


def size_bins(table: ObjectTable, edges: NDArray[np.float64], unit: SizeUnit) -> list[SizeBin]:
    """The bins that hold true objects of the table.

    Args:
        edges: as of `size_edges`; sizes beyond them go to the first or the last bin.
    """
    rows = _rows(table, "true", unit)
    last = max(0, len(edges) - 2)
    at = np.clip(np.searchsorted(edges, rows["size"], side="right") - 1, 0, last)
    bins = []
    for _, own in rows.groupby(at):
        n, found = int(own["true"].sum()), int(own["found"].sum())
        iou = float(own["iou"].sum()) / found if found else math.nan
        low, high = float(own["size"].min()), float(own["size"].max())
        bins.append(SizeBin(low, high, n, found / n, iou))
    return bins


def found_finding(model: str, table: ObjectTable, unit: SizeUnit) -> str:
    """How many of the smallest quarter of the objects are found, against the larger ones."""
    size = true_sizes(table, unit)
    if len(size) < LEAST_OBJECTS:
        return f"{model}: too few objects to tell (n = {len(size)})."
    limit = float(size.quantiles(0.25))
    rows = _rows(table, "true", unit)
    below = rows["size"] < limit
    small, large = (rows[side][["true", "found"]].sum() for side in (below, ~below))
    if small["true"] < LEAST_OBJECTS / 4 or not large["true"]:
        share = percent((small["found"] + large["found"]) / len(size))
        return f"{model}: {share} of the objects are found; most have one size (n = {len(size)})."
    return (
        f"{model}: objects below {size_text(limit)} {unit.name} are found in "
        f"{percent(small['found'] / small['true'])} of cases, larger ones in "
        f"{percent(large['found'] / large['true'])} (n = {small['true']} and {large['true']})."
    )
