"""Chooses the threshold that scores best on a fold's validation images (never on test images)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unet.config.heads import IGNORE
from unet.config.sections import StitchSection
from unet.data.blocks import Grid, grid_of, ordered
from unet.data.tiling import Slices
from unet.prediction.objects.components import LabelArray, run_starts
from unet.prediction.objects.counted_pairs import UNLABELLED_ID, counted_pairs
from unet.prediction.objects.methods import segment
from unet.prediction.objects.probabilities import ReadClass
from unet.prediction.objects.temporary_arrays import HELD_BLOCKS, scratch

if TYPE_CHECKING:
    from unet.data.store import Prepared
    from unet.prediction.tiles.tile_store import Tiles

log = logging.getLogger(__name__)

# Thresholds to choose from.
CANDIDATES = tuple(k / 20 for k in range(2, 19))
DEFAULT_THRESHOLD = 0.5
MATCH_IOU = 0.5


def choose_threshold(
    tiles: Tiles,
    prepared: Prepared,
    folder: Path,
    section: StitchSection,
    task: str,
    head: tuple[str, ...],
    threads: int = 1,
    block: int = 1024,
) -> float:
    """The candidate (0.1 to 0.9 in steps of 0.05) with the best mean score over validation images.

    The score is the foreground IoU for task semantic with two classes, and AP at IoU 0.5,
    TP / (TP + FP + FN) of the objects, for task instances. Images with no foreground in truth and
    prediction have no score and are left out. In a tie the candidate nearest to 0.5 wins, then the
    lower one.

    Args:
        folder: where temporary arrays may be written.
        head: names of the probability channels.

    Returns:
        The threshold; 0.5, with a warning, if there is no image to choose it on.
    """
    if task == "semantic" and len(head) != 2:
        log.warning(
            "stitch.threshold: auto has no effect with %d classes: each pixel gets the class with "
            "the largest probability", len(head),
        )  # fmt: skip
        return DEFAULT_THRESHOLD
    known = set(prepared.ids())
    ids = [
        image
        for image in tiles.ids()
        if tiles.attrs(image)["part"] == "val"
        and image in known
        and prepared.classes(image) is not None
    ]
    scores: dict[float, list[float]] = {candidate: [] for candidate in CANDIDATES}
    for number, image in enumerate(ids, 1):
        log.info("threshold: validation image %d of %d", number, len(ids))
        grid = grid_of(tiles.attrs(image)["shape"], block)
        if task == "semantic":
            found = iou_curve(tiles, prepared, image, grid, threads)
        else:
            found = _ap_curve(tiles, prepared, image, grid, folder, section, head, threads)
        for candidate, score in found.items():
            scores[candidate] += [score] if score == score else []
    if not any(scores.values()):
        log.warning(
            "stitch.threshold: auto found no validation image with objects, so 0.5 is used (give "
            "the split a validation part, such as split.val: 0.2)"
        )
        return DEFAULT_THRESHOLD
    chosen = best({c: float(np.mean(s)) if s else 0.0 for c, s in scores.items()})
    log.info("threshold: %.2f chosen on %d validation images", chosen, len(ids))
    return chosen


def carried_threshold(sentinels: Sequence[Path]) -> float:
    """The threshold that stitching chose for the model's training dataset: the mean over its folds.

    Args:
        sentinels: ``segmentation.json`` of each fold, or of the ensemble.
    """
    found = [float(json.loads(p.read_text(encoding="utf-8"))["threshold"]) for p in sentinels]
    threshold = round(fmean(found), 6)
    if min(found) < max(found):
        values = ", ".join(f"{value:.2f}" for value in found)
        log.info("threshold: %.3f, the mean over the folds (%s)", threshold, values)
    else:
        log.info("threshold: %.2f, chosen on the model's training dataset", threshold)
    return threshold


def best(scores: Mapping[float, float]) -> float:
    """The candidate with the highest score; in a tie the one nearest to 0.5, then the lower one."""
    return min(
        scores, key=lambda c: (-round(scores[c], 9), round(abs(c - DEFAULT_THRESHOLD), 9), c)
    )


def iou_curve(
    tiles: Tiles, prepared: Prepared, image: str, grid: Grid, threads: int = 1
) -> dict[float, float]:
    """IoU of class 1 at every candidate; NaN if neither truth nor prediction contains it."""
    classes: Any = prepared.classes(image)
    levels = np.asarray(CANDIDATES, np.float32)

    def one(region: Slices) -> NDArray[np.int64]:
        truth = np.asarray(classes[region])
        p = tiles.read(image, region)[1].astype(np.float32)
        # How many candidates p exceeds; summed from the end, the counts are pixels above each one.
        above = np.searchsorted(levels, p[truth != IGNORE], side="left")
        size = len(levels) + 1
        joint = above + size * (truth[truth != IGNORE] == 1)
        return np.bincount(joint, minlength=2 * size).reshape(2, size)

    regions = (grid.region(index) for index in grid)
    counts = sum(ordered(one, regions, threads), np.zeros((2, len(levels) + 1), np.int64))
    false, true = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1][:, 1:]
    union = counts[1].sum() + false
    return {
        c: float(t / u) if u else float("nan")
        for c, t, u in zip(CANDIDATES, true, union, strict=True)
    }


def average_precision(pairs: NDArray[np.uint64], counts: NDArray[np.int64]) -> float:
    """TP / (TP + FP + FN) of objects matched at IoU >= 0.5; NaN if there are no objects.

    Args:
        pairs: uint64 [P], true id times 2**32 plus predicted id, each pair once; id 0 is the
            background.
        counts: int64 [P], number of pixels with this pair.
    """
    truth, pred = pairs >> np.uint64(32), pairs & np.uint64(0xFFFFFFFF)
    truth_ids, truth_at = np.unique(truth, return_inverse=True)
    pred_ids, pred_at = np.unique(pred, return_inverse=True)
    truth_sizes = np.bincount(truth_at, weights=counts)
    pred_sizes = np.bincount(pred_at, weights=counts)
    union = truth_sizes[truth_at] + pred_sizes[pred_at] - counts
    matched = (truth > 0) & (pred > 0) & (counts >= MATCH_IOU * union)
    # At an IoU of exactly 0.5 the two halves of an object both match it: count one of them.
    _, first = np.unique(truth[matched], return_index=True)
    hits = len(np.unique(pred[matched][first]))
    objects = int((truth_ids > 0).sum() + (pred_ids > 0).sum())
    return hits / (objects - hits) if objects else float("nan")


def count_pairs(joint: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The distinct joint ids in a flat array, sorted, and the number of pixels of each."""
    if not joint.size:
        return joint, np.empty(0, np.int64)
    # Find runs first: objects are wide, so there are far fewer runs than pixels to sort.
    starts = run_starts(joint)
    return add_pairs(joint[starts], np.diff(starts, append=joint.size))


