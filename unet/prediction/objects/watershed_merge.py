"""Joins watershed basins with shallow peaks to a neighbour."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from unet.prediction.objects.merge_labels import Ids


@dataclass(frozen=True, eq=False)
class Saddles:
    """Contacts between basins. Each is a pair of touching pixels, a lower and a higher one.

    The lower pixel's value is the height of the saddle. Contacts are ordered by their lower pixel,
    then by their higher one. Pixels are ordered by value; among equal values the earlier one in
    raster order is the higher one. So no two contacts are equal, and the order does not depend on
    how the image was split into blocks.

    Attributes:
        pairs: int64 [E, 2], the basins.
        low, high: float32 [E], values of the two pixels.
        low_at, high_at: int64 [E], their raster positions in the image.
    """

    pairs: Ids
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    low_at: Ids
    high_at: Ids

    @classmethod
    def joined(cls, parts: list[Saddles]) -> Saddles:
        """All contacts of several lists."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def highest_between(self, basin: Ids) -> Saddles:
        """The highest contact between each two different basins, after renumbering them.

        Args:
            basin: int64 [n], the new number of each basin.
        """
        pairs = np.sort(basin[self.pairs], axis=1)
        order = np.lexsort(
            (self.high_at, -self.high, self.low_at, -self.low, pairs[:, 1], pairs[:, 0])
        )
        pairs = pairs[order]
        kept = pairs[:, 0] != pairs[:, 1]
        kept[1:] &= (pairs[1:] != pairs[:-1]).any(axis=1)
        order = order[kept]
        return Saddles(
            pairs[kept], self.low[order], self.high[order], self.low_at[order], self.high_at[order]
        )

    def shifted(self, offset: int) -> Saddles:
        """The same contacts with ``offset`` added to the basins' numbers."""
        return replace(self, pairs=self.pairs + offset)

    def from_highest(self) -> Ids:
        """int64 [E], the order of the contacts from the highest to the lowest."""
        return np.lexsort((self.high_at, -self.high, self.low_at, -self.low)).astype(np.int64)


def merge_basins(
    peaks: NDArray[np.float32],
    saddles: Saddles,
    h: float,
    complete: NDArray[np.bool_] | None = None,
) -> Ids:
    """Joins basins whose peak rises less than ``h`` above the saddle to their neighbour.

    The result is that of Kruskal's algorithm: it takes the contacts from the highest to the lowest
    and joins two basins if the lower of their peaks is less than ``h`` above the contact (the
    dynamics of the peak: Grimaud, SPIE 1769, 1992). The joined basins are those of a watershed cut
    from the peaks with a dynamics of at least ``h`` (Cousty et al., IEEE TPAMI 31, 2009).

    The computation runs in rounds, like Boruvka's. Kruskal always joins a basin that is shallow at
    its own highest contact there, because nothing can have been joined to it earlier. So all these
    basins are joined at once, and each round at least halves the number of shallow basins.

    Args:
        peaks: float32 [n], height of each basin's peak.
        saddles: contacts of the basins 0 .. n - 1; two basins can have several.
        h: above 0.
        complete: bool [n], basins for which all contacts and the true peak are given; None = all.
            The others do not join a basin, but basins can join them. So all joins are right
            whatever the missing contacts are.

    Returns:
        int64 [n], for each basin the root of its set.
    """
    order = saddles.from_highest()
    pairs, low = saddles.pairs[order], saddles.low[order].astype(np.float64)
    top = peaks.astype(np.float64)
    may_join = np.ones(len(peaks), np.bool_) if complete is None else complete
    root = np.arange(len(peaks), dtype=np.int64)
    while len(pairs):
        best = np.full(len(root), len(pairs), np.int64)
        for side in pairs.T:
            np.minimum.at(best, side, np.arange(len(pairs)))
        basins = np.flatnonzero(best < len(pairs))
        shallow = basins[may_join[basins] & (top[basins] - low[best[basins]] < h)]
        if not len(shallow):
            break
        # The other basin at its highest contact.
        target = np.arange(len(root), dtype=np.int64)
        target[shallow] = pairs[best[shallow]].sum(axis=1) - shallow
        # Contacts get higher along the path, so the only cycles are two basins with one contact.
        mutual = (target[target] == np.arange(len(root))) & (target > np.arange(len(root)))
        target[mutual] = np.flatnonzero(mutual)
        target = end_of_path(target)
        np.maximum.at(top, target, top)
        root, pairs = target[root], target[pairs]
        apart = pairs[:, 0] != pairs[:, 1]
        pairs, low = pairs[apart], low[apart]
    return root


def end_of_path(target: Ids) -> Ids:
    """The last element of the path from each element; the last one points to itself.

    Args:
        target: int64 [n], the next element of each; no cycles of two or more.
    """
    while not np.array_equal(beyond := target[target], target):
        target = beyond
    return target
