"""The labelled and the predicted objects of an image, and how they overlap.

One pass over blocks: each pixel belongs to a pair of a labelled and a predicted object, and the
sums over the pixels of each pair give sizes, centres, boxes and mean probabilities of both. The
same pass notes which labelled objects are neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.config.heads import IGNORE
from unet.data.blocks import grid_of, ordered
from unet.data.tiling import Slices
from unet.errors import UserError
from unet.evaluation.blockwise import ScoredPair
from unet.export.object_sums import Sums, add, read_around, sums

# Side of a block in pixels; the same number of pixels in volumes.
BLOCK = 1024
# A key is predicted id << 32 | label id; this bit of the predicted id marks ignored pixels.
_IGNORED = 1 << 30
# Labelled objects are neighbours if they are at most so many pixels apart along an axis.
REACH = 3
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Objects:
    """Objects of an image, in the order of their ids; [N] each, [N, D] for places.

    Attributes:
        size: pixels that are not ignored.
        ignored: share of all of its pixels that are ignored.
        probability: mean foreground probability of the pixels that are not ignored.
        centroid: in pixels; 0 is the centre of the first pixel.
        low, high: box in pixels, end excluded.
        at_border: whether it touches the image's border and so may be cut.
    """

    ids: Ints
    size: Ints
    ignored: Floats
    probability: Floats
    centroid: Floats
    low: Ints
    high: Ints
    at_border: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class ObjectOverlaps:
    """All objects of an image, and the pairs that overlap.

    Attributes:
        label, pred: intp [P], indices into ``labels`` and ``predicted``.
        pixels: int64 [P], size of the overlap without ignored pixels.
        neighbours: intp [T, 2], pairs of indices into ``labels``, the smaller one first.
        background: number of pixels that are background for labels and model, and the sum of the
            foreground probability there.
    """

    labels: Objects
    predicted: Objects
    label: NDArray[np.intp]
    pred: NDArray[np.intp]
    pixels: Ints
    neighbours: NDArray[np.intp]
    background: tuple[int, float]

    @property
    def of_label(self) -> Floats:
        """Share of the labelled object that the pair covers: [P]."""
        return self.pixels / self.labels.size[self.label]

    @property
    def of_pred(self) -> Floats:
        """Share of the predicted object that the pair covers: [P]."""
        return self.pixels / self.predicted.size[self.pred]

    @property
    def iou(self) -> Floats:
        """Intersection over union: [P]."""
        both = self.labels.size[self.label] + self.predicted.size[self.pred]
        return self.pixels / (both - self.pixels)


def foreground(pair: ScoredPair, region: Slices) -> NDArray[np.float32]:
    """Probability that a pixel belongs to any object, float32 [(Z,) Y, X].

    Raises:
        UserError: the model's output has no background.
    """
    if "background" not in pair.head or pair.probabilities is None:
        raise UserError(
            f"image {pair.image}: the model predicts {', '.join(pair.head)}; an audit of objects "
            "needs the probability of the background"
        )
    return np.float32(1) - channel_of(pair, pair.head.index("background"), region)


def channel_of(pair: ScoredPair, channel: int, region: Slices) -> NDArray[np.float32]:
    """One channel of the probabilities, float32 [(Z,) Y, X]."""
    if pair.probabilities is None:
        raise ValueError(f"image {pair.image} has no probabilities")
    where: tuple[int | slice, ...] = (channel, *region)
    return np.asarray(pair.probabilities[where], np.float32)


def object_overlaps(pair: ScoredPair, threads: int = 1, block: int = BLOCK) -> ObjectOverlaps:
    """The objects of one image.

    Args:
        block: side of the blocks in pixels; does not change the result.
    """
    truth, label_ids, pred_ids = pair.truth, pair.truth_ids, pair.pred_ids
    if label_ids is None or pred_ids is None:
        raise ValueError(f"image {pair.image} has no instances")
    shape = tuple(truth.shape)

    def keys(region: Slices) -> NDArray[np.int64]:
        found = np.asarray(pred_ids[region]).astype(np.int64)
        found |= np.where(np.asarray(truth[region]) == IGNORE, np.int64(_IGNORED), np.int64(0))
        return (found << 32) | np.asarray(label_ids[region]).astype(np.int64)

    def one(region: Slices) -> tuple[Sums, Ints, tuple[int, float]]:
        around, p = read_around(keys, shape, region), foreground(pair, region)
        empty = around[(slice(1, -1),) * len(shape)] == 0
        nothing = int(np.count_nonzero(empty)), float(p[empty].sum(dtype=np.float64))
        return sums(around, p[None], region), _close(label_ids, region), nothing

    regions = list(grid_of(shape, block).regions())
    parts = list(ordered(one, regions, threads))
    found = add((part for part, _, _ in parts), len(shape), 1)
    close = np.unique(np.concatenate([pairs for _, pairs, _ in parts]), axis=0)
    flagged, label_of = found.labels >> 32, found.labels & 0xFFFFFFFF
    valid, pred_of = flagged & _IGNORED == 0, flagged & (_IGNORED - 1)
    labels, predicted = (_objects(of, valid, found, shape) for of in (label_of, pred_of))
    # Objects that consist only of ignored pixels do not count.
    both = valid & (label_of > 0) & (pred_of > 0)
    close = close[np.isin(close, labels.ids).all(axis=1)]
    return ObjectOverlaps(
        labels,
        predicted,
        np.searchsorted(labels.ids, label_of[both]),
        np.searchsorted(predicted.ids, pred_of[both]),
        found.size[both],
        np.searchsorted(labels.ids, close),
        (sum(count for *_, (count, _) in parts), sum(total for *_, (_, total) in parts)),
    )


def _close(label_ids: Any, region: Slices) -> Ints:
    """Pairs of labels, int64 [T, 2], that are near each other along an axis; the first one's pixel
    is in the block."""
    wide = tuple(slice(s.start, s.stop + REACH) for s in region)
    ids = np.asarray(label_ids[wide]).astype(np.int64)
    inner = tuple(slice(0, s.stop - s.start) for s in region)
    found = [np.empty((0, 2), np.int64)]
    for axis, size in enumerate(ids.shape):
        for step in range(1, REACH + 1):
            first, second = list(inner), list(inner)
            stop = max(0, min(inner[axis].stop, size - step))
            first[axis], second[axis] = slice(0, stop), slice(step, stop + step)
            one, other = ids[tuple(first)], ids[tuple(second)]
            differ = (one != other) & (one > 0) & (other > 0)
            pairs = np.sort(np.stack([one[differ], other[differ]], axis=1), axis=1)
            found.append(np.unique(pairs, axis=0))
    return np.concatenate(found)


def _objects(of: Ints, valid: NDArray[np.bool_], found: Sums, shape: tuple[int, ...]) -> Objects:
    """Adds up the pairs of each object; ``of``: its id for each pair, 0 = none."""
    ids = np.unique(of[valid & (of > 0)])
    inside = np.isin(of, ids)
    every = np.searchsorted(ids, of[inside])
    seen = np.searchsorted(ids, of[inside & valid])

    def added(values: NDArray[Any], at: NDArray[np.intp]) -> NDArray[Any]:
        out = np.zeros((len(ids), *values.shape[1:]), values.dtype)
        np.add.at(out, at, values)
        return out

    # Places are those of the whole object, ignored pixels included.
    everything = added(found.size[inside], every)
    size = added(found.size[inside & valid], seen)
    low = np.full((len(ids), len(shape)), np.iinfo(np.int64).max)
    high = np.full((len(ids), len(shape)), -1)
    np.minimum.at(low, every, found.low[inside])
    np.maximum.at(high, every, found.high[inside])
    return Objects(
        ids,
        size,
        1 - size / everything,
        added(found.total[inside & valid, 0], seen) / size,
        added(found.positions[inside], every) / everything[:, None],
        low,
        high + 1,
        ((low == 0) | (high + 1 == np.array(shape))).any(axis=1),
    )
