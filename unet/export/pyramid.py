"""What 2 x 2 pixels become in the next coarser level of a pyramid.

A new way is one function and one line in :data:`REDUCTIONS`. All of them look at the last two axes
alone; a last row or column without a partner stands for both.
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
    """Every second pixel [..., Y, X] of every second row, from the first on."""
    return pixels[..., ::2, ::2]


def mode_pairs(pixels: NDArray[Any]) -> NDArray[Any]:
    """The most frequent of 2 x 2 labels [..., Y, X]; of several, the smallest that is not 0.

    Without the exception for 0, the background, lines of one pixel would be lost where they run
    through two of the four pixels.
    """
    even = _even(pixels)
    a, b = even[..., ::2, ::2], even[..., ::2, 1::2]
    c, d = even[..., 1::2, ::2], even[..., 1::2, 1::2]
    # Sorted by a network of five comparisons: equal labels then lie side by side.
    a, b = np.minimum(a, b), np.maximum(a, b)
    c, d = np.minimum(c, d), np.maximum(c, d)
    a, c = np.minimum(a, c), np.maximum(a, c)
    b, d = np.minimum(b, d), np.maximum(b, d)
    b, c = np.minimum(b, c), np.maximum(b, c)
    # Four different ones: the first but 0. Else the first pair of equal ones, but of two pairs the
    # first is passed over where it is of 0.
    out = np.where(a == 0, b, a)
    for one, other in ((c, d), (b, c)):
        out = np.where(one == other, one, out)
    two_pairs = (c == d) & (b != c)
    return np.asarray(np.where((a == b) & ~((a == 0) & two_pairs), a, out))


@dataclass(frozen=True)
class Way:
    """One way to reduce.

    Attributes:
        reduce: [..., Y, X] -> [..., ceil(Y / 2), ceil(X / 2)].
        centred: the result stands for all four pixels and so lies at their centre; else it is one
            of them, the first, and lies where that was.
    """

    reduce: Callable[[NDArray[Any]], NDArray[Any]]
    centred: bool


REDUCTIONS: dict[Reduction, Way] = {
    "mean": Way(mean_pairs, centred=True),
    "nearest": Way(first_of_pairs, centred=False),
    "mode": Way(mode_pairs, centred=True),
}


def _even(pixels: NDArray[Any]) -> NDArray[Any]:
    odd = [(0, 0)] * (pixels.ndim - 2) + [(0, n % 2) for n in pixels.shape[-2:]]
    return np.pad(pixels, odd, mode="edge")
