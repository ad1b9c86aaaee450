"""Thumbnails of test images with the outlines of the truth and of the prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unet.config.heads import IGNORE
from unet.errors import UserError
from unet.export.mark_colours import BOTH, PREDICTION, TRUTH
from unet.paths import Paths
from unet.report import overlays
from unet.report.collect import Pick
from unet.report.cuts import cuts_of
from unet.report.figures import image_uri
from unet.report.overlays import OverlayView
from unet.report.predicted_pictures import every_nth

SIDE = 256


@dataclass(frozen=True)
class Thumbnail:
    """A picture of an image as a data URI, and why the image was chosen."""

    pick: Pick
    uri: str
    labelled: bool


def thumbnails(
    paths: Paths, dataset: str, model: str, task: str, picks: Sequence[Pick]
) -> list[Thumbnail]:
    """The thumbnails of a model's images; those that the stores lack are left out."""
    from PIL import Image

    found = []
    for pick in picks:
        view = small_view(paths, dataset, model, task, pick)
        if view is not None:
            picture = Image.fromarray(outlined(view, SIDE))
            uri = image_uri(picture, "JPEG", quality=80, subsampling=0)
            found.append(Thumbnail(pick, uri, view.labelled))
    return found


def outlined(view: OverlayView, side: int) -> NDArray[np.uint8]:
    """The image with the outlines of its objects, or of its classes: uint8 [Y, X, 3].

    ``TRUTH``: only the truth has an outline here, ``PREDICTION``: only the prediction, ``BOTH``.
    """
    views = [replace(view, pred=np.where(view.ignored, 0, v)) for v in (view.truth, view.pred)]
    # As outlines, also where the labels are classes.
    truth, pred = (overlays.marked(v, "instances", side) for v in views)
    rgb = pred.image.copy()
    in_pred = pred.marks > 0
    in_truth = (truth.marks > 0) & view.labelled
    rgb[in_truth & ~in_pred] = TRUTH
    rgb[in_pred & ~in_truth] = PREDICTION
    rgb[in_pred & in_truth] = BOTH
    return rgb


def small_view(paths: Paths, dataset: str, model: str, task: str, pick: Pick) -> OverlayView | None:
    """What a thumbnail needs of an image, read block by block; of a volume the section with the
    most foreground. None if a store lacks it."""
    from unet.data.store import OwnGrid
    from unet.prediction.stitch.segmentation import Segmentation

    try:
        prepared = OwnGrid(paths.prepared(dataset, model))
        segmentation = Segmentation(paths.segmentation(dataset, model, pick.fold))
        image, classes = prepared.image(pick.image), prepared.classes(pick.image)
        shown = segmentation.classes(pick.image)
        objects = task == "instances"
        truth = prepared.instances(pick.image) if objects else classes
        pred = segmentation.instances(pick.image) if objects else shown
        pixel_size = prepared.attrs(pick.image).get("pixel_size_um")
    except (UserError, FileNotFoundError):
        return None
    labelled = classes is not None and truth is not None
    if pred is None:
        return None
    cut = cuts_of(classes if labelled else shown, pixel_size)[0]
    section: tuple[int | slice, ...] = () if cut is None else (cut.index,)
    # Twice the pixels that are shown, so that thin structures do not fall between them.
    stride = max(1, max(image.shape[-2:]) // (2 * SIDE))
    pixels = every_nth(image, (slice(0, 3), *section), stride)
    predicted = every_nth(pred, section, stride)
    if not labelled:
        nothing = np.zeros(predicted.shape, bool)
        return OverlayView(pixels, predicted, predicted, nothing, stride, labelled=False)
    ignored = every_nth(classes, section, stride) == IGNORE
    if prepared.sparse(pick.image):
        ignored[:] = False  # objects without a label lie there
    return OverlayView(pixels, every_nth(truth, section, stride), predicted, ignored, stride)
