"""The windows on which the ranges of an int8 network's activations are measured.

They are cut from the first images by name, of all that a fold predicts: so every job that shares
the fold measures the same ranges, and so does one that continues. The keys of these images are a
part of the key of every image (:meth:`unet.prediction.tiles.prediction_job.PredictionData.keyed`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from unet.config.geometry import Footprint, Footprints
from unet.data.store import Prepared
from unet.data.tiling import read_window
from unet.prediction.tiles.engine_accuracy import middle_piece

# At most so many images are used, to keep the time short.
MOST_IMAGES = 4
# Side of the windows in pixels, and their number along each axis, by the number of spatial axes.
SIDE = {2: 128, 3: 32}
PER_AXIS = {2: 4, 3: 3}


@dataclass(frozen=True)
class Calibration:
    """The images that are used to calibrate: the first ones by name; all but one if there are few.

    Attributes:
        store: the prepared store.
        images: their ids.
    """

    store: Path
    images: tuple[str, ...]

    @classmethod
    def of(cls, store: Path, names: Iterable[str]) -> Calibration:
        """Chooses among these images, of which there is at least one."""
        ordered = sorted(names)
        return cls(store, tuple(ordered[: max(1, min(MOST_IMAGES, len(ordered) - 1))]))

    def checked(self, names: Iterable[str]) -> str:
        """The image to check the accuracy on: another one, if there is one."""
        return min(set(names) - set(self.images), default=self.images[0])

    def windows(self, footprints: Footprints) -> list[np.ndarray]:
        """Windows [1, C, *S] float32, evenly spread over the images, of accepted sizes.

        The middle piece of an image is left out, because the accuracy is checked there if it is the
        only one; unless the image is so small that nothing else is left.
        """
        prepared, found = Prepared(self.store), []
        for name in self.images:
            image = prepared.image(name)
            places = windows_of(image.shape[1:], footprints)
            piece = middle_piece(image.shape[1:], footprints)
            places = [place for place in places if not _overlap(place, piece)] or places
            found += [np.asarray(read_window(image, place), np.float32)[None] for place in places]
        return found


Place = tuple[tuple[int, int], ...]


def windows_of(shape: tuple[int, ...], footprints: Footprints) -> list[Place]:
    """Windows from border to border: (start, stop) for each spatial axis."""
    dims = len(shape)

    def along(size: int, fp: Footprint) -> list[tuple[int, int]]:
        side = min(SIDE[dims], size)
        last, steps = size - side, PER_AXIS[dims] - 1
        starts = sorted({last * i // steps // fp.grid * fp.grid for i in range(steps + 1)})
        length = fp.fit(side + 2 * fp.margin)
        return [(start - fp.margin, start - fp.margin + length) for start in starts]

    axes = [along(size, fp) for size, fp in zip(shape, footprints, strict=True)]
    return list(product(*axes))


def _overlap(one: Place, other: Place) -> bool:
    return all(a < d and c < b for (a, b), (c, d) in zip(one, other, strict=True))
