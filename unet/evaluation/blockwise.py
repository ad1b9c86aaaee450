"""Compares one segmented image with its labels, read from the stores block by block.

The tables of blocks add up, so the whole image is never in memory, and the result does not depend
on the blocks. The exception is `cell_slices`, which yields whole 2D slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from tempfile import gettempdir
from typing import Any, TypeAlias, TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray

from unet.config.heads import IGNORE
from unet.data.blocks import Grid, Index, ordered
from unet.data.store import Prepared
from unet.data.tiling import Slices
from unet.errors import UserError
from unet.evaluation.metrics.boundary import Outlines, Points, Surfaces, outline
from unet.evaluation.metrics.calibration import Reliability, reliability
from unet.evaluation.metrics.contingency import Contingency, contingency, summed
from unet.evaluation.metrics.isbi2012 import Slice
from unet.evaluation.metrics.pixel import confusion
from unet.evaluation.metrics.precision_recall import ProbabilityCounts, probability_counts
from unet.evaluation.metrics.surfaces import BlockOutlines, point_files
from unet.prediction.stitch.segmentation import Segmentation

ZarrArray: TypeAlias = "zarr.Array[Any]"
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class ScoredPair:
    """The arrays of one image, opened lazily, all of the same spatial shape (Z,) Y, X.

    Attributes:
        truth, pred: class index, uint8; 255 in ``truth`` = ignore.
        truth_ids, pred_ids: instance ids, uint32, 0 = background; None for task semantic.
        probabilities: [C, (Z,) Y, X], float16 or float32; None for masks without them.
        head: names of the C classes.
        pixel_size_um: per spatial axis, None = unknown.
    """

    image: str
    truth: ZarrArray
    pred: ZarrArray
    truth_ids: ZarrArray | None
    pred_ids: ZarrArray | None
    probabilities: ZarrArray | None
    head: tuple[str, ...]
    pixel_size_um: tuple[float, ...] | None = None

    def regions(self, block: int | None = None) -> list[Slices]:
        """Blocks that cover the image once: with sides of ``block`` pixels, or the shards (else
        chunks) of the predicted classes."""
        if block is not None:
            step = (block,) * self.pred.ndim
        else:
            step = self.pred.shards or self.pred.chunks
        return list(Grid(self.pred.shape, step).regions())


def open_pair(prepared: Prepared, segmentation: Segmentation, image: str, task: str) -> ScoredPair:
    """Opens one image's arrays.

    Raises:
        UserError: the image has no labels, or none for this task, or their shape differs.
    """
    where = f"{prepared.path / image}"
    truth, pred = prepared.classes(image), segmentation.classes(image)
    if truth is None:
        raise UserError(
            f"{where}: has no labels, so image {image} cannot be evaluated; give it a label file "
            "and run the manifest and prepare stages"
        )
    truth_ids = pred_ids = None
    if task == "instances":
        truth_ids, pred_ids = prepared.instances(image), segmentation.instances(image)
        for ids, stage in ((truth_ids, "prepare"), (pred_ids, "stitch")):
            if ids is None:
                raise UserError(
                    f"image {image}: the {stage} stage made no instances, but task instances "
                    f"needs them; run the {stage} stage again"
                )
    if truth.shape != pred.shape:
        raise UserError(
            f"{where}: labels of shape {truth.shape}, but the segmentation has {pred.shape}; run "
            "the predict and stitch stages again"
        )
    attrs = segmentation.attrs(image)
    size = attrs.get("pixel_size_um")
    return ScoredPair(
        image,
        truth,
        pred,
        truth_ids,
        pred_ids,
        segmentation.probabilities(image) if segmentation.has_probabilities(image) else None,
        tuple(attrs["head"]),
        tuple(float(length) for length in size) if size else None,
    )


def confusion_of(
    pair: ScoredPair, num_classes: int, threads: int = 1, block: int | None = None
) -> NDArray[np.int64]:
    """Confusion matrix of the image's classes, int64 [K, K], without ignored pixels."""

    def one(region: Slices) -> NDArray[np.int64]:
        return confusion(_read(pair.truth, region), _read(pair.pred, region), num_classes)

    zero = np.zeros((num_classes, num_classes), np.int64)
    return sum(_each(one, pair, threads, block), zero)


