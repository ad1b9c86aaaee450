"""Labels of whole images that probably belong to another image.

Each image's label and prediction are reduced to a few cells. A label fits a prediction if their
cells correlate. A label is in doubt if it fits its own prediction much worse than labels usually
do, and another one much better.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unet.config.heads import IGNORE
from unet.data.blocks import grid_of, ordered
from unet.data.tiling import Slices
from unet.evaluation.audit.doubts import Doubt
from unet.evaluation.audit.object_overlaps import channel_of, foreground
from unet.evaluation.blockwise import ScoredPair

BLOCK = 1024
# Cells per side, in Z, and the values of all images together above which there are fewer.
SIDE, DEPTH, MOST_VALUES = 32, 8, 1 << 26
# Largest share of ignored pixels with which a whole label can be judged.
MOST_IGNORED = 0.2
# Correlation that labels and predictions have for a usable model, and the least one of a match.
USABLE, LEAST_MATCH = 0.5, 0.3
# How much better the match must be for full confidence, as a share of how well labels usually fit:
# even unrelated images have something in common.
FULL = 0.7
# Labels compared at once.
ROWS = 1024
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Thumbnails:
    """An image's label and prediction in cells.

    Attributes:
        label, pred: float32 [F], centred and of length 1; 0 where the map is even.
        ignored: share of the pixels.
    """

    image: str
    fold: int
    shape: tuple[int, ...]
    label: Floats
    pred: Floats
    ignored: float


def cells_per_side(images: int, classes: int, volumes: bool = False) -> int:
    """Fewer cells for many images, so that all of them fit into memory."""
    side, each = SIDE, 2 * images * classes * (DEPTH if volumes else 1)
    while side > 8 and each * side * side > MOST_VALUES:
        side //= 2
    return side


def thumbnails(
    pair: ScoredPair,
    fold: int,
    task: str,
    side: int = SIDE,
    threads: int = 1,
    block: int = BLOCK,
) -> Thumbnails:
    """The thumbnails of an image, read block by block."""
    shape = tuple(pair.truth.shape)
    bins = tuple(min(n, m) for n, m in zip((DEPTH, side, side)[-len(shape) :], shape, strict=True))
    classes = range(1, 2 if task == "instances" else len(pair.head))

    def one(region: Slices) -> tuple[tuple[slice, ...], NDArray[np.float64], int]:
        truth = np.asarray(pair.truth[region])
        valid = truth != IGNORE
        maps = []
        for k in classes:
            p = foreground(pair, region) if task == "instances" else channel_of(pair, k, region)
            maps += [(truth == k).astype(np.float32), np.where(valid, p, np.float32(0))]
        cells, where = _cells(np.stack(maps), region, bins, shape)
        return where, cells, int(np.count_nonzero(~valid))

    total, ignored = np.zeros((2 * len(classes), *bins)), 0
    for where, cells, unknown in ordered(one, grid_of(shape, block).regions(), threads):
        total[(slice(None), *where)] += cells
        ignored += unknown
    total /= math.prod(shape) / math.prod(bins)
    return Thumbnails(
        pair.image, fold, shape, _unit(total[0::2]), _unit(total[1::2]), ignored / math.prod(shape)
    )


def _cells(
    maps: Floats, region: Slices, bins: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[NDArray[np.float64], tuple[slice, ...]]:
    """Sums of the pixels of a block by cell, and the cells' position in the whole."""
    found, where = maps.astype(np.float64), []
    for axis, (s, n, size) in enumerate(zip(region, bins, shape, strict=True), start=1):
        cell = np.arange(s.start, s.stop) * n // size
        starts = np.flatnonzero(np.diff(cell, prepend=-1))
        found = np.add.reduceat(found, starts, axis=axis)
        where.append(slice(int(cell[0]), int(cell[-1]) + 1))
    return found, tuple(where)


def _unit(maps: NDArray[np.float64]) -> Floats:
    """Centred map by map, then scaled to length 1 together."""
    flat = maps.reshape(len(maps), -1)
    centred = (flat - flat.mean(axis=1, keepdims=True)).ravel()
    length = float(np.linalg.norm(centred))
    return np.asarray(centred / length if length > 1e-9 else 0 * centred, np.float32)


@dataclass(frozen=True)
class Exchanged:
    """What was found out about the labels as a whole.

    Attributes:
        doubts: at most one per image.
        usual: median correlation of labels with their own predictions; NaN without any.
    """

    doubts: tuple[Doubt, ...]
    usual: float


def exchanged(images: Sequence[Thumbnails]) -> Exchanged:
    """The labels that probably belong to another image of the same shape.

    The confidence is how much better the match is than the label's own image, as a share of how
    well labels usually fit, times how usable the model is.
    """
    judged = [t for t in images if t.ignored <= MOST_IGNORED]
    own = np.array([float(t.label @ t.pred) for t in judged])
    some = np.array([bool(t.label.any()) for t in judged], bool)
    if not some.any():
        return Exchanged((), math.nan)
    usual = float(np.median(own[some]))
    if usual <= 0:
        return Exchanged((), usual)
    found = []
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for at, t in enumerate(judged):
        by_shape.setdefault(t.shape, []).append(at)
    for members in by_shape.values():
        unfit = [at for at in members if own[at] < 0.5 * usual]
        if len(members) < 2 or not unfit:
            continue
        for at, best, match in _best([judged[m] for m in members], unfit, members):
            gain = (best - float(own[at])) / (FULL * usual)
            confidence = min(1.0, max(0.0, gain)) * min(1.0, usual / USABLE)
            if best >= LEAST_MATCH and confidence > 0:
                found.append(_doubt(judged[at], judged[match], float(own[at]), best, confidence))
    return Exchanged(tuple(found), usual)


def _best(
    images: Sequence[Thumbnails], unfit: Sequence[int], members: Sequence[int]
) -> list[tuple[int, float, int]]:
    """(number of the image, correlation of the best match, number of the match) of each label."""
    place = {at: k for k, at in enumerate(members)}
    strongest: dict[int, tuple[float, int]] = {}
    for rows in _parts([place[at] for at in unfit]):
        # The label may fit another image's prediction, or another label may fit this one's.
        for one, other in (("label", "pred"), ("pred", "label")):
            own = _stack(images, one, rows)
            for columns in _parts(range(len(images))):
                scores = own @ _stack(images, other, columns).T
                scores[np.equal.outer(rows, columns)] = -1
                best = scores.argmax(axis=1)
                for row, score, at in zip(rows, scores.max(axis=1), best, strict=True):
                    if row not in strongest or score > strongest[row][0]:
                        strongest[row] = float(score), columns[at]
    return [(members[row], strongest[row][0], members[strongest[row][1]]) for row in strongest]


def _parts(items: Sequence[int]) -> Iterator[Sequence[int]]:
    return (items[start : start + ROWS] for start in range(0, len(items), ROWS))


def _stack(images: Sequence[Thumbnails], name: str, chosen: Sequence[int]) -> Floats:
    """The maps of some images, float32 [N, F]: a copy, so never of all of them."""
    return np.stack([getattr(images[k], name) for k in chosen])


def _doubt(
    image: Thumbnails, match: Thumbnails, own: float, best: float, confidence: float
) -> Doubt:
    what = f"correlation with its own image {own:.2f}, with {match.image} {best:.2f}"
    return Doubt(
        image.image, image.fold, "exchanged", confidence, what,
        tuple((n - 1) / 2 for n in image.shape), (0,) * len(image.shape), image.shape,
        math.prod(image.shape), match=match.image,
    )  # fmt: skip
