"""Border weights and border classes from instance labels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.config.heads import IGNORE
from unet.training.targets.lines import axis_steps, compact, shifted, two_nearest

BACKGROUND, INSIDE, BORDER = 0, 1, 2
"""Values of `border_classes`."""

BORDER_TOLERANCE = 1e-6
"""The border term of the weight map is cut to 0 where it would be smaller than this."""

_Array = NDArray[Any]
_Float = NDArray[np.float32]


def border_weight_map(
    instances: _Array,
    w0: float = 10.0,
    sigma: float = 5.0,
    class_weights: Sequence[float] | None = None,
    spacing: float | Sequence[float] = 1.0,
) -> _Float:
    """Weight map of the U-Net paper, which makes the network learn the gaps between touching cells.

    Ronneberger et al. 2015 (arXiv:1505.04597), eq. 2::

        w(x) = wc(x) + w0 * exp(-(d1(x) + d2(x))^2 / (2 sigma^2))

    with d1, d2 the distances from a background pixel to the nearest pixel of the nearest and of
    the second nearest cell. On cells, and if fewer than two cells are near, w = wc.

    The second term is exact if it is at least `BORDER_TOLERANCE`, and 0 otherwise, so that a pixel
    depends on `border_weight_margin` pixels around it. The time depends on this margin and on the
    number of pixels, not on the number of cells.

    Args:
        instances: [(Z,) Y, X], integer instance ids, 0 = background.
        w0: height of the border term.
        sigma: its width, in the unit of `spacing` (pixels when that is 1).
        class_weights: wc as (background, cells); None is (1, 1). Balance them over the dataset
            (`balanced_class_weights`), not over a patch.
        spacing: pixel size, one number or one per axis; only its ratio to `sigma` matters.

    Returns:
        [(Z,) Y, X] float32.

    Raises:
        ValueError: ids that are not integers or negative, or numbers out of range.
    """
    steps = axis_steps(spacing, instances.ndim)
    margin = border_weight_margin(w0, sigma, steps)
    if class_weights is not None and (len(class_weights) != 2 or min(class_weights) < 0):
        raise ValueError(f"class_weights: got {class_weights!r}, needs two numbers >= 0")
    labels = compact(instances)
    background, cells = (1.0, 1.0) if class_weights is None else class_weights
    weights = np.where(labels == 0, np.float32(background), np.float32(cells))
    if w0 == 0 or labels.size == 0 or labels.max() < 2:
        return weights
    reach = _reach(w0, sigma)
    # d1 <= d2, so the nearest object does not matter beyond half of the reach. This holds only for
    # the last axis: before it, distances do not yet include all axes.
    half = min(margin[-1], math.floor(reach / 2 / steps[-1]))
    nearest, second = two_nearest(labels, steps, (*margin[:-1], half), margin)
    total = np.sqrt(nearest) + np.sqrt(second)
    close = (labels == 0) & (total <= reach)
    weights[close] += w0 * np.exp(-(total[close] ** 2) / (2.0 * sigma**2))
    return weights


def border_weight_margin(
    w0: float = 10.0, sigma: float = 5.0, spacing: float | Sequence[float] = 1.0
) -> tuple[int, ...]:
    """Pixels on each side that `border_weight_map` needs, per axis of `spacing` (one if scalar).

    The term falls below t = `BORDER_TOLERANCE` at d1 + d2 = R = sigma * sqrt(2 ln(w0 / t)): 28.4 px
    for the paper's w0 = 10, sigma = 5. As d1 is at least one pixel step, no cell further than R
    minus that step has an effect: 27 px.
    """
    if w0 < 0 or sigma <= 0:
        raise ValueError(f"border weights: got w0={w0}, sigma={sigma}; needs w0 >= 0, sigma > 0")
    steps = axis_steps(spacing, 1 if isinstance(spacing, int | float) else len(spacing))
    far = max(_reach(w0, sigma) - min(steps), 0.0)
    return tuple(math.floor(far / step) for step in steps)


def balanced_class_weights(counts: Sequence[float]) -> list[float]:
    """Class weights inverse to the pixel counts, scaled so that the mean over pixels is 1.

    w_c = N / (K n_c), with K the number of classes that occur; a class that never occurs gets 0.
    """
    if len(counts) == 0 or min(counts) < 0 or sum(counts) == 0:
        raise ValueError(f"counts: got {list(counts)}, needs numbers >= 0, not all 0")
    present = sum(count > 0 for count in counts)
    total = sum(counts)
    return [total / (present * count) if count else 0.0 for count in counts]


def border_classes(
    instances: _Array, width: int = 2, ignore: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Three classes from instance ids: 0 background, 1 inside, 2 inner border.

    A pixel of an object is border if a pixel with another id, background included, is within
    Euclidean distance `width` (in pixels). The image's edge is not a border. Ignored pixels become
    `IGNORE` and create no border, since their objects are unknown. The margin is `width` pixels.

    Args:
        instances: [(Z,) Y, X], integer instance ids, 0 = background.
        width: thickness of the border in pixels; 0 = no border.
        ignore: [(Z,) Y, X] bool, True where the label is unknown.

    Raises:
        ValueError: ids that are not integers, a negative width, shapes that differ.
    """
    if width < 0:
        raise ValueError(f"width: got {width}, needs >= 0")
    if instances.dtype.kind not in "ui":
        raise ValueError(f"instances: got {instances.dtype}, needs integer ids")
    if ignore is not None and ignore.shape != instances.shape:
        raise ValueError(f"ignore: got shape {ignore.shape}, instances have {instances.shape}")
    border = np.zeros(instances.shape, bool)
    known = None if ignore is None else ~ignore
    for offset in _half_ball(width, instances.ndim):
        here, there = shifted(offset)
        differ = instances[here] != instances[there]
        if known is not None:
            differ &= known[here]
            differ &= known[there]
        border[here] |= differ
        border[there] |= differ
    # Boolean arithmetic: 0 outside, 1 inside, 2 on the border.
    foreground: NDArray[np.bool_] = instances != 0
    classes = foreground.astype(np.uint8)
    classes += foreground & border
    if ignore is not None:
        classes[ignore] = IGNORE
    return classes


def border_class_margin(width: int = 2) -> int:
    """Pixels on each side that `border_classes` needs, along every axis."""
    return width


def _reach(w0: float, sigma: float) -> float:
    """Sum of distances at which the border term has fallen to `BORDER_TOLERANCE`."""
    return (
        sigma * math.sqrt(2.0 * math.log(w0 / BORDER_TOLERANCE)) if w0 > BORDER_TOLERANCE else 0.0
    )


def _half_ball(radius: int, ndim: int) -> Iterator[tuple[int, ...]]:
    """Offsets within a Euclidean radius, one of each opposite pair, without zero."""
    for offset in itertools.product(range(-radius, radius + 1), repeat=ndim):
        if offset > (0,) * ndim and sum(shift * shift for shift in offset) <= radius * radius:
            yield offset
