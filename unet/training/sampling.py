"""Draws patches for training and cuts them from images and targets.

Batch ``step`` depends only on (seed, step). So a resumed run continues with exactly the batches of
an uninterrupted one, and the number of loader threads has no effect.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from unet.config.heads import IGNORE
from unet.data.blocks import grid_of
from unet.data.store import Prepared
from unet.data.tiling import read_window
from unet.errors import UserError, how_many
from unet.training.patch_targets import MAPS, TargetSettings, make_targets

log = logging.getLogger(__name__)

# Foreground positions kept per image and class: enough that none is drawn often.
POSITIONS = 4096
# Side of the blocks in which an image is searched for foreground.
INDEX_BLOCK = 2048


@dataclass(frozen=True)
class Patch:
    """image [C, *S] float32, target [*S] uint8, maps by name, each [M, *S] float32."""

    image: np.ndarray
    target: np.ndarray
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)


class TrainingImage:
    """One labelled image to cut patches from; in memory, or read window by window.

    Args:
        name: its id.
        image, classes, instances: lazy arrays [C, *S], [*S], [*S] (instances may be None).
        settings: which targets to compute from the labels.
        cached: whether to keep image and targets in memory.
        sparse: whether pixels without a label are unknown; then each patch has a labelled one.
    """

    def __init__(
        self,
        name: str,
        image: Any,
        classes: Any,
        instances: Any,
        settings: TargetSettings,
        cached: bool,
        sparse: bool = False,
    ) -> None:
        self.name = name
        self.sparse = sparse
        self.shape: tuple[int, ...] = tuple(image.shape[1:])
        self._settings = settings = replace(settings, sparse=sparse)
        self._image, self._classes, self._instances = image, classes, instances
        self._patch: Patch | None = None
        if cached:
            whole = classes[...], None if instances is None else instances[...]
            self._patch = Patch(image[...], *make_targets(*whole, settings))

    @property
    def whole(self) -> Patch | None:
        """Image and targets, if they are in memory."""
        return self._patch

    @property
    def cached(self) -> bool:
        """Whether it is in memory."""
        return self._patch is not None

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
        """Positions of each foreground class (with sparse labels also of the first class), and
        pixel counts, of the label's class map.

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
                if value == IGNORE or (value == 0 and not self.sparse):
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
        sparse = prepared.sparse(name)
        images.append(TrainingImage(name, image, classes, instances, settings, cached, sparse))
    log.info("%d images, %.0f MB of them in memory", len(images), used / 1e6)
    return images


def _check_sparse(images: Sequence[TrainingImage], counts: np.ndarray) -> None:
    """Refuses sparse labels from which nothing can be learnt.

    Args:
        counts: pixels of each class in all images.

    Raises:
        UserError: no labelled pixel, or none of them is background (of the first class).
    """
    if not all(image.sparse for image in images) or (counts[0] and counts[1:IGNORE].any()):
        return
    number = how_many(len(images), "training image")
    if counts[0]:
        raise UserError(f"unlabelled: ignore: no labelled object in {number}; label some")
    raise UserError(
        f"unlabelled: ignore: no background pixel in {number}, so the network cannot learn what "
        "background is; write background_px: 3 (unlabelled pixels so near a labelled object are "
        "background), or mark some background"
    )


# An image, and a window of it: (start, stop) per spatial axis.
PatchPlace = tuple[TrainingImage, list[tuple[int, int]]]


@dataclass(frozen=True)
class Batch:
    """images [N, C, *S] float32, targets [N, *S] uint8, maps by name, each [N, M, *S] float32."""

    images: np.ndarray
    targets: np.ndarray
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)


class PatchSampler:
    """Draws batches of patches.

    Args:
        images: to draw from; the probability of an image is proportional to its number of pixels,
            times its pixels' weight.
        patch: the network's input size along each spatial axis.
        margin: by how much the network's output is smaller on each side, along each spatial axis.
            A patch's *output* lies within the image if it fits; the input may reach beyond it
            (mirrored).
        batch: N.
        foreground: share of the patches that have a pixel of a random foreground class at a random
            place in the middle half of the output. Patches of images with sparse labels all have
            one of a random class, the first one included.
        seed: with the step, the only source of randomness.
        weights: of a pixel of each image; None: all alike.
    """

    def __init__(
        self,
        images: Sequence[TrainingImage],
        patch: Sequence[int],
        margin: Sequence[int],
        batch: int,
        foreground: float,
        seed: int,
        weights: Sequence[float] | None = None,
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
        if weights is not None:
            areas = areas * np.array(weights)
        for index, image in enumerate(images):
            if image.sparse and not self._positions[index]:
                areas[index] = 0  # nothing to learn from
        _check_sparse(images, self.counts)
        self._chances = areas / areas.sum()

    def batch(self, step: int, rows: slice | None = None) -> Batch:
        """The batch of this step, or only some of its rows (for one of several processes)."""
        patches = [image.read(window) for image, window in self.drawn(step, rows)]
        return Batch(
            np.stack([p.image for p in patches]),
            np.stack([p.target for p in patches]),
            {name: np.stack([p.maps[name] for p in patches]) for name in patches[0].maps},
        )

    def drawn(self, step: int, rows: slice | None = None) -> list[PatchPlace]:
        """Where the patches of :meth:`batch` are."""
        rng = np.random.default_rng([self._seed, step])
        # All rows are drawn, so that a row does not depend on which rows are read.
        return [self._draw(rng) for _ in range(self._batch)][rows or slice(None)]

    def _draw(self, rng: np.random.Generator) -> PatchPlace:
        index = int(rng.choice(len(self._images), p=self._chances))
        image, positions = self._images[index], self._positions[index]
        target = None
        if positions and (rng.random() < self._foreground or image.sparse):
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
