"""What the pixels of one image say: percentiles, largest value, saturation, focus, a thumbnail.

An image is decoded once, block by block. Percentiles come from every n-th pixel, and what needs
neighbours (focus, borders) from one region in the middle, so that memory is limited.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.data.inspection import blocks_of
from unet.data.label_statistics import SAMPLED_PIXELS, Subsampled
from unet.data.survey.fingerprints import Thumbnail, digest_of
from unet.data.tiling import Slices
from unet.io.axes import LazyImage

Array = NDArray[Any]

PERCENTILES = (0.5, 50.0, 99.5)
# Pixels of the region that is kept, and the side of the part of it that focus is measured on.
REGION_PIXELS, FOCUS_SIDE = 1 << 24, 1024
# Largest values of cameras with 8, 10, 12, 14 and 16 bits.
LIMITS = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))


@dataclass(frozen=True)
class PixelFacts:
    """What the pixels of one image say.

    Attributes:
        low, median, high: percentiles 0.5, 50 and 99.5 of each channel.
        largest: the largest value.
        at_limit: largest value of a camera (one of ``LIMITS``) -> share (0 to 1) of pixels that
            have it, in the channel with most of them; empty for types other than unsigned integers.
        sharpness: see :func:`sharpness_of`; None for a region of one value.
        thumbnail: [64, 64] float32 of the first channel, mean over Z.
        digest: equal for images with the same pixels; "" for a single value.
        region: of the image [(Z,) Y, X]; the whole image if it has at most ``REGION_PIXELS``.
        pixels: the first channel of that region.
    """

    low: tuple[float, ...]
    median: tuple[float, ...]
    high: tuple[float, ...]
    largest: float
    at_limit: dict[int, float]
    sharpness: float | None
    thumbnail: NDArray[np.float32]
    digest: str
    region: Slices
    pixels: Array = field(repr=False)


class Cut:
    """One region of an array [(Z,) Y, X] that comes block by block."""

    def __init__(self, region: Slices, dtype: Any) -> None:
        self.region = region
        self.pixels: Array = np.zeros([s.stop - s.start for s in region], dtype)

    def add(self, start: Sequence[int], block: Array) -> None:
        inner, outer = [], []
        for a, n, s in zip(start, block.shape, self.region, strict=True):
            first, last = max(a, s.start), min(a + n, s.stop)
            if first >= last:
                return
            inner.append(slice(first - a, last - a))
            outer.append(slice(first - s.start, last - s.start))
        self.pixels[tuple(outer)] = block[tuple(inner)]


def middle(shape: Sequence[int], most: int) -> Slices:
    """The region in the middle of an array with at most ``most`` pixels: its longest sides are
    halved until it fits."""
    sizes = list(shape)
    while math.prod(sizes) > most:
        longest = max(range(len(sizes)), key=sizes.__getitem__)
        sizes[longest] = -(-sizes[longest] // 2)
    starts = [(n - size) // 2 for n, size in zip(shape, sizes, strict=True)]
    return tuple(slice(a, a + size) for a, size in zip(starts, sizes, strict=True))


def pixel_facts(opened: LazyImage, region_pixels: int = REGION_PIXELS) -> PixelFacts:
    """Decodes an image [C, (Z,) Y, X] once.

    Raises:
        UserError: pixels that cannot be decoded.
    """
    channels, *shape = opened.shape
    kept = [Subsampled(shape, max(1 << 14, SAMPLED_PIXELS // channels)) for _ in range(channels)]
    cut = Cut(middle(shape, region_pixels), opened.dtype)
    thumbnail = Thumbnail(shape)
    largest = -math.inf
    limits = _limits(opened.dtype)
    counts = np.zeros((channels, len(limits)), np.int64)
    for (channel, *start), block in blocks_of(opened.array):
        largest = max(largest, float(block.max()))
        for number, pixels in enumerate(block, channel):
            kept[number].add(start, pixels)
            for place, limit in enumerate(limits):
                counts[number, place] += np.count_nonzero(pixels == limit)
        if channel == 0:
            cut.add(start, block[0])
            thumbnail.add(start, block[0])
    low, median, high = zip(
        *(np.percentile(k.pixels, PERCENTILES).tolist() for k in kept), strict=True
    )
    shares = counts.max(axis=0, initial=0) / math.prod(shape)
    return PixelFacts(
        low,
        median,
        high,
        largest,
        dict(zip(limits, shares.tolist(), strict=True)),
        sharpness_of(_focus_plane(cut.pixels)),
        thumbnail.pixels,
        digest_of([k.pixels for k in kept], opened.shape),
        cut.region,
        cut.pixels,
    )


def _limits(dtype: np.dtype[Any]) -> list[int]:
    most = int(np.iinfo(dtype).max) if dtype.kind == "u" else 0
    return [limit for limit in LIMITS if limit <= most]


def _focus_plane(pixels: Array) -> Array:
    plane = pixels if pixels.ndim == 2 else pixels[len(pixels) // 2]
    return np.asarray(plane[middle(plane.shape, FOCUS_SIDE**2)])


def sharpness_of(plane: Array) -> float | None:
    """A focus measure of a plane [Y, X]: the energy of its finest details without noise, relative
    to that of all structure (brightness and contrast do not matter).

    It is the variance of a difference of Gaussians (1 and 2 px) over that of the plane smoothed by
    1 px. None if the plane has a single value, or hardly more than noise.
    """
    from scipy import ndimage

    if min(plane.shape) < 16:
        return None
    fine = ndimage.gaussian_filter(plane.astype(np.float32), 1.0)
    coarse = ndimage.gaussian_filter(fine, math.sqrt(3.0))
    whole = float(fine.var(dtype=np.float64))
    detail = float((fine - coarse).var(dtype=np.float64))
    return detail / whole if whole > 0 and detail > 0 else None


def bits_of(largest: float, dtype: str) -> int | None:
    """Bits that values up to ``largest`` need, if fewer than those of the type, of which more than
    8 are stored; otherwise None."""
    kind = np.dtype(dtype)
    if kind.kind != "u" or kind.itemsize < 2:
        return None
    bits = max(1, int(largest).bit_length())
    return bits if bits < 8 * kind.itemsize else None


def saturated_share(at_limit: dict[int, float], largest: float) -> float | None:
    """Share of pixels with the largest value that the camera can give.

    Args:
        largest: of all images: the camera's limit if it is one of ``LIMITS``.
    """
    if not at_limit:
        return None
    limit = int(largest) if int(largest) in at_limit else max(at_limit)
    return at_limit[limit]
