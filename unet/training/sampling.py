"""Draws patches for training and cuts them from images and targets.

Batch ``step`` depends only on (seed, step). So a resumed run continues with exactly the batches of
an uninterrupted one, and the number of loader threads has no effect.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import ndimage

from unet.config.heads import IGNORE
from unet.data.blocks import grid_of
from unet.data.store import Prepared
from unet.data.tiling import read_window
from unet.training.targets import (
    border_class_margin,
    border_classes,
    border_weight_map,
    border_weight_margin,
    distance_margin,
    object_distance,
    signed_distances,
)

log = logging.getLogger(__name__)

# Foreground positions kept per image and class: enough that none is drawn often.
POSITIONS = 4096
# Side of the blocks in which an image is searched for foreground.
INDEX_BLOCK = 2048


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
    return object_distance(cells, settings.distance_px, labels.classes == IGNORE, steps)[None]


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
    return border_classes(instances, settings.border_width, classes == IGNORE)


# By the head; the target of any other is the dataset's classes.
TARGETS: dict[str, TargetMaker] = {
    "border": TargetMaker(_border, lambda s: border_class_margin(s.border_width)),
}


@dataclass(frozen=True)
class Patch:
    """image [C, *S] float32, target [*S] uint8, maps by name, each [M, *S] float32."""

    image: np.ndarray
    target: np.ndarray
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)


def make_targets(
    classes: np.ndarray, instances: np.ndarray | None, settings: TargetSettings
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Target [*S] uint8 and the maps named in the settings, from the labels of a region."""
    own = TARGETS.get(settings.head)
    target = classes if own is None else own.make(classes, instances, settings)
    labels = PatchLabels(classes, instances, target)
    return target, {name: MAPS[name].make(labels, settings) for name in settings.maps}


class TrainingImage:
    """One labelled image to cut patches from; in memory, or read window by window.

    Args:
        name: its id.
        image, classes, instances: lazy arrays [C, *S], [*S], [*S] (instances may be None).
        settings: which targets to compute from the labels.
        cached: whether to keep image and targets in memory.
    """

    def __init__(
        self,
        name: str,
        image: Any,
        classes: Any,
        instances: Any,
        settings: TargetSettings,
        cached: bool,
    ) -> None:
        self.name = name
        self.shape: tuple[int, ...] = tuple(image.shape[1:])
        self._settings = settings
        self._image, self._classes, self._instances = image, classes, instances
        self._patch: Patch | None = None
        if cached:
            whole = classes[...], None if instances is None else instances[...]
            self._patch = Patch(image[...], *make_targets(*whole, settings))

    def read(self, window: Sequence[tuple[int, int]]) -> Patch:
        """Image and targets of a window; beyond its edge, the image is mirrored."""
        if self._patch is not None:
            whole = self._patch
            return Patch(
                read_window(whole.image, window),
                read_window(whole.target, window),
                {name: read_window(values, window) for name, values in whole.maps.items()},
            )
        margin = self._settings.margin(len(window))
        wide = [(a - m, b + m) for (a, b), m in zip(window, margin, strict=True)]
        instances = None if self._instances is None else read_window(self._instances, wide)
        target, maps = make_targets(read_window(self._classes, wide), instances, self._settings)
        inner = tuple(slice(m, m + b - a) for (a, b), m in zip(window, margin, strict=True))
        return Patch(
            read_window(self._image, window),
            target[inner],
            {name: values[(slice(None), *inner)] for name, values in maps.items()},
        )

    def positions(self, seed: int) -> tuple[dict[int, np.ndarray], np.ndarray]:
        """Positions of each foreground class, and pixel counts, of the label's class map.

        Returns:
            class -> [n, spatial axes] int32 positions (at most about ``POSITIONS``, drawn
            uniformly), and counts [256] int64 of all classes.
        """
        counts = np.zeros(256, dtype=np.int64)
        found: dict[int, list[np.ndarray]] = {}
        rng = np.random.default_rng(seed)
        total = float(np.prod(self.shape))
        for region in grid_of(self.shape, INDEX_BLOCK).regions():
            block = np.asarray(self._classes[region])
            counts += np.bincount(block.ravel(), minlength=256)
            share = max(1, round(POSITIONS * block.size / total))
            for value in np.unique(block):
                if value in (0, IGNORE):
                    continue
                flat = np.flatnonzero(block == value)
                flat = rng.choice(flat, size=min(share, len(flat)), replace=False)
                where = np.stack(np.unravel_index(flat, block.shape), axis=1)
                where += np.array([r.start for r in region])
                found.setdefault(int(value), []).append(where.astype(np.int32))
        return {value: np.concatenate(parts) for value, parts in found.items()}, counts


