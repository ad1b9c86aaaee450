"""What the metrics are computed from: sums over the blocks of an image and points of outlines.

The sums of blocks add up, so the whole image is never in memory, and the result does not depend on
the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unet.data.tiling import Slices
from unet.errors import UserError
from unet.evaluation.blockwise import channel_of, probability_of
from unet.evaluation.metrics.boundary import Outlines, Surfaces, outline
from unet.evaluation.metrics.calibration import Reliability, reliability
from unet.evaluation.metrics.chunks import kept
from unet.evaluation.metrics.contingency import Contingency, contingency, of_counted, summed
from unet.evaluation.metrics.nearest import Points
from unet.evaluation.metrics.pixel import confusion
from unet.evaluation.metrics.precision_recall import ProbabilityCounts, probability_counts
from unet.evaluation.metrics.surfaces import BlockOutlines, PointFiles, save_points
from unet.evaluation.scan import Block, Part, Scan
from unet.prediction.objects.counted_pairs import UNLABELLED_ID


def confusion_matrix(num_classes: int) -> Part[NDArray[np.int64], NDArray[np.int64]]:
    """Confusion matrix of the classes, int64 [K, K], without ignored pixels."""
    return Part(
        lambda block: confusion(block.labels("truth"), block.labels("pred"), num_classes),
        lambda _, found: sum(found, np.zeros((num_classes, num_classes), np.int64)),
    )


def _ids_in(block: Block) -> Contingency:
    truth, pred = block.labels("truth_ids"), block.labels("pred_ids")
    if not block.pair.sparse:
        return contingency(truth, pred, block.valid)
    return contingency(np.where(block.valid, truth, np.uint32(UNLABELLED_ID)), pred)


# Table of the true and predicted ids, without ignored pixels. An object that consists only of
# ignored pixels does not count. With sparse labels objects are whole, see `of_counted`.
TABLE: Part[Contingency, Contingency] = Part(
    _ids_in,
    lambda scan, found: of_counted(summed(found)) if scan.pair.sparse else summed(found),
)


def reliability_sums(class_names: Sequence[str]) -> Part[Reliability, Reliability]:
    """Sums that compare the classes' probabilities with the truth, without ignored pixels.

    Raises:
        UserError: (in the pass) a class's probability does not follow from the head's channels.
    """

    def of(block: Block) -> Reliability:
        pair, region = block.pair, block.region
        found = [channel_of(pair, name, class_names, "calibration") for name in class_names]
        if len(found) == 2:  # the first class follows from the second
            p = probability_of(pair, *found[1], region)[None]
            return reliability(block.labels("truth"), p, first=1)
        # Channels are inverted only if there are two classes.
        p = np.stack([probability_of(pair, *channel, region) for channel in found])
        return reliability(block.labels("truth"), p)

    return Part(of, lambda _, found: sum(found[1:], found[0]))


def counts_by_probability(
    class_names: Sequence[str],
) -> Part[dict[str, ProbabilityCounts], Mapping[str, ProbabilityCounts]]:
    """Pixels of each class after the first, and others, by the class's probability, without
    ignored pixels. Classes whose probability does not follow from the head's channels are left
    out; all are without probabilities.
    """

    def of(block: Block) -> dict[str, ProbabilityCounts]:
        counts: dict[str, ProbabilityCounts] = {}
        for name in class_names[1:] if block.pair.probabilities is not None else ():
            try:
                channel = channel_of(block.pair, name, class_names, "a class")
            except UserError:
                continue
            p = probability_of(block.pair, *channel, block.region)
            t, p = kept(block.valid, block.labels("truth"), p)
            counts[name] = probability_counts(t == class_names.index(name), p)
        return counts

    return Part(
        of, lambda _, found: reduce(lambda a, b: {name: a[name] + b[name] for name in a}, found)
    )


def border_ids(name: str) -> Part[set[int], set[int]]:
    """Ids of the objects that touch the image's border (in volumes also the first or last
    section).

    Args:
        name: ``truth_ids`` or ``pred_ids``.
    """

    def of(block: Block) -> set[int]:
        labels, ids = block.labels(name), set[int]()
        for axis, (s, size) in enumerate(zip(block.region, block.pair.pred.shape, strict=True)):
            for at, ends in ((0, s.start == 0), (-1, s.stop == size)):
                if ends:
                    ids.update(np.unique(labels.take(at, axis)).tolist())
        return ids

    return Part(of, lambda _, found: set[int]().union(*found) - {0})


# Surfaces of each class except the first, by class index, and of the objects.
Found: TypeAlias = tuple[dict[int, Surfaces], Surfaces | None]


def outlines(num_classes: int) -> Part[list[Points] | list[int], Found]:
    """Outlines of each class except the first (by class index), and outlines of the objects, where
    every change of id is an outline (None for task semantic).

    The points of an image of several blocks are in files.
    """
    # Kinds of points: true outlines of each class, then predicted ones, then those of the objects.
    n = num_classes - 1

    def of(block: Block) -> list[Points] | list[int]:
        points = _outlines_in(block, num_classes)
        if block.scan.folder is None:
            return points
        return save_points(block.scan.folder, block.scan.grid.number(block.index), points)

    def total(scan: Scan, found: list[Any]) -> Found:
        kinds: Sequence[Any] = found[0]
        between: Callable[..., Surfaces] = Outlines
        if scan.folder is not None:
            files = PointFiles(scan.folder, scan.grid, np.array(found, np.int64))
            kinds = range(len(kinds))
            between = partial(BlockOutlines, files, threads=scan.threads)
        classes = {k + 1: between(kinds[k], kinds[n + k]) for k in range(n)}
        return classes, between(*kinds[2 * n :]) if len(kinds) > 2 * n else None

    return Part(of, total, margin=1)


def _outlines_in(block: Block, num_classes: int) -> list[Points]:
    """The points of all kinds in a block."""
    # Without ignored pixels, leaving out their test saves half of the time.
    valid = None if block.wide_valid.all() else block.wide_valid
    found: list[Points] = []
    for name in ("truth", "pred"):
        labels = block.wide(name)
        edges, core = outline(labels, valid)[block.inner], labels[block.inner]
        found += [_points(edges & (core == k), block.region) for k in range(1, num_classes)]
    if block.pair.truth_ids is not None and block.pair.pred_ids is not None:
        for name in ("truth_ids", "pred_ids"):
            edges = outline(block.wide(name), valid)[block.inner]
            found.append(_points(edges & (block.labels(name) != 0), block.region))
    return found


def _points(inside: NDArray[np.bool_], region: Slices) -> Points:
    """Coordinates in the image of the pixels of a block that are True, int32 [N, axes]."""
    # Several times faster than argwhere.
    found = np.unravel_index(np.flatnonzero(inside), inside.shape)
    points = np.empty((len(found[0]), inside.ndim), np.int32)
    for axis, (own, s) in enumerate(zip(found, region, strict=True)):
        np.add(own, s.start, out=points[:, axis], casting="same_kind")
    return points
