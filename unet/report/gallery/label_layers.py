"""Pictures of the gallery as layers that the page lays over one another: the image once, and
transparent pictures of the truth and of what each model predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.evaluation.metrics.contingency import contingency, of_counted
from unet.evaluation.metrics.instance import match
from unet.export.mark_colours import BOTH, FALSE, IGNORED, MISSED, PREDICTION, SWAPPED, TRUTH
from unet.prediction.objects.counted_pairs import UNLABELLED_ID
from unet.report import overlays
from unet.report.figures import image_uri
from unet.report.gallery.gallery_reader import SeenPlane
from unet.report.overlays import OBJECT_COLOURS, Labels

# Red, green, blue, opacity: 0 to 255.
Rgba = tuple[int, int, int, int]

_SOLID = 255
_FILL, _WRONG, _IGNORED = 95, 130, 170
# Values in the layers of errors.
_MISSED, _FALSE, _SWAPPED, _TRUE, _FOUND, _AGREED = range(1, 7)
_MISSED_LINE, _FALSE_LINE, _NOT_SCORED = range(7, 10)
_ERRORS: dict[int, Rgba] = {
    _MISSED: (*MISSED, _WRONG),
    _FALSE: (*FALSE, _WRONG),
    _SWAPPED: (*SWAPPED, 217),
    _TRUE: (*TRUTH, _SOLID),
    _FOUND: (*PREDICTION, _SOLID),
    _AGREED: (*BOTH, _SOLID),
    _MISSED_LINE: (*MISSED, _SOLID),
    _FALSE_LINE: (*FALSE, _SOLID),
    _NOT_SCORED: (*IGNORED, _IGNORED),
}
# Task semantic has no lines, so its errors are almost opaque.
_CLASS_ERRORS = _ERRORS | {
    _MISSED: (*MISSED, 217),
    _FALSE: (*FALSE, 217),
}


@dataclass(frozen=True)
class LayerPictures:
    """The pictures of a plane as data URIs.

    Attributes:
        note: which plane it is.
        base: the image.
        truth: "" without labels.
        models: model -> its prediction and its errors (without labels: its outlines, "" for task
            semantic). A model that did not predict the image is left out.
        shape: height and width of the plane in pixels of the image.
    """

    note: str
    base: str
    truth: str
    models: Mapping[str, tuple[str, str]]
    shape: tuple[int, int]

    @property
    def size(self) -> int:
        """Characters of all pictures."""
        return len(self.base) + len(self.truth) + sum(map(len, sum(self.models.values(), ())))


class PlaneDrawing:
    """Draws a plane. What does not depend on the size of the pictures is found once."""

    def __init__(self, plane: SeenPlane, task: str) -> None:
        self.plane = plane
        self.rgb = overlays.display_rgb(plane.image)
        self.objects = PlaneObjects(plane) if task == "instances" else None

    def draw(self, side: int) -> LayerPictures:
        """The layers, at most ``side`` pixels on the longer side.

        Labels of small images are enlarged by an integer, so that outlines are thin.
        """
        plane = self.plane
        layers: _Layer = (
            _Classes(plane, side) if self.objects is None else _Objects(plane, self.objects, side)
        )
        return LayerPictures(
            plane.note,
            self._base(side),
            "" if plane.truth is None else layers.truth(),
            {model: layers.model(model) for model in plane.predictions},
            (plane.image.shape[1], plane.image.shape[2]),
        )

    def _base(self, side: int) -> str:
        from PIL import Image

        rgb = self.rgb
        picture = Image.fromarray(rgb[..., 0] if len(self.plane.image) == 1 else rgb)
        height, width = overlays.panel_shape(rgb.shape[:2], side)
        if height < rgb.shape[0]:
            picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        return image_uri(picture, "JPEG", quality=80)


class _Layer:
    """What both tasks share: the size of the pictures and the pixels that no score counts."""

    def __init__(self, plane: SeenPlane, side: int) -> None:
        self.plane = plane
        self.shape = overlays.panel_shape(plane.ignored.shape, side)
        self.ignored = overlays.nearest(plane.ignored, self.shape)
        # What is predicted on pixels without a label is shown, though no score counts it.
        self.hidden = self.ignored & (not plane.sparse)

    def truth(self) -> str:
        raise NotImplementedError

    def model(self, name: str) -> tuple[str, str]:
        """Prediction and errors."""
        raise NotImplementedError


class _Classes(_Layer):
    """Class maps, and the pixels with the wrong class."""

    def __init__(self, plane: SeenPlane, side: int) -> None:
        super().__init__(plane, side)
        self.true = None if plane.truth is None else overlays.nearest(plane.truth, self.shape)

    def truth(self) -> str:
        assert self.true is not None
        return self._map(self.true, self.ignored)

    def model(self, name: str) -> tuple[str, str]:
        pred = overlays.nearest(self.plane.predictions[name], self.shape)
        true = self.true
        if true is None:
            return self._map(pred, self.hidden), ""
        wrong = (true != pred) & ~self.ignored
        errors = np.zeros(self.shape, np.uint8)
        errors[wrong] = _SWAPPED
        errors[wrong & (pred == 0)] = _MISSED
        errors[wrong & (true == 0)] = _FALSE
        errors[self.hidden] = _NOT_SCORED
        return self._map(pred, self.hidden), _picture(errors, _CLASS_ERRORS)

    def _map(self, classes: Labels, ignored: NDArray[np.bool_]) -> str:
        """Opaque, since thin structures are hard to see over the image."""
        # A class map has at most 254 classes; 255 are ignored pixels.
        shown = np.where(ignored, 255, classes + 1).astype(np.uint8)
        colours = {
            k + 1: (*overlays.class_colour(k), _SOLID) for k in range(int(classes.max()) + 1)
        }
        return _picture(shown, colours | {255: (*IGNORED, _SOLID)})


@dataclass(frozen=True, eq=False)
class _Matched:
    """The objects of a model: ``dense`` [Y, X] numbers 1 .. n, and which of them were found: the
    numbers of the true and the predicted objects, pair by pair; ``aside``: predicted ones
    that no score counts."""

    number: int
    dense: Labels
    found_true: NDArray[np.intp]
    found: NDArray[np.intp]
    aside: NDArray[np.intp]


class PlaneObjects:
    """The objects of a plane, numbered from 1, and which of them were found."""

    def __init__(self, plane: SeenPlane) -> None:
        labels = np.zeros(plane.ignored.shape, np.uint8) if plane.truth is None else plane.truth
        ids, self.dense = overlays.dense_ids(np.where(plane.ignored, 0, labels))
        self.number = len(ids)
        self.models = {model: self._matched(plane, own) for model, own in plane.predictions.items()}

    def _matched(self, plane: SeenPlane, labels: Labels) -> _Matched:
        hidden = plane.ignored & (not plane.sparse)
        ids, dense = overlays.dense_ids(np.where(hidden, 0, labels))
        none = np.zeros(0, np.intp)
        if not len(ids) or (not self.number and not plane.sparse):
            return _Matched(len(ids), dense, none, none, none)
        table, aside = contingency(self.dense, dense, ~hidden), none
        if plane.sparse:
            truth = np.where(plane.ignored, UNLABELLED_ID, self.dense)
            table = of_counted(contingency(truth, dense))
            aside = np.setdiff1d(np.arange(1, len(ids) + 1), table.pred_ids.astype(np.intp))
        pairs = match(table, 0.5)
        found = (pairs.truth_ids.astype(np.intp), pairs.pred_ids.astype(np.intp))
        return _Matched(len(ids), dense, *found, aside)


class _Objects(_Layer):
    """Objects in colours with their outlines, and the ones that were missed or are false.

    A found object has the colour of the true one.
    """

    def __init__(self, plane: SeenPlane, objects: PlaneObjects, side: int) -> None:
        super().__init__(plane, side)
        self.objects = objects
        self.true = overlays.nearest(objects.dense, self.shape)
        self.true_line = overlays.thin_contour(self.true)

    def truth(self) -> str:
        return self._coloured(self.true, self.true_line, np.arange(self.objects.number + 1))

    def model(self, name: str) -> tuple[str, str]:
        own, number = self.objects.models[name], self.objects.number
        colours = np.arange(own.number + 1) + number
        colours[0] = 0
        colours[own.found] = own.found_true
        pred = overlays.nearest(own.dense, self.shape)
        line = overlays.thin_contour(pred)
        coloured = self._coloured(pred, line, colours)
        errors = np.zeros(self.shape, np.uint8)
        if self.plane.truth is None:
            errors[line] = _FOUND
            return coloured, _picture(errors, _ERRORS)
        missed, false = np.ones(number + 1, bool), np.ones(own.number + 1, bool)
        missed[0], missed[own.found_true] = False, False
        false[0], false[own.found], false[own.aside] = False, False, False
        aside = np.zeros(own.number + 1, bool)
        aside[own.aside] = True
        errors[missed[self.true]] = _MISSED
        errors[false[pred]] = _FALSE
        errors[self.true_line & ~missed[self.true]] = _TRUE
        errors[self.true_line & missed[self.true]] = _MISSED_LINE
        agreed = errors == _TRUE
        errors[line & ~false[pred]] = _FOUND
        errors[line & ~false[pred] & agreed] = _AGREED
        errors[line & false[pred]] = _FALSE_LINE
        errors[line & aside[pred]] = _NOT_SCORED
        errors[self.hidden] = _NOT_SCORED
        return coloured, _picture(errors, _ERRORS)

    def _coloured(self, labels: Labels, line: NDArray[np.bool_], colours: NDArray[Any]) -> str:
        """Values 1 .. n: fillings in n colours; n + 1 .. 2n: their outlines; 2n + 1: not scored."""
        n = len(OBJECT_COLOURS)
        index = np.where(colours == 0, 0, 1 + (colours - 1) % n)[labels]
        index = np.where(line, index + n, index)
        shown = np.where(self.hidden, 2 * n + 1, index).astype(np.uint8)
        palette = {k: (*colour, _FILL) for k, colour in enumerate(OBJECT_COLOURS, start=1)}
        palette |= {k + n: (*colour[:3], _SOLID) for k, colour in palette.items()}
        return _picture(shown, palette | {2 * n + 1: (*IGNORED, _IGNORED)})


def _picture(values: NDArray[np.uint8], colours: Mapping[int, Rgba]) -> str:
    """A PNG with a palette, as a data URI; values without a colour are transparent."""
    from PIL import Image

    # Only the colours that occur, so that small pictures stay small.
    used = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    rank = np.zeros(256, np.uint8)
    rank[used] = np.arange(len(used))
    picture = Image.fromarray(rank[values])
    shown = [colours.get(int(value), (0, 0, 0, 0)) for value in used]
    picture.putpalette(bytes(part for colour in shown for part in colour[:3]))
    bits = next(b for b in (1, 2, 4, 8) if len(used) <= 2**b)
    alpha = bytes(colour[3] for colour in shown)
    return image_uri(picture, "PNG", transparency=alpha, bits=bits)
