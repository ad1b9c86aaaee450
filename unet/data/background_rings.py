"""Background around the objects of sparse labels: unlabelled pixels near a labelled object.

Whoever outlines an object says where it ends, so what is just outside is not this object. It may be
another object, though, one that nobody labelled; so rings are narrow, and further away pixels stay
unknown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.config.heads import IGNORE
from unet.data.blocks import Grid, within
from unet.data.label_maps import UNLABELLED

# Bytes per pixel of a block with its margin: ids, classes, and what the distances need.
BYTES_PER_PIXEL = 40


def resolved(
    classes: NDArray[np.uint8], ids: NDArray[Any], width: float, steps: Sequence[float]
) -> NDArray[np.uint8]:
    """Class indices with 0 (background) or 255 (unknown) in place of UNLABELLED.

    Args:
        classes: [(Z,) Y, X] uint8; only UNLABELLED pixels change.
        ids: [(Z,) Y, X], ids of the objects, 0 = none.
        width: largest Euclidean distance from the nearest pixel of an object.
        steps: distance between neighbouring pixels, per axis.
    """
    from scipy import ndimage

    unlabelled = classes == UNLABELLED
    found = np.where(unlabelled, np.uint8(IGNORE), classes)
    if ids.any():
        distance: Any = ndimage.distance_transform_edt(ids == 0, sampling=tuple(steps))
        found[unlabelled & (distance <= width)] = 0
    return found


def margin_of(width: float, steps: Sequence[float]) -> tuple[int, ...]:
    """Pixels on each side of a pixel that :func:`resolved` depends on, per axis."""
    return tuple(math.floor(width / step) for step in steps)


def mark_background(
    classes: Any, instances: Any, block: Sequence[int], width: float, steps: Sequence[float]
) -> None:
    """Resolves all UNLABELLED pixels of stored labels [(Z,) Y, X], block by block.

    Args:
        block: shape of the blocks, a unit in which ``classes`` can be written.
        width, steps: as in :func:`resolved`.
    """
    margin = margin_of(width, steps)
    grid = Grid(tuple(classes.shape), tuple(block))
    for region in grid.regions():
        wide = tuple(
            slice(max(0, s.start - m), min(n, s.stop + m))
            for s, m, n in zip(region, margin, grid.shape, strict=True)
        )
        ids = np.asarray(instances[wide])
        whole = np.zeros(ids.shape, np.uint8)
        inner = within(region, wide)
        whole[inner] = np.asarray(classes[region])
        classes[region] = resolved(whole, ids, width, steps)[inner]
