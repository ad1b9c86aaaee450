"""Patches for training: where they lie, and the arrays that they are cut from.

Batch ``step`` is a function of (seed, step) alone. So a run that was killed goes on at any step
with the very batches of the unbroken run, and the number of loader threads changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import ndimage

from unet.data.store import Prepared
from unet.data.streaming import blocks
from unet.data.tiling import read_window
from unet.training.targets import (
    border_class_margin,
    border_classes,
    border_weight_map,
    border_weight_margin,
)

log = logging.getLogger(__name__)

IGNORE = 255
# Foreground positions remembered per image and class: enough that none is drawn often.
POSITIONS = 4096
# Pixels indexed at a time when an image does not fit the cache.
BLOCK = 2048


@dataclass(frozen=True)
class TargetSettings:
    """What the network is to learn.

    Attributes:
        head: ``classes`` learns the class map, ``border`` background, inside and inner border of
            the instances.
        border_width: thickness of the inner border in px.
        weight_map: whether a border weight map (Ronneberger et al. 2015, eq. 2) is made.
        w0, sigma: of that map.
        class_weights: wc of that map for (background, cells), None = 1.
        cells: class index whose connected components are the cells of that map where there are no
            instances; None = all classes but the first.
    """

    head: Literal["classes", "border"] = "classes"
    border_width: int = 2
    weight_map: bool = False
    w0: float = 10.0
    sigma: float = 5.0
    class_weights: tuple[float, float] | None = None
    cells: int | None = None

    @property
    def margin(self) -> int:
        """Pixels around a patch that its targets depend on."""
        border = border_class_margin(self.border_width) if self.head == "border" else 0
        weight = max(border_weight_margin(self.w0, self.sigma)) if self.weight_map else 0
        return max(border, weight)


@dataclass(frozen=True)
class Patch:
    """image [C, *S] float32, target [*S] uint8, weight [*S] float32 or None."""

    image: np.ndarray
    target: np.ndarray
    weight: np.ndarray | None


def make_targets(
    classes: np.ndarray, instances: np.ndarray | None, settings: TargetSettings
) -> tuple[np.ndarray, np.ndarray | None]:
    """Target [*S] uint8 and weight map [*S] float32 (or None) from the labels of a region.

    For class labels without instances the cells of the weight map are connected components.
    """
    target = classes
    if settings.head == "border":
        if instances is None:
            raise ValueError("the border head needs instances")
        target = border_classes(instances, settings.border_width, classes == IGNORE)
    if not settings.weight_map:
        return target, None
    if instances is None:
        cells = classes > 0 if settings.cells is None else classes == settings.cells
        instances = ndimage.label(cells & (classes != IGNORE))[0]
    weight = border_weight_map(
        instances, settings.w0, settings.sigma, class_weights=settings.class_weights
    )
    return target, weight


class TrainingImage:
    """One labelled image to cut patches from; in memory, or read window by window.

    Args:
        name: its id.
        image, classes, instances: lazy arrays [C, *S], [*S], [*S] (instances may be None).
        settings: what to make of the labels.
        cached: whether image and targets are held in memory.
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
            target, weight = make_targets(*whole, settings)
            self._patch = Patch(image[...], target, weight)

    def read(self, window: Sequence[tuple[int, int]]) -> Patch:
        """Image and targets of a window; what lies outside the image is mirrored."""
        if self._patch is not None:
            whole = self._patch
            return Patch(
                read_window(whole.image, window),
                read_window(whole.target, window),
                None if whole.weight is None else read_window(whole.weight, window),
            )
        m = self._settings.margin
        wide = [(a - m, b + m) for a, b in window]
        instances = None if self._instances is None else read_window(self._instances, wide)
        target, weight = make_targets(read_window(self._classes, wide), instances, self._settings)
        inner = tuple(slice(m, m + b - a) for a, b in window)
        return Patch(
            read_window(self._image, window),
            target[inner],
            None if weight is None else weight[inner],
        )

    def positions(self, seed: int) -> tuple[dict[int, np.ndarray], np.ndarray]:
        """Where each class lies, and how many pixels it has.

        Returns:
            class -> [n, spatial axes] int32 positions (at most about ``POSITIONS``, drawn evenly),
            and counts [256] int64 of all classes, of the label's class map.
        """
        counts = np.zeros(256, dtype=np.int64)
        found: dict[int, list[np.ndarray]] = {}
        rng = np.random.default_rng(seed)
        total = float(np.prod(self.shape))
        for region in blocks(self.shape, tuple(min(BLOCK, n) for n in self.shape)):
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
    """The images to train on, as many of them in memory as fit, in the order of ``ids``."""
    images = []
    used = 0.0
    for name in ids:
        image, classes = prepared.image(name), prepared.classes(name)
        if classes is None:
            raise ValueError(f"{name} has no labels")
        pixels = float(np.prod(classes.shape))
        size = pixels * (4 * image.shape[0] + 1 + (4 if settings.weight_map else 0))
        instances = prepared.instances(name)
        # Components of classes are those of the whole image, or the weights would depend on it.
        whole = settings.weight_map and instances is None
        cached = whole or used + size <= cache_bytes
        used += size if cached else 0
        images.append(TrainingImage(name, image, classes, instances, settings, cached))
    log.info("%d images, %.0f MB of them in memory", len(images), used / 1e6)
    return images


