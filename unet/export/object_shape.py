"""Measures of size and shape from the sums over an object's pixels.

All take the size of a pixel along the axes, 1 for measures in pixels, and give one number per
object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unet.export.object_sums import Floats, Ints, Sums, pairs

# What differs by less, of the larger one, is equal but for rounding.
_EQUAL = 1e-12


def equivalent_diameter(size: Ints, spacing: Sequence[float]) -> Floats:
    """Diameter of the circle, or sphere, of the same area or volume."""
    dims = len(spacing)
    volume = size * float(np.prod(spacing))
    return np.asarray((2 * dims * volume / np.pi) ** (1 / dims), np.float64)


def perimeter(faces: Ints, spacing: Sequence[float]) -> Floats:
    """Length of the outlines, of holes as well, by the formula of Cauchy and Crofton.

    The mean over all directions of how often parallel lines cross the outline; here over the four
    directions of rows, columns and diagonals, each standing for the angles that are nearest to it.
    For square pixels it is ``skimage.measure.perimeter_crofton`` (Legland et al. 2007, "Computation
    of Minkowski measures on 2D and 3D binary images"). Unlike a count of pixels' sides it does not
    make slanted outlines longer than they are.

    Args:
        faces: [L, 4], crossings along Y, X and the two diagonals.
    """
    dy, dx = spacing
    slope = float(np.arctan2(dy, dx))
    diagonal = float(np.hypot(dy, dx))
    # Lines along an axis lie a pixel apart, those along a diagonal nearer.
    apart = np.array([dx, dy, dx * dy / diagonal, dx * dy / diagonal])
    angle = np.array([np.pi / 2 - slope, slope, np.pi / 4, np.pi / 4])
    # Each line enters as often as it leaves.
    return np.asarray(faces / 2 @ (apart * angle), np.float64)


def surface(faces: Ints, spacing: Sequence[float]) -> Floats:
    """Sum of the voxels' faces that belong to one voxel of the object alone, in 3D.

    Of a large smooth object it is half as large again as the smooth surface, whose slanted parts
    it goes up and down in steps.
    """
    areas = np.prod(spacing) / np.array(spacing)
    return np.asarray(faces @ areas, np.float64)


@dataclass(frozen=True, eq=False)
class Ellipses:
    """The ellipses (in 3D ellipsoids) with the same second moments as the objects.

    Attributes:
        axes: float64 [L, D], whole lengths of the axes, the longest first.
        eccentricity: float64 [L], 0 of a circle, near 1 of a line; 2D alone.
        orientation: float64 [L], angle from the Y axis to the longest one in radians, above
            -pi/2 to pi/2, counter-clockwise as the image is shown; NaN where no axis is the
            longest; 2D alone.
    """

    axes: Floats
    eccentricity: Floats
    orientation: Floats


def ellipses(found: Sums, spacing: Sequence[float]) -> Ellipses:
    """As scikit-image's regionprops: pixels count as points at their centres."""
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
