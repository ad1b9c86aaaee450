"""Numbers the connected components of a mask that is read region by region, in limited memory.

Pixels that share a face, an edge or a corner are connected (8-connected in 2D, 26-connected in 3D),
so a drawn outline that touches itself at a corner stays one object. Ids are 1..n in the order of
each component's first pixel, so they do not depend on the regions.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.data.tiling import Slices

Ids = NDArray[np.int64]


class ConnectedComponents:
    """Takes the regions of a mask in any order, then gives the components their ids.

    Args:
        shape: of the mask, [(Z,) Y, X].
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._regions: list[Slices] = []
        # Raster position of the first pixel of each provisional number; number 0 is the background.
        self._first: list[Ids] = [np.zeros(1, np.int64)]
        self._count = 0

    def add(self, region: Slices, mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
        """Provisional numbers of a region's pixels, to be stored until :meth:`settle`."""
        from scipy import ndimage

        found: Any = ndimage.label(mask, np.ones((3,) * mask.ndim, bool))
        labels, number = found
        at = np.flatnonzero(labels)
        places = [
            a + s.start for a, s in zip(np.unravel_index(at, mask.shape), region, strict=True)
        ]
        first = np.zeros(number + 1, np.int64)
        # Backwards, so that the position of a number's first pixel is written last.
        first[labels.ravel()[at[::-1]]] = np.ravel_multi_index(places, self._shape)[::-1]
        self._first.append(first[1:])
        self._regions.append(region)
        provisional = np.where(labels, labels + self._count, 0).astype(np.uint32)
        self._count += number
        return provisional

    def settle(self, stored: Any) -> int:
        """Replaces the provisional numbers in ``stored`` (uint32 [(Z,) Y, X]) by the ids.

        Returns:
            the number of components.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        size = self._count + 1
        pairs = np.concatenate([np.zeros((0, 2), np.int64), *self._contacts(stored)])
        graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), (size, size))
        count, component = connected_components(graph, directed=False)
        first = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(first, component, np.concatenate(self._first))
        # Number 0 touches nothing and is a component alone; it comes first and stays 0.
        first[component[0]] = -1
        ids = np.empty(count, np.uint32)
        ids[np.argsort(first)] = np.arange(count, dtype=np.uint32)
        for region in self._regions:
            stored[region] = ids[component][np.asarray(stored[region])]
        return int(count) - 1

    def _contacts(self, stored: Any) -> list[Ids]:
        """Pairs of numbers [n, 2] that touch across region borders."""
        found = []
        for region in self._regions:
            for axis, at in enumerate(region):
                if at.start == 0:
                    continue
                # One pixel further along the border: components may touch at a region's corner.
                slab = tuple(
                    slice(s.start - 1, s.start + 1)
                    if k == axis
                    else slice(max(s.start - 1, 0), min(s.stop + 1, size))
                    for k, (s, size) in enumerate(zip(region, self._shape, strict=True))
                )
                before, after = np.moveaxis(np.asarray(stored[slab]), axis, 0).astype(np.int64)
                for shift in product((-1, 0, 1), repeat=before.ndim):
                    axes = list(zip(shift, before.shape, strict=True))
                    one = before[tuple(slice(max(d, 0), n + min(d, 0)) for d, n in axes)]
                    two = after[tuple(slice(max(-d, 0), n - max(d, 0)) for d, n in axes)]
                    both = (one > 0) & (two > 0)
                    found.append(np.unique(np.stack([one[both], two[both]], axis=1), axis=0))
        return found
