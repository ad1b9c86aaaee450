"""Reads the CSV files of napari's shapes layers: a row per corner."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from unet.errors import UserError
from unet.io.json_outlines import ring_of
from unet.io.outline_drawing import Outline, Ring

_COLUMNS = ("index", "shape-type", "vertex-index", "axis-0", "axis-1")
ELLIPSE_CORNERS = 256


def read_napari(path: Path) -> tuple[list[Outline], int]:
    """The areas of a shapes layer of a 2D image, and how many shapes are none (lines, paths).

    Coordinates of napari are those of the centres of pixels, half a pixel less than corners.

    Raises:
        UserError: the file is not such a table, or its shapes are not flat.
    """
    corners: dict[str, list[tuple[float, float]]] = {}
    kinds: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            rows = csv.DictReader(handle)
            names = set(rows.fieldnames or ())
            if not set(_COLUMNS) <= names or "axis-2" in names:
                raise UserError(
                    f"{path}: not the table of a napari shapes layer of a 2D image (columns "
                    f"{', '.join(_COLUMNS)})"
                )
            for row in rows:
                kinds[row["index"]] = row["shape-type"]
                place = float(row["axis-1"]) + 0.5, float(row["axis-0"]) + 0.5
                corners.setdefault(row["index"], []).append(place)
    except (ValueError, TypeError, csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: damaged table of a napari shapes layer ({error})") from None
    areas = [k for k, kind in kinds.items() if kind in ("polygon", "rectangle", "ellipse")]
    outlines = [Outline((ring_of(path, _ring(kinds[k], np.array(corners[k]))),)) for k in areas]
    return outlines, len(kinds) - len(areas)


def _ring(kind: str, found: Ring) -> Ring:
    if kind != "ellipse" or len(found) != 4:
        return found
    # The corners of its box, which may be turned.
    middle = found.mean(axis=0)
    one, other = (found[1] - found[0]) / 2, (found[2] - found[1]) / 2
    angles = np.linspace(0, 2 * np.pi, ELLIPSE_CORNERS, endpoint=False)[:, None]
    return np.asarray(middle + np.cos(angles) * one + np.sin(angles) * other)