def open_images(
    prepared: Prepared, ids: Sequence[str], settings: TargetSettings, cache_bytes: float
) -> list[TrainingImage]:
    """The images to train on, in the order of ``ids``; as many as fit are kept in memory."""
    images = []
    used = 0.0
    for name in ids:
        image, classes = prepared.image(name), prepared.classes(name)
        if classes is None:
            raise ValueError(f"{name} has no labels")
        pixels = float(np.prod(classes.shape))
        channels = sum(MAPS[key].channels(settings) for key in settings.maps)
        size = pixels * (4 * image.shape[0] + 1 + 4 * channels)
        instances = prepared.instances(name)
        # Connected components must be those of the whole image, or maps would depend on the cache.
        whole = instances is None and any(MAPS[key].uses_components for key in settings.maps)
        cached = whole or used + size <= cache_bytes
        used += size if cached else 0
        images.append(TrainingImage(name, image, classes, instances, settings, cached))
    log.info("%d images, %.0f MB of them in memory", len(images), used / 1e6)
    return images


@dataclass(frozen=True)
class Batch:
    """images [N, C, *S] float32, targets [N, *S] uint8, maps by name, each [N, M, *S] float32."""

    images: np.ndarray
    targets: np.ndarray
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)


class PatchSampler:
    """Draws batches of patches.

    Args:
        images: to draw from; the probability of an image is proportional to its number of pixels.
        patch: the network's input size along each spatial axis.
        margin: by how much the network's output is smaller on each side, along each spatial axis.
            A patch's *output* lies within the image if it fits; the input may reach beyond it
            (mirrored).
        batch: N.
        foreground: share of the patches that have a pixel of a random foreground class at a random
            place in the middle half of the output.
        seed: with the step, the only source of randomness.
    """

    def __init__(
        self,
        images: Sequence[TrainingImage],
        patch: Sequence[int],
        margin: Sequence[int],
        batch: int,
        foreground: float,
        seed: int,
    ) -> None:
        if not images:
            raise ValueError("there are no images to draw patches from")
        self._images, self._patch, self._margin = images, tuple(patch), tuple(margin)
        self._batch, self._foreground, self._seed = batch, foreground, seed
        self._positions: list[dict[int, np.ndarray]] = []
        self.counts = np.zeros(256, dtype=np.int64)
        for index, image in enumerate(images):
            positions, counts = image.positions(seed + index)
            self._positions.append(positions)
            self.counts += counts
        areas = np.array([float(np.prod(image.shape)) for image in images])
        self._chances = areas / areas.sum()

    def batch(self, step: int, rows: slice | None = None) -> Batch:
        """The batch of this step, or only some of its rows (for one of several processes)."""
        rng = np.random.default_rng([self._seed, step])
        # All rows are drawn, so that a row does not depend on which rows are read.
        drawn = [self._draw(rng) for _ in range(self._batch)]
        patches = [image.read(window) for image, window in drawn[rows or slice(None)]]
        return Batch(
            np.stack([p.image for p in patches]),
            np.stack([p.target for p in patches]),
            {name: np.stack([p.maps[name] for p in patches]) for name in patches[0].maps},
        )

    def _draw(self, rng: np.random.Generator) -> tuple[TrainingImage, list[tuple[int, int]]]:
        index = int(rng.choice(len(self._images), p=self._chances))
        image, positions = self._images[index], self._positions[index]
        target = None
        if positions and rng.random() < self._foreground:
            places = positions[sorted(positions)[rng.integers(len(positions))]]
            target = places[rng.integers(len(places))]
        window = []
        for axis, (length, patch, margin) in enumerate(
            zip(image.shape, self._patch, self._margin, strict=True)
        ):
            size = patch - 2 * margin
            low, high = sorted((0, length - size))
            start = int(rng.integers(low, high + 1))
            if target is not None:
                wanted = int(target[axis]) - int(rng.integers(size // 4, size - size // 4))
                start = min(max(wanted, low), high)
            window.append((start - margin, start - margin + patch))
        return image, window
