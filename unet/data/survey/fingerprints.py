"""Fingerprints of images, to find those that look alike: a thumbnail, a perceptual hash, a digest
of the pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SIDE = 64
# The hash has a bit for each of the lowest 8 x 8 frequencies.
_LOW = 8


class Thumbnail:
    """Means of the cells of a grid of ``SIDE`` x ``SIDE`` over an image [(Z,) Y, X] that comes
    block by block. A smaller image has fewer cells."""

    def __init__(self, shape: Sequence[int]) -> None:
        self._sizes = shape[-2:]
        self._cells = [min(SIDE, size) for size in self._sizes]
        self._sums = np.zeros(self._cells, np.float64)
        self._counts = np.zeros(self._cells, np.int64)

    def add(self, start: Sequence[int], block: Array) -> None:
        depth = 1 if block.ndim == 2 else block.shape[0]
        plane = block if block.ndim == 2 else block.sum(axis=0, dtype=np.float64)
        cells = []
        for a, n, size, number in zip(
            start[-2:], plane.shape, self._sizes, self._cells, strict=True
        ):
            cells.append(np.arange(a, a + n) * number // size)
        firsts = [np.flatnonzero(np.diff(c, prepend=-1)) for c in cells]
        rows = np.add.reduceat(plane, firsts[0], axis=0, dtype=np.float64)
        sums = np.add.reduceat(rows, firsts[1], axis=1)
        pixels = [np.diff(f, append=len(c)) for f, c in zip(firsts, cells, strict=True)]
        where = np.ix_(*(c[f] for f, c in zip(firsts, cells, strict=True)))
        self._sums[where] += sums
        self._counts[where] += depth * np.outer(*pixels)

    @property
    def pixels(self) -> NDArray[np.float32]:
        """[SIDE, SIDE]; cells of smaller images are repeated."""
        means = self._sums / np.maximum(self._counts, 1)
        places = [np.arange(SIDE) * n // SIDE for n in means.shape]
        return means[np.ix_(*places)].astype(np.float32)


def perceptual_hash(thumbnail: NDArray[np.float32]) -> str:
    """64 bits as hexadecimal: which of the lowest frequencies of the thumbnail are above their
    median. Brightness and contrast do not change it (pHash; Zauner 2010, DCT variant)."""
    from scipy import fft

    small = thumbnail.reshape(SIDE // 2, 2, SIDE // 2, 2).mean(axis=(1, 3), dtype=np.float64)
    # From 1: the first row and column are the brightness of whole rows and columns.
    low = np.asarray(fft.dctn(small, norm="ortho"))[1 : _LOW + 1, 1 : _LOW + 1].ravel()
    bits = low > np.median(low)
    return np.packbits(bits).tobytes().hex()


def digest_of(kept: Sequence[Array], shape: Sequence[int]) -> str:
    """A digest of an image's (sampled) channels; "" if they have a single value."""
    if all(array.min() == array.max() for array in kept):
        return ""
    made = hashlib.sha256(repr(tuple(shape)).encode())
    for array in kept:
        made.update(np.ascontiguousarray(array).tobytes())
    return made.hexdigest()


@dataclass(frozen=True)
class Borders:
    """The outermost lines of a plane, float32: [2, n] each, the outermost line first."""

    top: NDArray[np.float32]
    bottom: NDArray[np.float32]
    left: NDArray[np.float32]
    right: NDArray[np.float32]


def borders_of(pixels: Array) -> Borders:
    """Of a plane [Y, X], or of the middle plane of a volume [Z, Y, X]."""
    plane = pixels if pixels.ndim == 2 else pixels[len(pixels) // 2]
    plane = np.pad(plane, [(0, max(0, 2 - n)) for n in plane.shape], "edge").astype(np.float32)
    across = plane.T
    # Copies, so that the plane itself can be freed.
    return Borders(plane[:2].copy(), plane[:-3:-1].copy(), across[:2].copy(), across[:-3:-1].copy())
