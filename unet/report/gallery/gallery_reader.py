"""Reads one image with the labels of all models, each array once, for the gallery's pictures."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.config.heads import IGNORE
from unet.data.store import OwnGrid
from unet.errors import UserError
from unet.paths import Paths
from unet.prediction.stitch.segmentation import Segmentation
from unet.report import overlays
from unet.report.collect import Window
from unet.report.cuts import Cut, cuts_of
from unet.report.overlays import Labels, OverlayView
from unet.report.predicted_pictures import every_nth

log = logging.getLogger(__name__)

# Longest side of what is read: every n-th pixel of larger images.
LIMIT = 1280
# Side of the detail of an image that is too large to show each pixel.
DETAIL = 512


@dataclass(frozen=True, eq=False)
class SeenPlane:
    """A 2D image, a plane of a volume, or a detail of it, all arrays on the same pixels.

    Attributes:
        note: which part of the image it is; "" for all of it.
        image: float32 [C, Y, X].
        truth: class indices (task semantic) or ids of objects [Y, X]; None without labels.
        ignored: bool [Y, X], pixels that no score counts.
        predictions: model -> its labels [Y, X], as ``truth``; a model without is left out.
        stride: distance between these pixels in the stored image.
        sparse: whether ignored pixels are those without a label, where objects may lie.
    """

    note: str
    image: NDArray[Any]
    truth: Labels | None
    ignored: NDArray[np.bool_]
    predictions: Mapping[str, Labels]
    stride: int = 1
    sparse: bool = False


@dataclass(frozen=True, eq=False)
class _Stored:
    """The stored arrays of an image, opened but not read: [C, (Z,) Y, X], then [(Z,) Y, X]."""

    image: Any
    classes: Any
    truth: Any
    predictions: Mapping[str, Any]
    cuts: list[Cut | None]
    sparse: bool


def read_planes(
    paths: Paths, dataset: str, task: str, image: str, folds: Mapping[str, int], detail_from: int
) -> list[SeenPlane]:
    """The planes of an image as `cuts` chooses them, the same for all models.

    Args:
        folds: model, or what stands for a tool in paths -> the fold that predicted the image.
        detail_from: a 2D image or a section with a longer side gets a second plane: the detail with
            the most errors of all models. 0: none gets one.

    Raises:
        UserError: no store has the image.
    """
    stored = _open(paths, dataset, task, image, folds)
    found = []
    for cut in stored.cuts:
        whole = _whole(stored, cut)
        found.append(whole)
        longest = max(stored.image.shape[-2:])
        if detail_from and longest > detail_from and (cut is None or cut.axis == 0):
            found.append(_detail(stored, cut, whole, task))
    return found


def _open(paths: Paths, dataset: str, task: str, image: str, folds: Mapping[str, int]) -> _Stored:
    prepared: OwnGrid | None = None
    predictions: dict[str, Any] = {}
    classes_of_first: Any = None
    failed = UserError(f"{image}: no model predicted it")
    for model, fold in folds.items():
        try:
            prepared = prepared or _with(OwnGrid(paths.prepared(dataset, model)), image)
            segmentation = Segmentation(paths.segmentation(dataset, model, fold))
            own = segmentation.classes(image)
            labels = segmentation.instances(image) if task == "instances" else own
        except (UserError, FileNotFoundError) as error:
            log.warning("no overlay of %s by %s: %s", image, model, error)
            failed = UserError(str(error))
            continue
        if labels is not None:
            predictions[model] = labels
            classes_of_first = own if classes_of_first is None else classes_of_first
    if prepared is None:
        raise failed
    classes: Any = prepared.classes(image)
    truth: Any = prepared.instances(image) if task == "instances" else classes
    chosen_by = classes if classes is not None else classes_of_first
    size = prepared.attrs(image).get("pixel_size_um")
    pixels = prepared.image(image)
    planes = _middle(pixels) if chosen_by is None else cuts_of(chosen_by, size)
    return _Stored(pixels, classes, truth, predictions, planes, prepared.sparse(image))


def _with(prepared: OwnGrid, image: str) -> OwnGrid:
    prepared.image(image)
    return prepared


def _middle(pixels: Any) -> list[Cut | None]:
    """The plane to show if nothing is known of its labels."""
    if pixels.ndim == 3:
        return [None]
    depth = pixels.shape[1]
    return [Cut(0, depth // 2, f"section z = {depth // 2} of {depth}")]


def _whole(stored: _Stored, cut: Cut | None) -> SeenPlane:
    sides = stored.image.shape[-2:] if cut is None or cut.axis == 0 else stored.image.shape[1:]
    stride = -(-max(sides) // LIMIT)

    def read(array: Any, lead: tuple[slice, ...]) -> NDArray[Any]:
        if cut is None or cut.axis == 0:
            return every_nth(array, lead if cut is None else (*lead, cut.index), stride)
        where = slice(None, None, stride)
        return cut.of(array, lead, (where, where))

    note = "" if cut is None else cut.note
    return _plane(stored, read, note if stride == 1 else f"{note}, reduced".lstrip(", "), stride)


def _detail(stored: _Stored, cut: Cut | None, whole: SeenPlane, task: str) -> SeenPlane:
    wrong = np.zeros(whole.ignored.shape, np.int64)
    for labels in whole.predictions.values():
        truth = labels if whole.truth is None else whole.truth
        labelled = whole.truth is not None
        view = OverlayView(whole.image, truth, labels, whole.ignored, labelled=labelled)
        wrong += overlays.errors(view, task)
    y, x = overlays.worst_window(wrong, max(1, DETAIL // whole.stride))
    window: Window = (y * whole.stride, x * whole.stride, DETAIL)
    rows, columns = (slice(start, start + DETAIL) for start in window[:2])

    def read(array: Any, lead: tuple[slice, ...]) -> NDArray[Any]:
        index = () if cut is None else (cut.index,)
        return np.asarray(array[(*lead, *index, rows, columns)])

    what = "foreground" if whole.truth is None else "errors"
    place = f"{DETAIL} px from y = {window[0]}, x = {window[1]}"
    name = "" if cut is None else f"z = {cut.index}, "
    return _plane(stored, read, f"{name}detail with the most {what}, {place}", 1)


def _plane(stored: _Stored, read: Any, note: str, stride: int) -> SeenPlane:
    image = read(stored.image, (slice(0, 3),))
    classes = None if stored.classes is None else read(stored.classes, ())
    same = stored.truth is stored.classes
    truth = None if stored.truth is None else classes if same else read(stored.truth, ())
    ignored = np.zeros(image.shape[1:], bool) if classes is None else classes == IGNORE
    predictions = {model: read(labels, ()) for model, labels in stored.predictions.items()}
    return SeenPlane(note, image, truth, ignored, predictions, stride, stored.sparse)
