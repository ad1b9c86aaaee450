"""Outlines of objects as a ZIP of ImageJ ROIs, which ImageJ's ROI Manager opens.

An object with one ring becomes a polygon; one with holes or several parts becomes a composite, a
path that contains all rings. Corners are the corners of pixels, as in ImageJ, so a ROI covers
exactly its object's pixels. A polygon's corners are 16-bit numbers; for larger images they are also
stored as float32 (composites always use float32), which ImageJ then prefers. That is exact up to
2**24.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unet.export.outlines import Polygon, Ring
from unet.files import replacing

if TYPE_CHECKING:
    from roifile import ImagejRoi

# Version of ImageJ's format (222 and later have float coordinates), fixed here because the
# library's default may change.
VERSION = 227
# ImageJ's 16 bits are signed.
LARGEST_COORDINATE = 2**15 - 1
# The parts of a path.
_MOVE, _LINE, _CLOSE = 0, 1, 4


class RoiZip:
    """A ZIP of ROIs that is being written."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def add(self, label: int | str, polygons: Sequence[Polygon]) -> None:
        """Writes one object; the ROI's name is its label."""
        # A fixed time, so that the same objects give the same file.
        entry = zipfile.ZipInfo(f"{label}.roi", (1980, 1, 1, 0, 0, 0))
        entry.compress_type = zipfile.ZIP_DEFLATED
        self._archive.writestr(entry, roi(str(label), polygons).tobytes())


@contextmanager
def roi_writer(path: Path) -> Iterator[RoiZip]:
    """A new file for the objects of an image; it appears whole or not at all."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        yield RoiZip(archive)


def roi(name: str, polygons: Sequence[Polygon]) -> ImagejRoi:
    """The ROI of one object."""
    from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi

    rings = list(chain.from_iterable(polygons))
    corners = np.concatenate(rings)
    low, high = corners.min(axis=0), corners.max(axis=0)
    # If the box does not fit, it only serves for display.
    left, top, right, bottom = np.clip([*low, *high], 0, LARGEST_COORDINATE).tolist()
    found = ImagejRoi(version=VERSION, name=name, left=left, top=top, right=right, bottom=bottom)
    if len(rings) > 1:
        found.roitype = ROI_TYPE.RECT
        found.multi_coordinates = np.concatenate([_path(ring) for ring in rings])
        found.shape_roi_size = len(found.multi_coordinates)
        return found
    found.roitype = ROI_TYPE.POLYGON
    found.n_coordinates = len(corners)
    found.integer_coordinates = (corners - low).astype(np.int32)
    if high.max() > LARGEST_COORDINATE:
        found.options |= ROI_OPTIONS.SUB_PIXEL_RESOLUTION
        found.subpixel_coordinates = corners.astype(np.float32)
    return found


def _path(ring: Ring) -> NDArray[np.float32]:
    """One ring as a path: move to the first corner, draw lines to the others, close."""
    parts = np.empty((len(ring), 3), np.float32)
    parts[:, 0], parts[:, 1:] = _LINE, ring
    parts[0, 0] = _MOVE
    return np.append(parts.ravel(), np.float32(_CLOSE))
