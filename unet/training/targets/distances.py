"""Truncated distances: to each class, and from an object's pixels to its edge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.config.heads import IGNORE
from unet.training.targets.lines import axis_steps, compact, two_nearest

_Array = NDArray[Any]
_Float = NDArray[np.float32]


def signed_distances(
    classes: NDArray[np.uint8],
    num_classes: int,
    limit: float = 20.0,
    spacing: float | Sequence[float] = 1.0,
) -> _Float:
    """Distance of each pixel to each class, negative inside it: phi of the boundary loss.

    phi_k(x) is the Euclidean distance to the nearest pixel of class k; on pixels of class k it is
    minus the distance to the nearest pixel of any other class. It is truncated at +-limit, also for
    classes that do not occur nearby. The margin is `distance_margin` pixels.

    Ignored pixels belong to no class, and are 0 in the result. The image's edge is not a border.

    Args:
        classes: [(Z,) Y, X] uint8, 0..K-1 or `IGNORE`.
        num_classes: K.
        limit: largest distance, in the unit of `spacing` (pixels when that is 1).
        spacing: pixel size, one number or one per axis.

    Returns:
        [K, (Z,) Y, X] float32.

    Raises:
        ValueError: a class >= K, or numbers out of range.
    """
    from scipy.ndimage import distance_transform_edt

    steps = axis_steps(spacing, classes.ndim)
    distance_margin(limit, steps)
    known = classes != IGNORE
    if (classes[known] >= num_classes).any():
        raise ValueError(f"classes: got {classes[known].max()}, needs 0 to {num_classes - 1}")
    distances = np.full((num_classes, *classes.shape), limit, np.float32)
    for number, distance in enumerate(distances):
        elsewhere = classes != number
        # Without any pixel of the class, the transform would return meaningless distances.
        if not elsewhere.all():
            np.minimum(distance, distance_transform_edt(elsewhere, sampling=steps), out=distance)
    inside = classes == np.arange(num_classes).reshape(-1, *[1] * classes.ndim)
    # On a pixel of class k, the distance to another class is the smallest of all but that to k.
    others = np.where(inside, np.float32(limit), distances).min(0)
    signed: _Float = np.where(inside, -others, distances) * known
    return signed


def object_distance(
    instances: _Array,
    limit: float = 10.0,
    ignore: NDArray[np.bool_] | None = None,
    spacing: float | Sequence[float] = 1.0,
) -> _Float:
    """Distance to the object's edge: min(d, limit) / limit on objects, 0 elsewhere.

    d is the Euclidean distance to the nearest pixel with another id, background included. The
    image's edge is not a border, also of objects that it cuts. Ignored pixels are 0 and create no
    border. The margin is `distance_margin` pixels.

    Args:
        instances: [(Z,) Y, X], integer instance ids, 0 = background.
        limit: distance that counts as 1, in the unit of `spacing` (pixels when that is 1).
        ignore: [(Z,) Y, X] bool, True where the label is unknown.
        spacing: pixel size, one number or one per axis.

    Returns:
        [(Z,) Y, X] float32 in [0, 1].

    Raises:
        ValueError: ids that are not integers or negative, shapes that differ, or numbers out of
            range.
    """
    steps = axis_steps(spacing, instances.ndim)
    far = distance_margin(limit, steps)
    if ignore is not None and ignore.shape != instances.shape:
        raise ValueError(f"ignore: got shape {ignore.shape}, instances have {instances.shape}")
    labels = compact(instances)
    # With background as an object like the others, d is the distance to the second nearest object.
    # If no pixel is ignored, the nearest object is the pixel's own, at distance 0.
    regions = labels + 1
    near = (0,) * labels.ndim
    if ignore is not None and ignore.any():
        regions[ignore] = 0
        near = far
    other = two_nearest(regions, steps, near, far)[1]
    distance: _Float = np.minimum(np.sqrt(other), np.float32(limit))
    distance /= np.float32(limit)
    distance[(labels == 0) | (regions == 0)] = 0
    return distance


def distance_margin(limit: float, spacing: float | Sequence[float] = 1.0) -> tuple[int, ...]:
    """Pixels on each side that both distances need, per axis of `spacing` (one if scalar)."""
    if not 0 < limit < math.inf:
        raise ValueError(f"limit: got {limit}, needs a positive number")
    steps = axis_steps(spacing, 1 if isinstance(spacing, int | float) else len(spacing))
    return tuple(math.floor(limit / step) for step in steps)
