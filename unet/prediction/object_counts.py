"""Counts and sizes of what was predicted per image, from the table of objects, and what looks wrong
about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unet.data.dataset_warnings import grouped
from unet.errors import how_many

# Rows of the table in memory at once.
ROWS = 1 << 18
# Objects below this share of the size of a typical training object are specks; without known
# training objects, below this number of pixels (voxels).
SPECK_SHARE, SPECK_PIXELS = 0.1, 40
# More than this share of an image's objects, or of all images, is most of them.
MOST = 0.5
# Half of an image's objects are smaller (or larger) than this multiple of the training's median,
# and than all but 5 % of the training objects: no longer chance, or just another field of view.
# Both are needed. The percentiles alone name honest images where all training objects have about
# one size, the multiple alone where they have many. Tried with the labels of real images in place
# of predictions, and other images of the same set as training: none is named in sets of one
# magnification (nuclei, cells, organelles), 6 % in sets of nuclei that mix several.
UNUSUAL_FACTOR = 3.0
# The median of fewer objects says little: such images are judged by all their objects together.
ENOUGH_OBJECTS = 10
# A single object or class that covers at least this share of an image covers nearly all of it.
NEARLY_ALL = 0.95
# How the texts about odd images begin or what they contain, and what to try.
SMALLER = "its objects are far smaller than those of the training"
LARGER = "its objects are far larger than those of the training"
_ADVICE = {
    "speck": "if they are noise, try --min-size or a higher --threshold; if the model learnt "
    "larger objects, give the right --pixel-size, or use another model",
    SMALLER: "look at the outlines: if they are noise or parts of objects, the counts are too "
    "high; try --min-size, a higher --threshold, the right --pixel-size, or a model that was "
    "trained for longer",
    LARGER: "look at the outlines: if they join objects, the counts are too low; try a higher "
    "--threshold, the right --pixel-size, or another model",
    "covers": "look at the probabilities; try a higher --threshold, the right --pixel-size, or "
    "another model",
}


@dataclass(eq=False)
class Counted:
    """What was predicted in one image.

    Attributes:
        sizes: of each object (task instances) or class (semantic), in pixels or voxels, float32.
        diameters: equivalent diameters of the objects in pixels, float32.
        um_per_px: micrometres per pixel of the diameters, None = unknown.
        classes: name -> pixels (task semantic).
    """

    sizes: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    diameters: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    um_per_px: float | None = None
    classes: dict[str, int] = field(default_factory=dict)

    @property
    def shares(self) -> dict[str, float]:
        """Share of each class in the image's pixels."""
        total = max(1, sum(self.classes.values()))
        return {name: size / total for name, size in self.classes.items()}


def count_objects(path: Path, images: Sequence[str], task: str) -> dict[str, Counted]:
    """Reads ``objects.csv`` in parts; keeps 8 bytes per object.

    Args:
        images: all images that were segmented, also those without objects.

    Raises:
        UserError: the table is missing or unreadable.
    """
    found = {image: Counted() for image in images}
    parts: dict[str, list[tuple[NDArray[np.float32], NDArray[np.float32]]]] = {}
    for rows in _parts(path):
        size = "area_px" if "area_px" in rows else "volume_px"
        for image, own in rows.groupby("image", sort=False):
            one = found.setdefault(str(image), Counted())
            sizes = own[size].to_numpy(np.float32)
            if task == "semantic":
                for name, pixels in zip(own["class"], own[size], strict=True):
                    one.classes[str(name)] = one.classes.get(str(name), 0) + int(pixels)
            diameters = own["equivalent_diameter_px"].to_numpy(np.float32)
            parts.setdefault(str(image), []).append((sizes, diameters))
            known = own["equivalent_diameter_um"].to_numpy(np.float64)
            good = np.flatnonzero(np.isfinite(known) & (diameters > 0))
            if len(good):
                one.um_per_px = float(known[good[0]] / diameters[good[0]])
    for image, pieces in parts.items():
        found[image].sizes = np.concatenate([sizes for sizes, _ in pieces])
        found[image].diameters = np.concatenate([diameters for _, diameters in pieces])
    return found


def _parts(path: Path) -> Iterator[pd.DataFrame]:
    from unet.tables import read_table, unguarded

    wanted = {
        "image", "class", "area_px", "volume_px", "equivalent_diameter_px",
        "equivalent_diameter_um",
    }  # fmt: skip
    if not path.is_file():
        read_table(path, "stitch")  # raises the usual error
    numbers = wanted - {"image", "class"}
    with pd.read_csv(
        path, usecols=lambda name: name in wanted, chunksize=ROWS, keep_default_na=False,
        na_values={name: [""] for name in numbers}, dtype={"image": str, "class": str},
    ) as reader:  # fmt: skip
        for rows in reader:
            rows["image"] = rows["image"].map(unguarded)
            rows["class"] = rows["class"].map(unguarded)
            yield rows


