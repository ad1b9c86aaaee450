"""Outlines of objects as GeoJSON, in the form that QuPath (0.4 and later) reads and writes.

The file is a FeatureCollection with one feature, on one line, per object. Coordinates are pixels of
the full image; (0, 0) is the upper left corner of its first pixel, as in QuPath. Objects have the
type "detection", of which QuPath handles hundreds of thousands; "annotation" is meant for a few.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from unet.export.outlines import Polygon
from unet.files import replacing

# Fixed, so that the id of an object depends only on image and label and is the same in every run.
_NAMESPACE = uuid.UUID("6f1d3a52-0d0b-5d0c-8b0f-3b6f2f9f4a10")


class GeoJson:
    """A GeoJSON file that is being written."""

    def __init__(self, handle: TextIO, image: str) -> None:
        self._handle, self._image, self._number = handle, image, 0

    def add(
        self,
        label: int | str,
        polygons: Sequence[Polygon],
        kind: str,
        colour: tuple[int, int, int],
        measures: dict[str, float],
        object_type: str = "detection",
    ) -> None:
        """Writes one object.

        Args:
            label: its id or name.
            polygons: its outlines.
            kind, colour: name of its class, and the colour (red, green, blue) to show it in.
            measures: measurements for QuPath's table.
            object_type: "detection", or "annotation" for a few objects that people will edit.
        """
        value = feature(self._image, label, polygons, kind, colour, measures, object_type)
        self._handle.write(",\n" if self._number else "\n")
        self._handle.write(json.dumps(value, separators=(",", ":"), ensure_ascii=False))
        self._number += 1


@contextmanager
def geojson_writer(path: Path, image: str) -> Iterator[GeoJson]:
    """A new file for the objects of an image; it appears whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as handle:
        handle.write('{"type":"FeatureCollection","features":[')
        yield GeoJson(handle, image)
        handle.write("\n]}\n")


def feature(
    image: str,
    label: int | str,
    polygons: Sequence[Polygon],
    kind: str,
    colour: tuple[int, int, int],
    measures: dict[str, float],
    object_type: str = "detection",
) -> dict[str, Any]:
    """One object as a GeoJSON feature with QuPath's properties (see :meth:`GeoJson.add`)."""
    rings = [[_closed(ring.tolist()) for ring in polygon] for polygon in polygons]
    geometry: dict[str, Any] = (
        {"type": "Polygon", "coordinates": rings[0]}
        if len(rings) == 1
        else {"type": "MultiPolygon", "coordinates": rings}
    )
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMESPACE, f"{image}/{label}")),
        "geometry": geometry,
        "properties": {
            "objectType": object_type,
            "name": str(label),
            "classification": {"name": kind, "color": list(colour)},
            "measurements": measures,
        },
    }


def _closed(ring: list[list[int]]) -> list[list[int]]:
    return [*ring, ring[0]]
