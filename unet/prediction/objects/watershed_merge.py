"""Which basins of a landscape are one: those of shallow peaks join a neighbour."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unet.prediction.objects.merge_labels import Ids


@dataclass(frozen=True, eq=False)
class Saddles:
    """Contacts of basins, each a pair of touching pixels, one low and one high.

    The low pixel's value is the saddle's height. Contacts are ordered by their low pixel, then by
    their high one, pixels by value and, among equals, the earlier in raster order above the later.
    No two contacts are then equal, and the order does not depend on how the image was worked
    through.

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
        return cls(
            np.concatenate([part.pairs for part in parts]),
            np.concatenate([part.low for part in parts]),
            np.concatenate([part.high for part in parts]),
            np.concatenate([part.low_at for part in parts]),
            np.concatenate([part.high_at for part in parts]),
        )

    def between(self, basin: Ids) -> Saddles:
        """The highest contact of each two different basins, under new numbers.

        Args:
            basin: int64 [n], the new number of each old one.
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

    def after(self, offset: int) -> Saddles:
        """The same with ``offset`` added to the basins' numbers."""
        return replace(self, pairs=self.pairs + offset)

    def falling(self) -> Ids:
        """int64 [E], the contacts from the highest to the lowest."""
        return np.lexsort((self.high_at, -self.high, self.low_at, -self.low)).astype(np.int64)


def merge_basins(
    peaks: NDArray[np.float32],
    saddles: Saddles,
    h: float,
    known: NDArray[np.bool_] | None = None,
) -> Ids:
    """Joins basins whose peak rises less than ``h`` above the saddle to their neighbour.

    The outcome is that of Kruskal's algorithm: contacts from the highest to the lowest, two
    basins being joined when the lower of their peaks is less than ``h`` above the contact (the
    dynamics of the peak: Grimaud, SPIE 1769, 1992). What remains are the basins of a watershed
    cut from the peaks of dynamics ``h`` and more (Cousty et al., IEEE TPAMI 31, 2009).

    It is found in rounds, as by Boruvka: a basin that is shallow at its own highest contact is
    joined there by Kruskal in any case, since nothing can have been joined to it before, so all of
    these are joined at once; each round at least halves the shallow basins.

    Args:
        peaks: float32 [n], the height of each basin's peak.
        saddles: contacts of basins, numbered 0 .. n - 1; of two basins any number.
        h: height above 0.
        known: bool [n], the basins of which all contacts are given and the peak is the true one;
            None = all. Others join no basin, but may be joined. What is joined then is joined
            whatever the contacts of the others are.

    Returns:
        int64 [n], for each basin the one that stands for its set.
    """
    order = saddles.falling()
    pairs, low = saddles.pairs[order], saddles.low[order].astype(np.float64)
    top = peaks.astype(np.float64)
    joins = np.ones(len(peaks), np.bool_) if known is None else known
    root = np.arange(len(peaks), dtype=np.int64)
    while len(pairs):
        best = np.full(len(root), len(pairs), np.int64)
        for side in pairs.T:
            np.minimum.at(best, side, np.arange(len(pairs)))
        basins = np.flatnonzero(best < len(pairs))
        shallow = basins[joins[basins] & (top[basins] - low[best[basins]] < h)]
        if not len(shallow):
            break
        # The other basin of its highest contact.
        target = np.arange(len(root), dtype=np.int64)
        target[shallow] = pairs[best[shallow]].sum(axis=1) - shallow
        # Contacts rise along the way, so the only cycles are of two that share a contact.
        mutual = (target[target] == np.arange(len(root))) & (target > np.arange(len(root)))
        target[mutual] = np.flatnonzero(mutual)
        target = ends(target)
        np.maximum.at(top, target, top)
        root, pairs = target[root], target[pairs]
        apart = pairs[:, 0] != pairs[:, 1]
        pairs, low = pairs[apart], low[apart]
    return root


def ends(target: Ids) -> Ids:
    """Where the way from each element ends, when each points to the next, and the last to itself.

    Args:
        target: int64 [n], without cycles of two and more.
    """
    while not np.array_equal(beyond := target[target], target):
        target = beyond
    return target
