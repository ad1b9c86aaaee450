"""What a network learns: the target of its head and the maps of its loss, from labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from unet.config.heads import IGNORE
from unet.training.targets import (
    border_class_margin,
    border_classes,
    border_weight_map,
    border_weight_margin,
    distance_margin,
    object_distance,
    signed_distances,
)


@dataclass(frozen=True)
class TargetSettings:
    """What the network learns.

    Attributes:
        head: ``classes`` learns the class map; ``border`` background, inside and inner border of
            the instances; ``distance`` background and foreground (and the map of that name).
        border_width: thickness of the inner border in px.
        maps: names of the float maps to compute, keys of ``MAPS``.
        distance_px: where the distances of ``distance`` and ``signed-distance`` are cut off.
        num_classes: classes of the target, for ``signed-distance``.
        spacing: size of a pixel per spatial axis in units of the finest axis (None = all 1).
        w0, sigma: of ``border-weight`` (Ronneberger et al. 2015, eq. 2).
        cells: index of the class whose connected components are the cells of that map if there are
            no instances; None = all classes except the first.
        sparse: whether pixels that are ignored have no label: objects end there, since each
            labelled object is labelled as a whole.
    """

    head: str = "classes"
    border_width: int = 2
    maps: tuple[str, ...] = ()
    distance_px: int = 8
    num_classes: int = 2
    spacing: tuple[float, ...] | None = None
    w0: float = 10.0
    sigma: float = 5.0
    cells: int | None = None
    sparse: bool = False

    def margin(self, dims: int) -> tuple[int, ...]:
        """Pixels around a patch that its targets depend on, per spatial axis."""
        own = TARGETS[self.head].margin(self) if self.head in TARGETS else 0
        margins = [(own,) * dims, *(MAPS[name].margin(self, dims) for name in self.maps)]
        return tuple(max(axis) for axis in zip(*margins, strict=True))

    def steps(self, dims: int) -> tuple[float, ...]:
        """``spacing``, or 1 for each axis."""
        return (1.0,) * dims if self.spacing is None else self.spacing


@dataclass(frozen=True)
class PatchLabels:
    """Labels of a region: classes and target [*S] uint8, instances [*S] or None."""

    classes: np.ndarray
    instances: np.ndarray | None
    target: np.ndarray

    def cells(self, settings: TargetSettings) -> np.ndarray:
        """Instance ids; without instances, the connected components of the cells' class."""
        if self.instances is not None:
            return self.instances
        cells = self.classes > 0 if settings.cells is None else self.classes == settings.cells
        found: np.ndarray = ndimage.label(cells & (self.classes != IGNORE))[0]
        return found


@dataclass(frozen=True)
class MapMaker:
    """How to compute a float map from labels.

    Attributes:
        make: computes [M, *S] float32.
        margin: pixels on each side of a pixel that its value depends on, per spatial axis.
        channels: M.
        uses_components: if there are no instances, it needs the connected components of the whole
            image, so that a window is not enough.
    """

    make: Callable[[PatchLabels, TargetSettings], np.ndarray]
    margin: Callable[[TargetSettings, int], tuple[int, ...]]
    channels: Callable[[TargetSettings], int]
    uses_components: bool = False


def _border_weight(labels: PatchLabels, settings: TargetSettings) -> np.ndarray:
    cells = labels.cells(settings)
    steps = settings.steps(cells.ndim)
    return border_weight_map(cells, settings.w0, settings.sigma, spacing=steps)[None]


def _distance(labels: PatchLabels, settings: TargetSettings) -> np.ndarray:
    cells = labels.cells(settings)
    steps = settings.steps(cells.ndim)
    unknown = None if settings.sparse else labels.classes == IGNORE
    return object_distance(cells, settings.distance_px, unknown, steps)[None]


def _signed_distance(labels: PatchLabels, settings: TargetSettings) -> np.ndarray:
    steps = settings.steps(labels.target.ndim)
    return signed_distances(labels.target, settings.num_classes, settings.distance_px, steps)


MAPS: dict[str, MapMaker] = {
    "border-weight": MapMaker(
        _border_weight,
        lambda s, dims: border_weight_margin(s.w0, s.sigma, s.steps(dims)),
        lambda s: 1,
        uses_components=True,
    ),
    "distance": MapMaker(
        _distance,
        lambda s, dims: distance_margin(s.distance_px, s.steps(dims)),
        lambda s: 1,
        uses_components=True,
    ),
    "signed-distance": MapMaker(
        _signed_distance,
        lambda s, dims: distance_margin(s.distance_px, s.steps(dims)),
        lambda s: s.num_classes,
    ),
}


@dataclass(frozen=True)
class TargetMaker:
    """How a head's class target is made of labels.

    Attributes:
        make: gives [*S] uint8 from classes [*S], instances [*S] or None.
        margin: pixels that it looks to either side.
    """

    make: Callable[[np.ndarray, np.ndarray | None, TargetSettings], np.ndarray]
    margin: Callable[[TargetSettings], int]


def _border(
    classes: np.ndarray, instances: np.ndarray | None, settings: TargetSettings
) -> np.ndarray:
    if instances is None:
        raise ValueError("the border head needs instances")
    unknown = classes == IGNORE
    if not settings.sparse:
        return border_classes(instances, settings.border_width, unknown)
    found = border_classes(instances, settings.border_width)
    found[unknown] = IGNORE
    return found


# By the head; the target of any other is the dataset's classes.
TARGETS: dict[str, TargetMaker] = {
    "border": TargetMaker(_border, lambda s: border_class_margin(s.border_width)),
}


def make_targets(
    classes: np.ndarray, instances: np.ndarray | None, settings: TargetSettings
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Target [*S] uint8 and the maps named in the settings, from the labels of a region."""
    own = TARGETS.get(settings.head)
    target = classes if own is None else own.make(classes, instances, settings)
    labels = PatchLabels(classes, instances, target)
    return target, {name: MAPS[name].make(labels, settings) for name in settings.maps}