def speck_limits(
    images: Mapping[str, float], training: Sequence[float] | None, dims: int
) -> dict[str, float]:
    """Per image, the size in its own pixels below which an object is a speck.

    Args:
        images: image id -> number of its pixels per pixel of the network's grid.
        training: percentiles 5, 50 and 95 of the sizes of the training objects in pixels of the
            network's grid; None = unknown.
        dims: number of spatial axes.
    """
    if training is None:
        return dict.fromkeys(images, float(SPECK_PIXELS if dims == 2 else 4 * SPECK_PIXELS))
    # Small organelles may really be small in training: not more than its small ones.
    limit = min(SPECK_SHARE * training[1], training[0])
    return {image: limit * factor for image, factor in images.items()}


def odd_images(
    counted: Mapping[str, Counted],
    pixels: Mapping[str, int],
    limits: Mapping[str, float],
    task: str,
) -> dict[str, str]:
    """Images whose result looks wrong, and why; images without any object are not among them.

    Args:
        pixels: number of pixels of each image.
        limits: from :func:`speck_limits`.
    """
    found = {}
    for image, one in counted.items():
        if task == "semantic":
            for name, share in one.shares.items():
                if share >= NEARLY_ALL and name != next(iter(one.classes)):
                    found[image] = f"class {name} covers nearly all of it ({100 * share:.0f} %)"
            continue
        count = len(one.sizes)
        specks = int((one.sizes < limits.get(image, 0.0)).sum())
        largest = float(one.sizes.max()) / pixels[image] if count else 0.0
        if specks > MOST * count:
            kind = "is a speck" if specks == 1 else "are specks"
            found[image] = (
                f"{specks} of {how_many(count, 'object')} {kind} "
                f"of less than {limits[image]:.0f} pixels"
            )
        elif largest >= NEARLY_ALL:
            found[image] = f"one object covers nearly all of it ({100 * largest:.0f} %)"
    return found


def unusual_sizes(
    counted: Mapping[str, Counted],
    factors: Mapping[str, float],
    training: Sequence[float] | None,
) -> dict[str, str]:
    """Images whose typical object is far smaller or larger than those of the training, and by how
    much, in pixels (voxels) of the image.

    Args:
        counted: task instances.
        factors, training: as in :func:`speck_limits`; nothing is unusual if ``training`` is None.
    """
    if training is None:
        return {}
    # In pixels of the network's grid, like those of the training.
    sizes = {k: one.sizes / factors[k] for k, one in counted.items() if len(one.sizes)}
    few = [image for image, own in sizes.items() if len(own) < ENOUGH_OBJECTS]
    together = np.concatenate([np.empty(0, np.float32), *(sizes[image] for image in few)])
    all_few = _unusual(together, training) if len(together) >= ENOUGH_OBJECTS else ""
    found = {}
    for image, own in sizes.items():
        text = _unusual(own, training)
        if text and (image not in few or text == all_few):
            values = (float(np.median(own)), training[1])
            mine, usual = (_pixels(value * factors[image]) for value in values)
            found[image] = f"{text} (median {mine} pixels, in training {usual})"
    return found


def _unusual(sizes: NDArray[np.float32], training: Sequence[float]) -> str:
    """How the median differs from the training's percentiles 5, 50 and 95; "" = it is usual."""
    (low, usual, high), median = training, float(np.median(sizes))
    if median < min(low, usual / UNUSUAL_FACTOR):
        return SMALLER
    return LARGER if median > max(high, usual * UNUSUAL_FACTOR) else ""


def _pixels(size: float) -> str:
    return f"{size:.0f}" if size >= 10 else f"{size:.2g}"


def object_warnings(counted: Mapping[str, Counted], odd: Mapping[str, str], task: str) -> list[str]:
    """What looks wrong about the objects, one line each, with what to try."""
    lines = []
    for sign, advice in _ADVICE.items():
        alike = [(image, text) for image, text in odd.items() if sign in text]
        lines += [f"{line}; {advice}" for line in grouped(alike)]
    empty = [image for image, one in counted.items() if _is_empty(one, task)]
    if len(empty) > MOST * len(counted):
        what = "no object" if task == "instances" else "only the first class"
        lines.append(
            f"{what} in {len(empty)} of {how_many(len(counted), 'image')}; if there should "
            "be some, try a lower --threshold, the right --pixel-size, or another model"
        )
    return lines


def _is_empty(one: Counted, task: str) -> bool:
    if task == "instances":
        return not len(one.sizes)
    return not any(list(one.classes.values())[1:])
