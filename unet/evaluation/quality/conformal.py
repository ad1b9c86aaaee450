"""Split conformal prediction: intervals that cover as often as they say, whatever the model.

With n held-out residuals and a new one, all equally likely to be the largest, the new residual is
at most the k-th smallest of the n, k = ceil((n + 1) * confidence), with a probability of at least
``confidence`` (Vovk, Gammerman & Shafer 2005, "Algorithmic learning in a random world";
Angelopoulos & Bates 2021, arXiv:2107.07511, section 1). If k > n there is no such residual: the
interval would be endless, so it is refused. The promise holds for images like the held-out ones,
not for others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# Products such as 20 * 0.95 are whole numbers only but for rounding.
_ROUNDING = 1e-9


def rank(images: int, confidence: float) -> int:
    """ceil((n + 1) * confidence): which of the n sorted residuals is the margin."""
    return math.ceil((images + 1) * confidence - _ROUNDING)


def needed(confidence: float) -> int:
    """The smallest number of held-out images for intervals of this level: 19 for 0.95, 9 for 0.9.

    Raises:
        ValueError: the level is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence is between 0 and 1, got {confidence}")
    # rank(n) <= n if n * (1 - confidence) >= confidence.
    images = max(1, math.floor(confidence / (1 - confidence)) - 1)
    while rank(images, confidence) > images:
        images += 1
    return images


def margin(residuals: Sequence[float], confidence: float) -> float | None:
    """Half the width of an interval of this level; None if there are too few residuals.

    Args:
        residuals: absolute residuals of held-out images, finite.
    """
    place = rank(len(residuals), confidence)
    if place > len(residuals):
        return None
    return float(np.sort(np.asarray(residuals, np.float64))[place - 1])


def count_residual(predicted: float, true: float) -> float:
    """|sqrt(predicted) - sqrt(true)|. Errors of counts grow with the count; the square root makes
    their spread about the same for few and for many objects (Anscombe 1948,
    doi:10.1093/biomet/35.3-4.246)."""
    return abs(math.sqrt(predicted) - math.sqrt(true))


def count_interval(count: int, half: float) -> tuple[int, int]:
    """The lowest and the highest number of objects whose residual is at most ``half``."""
    centre = math.sqrt(count)
    low = math.ceil(max(0.0, centre - half) ** 2 - _ROUNDING)
    high = math.floor((centre + half) ** 2 + _ROUNDING)
    return min(low, count), max(high, count)
