"""Where the crops of an image lie: places on a grid, so that no two crops overlap."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from unet.data.tiling import Slices


def crop_places(shape: Sequence[int], side: Sequence[int]) -> list[Slices]:
    """As many crops as fit beside each other, evenly spread over the image, in raster order.

    Along an axis with n pixels there are n // side crops; the first starts at the first pixel and
    the last ends at the last one. A single crop lies in the middle. A crop is never larger than
    the image.

    Args:
        shape: of the image, (Z,) Y, X in pixels.
        side: of a crop, along the same axes; 0 = the whole image along this axis.
    """
    return [
        tuple(places)
        for places in product(*(_along(n, want) for n, want in zip(shape, side, strict=True)))
    ]


def _along(size: int, side: int) -> list[slice]:
    side = min(side or size, size)
    count = size // side
    if count == 1:
        start = (size - side) // 2
        return [slice(start, start + side)]
    starts = (k * (size - side) // (count - 1) for k in range(count))
    return [slice(start, start + side) for start in starts]