def contingency_of(pair: ScoredPair, threads: int = 1, block: int | None = None) -> Contingency:
    """Table of the image's true and predicted ids, without ignored pixels. An object that consists
    only of ignored pixels does not count.

    Raises ValueError for task semantic.
    """
    truth_ids, pred_ids = pair.truth_ids, pair.pred_ids
    if truth_ids is None or pred_ids is None:
        raise ValueError(f"image {pair.image} has no instances")

    def one(region: Slices) -> Contingency:
        valid = _read(pair.truth, region) != IGNORE
        return contingency(_read(truth_ids, region), _read(pred_ids, region), valid)

    return summed(_each(one, pair, threads, block))


def reliability_of(
    pair: ScoredPair, class_names: Sequence[str], threads: int = 1, block: int | None = None
) -> Reliability:
    """Sums that compare the classes' probabilities with the truth, without ignored pixels.

    Raises:
        UserError: a class's probability does not follow from the head's channels.
    """
    channels = [_channel(pair, name, class_names, "calibration") for name in class_names]

    def one(region: Slices) -> Reliability:
        p = _probabilities(pair, (slice(None), *region))
        classes = np.stack([1 - p[k] if inverted else p[k] for k, inverted in channels])
        return reliability(_read(pair.truth, region), classes)

    first, *rest = _each(one, pair, threads, block)
    return sum(rest, first)


def probability_counts_of(
    pair: ScoredPair, class_names: Sequence[str], threads: int = 1, block: int | None = None
) -> dict[str, ProbabilityCounts]:
    """Pixels of each class after the first, and others, by the class's probability, without
    ignored pixels. Classes whose probability does not follow from the head's channels are left
    out; all are without probabilities.
    """
    found: dict[str, tuple[int, bool]] = {}
    for name in class_names[1:] if pair.probabilities is not None else ():
        with suppress(UserError):
            found[name] = _channel(pair, name, class_names, "a class")
    if not found:
        return {}

    def one(region: Slices) -> list[ProbabilityCounts]:
        truth = _read(pair.truth, region)
        valid = truth != IGNORE
        counts = []
        for name, (k, inverted) in found.items():
            p = _probabilities(pair, (k, *region))
            p = (1 - p if inverted else p)[valid]
            counts.append(probability_counts(truth[valid] == class_names.index(name), p))
        return counts

    blocks = _each(one, pair, threads, block)
    sums = reduce(lambda a, b: [x + y for x, y in zip(a, b, strict=True)], blocks)
    return dict(zip(found, sums, strict=True))


def border_ids(
    pair: ScoredPair, array: ZarrArray, threads: int = 1, block: int | None = None
) -> set[int]:
    """Ids of the objects that touch the image's border (in volumes also the first or last
    section).

    Args:
        array: ``truth_ids`` or ``pred_ids`` of the image.
    """

    def one(region: Slices) -> set[int]:
        ids: set[int] = set()
        for axis, (s, size) in enumerate(zip(region, array.shape, strict=True)):
            for at, ends in ((s.start, s.start == 0), (s.stop - 1, s.stop == size)):
                if ends:
                    face = (*region[:axis], at, *region[axis + 1 :])
                    ids.update(np.unique(_read(array, face)).tolist())
        return ids

    return set().union(*_each(one, pair, threads, block)) - {0}


