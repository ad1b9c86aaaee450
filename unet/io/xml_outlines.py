"""Reads outlines of CVAT's format "CVAT for images 1.1": one XML file of many images."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from unet.errors import UserError
from unet.io.json_outlines import MOST_PIXELS, entry_of, ring_of
from unet.io.outline_drawing import Outline, Ring

# Corners of ellipses.
ELLIPSE_CORNERS = 256
_SHAPES = ("polygon", "box", "ellipse", "mask")


def read_cvat(path: Path, image: Path) -> tuple[list[Outline], int]:
    """The outlines of an image in their order of depth, and how many entries are none (points,
    lines, tags).

    Raises:
        UserError: the file is not of this format, or does not name the image.
    """
    stat = path.stat()
    root = _parsed(path, stat.st_mtime_ns, stat.st_size)
    images = root.findall("image")
    if root.tag != "annotations" or (not images and root.find("track") is not None):
        raise UserError(f"{path}: not CVAT for images 1.1; export the task in this format")
    own = images[entry_of(path, [str(entry.get("name", "")) for entry in images], image)]
    shapes = [entry for entry in own if entry.tag in _SHAPES]
    try:
        # The upper ones first, because the first one of overlapping outlines has the pixels.
        shapes.sort(key=lambda entry: -int(entry.get("z_order", "0")))
        return [_outline(path, entry) for entry in shapes], len(own) - len(shapes)
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged CVAT file ({error})") from None


@lru_cache(maxsize=2)
def _parsed(path: Path, changed: int, size: int) -> ElementTree.Element:
    """The content, parsed once; the other arguments tell versions of a file apart."""
    text = path.read_bytes()
    # Entities could fill the memory, and this format has none.
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise UserError(f"{path}: an XML file with a DOCTYPE, which CVAT does not write")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise UserError(f"{path}: not XML ({error})") from None


def _outline(path: Path, entry: ElementTree.Element) -> Outline:
    found: dict[str, Any] = dict(entry.attrib)
    kind, group = found.get("label", ""), found.get("group_id", "0")
    whole = "" if group in ("", "0") else f"{kind} {group}"
    if entry.tag == "mask":
        left, top = int(found["left"]), int(found["top"])
        return Outline((), kind, whole, _runs(path, found), (left, top))
    return Outline((ring_of(path, _points(entry.tag, found)),), kind, whole)


def _points(tag: str, found: dict[str, Any]) -> Ring:
    if tag == "polygon":
        pairs = [point.split(",") for point in found["points"].split(";")]
        return np.array(pairs, np.float64)
    if tag == "box":
        x0, y0, x1, y1 = (float(found[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
        ring = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
        middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    else:
        middle = np.array([float(found["cx"]), float(found["cy"])])
        radii = np.array([float(found["rx"]), float(found["ry"])])
        angles = np.linspace(0, 2 * np.pi, ELLIPSE_CORNERS, endpoint=False)
        ring = middle + radii * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    turn = np.deg2rad(float(found.get("rotation", 0)))
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return np.asarray((ring - middle) @ rotation + middle)


def _runs(path: Path, found: dict[str, Any]) -> NDArray[np.bool_]:
    """The mask [Y, X] of run lengths, which go along the rows and begin outside."""
    width, height = int(found["width"]), int(found["height"])
    runs = np.array([int(part) for part in found["rle"].split(",")], np.int64)
    size = width * height
    if min(width, height) < 1 or size > MOST_PIXELS or runs.min() < 0 or runs.sum() != size:
        raise UserError(f"{path}: a mask whose runs are not {height} x {width} pixels")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
