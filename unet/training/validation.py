"""The validation score: whole images, predicted as they will be in use."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unet.models.inference import Predictor
from unet.training.sampling import TrainingImage

IGNORE = 255


def validate(
    predictor: Predictor, images: Sequence[TrainingImage], tile: int
) -> tuple[float, float]:
    """Mean cross-entropy per pixel, and mean IoU over the classes but the first.

    The IoU is pooled over the pixels of all images; a class that neither truth nor prediction has
    does not count. The truth is the training target (with the border head: its three classes).

    Returns:
        (loss, score); NaN where there is no labelled pixel.
    """
    nll, pixels = 0.0, 0
    hits: np.ndarray | None = None
    truths = predictions = np.zeros(0)
    for image in images:
        whole = image.read([(0, n) for n in image.shape])
        p = predictor.image(whole.image, tile)
        k = len(p)
        if hits is None:
            hits, truths, predictions = np.zeros(k), np.zeros(k), np.zeros(k)
        valid = whole.target != IGNORE
        truth, found = whole.target[valid].astype(np.intp), p.argmax(axis=0)[valid]
        of_truth = np.take_along_axis(p[:, valid], truth[None], axis=0)
        nll -= float(np.log(np.maximum(of_truth, 1e-7)).sum(dtype=np.float64))
        pixels += truth.size
        hits += np.bincount(truth[truth == found], minlength=k)
        truths += np.bincount(truth, minlength=k)
        predictions += np.bincount(found, minlength=k)
    if hits is None or pixels == 0:
        return float("nan"), float("nan")
    union = truths + predictions - hits
    seen = np.flatnonzero(union[1:] > 0) + 1
    score = float((hits[seen] / union[seen]).mean()) if len(seen) else float("nan")
    return nll / pixels, score
