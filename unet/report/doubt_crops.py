"""Small pictures of doubts: the image with the outlines of the label and of the prediction."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.data.store import OwnGrid
from unet.errors import UserError
from unet.evaluation.audit.doubts import Doubt
from unet.export.mark_colours import BOTH, PREDICTION, TRUTH
from unet.paths import Paths
from unet.prediction.stitch.segmentation import Segmentation
from unet.report.figures import image_uri
from unet.report.overlays import OverlayView, marked

log = logging.getLogger(__name__)

# Side of a picture, and least side of the part of the image that it shows, in pixels.
SIDE, LEAST = 192, 64
# Longest side that is read: of a larger part every n-th pixel.
LIMIT = 400


def crop(paths: Paths, dataset: str, model: str, task: str, doubt: Doubt) -> str | None:
    """A picture of a doubt as a data URI; None (and a warning) if a store lacks the image."""
    try:
        prepared = OwnGrid(paths.prepared(dataset))
        segmentation = Segmentation(paths.segmentation(dataset, model, doubt.fold))
        image = prepared.image(doubt.image)
        if task == "instances":
            label, pred = prepared.instances(doubt.image), segmentation.instances(doubt.image)
        else:
            label, pred = prepared.classes(doubt.image), segmentation.classes(doubt.image)
    except (UserError, FileNotFoundError) as error:
        log.warning("no picture of a doubt about %s: %s", doubt.image, error)
        return None
    if label is None or pred is None:
        return None
    where = window(doubt, tuple(label.shape))
    pixels = np.asarray(image[(slice(0, 3), *where)])
    return _drawn(pixels, _ids(label, where), _ids(pred, where))


def window(doubt: Doubt, shape: tuple[int, ...]) -> tuple[int | slice, ...]:
    """The part of an image of this shape to show: a square around the doubt, in a volume in the
    section through its centre."""
    (low_y, low_x), (high_y, high_x) = doubt.low[-2:], doubt.high[-2:]
    side = max(LEAST, round(1.6 * max(high_y - low_y, high_x - low_x)))
    stride = -(-min(side, max(shape[-2:])) // LIMIT)
    found: list[int | slice] = [
        min(shape[0] - 1, max(0, round(doubt.centroid[0]))) for _ in range(len(shape) - 2)
    ]
    for low, high, size in zip((low_y, low_x), (high_y, high_x), shape[-2:], strict=True):
        start = max(0, min((low + high - side) // 2, size - side))
        found.append(slice(start, min(size, start + side), stride))
    return tuple(found)


def _ids(array: Any, where: tuple[int | slice, ...]) -> NDArray[np.int64]:
    return np.asarray(array[where]).astype(np.int64)


def _drawn(pixels: NDArray[Any], label: NDArray[np.int64], pred: NDArray[np.int64]) -> str:
    from PIL import Image

    nothing = np.zeros(label.shape, bool)
    shown = [
        marked(OverlayView(pixels, ids, ids, nothing), "instances", SIDE) for ids in (label, pred)
    ]
    rgb = shown[0].image.copy()
    one, other = (found.marks > 0 for found in shown)
    rgb[one], rgb[other], rgb[one & other] = TRUTH, PREDICTION, BOTH
    return image_uri(Image.fromarray(rgb), "JPEG", quality=80, subsampling=0)
