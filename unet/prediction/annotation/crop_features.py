"""What crops look like, as a vector each: intensities, polarity, texture and objects.

The numbers are those by which images are compared with the training images
(:mod:`unet.data.appearance`), and some about the predicted objects. Each is divided by its spread
over all crops, and each family (levels, polarity, texture, objects) counts the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.data.appearance import CHANNELS, LEAST_SHARE, SECTIONS, measured
from unet.data.tiling import Slices
from unet.prediction.annotation.crop_facts import CropFacts

# Side of the part in the middle of a crop that is looked at.
SIDE = 512
# Numbers further from the median than this many spreads are as odd as they can be.
FARTHEST = 5.0

Floats = NDArray[np.float64]


def crop_features(image: Any, place: Slices, facts: CropFacts) -> list[Floats]:
    """The families of numbers of one crop; at most three channels are looked at.

    Args:
        image: array [C, (Z,) Y, X] with the values of the file, which may be lazy.
        place: of the crop, slices along (Z,) Y, X.
    """
    windows = [np.asarray(image[(slice(0, CHANNELS), *w)], np.float32) for w in _windows(place)]
    look = measured(windows)
    least = float(np.log10(LEAST_SHARE))
    texture = [least if share is None else share for one in look.texture for share in one]
    return [
        np.array(look.levels, np.float64).ravel(),
        np.array(look.polarity, np.float64),
        np.array(texture, np.float64),
        _objects(facts),
    ]


def _windows(place: Slices) -> Iterator[tuple[int | slice, ...]]:
    """The middle of a crop, of a volume in some sections."""
    *depth, rows, columns = place
    middle = tuple(map(_middle, (rows, columns)))
    if not depth:
        yield middle
        return
    (sections,) = depth
    count = sections.stop - sections.start
    planes = (sections.start + (2 * k + 1) * count // (2 * SECTIONS) for k in range(SECTIONS))
    for plane in dict.fromkeys(planes):
        yield (plane, *middle)


def _middle(span: slice) -> slice:
    size = min(span.stop - span.start, SIDE)
    start = span.start + (span.stop - span.start - size) // 2
    return slice(start, start + size)


def _objects(facts: CropFacts) -> Floats:
    """Share of the foreground, and the number (per 10,000 pixels), size and variety of objects."""
    density = 1e4 * facts.objects / facts.pixels
    return np.array(
        [
            facts.foreground / facts.pixels,
            np.log1p(density),
            np.log1p(facts.median_size),
            facts.size_spread,
        ]
    )


def comparable(crops: Sequence[Sequence[Floats]]) -> Floats:
    """Vectors [N, D] whose Euclidean distances compare the crops.

    Args:
        crops: the families of each, from :func:`crop_features`.
    """
    if not crops:
        return np.empty((0, 0))
    columns = []
    for family in zip(*crops, strict=True):
        values = np.stack(family)
        low, middle, high = np.percentile(values, [16, 50, 84], axis=0)
        # A few odd crops may be all that differs.
        spread = np.where(high > low, (high - low) / 2, values.std(axis=0))
        scaled = (values - middle) / np.where(spread > 0, spread, 1)
        columns.append(np.clip(scaled, -FARTHEST, FARTHEST) / np.sqrt(values.shape[1]))
    return np.concatenate(columns, axis=1)
