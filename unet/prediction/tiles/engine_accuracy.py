"""Checks a fast engine or a coarse precision against float32, on a piece of an image."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from unet.config.geometry import Footprints
from unet.data.tiling import read_window
from unet.models.inference import Predictor

log = logging.getLogger(__name__)

# Largest share of pixels that may change class, and largest mean difference of probabilities.
# Trained networks in bfloat16 reach about a fiftieth of either limit.
MOST_CHANGED = 0.005
MOST_MEAN = 0.005
# Side of the piece, in pixels, by the number of spatial axes.
PIECE_SIDE = {2: 256, 3: 32}


def middle_piece(shape: Sequence[int], footprints: Footprints) -> tuple[tuple[int, int], ...]:
    """The window in the middle of an image that is compared: (start, stop) for each axis."""
    windows = []
    for size, fp in zip(shape, footprints, strict=True):
        side = fp.fit(min(PIECE_SIDE[len(shape)], size) + 2 * fp.margin)
        start = max(0, (size - side) // 2) // fp.grid * fp.grid - fp.margin
        windows.append((start, start + side))
    return tuple(windows)


def engine_differences(predictor: Predictor, image: Any) -> tuple[float, float]:
    """(share of pixels that change class, mean difference of probabilities) compared with float32.

    Args:
        image: [C, (Z,) Y, X]; a piece in its middle is used.
    """
    piece = read_window(image, middle_piece(image.shape[1:], predictor.footprint))[None]
    # One view of the image is enough: test-time augmentation would give the same answer.
    plain = predictor.without_tta()
    found, exact = plain(piece), plain.reference()(piece)
    flips = float((found.argmax(axis=1) != exact.argmax(axis=1)).mean())
    return flips, float(np.abs(found - exact).mean())


def agrees_with_float32(predictor: Predictor, image: Any) -> bool:
    """Whether the predictor agrees with float32; logs the differences."""
    flips, mean = engine_differences(predictor, image)
    good = flips <= MOST_CHANGED and mean <= MOST_MEAN
    log.log(
        logging.INFO if good else logging.WARNING,
        "%s in %s against float32: %.3g %% of pixels change their class, mean difference %.2g%s",
        predictor.engine, predictor.precision, 100 * flips, mean,
        "" if good else "; that is too much, so PyTorch in float32 is used",
    )  # fmt: skip
    return good
