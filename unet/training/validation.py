"""The validation score, from whole images, predicted as the predict stage does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unet.config.heads import IGNORE
from unet.data.tiling import cheapest_tile
from unet.models.inference import Predictor
from unet.training.ranks import Ranks
from unet.training.sampling import TrainingImage


def validate(
    predictor: Predictor, images: Sequence[TrainingImage], tile: int, ranks: Ranks | None = None
) -> tuple[float, float]:
    """Mean cross-entropy per pixel, and mean IoU over all classes except the first.

    The IoU is pooled over the pixels of all images; a class that neither truth nor prediction
    contains does not count. The truth is the training target: with the border head its three
    classes; with the distance head the foreground, and the mean absolute error of the distance on
    the foreground is added to the loss.

    Args:
        ranks: the processes that share the images.

    Returns:
        (loss, score), the same in all processes; NaN if there is no labelled pixel.
    """
    ranks = ranks or Ranks()
    k = predictor.classes
    # Of this process: negative log-likelihood, error of the distance, pixels, foreground pixels;
    # then per class correct, true and predicted pixels.
    sums = np.zeros(4)
    table = np.zeros((3, k))
    for image in images[ranks.rank :: ranks.size]:
        whole = image.read([(0, n) for n in image.shape])
        p = predictor.image(whole.image, _tile(predictor, image.shape, tile))
        valid = whole.target != IGNORE
        truth, found = whole.target[valid].astype(np.intp), p[:k].argmax(axis=0)[valid]
        of_truth = np.take_along_axis(p[:k, valid], truth[None], axis=0)
        sums[0] -= np.log(np.maximum(of_truth, 1e-7)).sum(dtype=np.float64)
        sums[2] += truth.size
        if "distance" in whole.maps and len(p) > k:
            inside = valid & (whole.target > 0)
            sums[1] += np.abs(p[k] - whole.maps["distance"][0])[inside].sum(dtype=np.float64)
            sums[3] += inside.sum()
        table[0] += np.bincount(truth[truth == found], minlength=k)
        table[1] += np.bincount(truth, minlength=k)
        table[2] += np.bincount(found, minlength=k)
    totals = ranks.from_each((sums, table))
    sums, table = sum(t[0] for t in totals), sum(t[1] for t in totals)
    if sums[2] == 0:
        return float("nan"), float("nan")
    hits, truths, predictions = table
    union = truths + predictions - hits
    seen = np.flatnonzero(union[1:] > 0) + 1
    score = float((hits[seen] / union[seen]).mean()) if len(seen) else float("nan")
    return float(sums[0] / sums[2] + sums[1] / max(sums[3], 1.0)), score


def _tile(predictor: Predictor, shape: tuple[int, ...], tile: int) -> int | tuple[int, ...]:
    """Windows of ``tile`` pixels a side; for volumes, windows of 2 ``tile``^2 voxels."""
    if len(shape) == 2:
        return tile
    return cheapest_tile(shape, predictor.footprint, 2 * tile * tile)
