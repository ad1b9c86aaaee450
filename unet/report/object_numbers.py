"""Numbers about true and predicted objects, from the table of matches, and what they say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unet.evaluation.object_pairs import FALSE, MATCHED, MISSED
from unet.report.console import percent

if TYPE_CHECKING:
    import pandas as pd

    from unet.report.detail_tables import Details

# With fewer objects than this, a share says little.
LEAST_OBJECTS = 20
# Objects that a bin of sizes should have, and the most bins.
BIN_OBJECTS, MOST_BINS = 15, 8
Sizes = NDArray[np.float64]


@dataclass(frozen=True)
class ImageCount:
    """Numbers of true and predicted objects in an image."""

    image: str
    true: int
    pred: int


def image_counts(details: Details) -> list[ImageCount]:
    """The numbers of each image, sorted by id; images without objects have zeros."""
    kinds = {
        image: dict(group.value_counts())
        for image, group in details.matches.groupby("image")["kind"]
    }
    found = []
    for image in details.images:
        n = kinds.get(image, {})
        matched = int(n.get(MATCHED, 0))
        true, pred = matched + int(n.get(MISSED, 0)), matched + int(n.get(FALSE, 0))
        found.append(ImageCount(image, true, pred))
    return found


def count_finding(model: str, counts: Sequence[ImageCount]) -> str:
    """How many objects there are and how many were predicted."""
    true, pred = sum(c.true for c in counts), sum(c.pred for c in counts)
    more = sum(c.pred > c.true for c in counts)
    fewer = sum(c.pred < c.true for c in counts)
    change = f" ({100 * (pred - true) / true:+.0f} %)" if true else ""
    return (
        f"{model}: {pred} objects predicted, {true} are true{change}; too many in {more} and too "
        f"few in {fewer} of {_images(len(counts))}."
    )


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


def size_unit(tables: Iterable[pd.DataFrame], volumes: bool) -> SizeUnit:
    """Micrometres if the pixel size of every object is known, else pixels."""
    known = all(not table["pixel_um"].isna().any() for table in tables)
    if known:
        return SizeUnit("µm³" if volumes else "µm²", True)
    return SizeUnit("voxels" if volumes else "px", False)


def sizes(table: pd.DataFrame, column: str, kinds: Sequence[str], unit: SizeUnit) -> Sizes:
    """Sizes of the objects of these kinds, float64 [N], in the order of the table.

    Args:
        column: "true_px" or "pred_px".
    """
    rows = table[table["kind"].isin(kinds)]
    found = rows[column] * rows["pixel_um"] if unit.physical else rows[column]
    return np.asarray(found, np.float64)


def true_sizes(table: pd.DataFrame, unit: SizeUnit) -> Sizes:
    return sizes(table, "true_px", (MATCHED, MISSED), unit)


def pred_sizes(table: pd.DataFrame, unit: SizeUnit) -> Sizes:
    return sizes(table, "pred_px", (MATCHED, FALSE), unit)


def size_finding(model: str, true: Sizes, pred: Sizes, unit: SizeUnit) -> str:
    """How the median sizes compare; that there are too few objects if so."""
    n = f"n = {len(pred)} predicted and {len(true)} true"
    if min(len(true), len(pred)) < LEAST_OBJECTS:
        return f"{model}: too few objects to tell ({n})."
    median = float(np.median(true)), float(np.median(pred))
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


def size_edges(true: Sizes) -> Sizes:
    """Edges of bins with about equally many objects, at least about BIN_OBJECTS; float64 [B + 1].

    Objects of one size are in one bin, so there may be fewer bins. The last edge is included.
    """
    if not len(true):
        return np.empty(0)
    number = max(1, min(MOST_BINS, len(true) // BIN_OBJECTS))
    return np.unique(np.quantile(true, np.linspace(0, 1, number + 1)))


def size_bins(table: pd.DataFrame, edges: Sizes, unit: SizeUnit) -> list[SizeBin]:
    """The bins that hold true objects of the table.

    Args:
        edges: as of `size_edges`; sizes beyond them go to the first or the last bin.
    """
    size = true_sizes(table, unit)
    rows = table[table["kind"].isin((MATCHED, MISSED))]
    matched = np.asarray(rows["kind"] == MATCHED)
    iou = np.asarray(rows["iou"], np.float64)
    last = max(0, len(edges) - 2)
    at = np.clip(np.searchsorted(edges, size, side="right") - 1, 0, last)
    bins = []
    for b in range(last + 1):
        inside = at == b
        if inside.any():
            hits = iou[inside & matched]
            mean = float(hits.mean()) if len(hits) else math.nan
            own = size[inside]
            bins.append(
                SizeBin(float(own.min()), float(own.max()), int(inside.sum()),
                        len(hits) / int(inside.sum()), mean)
            )  # fmt: skip
    return bins


def found_finding(model: str, table: pd.DataFrame, unit: SizeUnit) -> str:
    """How many of the smallest quarter of the objects are found, against the larger ones."""
    size = true_sizes(table, unit)
    if len(size) < LEAST_OBJECTS:
        return f"{model}: too few objects to tell (n = {len(size)})."
    rows = table[table["kind"].isin((MATCHED, MISSED))]
    matched: NDArray[Any] = np.asarray(rows["kind"] == MATCHED)
    limit = float(np.quantile(size, 0.25))
    small = size < limit
    if small.sum() < LEAST_OBJECTS / 4 or small.all():
        share = percent(float(matched.mean()))
        return f"{model}: {share} of the objects are found; most have one size (n = {len(size)})."
    return (
        f"{model}: objects below {size_text(limit)} {unit.name} are found in "
        f"{percent(float(matched[small].mean()))} of cases, larger ones in "
        f"{percent(float(matched[~small].mean()))} (n = {int(small.sum())} and "
        f"{int((~small).sum())})."
    )
