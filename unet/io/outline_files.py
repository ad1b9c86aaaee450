"""Reads outlines of objects: GeoJSON (QuPath) and ImageJ ROIs (.roi, or several in a .zip).

The outlines that :mod:`unet.export` writes give exactly the objects that they were made from.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unet.errors import UserError
from unet.io.outline_drawing import Outline, Ring

if TYPE_CHECKING:
    from roifile import ImagejRoi

# Largest coordinate, and most bytes of a ZIP's members together when they are unpacked.
FARTHEST, MOST_BYTES = 1e9, 256 << 20
# Most members of a ZIP, and most corners of all its outlines together (16 bytes each).
MOST_MEMBERS, MOST_CORNERS = 1 << 18, 1 << 24
# Corners of an oval. A polygon with the largest number lies less than 0.1 pixels inside an oval
# of 32767 pixels, ImageJ's largest: radius * (1 - cos(pi / corners)).
OVAL_CORNERS = (64, 1024)
_COLLECTION = "GeometryCollection"
# QuPath's objects that are regions around others, not objects themselves.
_AROUND = "annotation"
_OBJECTS = frozenset({"detection", "cell", "tile"})


# GeoJSON (RFC 7946), with QuPath's properties


def read_geojson(path: Path) -> tuple[list[Outline], int]:
    """The polygons of a GeoJSON file, and how many other entries it has. If it holds detections or
    cells, annotations around them are not objects.

    Raises:
        UserError: it is not GeoJSON.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        features = list(_features(found))
        rings = [_rings(path, feature["geometry"]) for feature in features]
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: not GeoJSON ({error})") from None
    if not features and not (isinstance(found, Mapping) and found.get("features") == []):
        raise UserError(f"{path}: no features; write a GeoJSON FeatureCollection of polygons")
    kinds = [str(_properties(feature).get("objectType", "")) for feature in features]
    inner = bool(_OBJECTS.intersection(kinds))
    outlines = [
        Outline(tuple(own), _classification(feature))
        for feature, kind, own in zip(features, kinds, rings, strict=True)
        if own and not (inner and kind == _AROUND)
    ]
    return outlines, len(features) - len(outlines)


def _features(found: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(found, list):
        for item in found:
            yield from _features(item)
    elif isinstance(found, Mapping) and found.get("type") == "FeatureCollection":
        yield from _features(found.get("features") or [])
    elif isinstance(found, Mapping) and isinstance(found.get("geometry"), Mapping):
        yield found
    elif isinstance(found, Mapping) and found.get("type") == _COLLECTION:
        # Without a feature around them, each geometry is an object.
        yield from _features(found.get("geometries") or [])
    elif isinstance(found, Mapping) and "coordinates" in found:
        yield {"geometry": found}


def _properties(feature: Mapping[str, Any]) -> Mapping[str, Any]:
    found = feature.get("properties")
    return found if isinstance(found, Mapping) else {}


def _classification(feature: Mapping[str, Any]) -> str:
    kind = _properties(feature).get("classification")
    name = kind.get("name", "") if isinstance(kind, Mapping) else kind
    return str(name or "")


def _rings(path: Path, geometry: Any) -> list[Ring]:
    if not isinstance(geometry, Mapping):
        return []
    if geometry.get("type") == _COLLECTION:
        return [r for part in geometry.get("geometries") or () for r in _rings(path, part)]
    many: Any = {
        "Polygon": [geometry.get("coordinates")],
        "MultiPolygon": geometry.get("coordinates"),
    }
    polygons = many.get(str(geometry.get("type")), [])
    try:
        rings = [np.array(ring, np.float64)[:, :2] for polygon in polygons for ring in polygon]
    except (TypeError, ValueError, IndexError):
        raise UserError(f"{path}: a polygon whose coordinates are not pairs of numbers") from None
    if any(len(ring) < 3 for ring in rings):
        raise UserError(f"{path}: a polygon with fewer than three corners")
    # A picture has no pixels there, and sums of such numbers are infinite.
    if any(not (np.abs(ring) <= FARTHEST).all() for ring in rings):
        raise UserError(f"{path}: a polygon whose coordinates are not in pixels")
    return rings


# ImageJ


def read_rois(path: Path) -> tuple[list[Outline], int]:
    """The areas of a ``.roi`` file or a ZIP of them, and how many other entries (points, lines) it
    has.

    Raises:
        UserError: it cannot be read.
    """
    from roifile import ImagejRoi

    rings: list[list[Ring]] = []
    corners = 0
    try:
        for data in _members(path):
            rings.append(_roi_rings(ImagejRoi.frombytes(data)))
            corners += sum(map(len, rings[-1]))
            _refuse_bomb(path, "has", corners, MOST_CORNERS, "corners")
    except (MemoryError, UserError):
        raise
    except Exception as error:
        # The library raises all kinds of errors for a damaged file.
        raise UserError(f"{path}: no ImageJ ROIs ({error})") from None
    outlines = [Outline(tuple(own)) for own in rings if own]
    return outlines, len(rings) - len(outlines)


def _members(path: Path) -> Iterator[bytes]:
    """The bytes of each ROI; in a ZIP, one is unpacked at a time, once all sizes are known."""
    if path.suffix.lower() != ".zip":
        _refuse_bomb(path, "has", path.stat().st_size / 1e6, MOST_BYTES / 1e6, "MB")
        yield path.read_bytes()
        return
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        _refuse_bomb(path, "has", len(members), MOST_MEMBERS, "ROIs")
        size = sum(member.file_size for member in members)
        _refuse_bomb(path, "unpacks to", size / 1e6, MOST_BYTES / 1e6, "MB")
        for member in members:
            yield archive.read(member)


def _refuse_bomb(path: Path, has: str, found: float, most: float, what: str) -> None:
    """Refuses a file that would fill the memory."""
    if found > most:
        raise UserError(
            f"{path}: {has} {found:.0f} {what}, but at most {most:.0f} {what} are read; give label "
            "images (TIFF or PNG)"
        )


def _roi_rings(roi: ImagejRoi) -> list[Ring]:
    """The rings of an area; none for points, lines and angles."""
    from roifile import ROI_TYPE

    if roi.multi_coordinates is not None and len(roi.multi_coordinates):
        found: Any = roi.coordinates(multi=True)
        return _areas(found if isinstance(found, list) else [found])
    if roi.roitype in (ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED):
        return _areas([roi.coordinates()])
    left, top, right, bottom = float(roi.left), float(roi.top), float(roi.right), float(roi.bottom)
    if roi.roitype == ROI_TYPE.RECT:
        return _areas([[(left, top), (right, top), (right, bottom), (left, bottom)]])
    if roi.roitype == ROI_TYPE.OVAL:
        width, height = right - left, bottom - top
        # More for larger ones, within limits: a few bytes can describe thousands of large ovals.
        number = int(np.clip(round(4 * (abs(width) + abs(height))), *OVAL_CORNERS))
        angles = np.linspace(0, 2 * np.pi, number, endpoint=False)
        x = left + width / 2 * (1 + np.cos(angles))
        y = top + height / 2 * (1 + np.sin(angles))
        return _areas([np.stack([x, y], axis=1)])
    return []


def _areas(rings: Sequence[Any]) -> list[Ring]:
    found = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in rings]
    return [ring for ring in found if len(ring) > 2]
