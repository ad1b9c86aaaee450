"""What a segmentation shows about its own quality, without labels, measured block by block."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.data.blocks import grid_of
from unet.data.tiling import Slices
from unet.prediction.stitch.segmentation import Segmentation

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
Sizes = NDArray[np.int64] | NDArray[np.float64]

# Side of the blocks in pixels; changes no value.
BLOCK = 1024
# Least probability of foreground of a pixel that may be of a missed object. The small probabilities
# of plain background add up to any sum, if the image is large enough.
PROBABLE = 0.2


@dataclass(frozen=True)
class Evidence:
    """What was measured on one segmented image; NaN = not defined.

    Attributes:
        count: number of objects; None for task semantic.
        expected_iou: IoU of the foreground that would be true on average if the probabilities were
            true: sum of p in the mask / (pixels of the mask + sum of p outside). Task semantic: the
            mean over the classes after the first.
        sureness: mean of \\|2 p - 1\\| in an object, p = probability of foreground, mean over the
            objects; task semantic: mean difference of the two largest probabilities of a pixel.
        missed: sum of p outside the objects, in pixels, over the pixels with p >= PROBABLE.
        touching: share of the objects' outlines along another object.
        ragged: outline of an object (pixel sides) / that of a square of its size - 1, mean over the
            objects.
        sizes: pixels of each object [L]; empty if they are not needed any more.
        covered: share of the image that its largest object, or class after the first, covers.
        pixels: of the image.
    """

    count: int | None
    expected_iou: float
    sureness: float
    missed: float = math.nan
    touching: float = math.nan
    ragged: float = math.nan
    sizes: Ids = field(default_factory=lambda: np.empty(0, np.int64), compare=False)
    covered: float = 0.0
    pixels: int = 1


def measure(segmentation: Segmentation, image: str, task: str, block: int = BLOCK) -> Evidence:
    """Measures one image.

    Args:
        block: side of the blocks in pixels (see :func:`unet.data.blocks.grid_of`); one at a time
            is in memory, and two numbers per object.
    """
    probabilities = segmentation.probabilities(image)
    head = tuple(segmentation.attrs(image)["head"])
    if task == "semantic":
        return semantic_evidence(probabilities, segmentation.classes(image), block)
    labels = segmentation.instances(image)
    if labels is None:
        raise ValueError(f"image {image}: has no objects, as for task semantic")
    return object_evidence(probabilities, labels, head.index("background"), block)


def semantic_evidence(probabilities: Any, classes: Any, block: int = BLOCK) -> Evidence:
    """Of class probabilities [C, (Z,) Y, X] and the class map [(Z,) Y, X], index of the class."""
    number = probabilities.shape[0]
    inside, outside, area = np.zeros(number), np.zeros(number), np.zeros(number)
    sure, pixels = 0.0, int(np.prod(classes.shape))
    for region in grid_of(classes.shape, block).regions():
        p = np.asarray(probabilities[(slice(None), *region)], np.float32)
        chosen = np.asarray(classes[region])
        for k in range(number):
            mask = chosen == k
            within = float(p[k][mask].sum(dtype=np.float64))
            inside[k] += within
            area[k] += int(mask.sum())
            outside[k] += float(p[k].sum(dtype=np.float64)) - within
        two = np.partition(p, number - 2, axis=0)[-2:] if number > 1 else np.stack([1 - p[0], p[0]])
        sure += float(np.abs(two[1] - two[0]).sum(dtype=np.float64))
    ratios = [_ratio(inside[k], area[k], outside[k]) for k in range(1, number)]
    known = [value for value in ratios if not math.isnan(value)]
    return Evidence(
        count=None,
        expected_iou=sum(known) / len(known) if known else math.nan,
        sureness=sure / pixels,
        covered=float(area[1:].max(initial=0)) / pixels,
        pixels=pixels,
    )


def _ratio(inside: float, area: float, outside: float) -> float:
    # Less than a pixel is nothing; sums of float16 leave crumbs.
    return min(1.0, inside / (area + outside)) if area + outside >= 1 else math.nan


def object_evidence(
    probabilities: Any, labels: Any, background: int, block: int = BLOCK
) -> Evidence:
    """Of probabilities [C, (Z,) Y, X] and ids of objects [(Z,) Y, X], 0 = background.

    Args:
        background: index of its channel.
    """
    sums = _Sums()
    inside = outside = missed = 0.0
    for region in grid_of(labels.shape, block).regions():
        wider = tuple(slice(s.start, s.stop + 1) for s in region)  # with the next pixel
        ids = np.asarray(labels[wider]).astype(np.int64)
        own = ids[tuple(slice(0, s.stop - s.start) for s in region)]
        p = 1 - np.asarray(probabilities[(background, *region)], np.float32)
        flat = own.ravel()
        sums.add("area", np.bincount(flat))
        sums.add("sure", np.bincount(flat, np.abs(2 * p - 1).ravel()))
        for one, other in _faces(ids, region):
            differ = one != other
            one, other = one[differ], other[differ]
            sums.add("faces", np.bincount(one) if one.size else np.zeros(1))
            sums.add("faces", np.bincount(other) if other.size else np.zeros(1))
            both = (one > 0) & (other > 0)
            sums.add("shared", np.array([0, 2.0 * both.sum()]))
        within = float(p[own > 0].sum(dtype=np.float64))
        inside += within
        outside += float(p.sum(dtype=np.float64)) - within
        missed += float(p[(own == 0) & (p >= PROBABLE)].sum(dtype=np.float64))
    found = _objects(sums, inside, outside, labels.ndim, int(np.prod(labels.shape)))
    return replace(found, missed=missed)


def _faces(ids: Ids, region: Slices) -> Iterator[tuple[Ids, Ids]]:
    """Ids on both sides of each face between pixels of a block, or at its end, axis by axis."""
    inner = tuple(slice(0, s.stop - s.start) for s in region)
    for axis in range(ids.ndim):
        here, there = list(inner), list(inner)
        here[axis] = slice(0, min(inner[axis].stop, ids.shape[axis] - 1))
        there[axis] = slice(1, here[axis].stop + 1)
        yield ids[tuple(here)].ravel(), ids[tuple(there)].ravel()


class _Sums:
    """Sums per id, as long as the largest id so far."""

    def __init__(self) -> None:
        self._found: dict[str, Floats] = {}

    def add(self, name: str, more: NDArray[Any]) -> None:
        old = self._found.get(name, np.zeros(1))
        new = np.zeros(max(len(old), len(more)))
        new[: len(old)] += old
        new[: len(more)] += more
        self._found[name] = new

    def length(self, name: str) -> int:
        """The largest id with a sum, plus one."""
        return len(self._found.get(name, ()))

    def of(self, name: str, length: int) -> Floats:
        """The sums of ids 1 .. length - 1."""
        old = self._found.get(name, np.zeros(1))
        return np.concatenate([old, np.zeros(max(0, length - len(old)))])[1:length]


def _objects(sums: _Sums, inside: float, outside: float, dims: int, pixels: int) -> Evidence:
    area = sums.of("area", sums.length("area"))
    there = area > 0
    sizes = area[there]
    if not len(sizes):
        return Evidence(0, _ratio(0.0, 0.0, outside), math.nan, pixels=pixels)
    faces = sums.of("faces", len(area) + 1)[there]
    shared = float(sums.of("shared", 2)[0])
    square = 2 * dims * sizes ** ((dims - 1) / dims)
    return Evidence(
        count=len(sizes),
        expected_iou=_ratio(inside, float(sizes.sum()), outside),
        sureness=float((sums.of("sure", len(area) + 1)[there] / sizes).mean()),
        touching=shared / float(faces.sum()) if faces.sum() else 0.0,
        ragged=float((faces / square).mean()) - 1,
        sizes=sizes.astype(np.int64),
        covered=float(sizes.max()) / pixels,
        pixels=pixels,
    )


def odd_sizes(sizes: Sizes, usual: Sequence[float]) -> float:
    """Share of objects that are smaller or larger than nearly all training objects.

    Args:
        sizes: [L] in pixels of the network's grid.
        usual: percentiles 5, 50 and 95 of the sizes of the training objects there.
    """
    if not len(sizes):
        return math.nan
    return float(((sizes < usual[0]) | (sizes > usual[2])).mean())


def size_drift(sizes: Sizes, usual: Sequence[float]) -> float:
    """How far the median size is from that of the training objects, on a log scale: 1 = as far as
    percentile 5 or 95 of these (but at least a factor of 1.5). Arguments as in `odd_sizes`."""
    if not len(sizes) or min(usual) <= 0:
        return math.nan
    off = math.log(float(np.median(sizes)) / usual[1])
    reach = abs(math.log(usual[2 if off > 0 else 0] / usual[1]))
    return abs(off) / max(reach, math.log(1.5))
