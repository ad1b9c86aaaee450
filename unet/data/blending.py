"""Overlapping windows whose outputs are averaged with Gaussian weights, as in other tools.

This allows comparisons with the exact cores of :mod:`unet.data.tiling`. Windows are placed as in
nnU-Net (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z): evenly from border to border, no
further apart than the overlap allows, and not on the network's grid. The whole output of a window
is kept; each pixel of the image is the mean of all outputs that contain it, weighted by its
position in each window.

Images smaller than a window are centred in it and mirrored (nnU-Net and MONAI pad with zeros). For
unpadded networks the image is mirrored by their margin, as in the exact plan; the overlap is then
that of their outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache, reduce

import numpy as np
from numpy.typing import NDArray

from unet.config.geometry import Footprint, Footprints, sizes_for
from unet.data.tiling import Slices, Span, WindowPlan, check_shape, plan_of

# Default side of a window by number of spatial axes, similar to nnU-Net and MONAI's examples. The
# side is part of this method, so it is not enlarged to fill the memory.
AUTO_TILE = {2: 256, 3: 96}
# Standard deviation of the weights in windows (nnU-Net and MONAI).
SIGMA = 1 / 8


def blended_plan(
    shape: Sequence[int], tile: int | Sequence[int], footprints: Footprints, overlap: float
) -> WindowPlan:
    """Plans overlapping windows.

    In the returned plan, the core of a tile is all of the window's output that lies in the image,
    so cores overlap.

    Args:
        shape: spatial shape ((Z,) Y, X) in pixels.
        tile: size of the windows along each axis, or along all axes, in pixels (rounded down to
            what the network accepts).
        footprints: of the network, one per spatial axis.
        overlap: smallest share of a window's output, 0 to below 1, that the next window covers,
            too.

    Raises:
        ValueError: an axis is empty, the numbers of axes differ, or the overlap is out of range.
    """
    check_shape(shape, footprints)
    if not 0 <= overlap < 1:
        raise ValueError(f"an overlap of {overlap}; it must be 0 or more and below 1")
    axes = [
        _spans(size, fp.fit_below(wanted), fp.margin, overlap)
        for size, wanted, fp in zip(shape, sizes_for(tile, footprints), footprints, strict=True)
    ]
    return plan_of(shape, [axis[-1].stop - axis[0].start for axis in axes], axes)


def _spans(size: int, window: int, margin: int, overlap: float) -> list[Span]:
    output = window - 2 * margin
    if output >= size:
        before = (output - size) // 2
        start = -before - margin
        return [Span(start, start + window, 0, size, before)]
    # At least one pixel per step; rounding errors must not add a window.
    step = max(1.0, output * (1 - overlap))
    steps = math.ceil((size - output) / step - 1e-9)
    firsts = [round(i * (size - output) / steps) for i in range(steps + 1)]
    return [Span(a - margin, a - margin + window, a, a + output, 0) for a in firsts]


def blended_tile(
    shape: Sequence[int], footprints: Footprints, largest: float = math.inf
) -> tuple[int, ...]:
    """The windows for ``predict.tile: auto``: ``AUTO_TILE`` px, but no larger than the image needs.

    Args:
        largest: pixels that a window may have; the side is halved until the window fits, or has the
            smallest size that the network accepts.
    """
    side = AUTO_TILE[len(shape)]
    while side > 1 and np.prod(_cut(side, shape, footprints), dtype=float) > largest:
        side //= 2
    return _cut(side, shape, footprints)


def _cut(side: int, shape: Sequence[int], footprints: Footprints) -> tuple[int, ...]:
    def along(size: int, fp: Footprint) -> int:
        return min(fp.fit_below(side), fp.fit(size + 2 * fp.margin))

    return tuple(along(size, fp) for size, fp in zip(shape, footprints, strict=True))


@lru_cache(maxsize=64)
def importance(size: int) -> NDArray[np.float64]:
    """Weights along an axis of a window's output, float64 [size], at most 1; read-only.

    These are the factors of nnU-Net's weight map: a Gaussian with sigma = size / 8 around pixel
    size // 2. The smallest is exp(-8), so a product of three is far above 0 in any type. (nnU-Net
    computes in float16, where some weights are 0, and replaces them by the smallest that is not.
    MONAI raises the products to 0.001, which gives corners and edges more weight than the
    Gaussian.)
    """
    distance = np.arange(size) - size // 2
    weights: NDArray[np.float64] = np.exp(-0.5 * (distance / (SIGMA * size)) ** 2)
    weights.flags.writeable = False
    return weights


def weights_of(core: Slices, part: Slices) -> NDArray[np.float64]:
    """Weights of a part of a tile, float64 of the part's shape.

    Args:
        core: where the tile lies in the image.
        part: the part, counted from the tile's first pixel.
    """
    # If the image is smaller than the window along an axis, the tile is not the whole output. But
    # then there is no other window along that axis, so its weights cancel out.
    factors = [
        importance(c.stop - c.start)[p.start : p.stop] for c, p in zip(core, part, strict=True)
    ]
    return reduce(np.multiply.outer, factors)
