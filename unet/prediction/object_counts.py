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
# A single object or class that covers at least this share of an image covers nearly all of it.
NEARLY_ALL = 0.95


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


def object_warnings(counted: Mapping[str, Counted], odd: Mapping[str, str], task: str) -> list[str]:
    """What looks wrong about the objects, one line each, with what to try."""
    lines = []
    specks = {image: text for image, text in odd.items() if "speck" in text}
    covered = {image: text for image, text in odd.items() if image not in specks}
    for line in grouped(specks.items()):
        lines.append(
            f"{line}; if they are noise, try --min-size or a higher --threshold; if the model "
            "learnt larger objects, give the right --pixel-size, or use another model"
        )
    for line in grouped(covered.items()):
        lines.append(
            f"{line}; look at the probabilities; try a higher --threshold, the right "
            "--pixel-size, or another model"
        )
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