def add_pairs(
    keys: NDArray[np.uint64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The distinct keys, sorted, and the sum of the counts of each."""
    unique, at = np.unique(keys, return_inverse=True)
    total = np.zeros(len(unique), np.int64)
    np.add.at(total, at, counts)
    return unique, total


def _ap_curve(
    tiles: Tiles,
    prepared: Prepared,
    image: str,
    grid: Grid,
    folder: Path,
    section: StitchSection,
    head: tuple[str, ...],
    threads: int,
) -> dict[float, float]:
    """AP at IoU 0.5 at every candidate."""
    read = _reader(tiles, image, grid)
    truth, classes = prepared.instances(image), prepared.classes(image)
    sparse, scores = prepared.sparse(image), {}
    for candidate in CANDIDATES:
        with scratch(folder, grid) as temporary:
            labels = segment(read, grid, temporary, head, section, candidate, threads)
            count = partial(_pairs_of_region, truth, classes, labels, sparse)
            tables = list(ordered(count, (grid.region(index) for index in grid), threads))
        keys, counts = zip(*tables, strict=True)
        table = add_pairs(np.concatenate(keys), np.concatenate(counts))
        if sparse:
            table = _counted(*table)
        scores[candidate] = average_precision(*table)
    return scores


def _pairs_of_region(
    truth: Any, classes: Any, labels: LabelArray, sparse: bool, region: Slices
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    known = np.asarray(classes[region]) != IGNORE
    joint = np.asarray(truth[region]).astype(np.uint64)
    if sparse:
        joint[~known] = UNLABELLED_ID
    joint <<= np.uint64(32)
    joint |= labels.read(region)
    return count_pairs(joint.ravel() if sparse else joint[known])


def _counted(
    keys: NDArray[np.uint64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The pairs of sparse labels that count."""
    truth, pred = counted_pairs(keys >> np.uint64(32), keys & np.uint64(0xFFFFFFFF), counts)
    return add_pairs((truth << np.uint64(32)) | pred, counts)


def _reader(tiles: Tiles, image: str, grid: Grid) -> ReadClass:
    """Reads the probabilities; only once for all candidates if the image is a few blocks."""
    if len(grid) > HELD_BLOCKS:
        return lambda channel, region: tiles.read(image, region)[channel].astype(np.float32)
    whole = tiles.read(image, tuple(slice(0, n) for n in grid.shape)).astype(np.float32)
    return lambda channel, region: whole[channel][region]
