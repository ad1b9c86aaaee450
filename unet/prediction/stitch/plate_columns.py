"""The columns of the table of objects that say where an image is on a plate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from unet.data.records import WELL_KEYS
from unet.export.object_table import KEYS


class Places:
    """Adds the columns plate, well, row, column, field, z and t after the name of the class, as far
    as the images have them. Without plates, tables stay as they are.

    Args:
        wells: image id -> where it is on its plate.
        ids: the images of the table.
    """

    def __init__(self, wells: Mapping[str, Mapping[str, str]], ids: Iterable[str]) -> None:
        self._wells = {image: wells[image] for image in ids if image in wells}
        self._keys = [k for k in WELL_KEYS if any(k in one for one in self._wells.values())]

    def columns(self, header: Sequence[str]) -> list[str]:
        """The table's header with these columns."""
        return [*header[: len(KEYS)], *self._keys, *header[len(KEYS) :]]

    def rows(self, image: str, rows: Iterable[list[str]]) -> Iterator[list[str]]:
        """The rows of an image with these columns."""
        cells = [self._wells.get(image, {}).get(key, "") for key in self._keys]
        for row in rows:
            row[len(KEYS) : len(KEYS)] = cells
            yield row
