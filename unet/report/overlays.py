"""Panels that show one test image: the image, its truth, the prediction, and the errors.

:mod:`unet.export.mark_colours` has the colours of truth, prediction and errors.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.evaluation.metrics.contingency import contingency
from unet.evaluation.metrics.instance import match
from unet.export.mark_colours import (
    BOTH,
    FALSE,
    IGNORED,
    MISSED,
    OUTLINES,
    PREDICTION,
    SWAPPED,
    TRUTH,
    Rgb,
)
from unet.report.figures import image_uri

Labels = NDArray[np.integer[Any]]

GROUND: Rgb = (24, 26, 30)
# For the classes after the first: white as usual in masks, then colours that are clearly none of
# those of truth, prediction and errors (`unet.export.mark_colours`), which are beside them.
CLASS_COLOURS: tuple[Rgb, ...] = (
    (232, 233, 236),
    (240, 228, 66),
    (150, 100, 250),
    (150, 250, 175),
    (150, 0, 100),
    (0, 0, 225),
    (0, 90, 0),
    (75, 50, 0),
)
# Above this median brightness (0 to 255), an image is bright.
BRIGHT = 140
# Classes on images of any kind: the second class (mark 1) has the colour of the labels or of the
# prediction; the others those of the panels, without white.
MARKED_CLASSES: dict[str, tuple[Rgb, ...]] = {
    "truth": (TRUTH, *CLASS_COLOURS[1:]),
    "prediction": (PREDICTION, *CLASS_COLOURS[1:]),
}
OBJECT_COLOURS: tuple[Rgb, ...] = tuple(
    (round(255 * r), round(255 * g), round(255 * b))
    # Golden-ratio steps of the hue, so that consecutive ids, which are often neighbours, differ.
    for r, g, b in (
        colorsys.hsv_to_rgb(k * 0.6180339887 % 1, (0.75, 0.55)[k % 2], (0.95, 0.8)[k // 2 % 2])
        for k in range(48)
    )
)
_BORDER = 1 + len(OBJECT_COLOURS)
_GREY = 254


@dataclass(frozen=True, eq=False)
class OverlayView:
    """The data of one image to show, all arrays on the same pixels.

    Attributes:
        image: float [C, Y, X].
        truth, pred: class indices (task semantic) or instance ids [Y, X].
        ignored: bool [Y, X], pixels that no metric counts.
        stride: distance between these pixels in the stored image.
        labelled: whether the image has labels; if not, ``truth`` is a copy of the prediction.
    """

    image: NDArray[Any]
    truth: Labels
    pred: Labels
    ignored: NDArray[np.bool_]
    stride: int = 1
    labelled: bool = True


@dataclass(frozen=True)
class Panel:
    title: str
    uri: str


def panels(view: OverlayView, task: str, side: int) -> list[Panel]:
    """Four panels, about ``side`` pixels on the longer side: image, truth, prediction, error.

    Without labels: image, prediction and, for task instances, the objects' outlines on the image.
    """
    grey = display_rgb(view.image)
    small = _resized_image(grey, view.truth.shape, side, enlarge=False)
    draw: Callable[[OverlayView, int], tuple[list[str], NDArray[np.uint8]]] = (
        _instance_panels if task == "instances" else _semantic_panels
    )
    maps, error = draw(view, side)
    if not view.labelled:
        outlines = [Panel("Outlines", _photo(error))] if task == "instances" else []
        return [Panel("Image", _photo(small)), Panel("Prediction", maps[1]), *outlines]
    return [
        Panel("Image", _photo(small)),
        Panel("Truth", maps[0]),
        Panel("Prediction", maps[1]),
        Panel("Error", _photo(error)),
    ]


def errors(view: OverlayView, task: str) -> NDArray[np.bool_]:
    """Where the prediction is wrong, bool [Y, X]; for task instances only inside or outside of
    objects is compared. Without labels: where the prediction is not the first class."""
    if not view.labelled:
        return np.asarray(view.pred > 0)
    objects = task == "instances"
    truth, pred = (labels > 0 if objects else labels for labels in (view.truth, view.pred))
    return np.asarray((truth != pred) & ~view.ignored)


def worst_window(wrong: NDArray[Any], size: int) -> tuple[int, int]:
    """Corner (y, x) of the window with sides of ``size`` pixels that has the most wrong pixels;
    ``wrong``: bool or counts [Y, X]."""
    height, width = wrong.shape
    size_y, size_x = min(size, height), min(size, width)
    total = np.zeros((height + 1, width + 1), np.int64)
    total[1:, 1:] = wrong.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    inside = total[size_y:, size_x:] - total[:-size_y, size_x:]
    inside = inside - (total[size_y:, :-size_x] - total[:-size_y, :-size_x])
    y, x = divmod(int(inside.argmax()), inside.shape[1])
    return y, x


def _semantic_panels(view: OverlayView, side: int) -> tuple[list[str], NDArray[np.uint8]]:
    shape = panel_shape(view.truth.shape, side)
    truth, pred = nearest(view.truth, shape), nearest(view.pred, shape)
    ignored = nearest(view.ignored, shape)
    wrong = (truth != pred) & ~ignored
    error = _dimmed(view, side)
    _tint(error, wrong & (truth > 0) & (pred > 0), SWAPPED)
    _tint(error, wrong & (pred == 0), MISSED)
    _tint(error, wrong & (truth == 0), FALSE)
    error[ignored] = IGNORED
    colours = {k + 1: class_colour(k + 1) for k in range(int(max(truth.max(), pred.max(), 1)))}
    shown = [np.where(ignored, _GREY, labels).astype(np.uint8) for labels in (truth, pred)]
    return [_palette_png(labels, colours) for labels in shown], error


@dataclass(frozen=True, eq=False)
class Marked:
    """A picture of an image and the marks to lay over it.

    Attributes:
        image: uint8 [Y, X, 3].
        marks: uint8 [Y, X]: 0 = nothing; for task instances the outlines of objects, 1 on a dark
            image and 2 on a bright one; for task semantic the class index.
        side: whose outlines they are, "prediction" or "truth".
    """

    image: NDArray[np.uint8]
    marks: NDArray[np.uint8]
    side: str = "prediction"

    def together(self, task: str) -> NDArray[np.uint8]:
        """The image with its marks, uint8 [Y, X, 3]."""
        rgb = self.image.copy()
        for mark in range(1, int(self.marks.max(initial=0)) + 1):
            _tint(rgb, self.marks == mark, *mark_colour(task, mark, self.side))
        return rgb

    def uris(self, task: str) -> tuple[str, str]:
        """The image (JPEG) and its marks (PNG, transparent elsewhere) as data URIs."""
        from PIL import Image

        marks = Image.fromarray(self.marks)
        found = [mark_colour(task, mark, self.side) for mark in range(1, 256)]
        marks.putpalette(bytes([0, 0, 0, *(value for colour, _ in found for value in colour)]))
        alpha = bytes([0, *(round(255 * opacity) for _, opacity in found)])
        picture = Image.fromarray(self.image)
        return (
            image_uri(picture, "JPEG", quality=80),
            image_uri(marks, "PNG", transparency=alpha),
        )


def mark_colour(task: str, mark: int, side: str = "prediction") -> tuple[Rgb, float]:
    """Colour and opacity of a mark: lines are opaque, classes let the image through."""
    if task == "instances":
        return OUTLINES[side][(mark - 1) % 2], 1.0
    colours = MARKED_CLASSES[side]
    return colours[(mark - 1) % len(colours)], 0.4


def marked(view: OverlayView, task: str, side: int) -> Marked:
    """The image and the marks of what was predicted, at most ``side`` pixels on the longer side."""
    image = _resized_image(display_rgb(view.image), view.pred.shape, side, enlarge=True)
    labels = nearest(view.pred, (image.shape[0], image.shape[1]))
    if task == "instances":
        mark = 2 if np.median(image.mean(axis=-1)) > BRIGHT else 1
        return Marked(image, thin_contour(labels).astype(np.uint8) * np.uint8(mark))
    return Marked(image, labels.astype(np.uint8))


def thin_contour(labels: Labels) -> NDArray[np.bool_]:
    """Pixels of objects whose right or lower neighbour is another label or the background, or whose
    left or upper neighbour is background: lines of one pixel, also between objects that touch."""
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        moved, marks = np.moveaxis(labels, axis, 0), np.moveaxis(edge, axis, 0)
        differs = moved[:-1] != moved[1:]
        marks[:-1] |= differs
        marks[1:] |= differs & (moved[:-1] == 0)
    return edge & (labels > 0)


def class_colour(index: int) -> Rgb:
    """Colour of a class index in the panels; the first class is the dark background."""
    return GROUND if index == 0 else CLASS_COLOURS[(index - 1) % len(CLASS_COLOURS)]


def _instance_panels(view: OverlayView, side: int) -> tuple[list[str], NDArray[np.uint8]]:
    truth_ids, truth = dense_ids(np.where(view.ignored, 0, view.truth))
    pred_ids, pred = dense_ids(np.where(view.ignored, 0, view.pred))
    pairs = match(contingency(truth, pred, ~view.ignored), 0.5)
    # Colour numbers 1.. by position in the sorted ids; 0 stays the background.
    colour_truth = np.arange(len(truth_ids) + 1)
    colour_pred = np.arange(len(pred_ids) + 1) + len(truth_ids)
    colour_pred[0] = 0
    colour_pred[pairs.pred_ids.astype(int)] = colour_truth[pairs.truth_ids.astype(int)]
    missed, extra = np.ones(len(truth_ids) + 1, bool), np.ones(len(pred_ids) + 1, bool)
    missed[0], missed[pairs.truth_ids.astype(int)] = False, False
    extra[0], extra[pairs.pred_ids.astype(int)] = False, False

    shape = panel_shape(view.truth.shape, side)
    truth, pred = nearest(truth, shape), nearest(pred, shape)
    ignored = nearest(view.ignored, shape)
    maps = []
    for labels, colour in ((truth, colour_truth), (pred, colour_pred)):
        index = np.where(colour == 0, 0, 1 + (colour - 1) % len(OBJECT_COLOURS))[labels]
        index = np.where(_contour(labels), _BORDER, index)
        shown = np.where(ignored, _GREY, index).astype(np.uint8)
        palette = dict(enumerate(OBJECT_COLOURS, start=1)) | {_BORDER: GROUND}
        maps.append(_palette_png(shown, palette))
    error = _dimmed(view, side)
    _tint(error, missed[truth], MISSED, 0.55)
    _tint(error, extra[pred], FALSE, 0.55)
    edge = _contour(pred)
    error[edge & ~extra[pred]] = BOTH
    error[_contour(truth) & missed[truth]] = MISSED
    error[edge & extra[pred]] = FALSE
    error[ignored] = IGNORED
    return maps, error


def dense_ids(labels: Labels) -> tuple[Labels, Labels]:
    """The ids other than 0, sorted, and the labels renumbered to their positions, from 1."""
    if int(labels.max(initial=0)) > 4 * labels.size:
        ids, inverse = np.unique(labels, return_inverse=True)
        return ids[ids != 0], inverse.reshape(labels.shape) + int(0 not in ids)
    # A table is faster than sorting.
    ids = np.flatnonzero(np.bincount(labels.ravel()))
    table = np.zeros(ids.max(initial=0) + 1, np.intp)
    ids = ids[ids != 0]
    table[ids] = np.arange(1, len(ids) + 1)
    return ids, table[labels]


def _contour(labels: Labels) -> NDArray[np.bool_]:
    """Pixels of objects next to another label or the background, about two pixels wide."""
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        for step in (1, 2):
            moved, marked = np.moveaxis(labels, axis, 0), np.moveaxis(edge, axis, 0)
            differs = moved[:-step] != moved[step:]
            marked[:-step] |= differs
            marked[step:] |= differs
    return edge & (labels > 0)


def display_rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    """uint8 [Y, X, 3]: grey for one channel, green and magenta for two, RGB for three or more."""
    channels = [_stretched(channel) for channel in image[:3]]
    if len(channels) == 1:
        channels = channels * 3
    elif len(channels) == 2:
        channels = [channels[1], channels[0], channels[1]]
    return np.stack(channels, axis=-1)


def _stretched(channel: NDArray[Any]) -> NDArray[np.uint8]:
    values = np.asarray(channel, np.float32)
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [0.5, 99.7]) if finite.size else (0.0, 0.0)
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    scaled = np.clip(np.nan_to_num((values - low) / (high - low)), 0, 1)
    return np.asarray(scaled * 255, np.uint8)


def _dimmed(view: OverlayView, side: int) -> NDArray[np.uint8]:
    """The image in dark grey, on which errors stand out: uint8 [Y, X, 3]."""
    grey = display_rgb(view.image).mean(axis=-1, dtype=np.float32) * 0.55
    rgb = np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)
    return _resized_image(rgb, view.truth.shape, side, enlarge=True)


def _tint(
    rgb: NDArray[np.uint8], where: NDArray[np.bool_], colour: Rgb, alpha: float = 0.85
) -> None:
    mixed = rgb[where] * (1 - alpha) + np.array(colour) * alpha
    rgb[where] = mixed.astype(np.uint8)


def panel_shape(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Shape [Y, X] of a panel: small images are enlarged by an integer, large ones are reduced."""
    longest = max(shape)
    factor = float(side // longest) if longest <= side else side / longest
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def nearest(labels: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    y, x = (
        (np.arange(new) + 0.5) * old / new for new, old in zip(shape, labels.shape, strict=True)
    )
    return np.asarray(labels[y.astype(int)[:, None], x.astype(int)])


def _resized_image(
    rgb: NDArray[np.uint8], shape: tuple[int, ...], side: int, enlarge: bool
) -> NDArray[np.uint8]:
    from PIL import Image

    height, width = panel_shape(shape, side)
    if height > shape[0] and not enlarge:
        return rgb
    picture = Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS)
    return np.array(picture)


def _photo(rgb: NDArray[np.uint8]) -> str:
    from PIL import Image

    # No chroma subsampling: it would wash out contours, which are a pixel or two wide.
    return image_uri(Image.fromarray(rgb), "JPEG", quality=82, subsampling=0)


def _palette_png(labels: NDArray[np.uint8], colours: dict[int, Rgb]) -> str:
    from PIL import Image

    table = np.zeros((256, 3), np.uint8)
    table[0], table[_GREY] = GROUND, IGNORED
    for index, colour in colours.items():
        table[index] = colour
    picture = Image.fromarray(labels)
    picture.putpalette(table.tobytes())
    return image_uri(picture, "PNG")
