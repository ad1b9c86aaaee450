"""What a model predicted in a crop: foreground, objects, and how much it doubts.

The doubt of a pixel is the entropy of its class probabilities, divided by its largest possible
value, log K. That of a crop is the mean over the neighbourhood of the foreground: predicted objects
with a ring around them, and pixels that were nearly foreground. Far background counts for nothing;
otherwise large empty areas, about which every model is sure, would decide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unet.config.heads import classes_among
from unet.data.blocks import grid_of
from unet.data.tiling import Slices
from unet.prediction.stitch.segmentation import Segmentation

# The neighbourhood: this many pixels around the foreground, and where its probability reaches this.
RING, NEARLY = 5, 0.2
# Side of the blocks in which a crop is read.
BLOCK = 1024

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class CropFacts:
    """What was predicted in a crop.

    Attributes:
        pixels: of the crop.
        foreground: pixels (voxels) of any class but the first.
        doubt: 0 to 1, mean over the neighbourhood of the foreground; 0 if there is none.
        objects: number of objects, also those that the crop cuts; 0 for task semantic.
        median_size, size_spread: of the objects, in pixels: the median, and the standard deviation
            of the natural logarithm; 0 without objects.
    """

    pixels: int
    foreground: int
    doubt: float
    objects: int = 0
    median_size: float = 0.0
    size_spread: float = 0.0


def pixel_doubts(probabilities: Floats) -> Floats:
    """Entropy of each pixel's classes over its largest value, 0 to 1: float32 [(Z,) Y, X].

    Shannon 1948: H = -sum of p log p over the K classes; the largest is log K.

    Args:
        probabilities: [K, (Z,) Y, X], K >= 2, that add up to about 1.
    """
    p = np.clip(probabilities, 1e-7, 1.0)
    found = -(p * np.log(p)).sum(axis=0) / np.log(len(p))
    return np.asarray(np.clip(found, 0, 1), np.float32)


def neighbourhood(foreground: NDArray[np.bool_], background: Floats) -> NDArray[np.bool_]:
    """Pixels whose doubt counts, bool [(Z,) Y, X].

    Args:
        foreground: the predicted one.
        background: probability of the background.
    """
    from scipy.ndimage import maximum_filter

    around = np.asarray(maximum_filter(foreground, size=2 * RING + 1), np.bool_)
    return np.asarray(around | (1 - background >= NEARLY))


def crop_facts(segmentation: Segmentation, image: str, place: Slices) -> CropFacts:
    """The facts about one crop, read block by block.

    Args:
        place: of the crop, slices along (Z,) Y, X.

    Raises:
        UserError: a chunk is damaged.
    """
    probabilities, classes = segmentation.probabilities(image), segmentation.classes(image)
    instances = segmentation.instances(image)
    count = classes_among(tuple(segmentation.attrs(image)["head"]))

    def read(part: Slices) -> tuple[Floats, NDArray[np.bool_], NDArray[np.uint32] | None]:
        found = np.asarray(probabilities[(slice(0, count), *part)], np.float32)
        ids = None if instances is None else np.asarray(instances[part], np.uint32)
        return found, np.asarray(classes[part]) > 0, ids

    return facts_of(read, place)


Read = Callable[[Slices], tuple[Floats, NDArray[np.bool_], NDArray[np.uint32] | None]]


def facts_of(read: Read, place: Slices) -> CropFacts:
    """The facts about one crop of anything that can be read by region.

    Args:
        read: class probabilities [K, (Z,) Y, X] (the first is the background), foreground
            [(Z,) Y, X] and ids of objects [(Z,) Y, X] (None for task semantic) of a region.
        place: of the crop, slices along (Z,) Y, X.
    """
    size = tuple(s.stop - s.start for s in place)
    doubt, counted, foreground = 0.0, 0, 0
    sizes: dict[int, int] = {}
    for block in grid_of(size, BLOCK).regions():
        # With a ring of neighbours, cut to the crop: what lies outside is not annotated.
        wide = [
            slice(max(0, s.start - RING), min(n, s.stop + RING))
            for s, n in zip(block, size, strict=True)
        ]
        inner = tuple(
            slice(s.start - w.start, s.stop - w.start) for s, w in zip(block, wide, strict=True)
        )
        where = tuple(
            slice(p.start + w.start, p.start + w.stop) for p, w in zip(place, wide, strict=True)
        )
        probabilities, mask, ids = read(where)
        near = neighbourhood(mask, probabilities[0])[inner]
        doubt += float(pixel_doubts(probabilities[(slice(None), *inner)])[near].sum(dtype=float))
        counted += int(near.sum())
        foreground += int(mask[inner].sum())
        if ids is not None:
            labels, counts = np.unique(ids[inner], return_counts=True)
            for label, number in zip(labels.tolist(), counts.tolist(), strict=True):
                sizes[label] = sizes.get(label, 0) + number
    sizes.pop(0, None)
    return CropFacts(
        int(np.prod(size)),
        foreground,
        doubt / counted if foreground else 0.0,
        *_sizes(list(sizes.values())),
    )


def _sizes(sizes: Sequence[int]) -> tuple[int, float, float]:
    if not sizes:
        return 0, 0.0, 0.0
    return len(sizes), float(np.median(sizes)), float(np.log(sizes).std())
