"""What a label says about its objects: sizes, which touch, holes, pieces, cut by the edge; and
whether the image shows objects that no label covers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.data.survey.facts import SurveyedObjects

Array = NDArray[Any]
Flags = NDArray[np.bool_]

# A region that no label covers counts if it has at least this share of the median object's pixels.
LIKE_OBJECT = 0.4
# Median objects and background must differ by this many times the background's spread.
CONTRAST = 3.0


@dataclass(frozen=True)
class ObjectFacts:
    """The objects of one label, one entry per object, in the order of their ids.

    Attributes:
        area: number of pixels.
        touching: whether one of its pixels shares a side with a pixel of another object.
        at_edge: whether it has a pixel at the edge of the array.
        holes: whether background pixels are enclosed by it alone.
        pieces: number of separate pieces; pixels that share a corner are connected.
        whole: whether the array is a whole image, not a region of it.
    """

    area: NDArray[np.int64]
    touching: Flags
    at_edge: Flags
    holes: Flags
    pieces: NDArray[np.int64]
    whole: bool = True

    @property
    def count(self) -> int:
        return len(self.area)


def numbered(label: Array, *, ignore: int | None = None, binary: bool = False) -> NDArray[np.int32]:
    """The objects of a label [(Z,) Y, X] numbered 1..n in the order of their ids; 0 elsewhere.

    Args:
        ignore: value of pixels that belong to nothing.
        binary: whether each connected component (also over corners) is an object.
    """
    from scipy import ndimage

    marked = label != 0
    if ignore is not None:
        marked &= label != ignore
    if binary:
        return np.asarray(ndimage.label(marked, np.ones((3,) * label.ndim))[0], np.int32)
    if label.dtype.kind == "u" and label.dtype.itemsize <= 2:
        there = np.flatnonzero(np.bincount(label[marked], minlength=1))
        table = np.zeros(int(np.iinfo(label.dtype).max) + 1, np.int32)
        table[there] = np.arange(1, len(there) + 1)
        return np.where(marked, table[label], 0)
    ids = np.zeros(label.shape, np.int32)
    ids[marked] = np.unique(label[marked], return_inverse=True)[1] + 1
    return ids


def object_facts(ids: NDArray[np.int32], *, whole: bool = True) -> ObjectFacts:
    """Facts about objects that :func:`numbered` gave [(Z,) Y, X].

    Args:
        whole: whether it is a whole image. A region of one cuts objects at its edge, which may
            leave several pieces of them: they count as one.
    """
    from skimage import measure

    label_of: Any = measure.label
    count = int(ids.max(initial=0))
    area = np.bincount(ids.ravel(), minlength=count + 1)
    touching, at_edge = (np.zeros(count + 1, bool) for _ in range(2))
    for axis in range(ids.ndim):
        along = np.moveaxis(ids, axis, 0)
        before, after = along[:-1], along[1:]
        contact = (before != after) & (before > 0) & (after > 0)
        touching[before[contact]] = touching[after[contact]] = True
        at_edge[along[[0, -1]]] = True
    regions = label_of(ids, background=0, connectivity=ids.ndim)
    owner = np.zeros(int(regions.max(initial=0)) + 1, np.int32)
    owner[regions] = ids
    pieces = np.bincount(owner[1:], minlength=count + 1)
    if not whole:
        pieces[at_edge] = np.minimum(pieces[at_edge], 1)
    holes = _holes(ids, count)
    return ObjectFacts(area[1:], touching[1:], at_edge[1:], holes[1:], pieces[1:], whole)


def _holes(ids: NDArray[np.int32], count: int) -> Flags:
    """Whether each object encloses background, which nothing else borders."""
    from scipy import ndimage

    # Over sides only: background that meets over a corner of an object is not connected.
    regions, number = ndimage.label(ids == 0)
    least = np.full(number + 1, count + 1, np.int32)
    most = np.zeros(number + 1, np.int32)
    open_ = np.zeros(number + 1, bool)
    for axis in range(ids.ndim):
        along, objects = np.moveaxis(regions, axis, 0), np.moveaxis(ids, axis, 0)
        open_[along[[0, -1]]] = True
        for here, there in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
            border = (along[here] > 0) & (objects[there] > 0)
            region, owner = along[here][border], objects[there][border]
            np.minimum.at(least, region, owner)
            np.maximum.at(most, region, owner)
    enclosed = ~open_ & (least == most)
    found = np.zeros(count + 1, bool)
    found[most[enclosed]] = True
    found[0] = False
    return found


def summary(
    labels: Sequence[ObjectFacts], dims: int, empty_images: Sequence[str] = ()
) -> SurveyedObjects:
    """The objects of all labels together.

    Args:
        dims: 2, or 3 for volumes.
    """
    total = sum(facts.count for facts in labels)
    # Where only a region was measured, it is not known what the whole image has.
    whole = [facts for facts in labels if facts.whole]
    counts = [facts.count for facts in whole] or [0]
    at_edge = sum(int(facts.at_edge.sum()) for facts in whole)

    def joined(name: str) -> Array:
        arrays = [getattr(facts, name) for facts in labels]
        return np.concatenate(arrays) if arrays else np.zeros(0)

    low, median, high = np.percentile(joined("area"), (5, 50, 95)).tolist() if total else (0.0,) * 3
    return SurveyedObjects(
        count=total,
        per_image=(
            (min(counts), float(np.median(counts)), max(counts)) if whole or not labels else None
        ),
        area=(low, median, high),
        diameter=(diameter(low, dims), diameter(median, dims), diameter(high, dims)),
        touching=float(joined("touching").mean()) if total else 0.0,
        at_edge=at_edge / sum(counts) if sum(counts) else None if total else 0.0,
        with_holes=int(joined("holes").sum()),
        in_pieces=int((joined("pieces") > 1).sum()),
        empty_images=tuple(empty_images),
    )


def diameter(area: float, dims: int) -> float:
    """Of a disc or ball with so many pixels."""
    return 2 * math.sqrt(area / math.pi) if dims == 2 else (6 * area / math.pi) ** (1 / 3)


def unlabelled_share(image: Array, ids: NDArray[np.int32]) -> float | None:
    """Pixels of regions that look like objects but that no label covers, relative to the pixels of
    the labelled objects.

    A region looks like an object if it is beyond the middle between the medians of objects and
    background, on the side of the objects, and is not much smaller than they are.

    Args:
        image: first channel [(Z,) Y, X].
        ids: of the same shape.

    Returns:
        None without objects, or if their brightness does not set them apart.
    """
    from scipy import ndimage

    marked = ids > 0
    if not marked.any():
        return None
    smooth = ndimage.gaussian_filter(image.astype(np.float32), 1.0)
    near = ndimage.binary_dilation(marked, iterations=3)
    if near.all():
        return None
    inside, outside = smooth[marked], smooth[~near]
    usual = float(np.median(outside))
    spread = 1.4826 * float(np.median(np.abs(outside - usual)))
    step = float(np.median(inside)) - usual
    if abs(step) <= CONTRAST * spread:
        return None
    beyond = (smooth - usual) * math.copysign(1, step) > abs(step) / 2
    regions, _ = ndimage.label(beyond & ~near)
    sizes = np.bincount(regions.ravel())[1:]
    usual_area = float(np.median(np.bincount(ids.ravel())[1:]))
    large = sizes[sizes >= LIKE_OBJECT * usual_area]
    return float(large.sum() / np.count_nonzero(marked))