class PatchSampler:
    """Draws batches of patches.

    Args:
        images: what to draw from; an image is drawn in proportion to its number of pixels.
        patch: the network's input size along each spatial axis.
        margin: by how much the network's output is smaller on each side; a patch's *output*
            lies within the image where it fits, the input may reach beyond (mirrored).
        batch: N.
        foreground: share of the patches whose output holds, at a random place of its middle half,
            a pixel of a random foreground class.
        seed: with the step the only source of randomness.
    """

    def __init__(
        self,
        images: Sequence[TrainingImage],
        patch: int,
        margin: int,
        batch: int,
        foreground: float,
        seed: int,
    ) -> None:
        if not images:
            raise ValueError("there are no images to draw patches from")
        self._images, self._patch, self._margin = images, patch, margin
        self._batch, self._foreground, self._seed = batch, foreground, seed
        self._positions: list[dict[int, np.ndarray]] = []
        self.counts = np.zeros(256, dtype=np.int64)
        for index, image in enumerate(images):
            positions, counts = image.positions(seed + index)
            self._positions.append(positions)
            self.counts += counts
        areas = np.array([float(np.prod(image.shape)) for image in images])
        self._chances = areas / areas.sum()

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """The batch of this step.

        Returns:
            images [N, C, *S] float32, targets [N, *S] uint8, weights [N, *S] float32 or None;
            S is the input's size for all three.
        """
        rng = np.random.default_rng([self._seed, step])
        patches = [self._draw(rng) for _ in range(self._batch)]
        weights = [p.weight for p in patches if p.weight is not None]
        return (
            np.stack([p.image for p in patches]),
            np.stack([p.target for p in patches]),
            np.stack(weights) if weights else None,
        )

    def _draw(self, rng: np.random.Generator) -> Patch:
        index = int(rng.choice(len(self._images), p=self._chances))
        image, positions = self._images[index], self._positions[index]
        size = self._patch - 2 * self._margin
        target = None
        if positions and rng.random() < self._foreground:
            places = positions[sorted(positions)[rng.integers(len(positions))]]
            target = places[rng.integers(len(places))]
        window = []
        for axis, length in enumerate(image.shape):
            low, high = sorted((0, length - size))
            start = int(rng.integers(low, high + 1))
            if target is not None:
                wanted = int(target[axis]) - int(rng.integers(size // 4, size - size // 4))
                start = min(max(wanted, low), high)
            window.append((start - self._margin, start - self._margin + self._patch))
        return image.read(window)
