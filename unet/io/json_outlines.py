"""Reads JSON files of outlines: COCO (of many images), LabelMe (of one), and GeoJSON."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.errors import UserError
from unet.io.outline_drawing import Outline, Ring

# Largest coordinate: a picture has no pixels there, and sums of such numbers are infinite.
FARTHEST = 1e9
# Most pixels of a mask that is stored in a few bytes.
MOST_PIXELS = 1 << 28
# Corners of LabelMe's circles.
CIRCLE_CORNERS = 256


def read_json(path: Path, image: Path) -> tuple[list[Outline], int]:
    """The outlines of an image, and how many of its other entries are none.

    Raises:
        UserError: the file is of none of the kinds, or does not name the image.
    """
    stat = path.stat()
    found = _parsed(path, stat.st_mtime_ns, stat.st_size)
    if isinstance(found, Mapping) and {"images", "annotations"} <= found.keys():
        return _guarded(path, "COCO", lambda: _coco(path, found, image))
    if isinstance(found, Mapping) and isinstance(found.get("shapes"), list):
        return _guarded(path, "LabelMe", lambda: _labelme(path, found))
    if isinstance(found, Mapping) and "FeatureCollection" in (found.get("type"),):
        from unet.io.outline_files import read_geojson

        return read_geojson(path)
    raise UserError(
        f"{path}: neither COCO (keys images, annotations, categories) nor LabelMe (key shapes) nor "
        "GeoJSON; export one of these"
    )


@lru_cache(maxsize=2)
def _parsed(path: Path, changed: int, size: int) -> Any:
    """The content; a file of many images is parsed once. The other arguments tell versions of a
    file apart."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from None


def _guarded(path: Path, kind: str, read: Any) -> tuple[list[Outline], int]:
    try:
        found: tuple[list[Outline], int] = read()
        return found
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        what = f"no key {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path}: damaged {kind} ({what})") from None


def entry_of(path: Path, names: Sequence[str], image: Path) -> int:
    """Which of the names in a file of many images is that of an image: the same file name, else the
    same name without suffix; of several the one that shares the most folders.

    Raises:
        UserError: none is, or several are.
    """
    parts = [tuple(reversed(Path(name.replace("\\", "/")).parts)) for name in names]
    for own in (lambda name: name, lambda name: Path(name).stem):
        there = [k for k, p in enumerate(parts) if p and own(p[0]) == own(image.name)]
        if there:
            folders = tuple(reversed(image.parts))[1:]
            shared = [_common(parts[k][1:], folders) for k in there]
            best = [k for k, n in zip(there, shared, strict=True) if n == max(shared)]
            if len(best) > 1:
                raise UserError(
                    f"{path}: {len(best)} entries are named like {image.name}, such as "
                    f"{names[best[0]]} and {names[best[1]]}; give each image its own name"
                )
            return best[0]
    some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    raise UserError(f"{path}: no image named like {image.name} (there are: {some or 'none'})")


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    found = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        found += 1
    return found


def ring_of(path: Path, points: Any) -> Ring:
    """A ring [N, 2] as x, y from pairs of coordinates.

    Raises:
        UserError: fewer than three corners, or coordinates that are not in pixels.
    """
    ring = np.asarray(points, np.float64).reshape(-1, 2)
    if len(ring) < 3:
        raise UserError(f"{path}: a polygon with fewer than three corners")
    if not (np.abs(ring) <= FARTHEST).all():
        raise UserError(f"{path}: a polygon whose coordinates are not in pixels")
    return ring


# COCO


def _coco(path: Path, found: Mapping[str, Any], image: Path) -> tuple[list[Outline], int]:
    images = found["images"]
    own = images[entry_of(path, [str(entry["file_name"]) for entry in images], image)]["id"]
    kinds = {entry["id"]: str(entry["name"]) for entry in found.get("categories", ())}
    outlines: list[Outline] = []
    skipped = 0
    for number, entry in enumerate(found["annotations"]):
        if entry["image_id"] != own:
            continue
        shape, kind = entry.get("segmentation"), kinds.get(entry.get("category_id"), "")
        if isinstance(shape, Mapping):
            outlines.append(Outline(kind=kind, mask=_run_lengths(path, shape)))
        elif shape:
            # Polygons of one object are its pieces, which may overlap.
            outlines += [Outline((ring_of(path, p),), kind, f"{number}") for p in shape]
        else:
            skipped += 1  # a box, or key points
    return outlines, skipped


def _run_lengths(path: Path, found: Mapping[str, Any]) -> NDArray[np.bool_]:
    """The mask [Y, X] of COCO's run lengths, which go down the columns."""
    height, width = map(int, found["size"])
    if min(height, width) < 1 or height * width > MOST_PIXELS:
        raise UserError(f"{path}: a mask of {height} x {width} pixels")
    counts = found["counts"]
    if not isinstance(counts, list):
        counts = _decoded(counts.encode() if isinstance(counts, str) else bytes(counts))
    runs = np.asarray(counts, np.int64)
    if (runs.size and runs.min() < 0) or runs.sum() != height * width:
        raise UserError(f"{path}: a mask whose runs are not {height} x {width} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape((height, width), order="F")


def _decoded(text: bytes) -> list[int]:
    """The runs of a compressed mask, as ``rleFrString`` of the COCO API (maskApi.c) reads them:
    numbers in groups of five bits, from the third on as differences from the last but one."""
    runs: list[int] = []
    value = shift = 0
    for byte in text:
        code = byte - 48
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:  # more groups follow
            continue
        if code & 0x10:  # negative
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs


# LabelMe


def _labelme(path: Path, found: Mapping[str, Any]) -> tuple[list[Outline], int]:
    outlines: list[Outline] = []
    skipped = 0
    for shape in found["shapes"]:
        kind, group = str(shape.get("label") or ""), shape.get("group_id")
        whole = "" if group is None else f"{kind} {group}"
        points = np.asarray(shape["points"], np.float64).reshape(-1, 2)
        form = shape.get("shape_type", "polygon")
        if form == "mask":
            x, y = np.round(points[0]).astype(int).tolist()
            outlines.append(Outline((), kind, whole, _png_mask(path, shape["mask"]), (x, y)))
        elif form in ("polygon", "rectangle", "circle"):
            outlines.append(Outline((ring_of(path, _corners(form, points)),), kind, whole))
        else:
            skipped += 1
    return outlines, skipped


def _corners(form: str, points: Ring) -> Ring:
    if form == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    if form == "circle":
        middle, edge = points[:2]
        angles = np.linspace(0, 2 * np.pi, CIRCLE_CORNERS, endpoint=False)
        ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return np.asarray(middle + math.dist(middle, edge) * ring)
    return points


def _png_mask(path: Path, text: str) -> NDArray[np.bool_]:
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(text)), formats=["PNG"]) as picture:
        if picture.width * picture.height > MOST_PIXELS:
            raise UserError(f"{path}: a mask of {picture.height} x {picture.width} pixels")
        return np.asarray(picture.convert("L")) > 0
