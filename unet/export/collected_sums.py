"""The sums of all objects of an image, in memory if there are few objects, otherwise on disk.

Blocks come in raster order, and so do ids. An object's sums from several blocks are added when they
are requested, for one range of labels at a time. So memory holds a few thousand objects, and only
eight bytes for each of the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.export.object_sums import Ints, Sums, add
from unet.files import remove

# Number of objects held in memory, and number of parts added at once.
HELD, STEP = 1 << 12, 16


class CollectedSums:
    """Sums of all labels, which can be read in ranges.

    Args:
        dims, channels: of the image.
        path: file for the sums if there are many; :meth:`close` removes it.
        held: number of objects held in memory.
    """

    def __init__(self, dims: int, channels: int, path: Path, held: int = HELD) -> None:
        self._dims, self._channels, self._path, self._limit = dims, channels, path, held
        self._held = add([], dims, channels)
        self._type = _row_type(self._held)
        # For each run of rows in the file: its sorted labels and its first row.
        self._runs: list[tuple[Ints, int]] = []
        self._rows = 0
        self.labels: Ints = self._held.labels

    @classmethod
    def of(
        cls, parts: Iterable[Sums], dims: int, channels: int, path: Path, held: int = HELD
    ) -> CollectedSums:
        """Collects the parts of an image; an object may be in many of them."""
        found, waiting = cls(dims, channels, path, held), list[Sums]()
        for part in parts:
            waiting.append(part)
            if len(waiting) == STEP:
                found._add(waiting)
                waiting = []
        found._add(waiting)
        found.labels = np.unique(
            np.concatenate([found._held.labels, *(labels for labels, _ in found._runs)])
        )
        return found

    def _add(self, parts: list[Sums]) -> None:
        self._held = add([self._held, *parts], self._dims, self._channels)
        if len(self._held.labels) > self._limit:
            rows = _packed(self._held, self._type)
            with self._path.open("ab") as handle:
                rows.tofile(handle)
            self._runs.append((self._held.labels, self._rows))
            self._rows += len(rows)
            self._held = add([], self._dims, self._channels)

    def part(self, start: int, stop: int) -> Sums:
        """The sums of ``labels[start:stop]``."""
        wanted = self.labels[start:stop]
        if not len(wanted):
            return add([], self._dims, self._channels)
        first, last = wanted[[0, -1]]
        found = [_between(self._held, first, last)]
        for labels, row in self._runs:
            a, b = np.searchsorted(labels, (first, last + 1))
            if b > a:
                size = self._type.itemsize
                rows = np.fromfile(
                    self._path, self._type, count=int(b - a), offset=(row + int(a)) * size
                )
                found.append(_unpacked(rows))
        return add(found, self._dims, self._channels)

    def close(self) -> None:
        """Removes the file; after that no sums can be read."""
        remove(self._path)


def _between(held: Sums, first: int, last: int) -> Sums:
    a, b = np.searchsorted(held.labels, (first, last + 1))
    return Sums(*(getattr(held, name)[a:b] for name in Sums.__dataclass_fields__))


def _row_type(sums: Sums) -> np.dtype[Any]:
    fields = {name: getattr(sums, name) for name in Sums.__dataclass_fields__}
    return np.dtype([(name, values.dtype, values.shape[1:]) for name, values in fields.items()])


def _packed(sums: Sums, row: np.dtype[Any]) -> NDArray[Any]:
    rows = np.empty(len(sums.labels), row)
    for name in Sums.__dataclass_fields__:
        rows[name] = getattr(sums, name)
    return rows


def _unpacked(rows: NDArray[Any]) -> Sums:
    return Sums(*(np.ascontiguousarray(rows[name]) for name in Sums.__dataclass_fields__))
