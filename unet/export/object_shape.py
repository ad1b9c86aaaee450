"""Measures of size and shape from the sums over an object's pixels.

All functions take the size of a pixel along each axis (1 for measures in pixels) and return one
number per object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unet.export.object_sums import Floats, Ints, Sums, pairs

# Relative differences below this are rounding errors.
_EQUAL = 1e-12


def equivalent_diameter(size: Ints, spacing: Sequence[float]) -> Floats:
    """Diameter of the circle (sphere) with the same area (volume)."""
    dims = len(spacing)
    volume = size * float(np.prod(spacing))
    return np.asarray((2 * dims * volume / np.pi) ** (1 / dims), np.float64)


def perimeter(faces: Ints, spacing: Sequence[float]) -> Floats:
    """Length of the outlines, including those of holes, by the Cauchy-Crofton formula.

    The formula averages over all directions how often parallel lines cross the outline. Here there
    are four directions (rows, columns and the diagonals), each weighted by the angles nearest to
    it. For square pixels this equals ``skimage.measure.perimeter_crofton`` (Legland et al. 2007,
    "Computation of Minkowski measures on 2D and 3D binary images"). Unlike a count of pixel sides,
    it does not overestimate the length of slanted outlines.

    Args:
        faces: [L, 4], crossings along Y, X and the two diagonals.
    """
    dy, dx = spacing
    slope = float(np.arctan2(dy, dx))
    diagonal = float(np.hypot(dy, dx))
    # Lines along an axis are one pixel apart, lines along a diagonal are closer.
    apart = np.array([dx, dy, dx * dy / diagonal, dx * dy / diagonal])
    angle = np.array([np.pi / 2 - slope, slope, np.pi / 4, np.pi / 4])
    # Half of the crossings enter the object, half leave it.
    return np.asarray(faces / 2 @ (apart * angle), np.float64)


def surface(faces: Ints, spacing: Sequence[float]) -> Floats:
    """Total area of the voxel faces on the outside of an object, in 3D.

    For a large smooth object it is about 1.5 times the smooth surface, because it follows slanted
    parts in steps.
    """
    areas = np.prod(spacing) / np.array(spacing)
    return np.asarray(faces @ areas, np.float64)


@dataclass(frozen=True, eq=False)
class Ellipses:
    """The ellipses (ellipsoids in 3D) with the same second moments as the objects.

    Attributes:
        axes: float64 [L, D], full lengths of the axes, the longest first.
        eccentricity: float64 [L], 0 for a circle, near 1 for a line; only in 2D.
        orientation: float64 [L], angle from the Y axis to the longest axis in radians, in
            (-pi/2, pi/2], counter-clockwise as displayed; NaN if no axis is the longest; only in
            2D.
    """

    axes: Floats
    eccentricity: Floats
    orientation: Floats


def ellipses(found: Sums, spacing: Sequence[float]) -> Ellipses:
    """Same as scikit-image's regionprops: pixels count as points at their centres."""
    covariance = covariances(found) * np.outer(spacing, spacing)
    values = np.linalg.eigvalsh(covariance)[:, ::-1]
    values = np.where(values > _EQUAL * values[:, :1], values, 0)
    dims = len(spacing)
    axes = 2 * np.sqrt((dims + 2) * values)
    largest, smallest = values[:, 0], values[:, -1]
    round_ = largest - smallest <= _EQUAL * largest
    share = np.divide(smallest, largest, out=np.ones(len(values)), where=~round_)
    eccentricity = np.sqrt(1 - share)
    yy, yx, xx = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
    orientation = np.where(round_, np.nan, np.arctan2(2 * yx, yy - xx) / 2)
    return Ellipses(axes, eccentricity, orientation)


def covariances(found: Sums) -> Floats:
    """Covariance [L, D, D] of the coordinates of each object's pixels, in pixels squared."""
    dims = found.low.shape[1]
    size = found.size[:, None].astype(np.float64)
    mean = (found.positions - found.size[:, None] * found.low) / size
    out = np.empty((len(found.size), dims, dims))
    for k, (i, j) in enumerate(pairs(dims)):
        out[:, i, j] = found.products[:, k] / size[:, 0] - mean[:, i] * mean[:, j]
        out[:, j, i] = out[:, i, j]
    return out
