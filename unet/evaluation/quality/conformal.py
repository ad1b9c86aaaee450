"""Split conformal prediction: intervals that cover as often as they say, whatever the model.

With n held-out residuals and a new one, all equally likely to be the largest, the new residual is
at most the k-th smallest of the n, k = ceil((n + 1) * confidence), with a probability of at least
``confidence`` (Vovk, Gammerman & Shafer 2005, "Algorithmic learning in a random world";
Angelopoulos & Bates 2021, arXiv:2107.07511, section 1). If k > n there is no such residual: the
interval would be endless, so it is refused. The promise holds for images like the held-out ones,
not for others.

Images of a group (a patient, a plate) resemble each other: many images of few groups say little
about a new group. So each group has the same weight, which its images share, and n counts groups:
hierarchical conformal prediction (Lee, Barber & Willett 2023, arXiv:2306.06342; compare
Dunn, Wasserman & Ramdas 2022, arXiv:1809.07441, whose repeated draws of one image per group it
replaces). The promise is then one for an image of a new group, if the groups are exchangeable.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from unet.evaluation.statistics import group_index

# Products such as 20 * 0.95 are whole numbers only but for rounding.
_ROUNDING = 1e-9


def rank(groups: int, confidence: float) -> int:
    """ceil((n + 1) * confidence): which of the n sorted residuals is the margin."""
    return math.ceil((groups + 1) * confidence - _ROUNDING)


def needed(confidence: float) -> int:
    """The smallest number of held-out groups for intervals of this level: 19 for 0.95, 9 for 0.9.

    Raises:
        ValueError: the level is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence is between 0 and 1, got {confidence}")
    # rank(n) <= n if n * (1 - confidence) >= confidence.
    groups = max(1, math.floor(confidence / (1 - confidence)) - 1)
    while rank(groups, confidence) > groups:
        groups += 1
    return groups


def margin(
    residuals: Sequence[float], groups: Sequence[Hashable], confidence: float
) -> float | None:
    """Half the width of an interval of this level; None if there are too few groups.

    The smallest residual r for which the groups' mean shares of residuals up to r, summed over
    the n groups, are at least (n + 1) * confidence. With one image per group that is the residual
    of this :func:`rank`.

    Args:
        residuals: absolute residuals of held-out images, finite [N].
        groups: of each image [N]; an image on its own is a group.
    """
    index = group_index(groups)
    sizes = np.bincount(index)
    if rank(len(sizes), confidence) > len(sizes):
        return None
    values = np.asarray(residuals, np.float64)
    order = np.argsort(values, kind="stable")
    weights = np.cumsum(1 / sizes[index[order]])
    place = np.searchsorted(weights, (len(sizes) + 1) * confidence - _ROUNDING)
    # Rounding must not push the last residual out.
    return float(values[order[min(int(place), len(order) - 1)]])


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