@contextmanager
def outlines_of(
    pair: ScoredPair,
    num_classes: int,
    threads: int = 1,
    block: int | None = None,
    beside: Path | None = None,
) -> Iterator[tuple[dict[int, Surfaces], Surfaces | None]]:
    """Outlines of each class except the first (by class index), and outlines of the objects, where
    every change of id is an outline (None for task semantic).

    The points of an image of several blocks are in files below ``beside`` (None: the system's
    folder for temporary files) as long as the context lasts.
    """
    shape = pair.pred.shape
    unit = (block,) * len(shape) if block is not None else pair.pred.shards or pair.pred.chunks
    grid = Grid(tuple(shape), tuple(min(u, n) for u, n in zip(unit, shape, strict=True)))
    # Kinds of points: true outlines of each class, then predicted ones, then those of the objects.
    n = num_classes - 1
    has_objects = pair.truth_ids is not None and pair.pred_ids is not None

    def find(index: Index) -> list[Points]:
        return _outlines_in(pair, num_classes, grid.region(index))

    if len(grid) == 1:
        kinds = find(next(iter(grid)))
        classes: dict[int, Surfaces] = {k + 1: Outlines(kinds[k], kinds[n + k]) for k in range(n)}
        yield classes, Outlines(kinds[2 * n], kinds[2 * n + 1]) if has_objects else None
        return
    with point_files(grid, find, threads, beside or Path(gettempdir())) as files:
        yield (
            {k + 1: BlockOutlines(files, k, n + k, threads) for k in range(n)},
            BlockOutlines(files, 2 * n, 2 * n + 1, threads) if has_objects else None,
        )


def _outlines_in(pair: ScoredPair, num_classes: int, region: Slices) -> list[Points]:
    """The points of all kinds in a region."""
    wide = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in region)
    inner = tuple(
        slice(s.start - w.start, s.stop - w.start) for s, w in zip(region, wide, strict=True)
    )
    truth = _read(pair.truth, wide)
    valid = truth != IGNORE
    found: list[Points] = []
    for labels in (truth, _read(pair.pred, wide)):
        edges, core = outline(labels, valid)[inner], labels[inner]
        found += [_points(edges & (core == k), region) for k in range(1, num_classes)]
    for ids in (pair.truth_ids, pair.pred_ids):
        if ids is not None:
            labels = _read(ids, wide)
            found.append(_points((outline(labels, valid) & (labels != 0))[inner], region))
    return found


def cell_slices(pair: ScoredPair, name: str, class_names: Sequence[str]) -> Iterator[Slice]:
    """For each Z (once for a 2D image): the true pixels of class ``name`` and its probability,
    float32. One whole slice is in memory at a time.

    If the head lacks the second of two classes (heads with border classes lack "foreground"), its
    probability is 1 - p[background].

    Raises:
        UserError: the class does not follow from the head's channels.
    """
    channel, inverted = _channel(pair, name, class_names, "evaluate.topology_class")
    depths: list[tuple[int, ...]] = [(z,) for z in range(pair.truth.shape[0])]
    for z in depths if pair.truth.ndim == 3 else [()]:
        truth = _read(pair.truth, z)
        p = _probabilities(pair, (channel, *z))
        yield Slice(truth == class_names.index(name), 1 - p if inverted else p, truth != IGNORE)


def _channel(
    pair: ScoredPair, name: str, class_names: Sequence[str], what: str
) -> tuple[int, bool]:
    """Channel with the probability of a class, and whether to take 1 minus that channel."""
    if name in pair.head:
        return pair.head.index(name), False
    if len(class_names) == 2 and name == class_names[1] and "background" in pair.head:
        return pair.head.index("background"), True
    raise UserError(
        f"image {pair.image}: {what} is {name!r}, but the model predicts "
        f"{', '.join(pair.head)}; name one of these that the labels have too"
    )


def _probabilities(pair: ScoredPair, where: tuple[int | slice, ...]) -> NDArray[np.float32]:
    if pair.probabilities is None:
        raise ValueError(f"image {pair.image} has no probabilities")
    return _read(pair.probabilities, where).astype(np.float32)


def _points(inside: NDArray[np.bool_], region: Slices) -> Points:
    """Coordinates in the image of the pixels of a block that are True, int32 [N, axes]."""
    points = np.argwhere(inside).astype(np.int32)
    points += np.array([s.start for s in region], np.int32)
    return points


def _each(
    function: Callable[[Slices], R], pair: ScoredPair, threads: int, block: int | None
) -> Iterator[R]:
    return ordered(function, pair.regions(block), threads)


def _read(array: ZarrArray, where: tuple[int | slice, ...]) -> NDArray[Any]:
    # With (), zarr would return a scalar instead of the whole array.
    return np.asarray(array[where] if where else array[:])
