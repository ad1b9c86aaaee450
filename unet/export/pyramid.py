"""Ways to combine 2 x 2 pixels into one pixel of the next coarser level of a pyramid.

To add one, write a function and a line in :data:`REDUCTIONS`. All of them work on the last two
axes; a last row or column without a partner is used twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Reduction: TypeAlias = Literal["mean", "nearest", "mode"]


def mean_pairs(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Means of 2 x 2 pixels [..., Y, X]; an odd last row or column counts twice."""
    even = _even(pixels.astype(np.float32))
    rows = even[..., ::2, :] + even[..., 1::2, :]
    return np.asarray((rows[..., ::2] + rows[..., 1::2]) / 4, np.float32)


def first_of_pairs(pixels: NDArray[Any]) -> NDArray[Any]:
    """Every second pixel of every second row [..., Y, X], starting with the first."""
    return pixels[..., ::2, ::2]


def mode_pairs(pixels: NDArray[Any]) -> NDArray[Any]:
    """The most frequent of 2 x 2 labels [..., Y, X]; in a tie, the smallest that is not 0.

    Without the exception for 0, the background, lines one pixel wide would vanish where they cover
    two of the four pixels.
    """
    even = _even(pixels)
    a, b = even[..., ::2, ::2], even[..., ::2, 1::2]
    c, d = even[..., 1::2, ::2], even[..., 1::2, 1::2]
    # Sorted by five comparisons, so that equal labels are next to each other.
    a, b = np.minimum(a, b), np.maximum(a, b)
    c, d = np.minimum(c, d), np.maximum(c, d)
    a, c = np.minimum(a, c), np.maximum(a, c)
    b, d = np.minimum(b, d), np.maximum(b, d)
    b, c = np.minimum(b, c), np.maximum(b, c)
    # Four different labels: the first that is not 0. Otherwise the first pair of equal labels; but
    # with two pairs, a first pair of zeros is skipped.
    out = np.where(a == 0, b, a)
    for one, other in ((c, d), (b, c)):
        out = np.where(one == other, one, out)
    two_pairs = (c == d) & (b != c)
    return np.asarray(np.where((a == b) & ~((a == 0) & two_pairs), a, out))


@dataclass(frozen=True)
class Reducer:
    """One way to combine pixels.

    Attributes:
        reduce: [..., Y, X] -> [..., ceil(Y / 2), ceil(X / 2)].
        centred: whether the result lies at the centre of the four pixels; otherwise it is the first
            of them and stays in its place.
    """

    reduce: Callable[[NDArray[Any]], NDArray[Any]]
    centred: bool


REDUCTIONS: dict[Reduction, Reducer] = {
    "mean": Reducer(mean_pairs, centred=True),
    "nearest": Reducer(first_of_pairs, centred=False),
    "mode": Reducer(mode_pairs, centred=True),
}


def _even(pixels: NDArray[Any]) -> NDArray[Any]:
    if not any(n % 2 for n in pixels.shape[-2:]):
        return pixels
    odd = [(0, 0)] * (pixels.ndim - 2) + [(0, n % 2) for n in pixels.shape[-2:]]
    return np.pad(pixels, odd, mode="edge")
