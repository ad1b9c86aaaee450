"""What makers of microscopes add to TIFF: slides (SVS, NDPI, SCN, BIF), Zeiss LSM, MetaMorph STK.

tifffile reads their pixels; this module chooses the image of a slide, and finds pixel sizes and
channel names where each maker keeps them.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import tifffile

from unet.errors import UserError
from unet.io.pixel_size import Declared

# Kinds of series in tifffile: of slide scanners, and of microscopes that write a single series.
SLIDES = ("svs", "ndpi", "scn", "bif", "philips", "avs")
MICROSCOPES = ("lsm", "stk")
# Pictures of a whole slide or its sticker, which lie next to the image.
_ASIDE = ("label", "macro", "thumbnail", "map", "overview", "unknown")
_YCBCR_JPEG2000 = 33003


def slide_image(path: Path, series: Any) -> int:
    """Index of the image in a slide: the largest series that is not a label, macro or thumbnail.

    Raises:
        UserError: there is none.
    """
    images = [i for i, one in enumerate(series) if str(one.name).lower() not in _ASIDE]
    if not images:
        raise UserError(f"{path}: a slide without an image (only label, macro or thumbnail)")
    index = max(images, key=lambda i: _pixels(series[i]))
    if series[index].keyframe.compression == _YCBCR_JPEG2000:
        raise UserError(
            f"{path}: JPEG 2000 with YCbCr colours (Aperio 33003); convert it with bioformats2raw"
        )
    return index


def _pixels(series: Any) -> int:
    return math.prod(n for n, axis in zip(series.shape, series.axes, strict=True) if axis in "YX")


def slide_warnings(series: Any, index: int) -> tuple[str, ...]:
    """What a slide has that is not read, or not as its maker shows it."""
    warnings: tuple[str, ...] = ()
    others = sum(
        1
        for i, one in enumerate(series)
        # An overview of the slide has far fewer pixels than a scanned area.
        if i != index and str(one.name).lower() not in _ASIDE
        and 10 * _pixels(one) > _pixels(series[index])
    )  # fmt: skip
    if others:
        warnings += (
            f"a slide with {others + 1} scanned areas: only the largest is read; save the others "
            "as files of their own (bioformats2raw)",
        )
    if series[index].kind == "bif":
        warnings += (
            "a Ventana BIF: its tiles overlap and are laid side by side, not stitched; objects at "
            "their edges may show twice",
        )
    return warnings


def vendor_sizes(file: tifffile.TiffFile, series: Any) -> list[Declared] | None:
    """Pixel sizes along Z, Y, X where the maker keeps them; None if they are in the usual tags."""
    readers = {"svs": _svs, "scn": _scn, "bif": _bif, "lsm": _lsm, "stk": _stk}
    reader = readers.get(series.kind)
    return None if reader is None else reader(file, series)


def _svs(file: tifffile.TiffFile, series: Any) -> list[Declared] | None:
    found = re.search(r"\|\s*MPP\s*=\s*([0-9.eE+-]+)", str(series.keyframe.description))
    return None if found is None else [Declared(axis, found[1], "um") for axis in "YX"]


def _scn(file: tifffile.TiffFile, series: Any) -> list[Declared] | None:
    """The size of the scanned area in nanometres, divided by its pixels."""
    try:
        root = ElementTree.fromstring(file.scn_metadata or "")
    except ElementTree.ParseError:
        return None
    for image in root.iterfind("{*}collection/{*}image"):
        view, pixels = image.find("{*}view"), image.find("{*}pixels")
        if view is None or pixels is None:
            continue
        numbers = [one.attrib.get(f"size{axis}", "") for one in (view, pixels) for axis in "YX"]
        if not all(text.isdigit() and int(text) for text in numbers):
            continue
        height, width, rows, columns = map(int, numbers)
        if (rows, columns) == _plane(series):
            return [Declared("Y", height / rows, "nm"), Declared("X", width / columns, "nm")]
    return None


def _plane(series: Any) -> tuple[int, int]:
    sizes = dict(zip(series.axes, series.shape, strict=True))
    return sizes.get("Y", 0), sizes.get("X", 0)


def _bif(file: tifffile.TiffFile, series: Any) -> list[Declared] | None:
    for page in file.pages:
        tag: Any = page.tags.get(700) if isinstance(page, tifffile.TiffPage) else None
        text = tag.value if tag is not None else b""
        content = text if isinstance(text, bytes) else str(text).encode()
        if found := re.search(rb'ScanRes="([0-9.]+)"', content):
            return [Declared(axis, found[1].decode(), "um") for axis in "YX"]
    return None


def _lsm(file: tifffile.TiffFile, series: Any) -> list[Declared] | None:
    about = file.lsm_metadata or {}
    return [Declared(axis, about.get(f"VoxelSize{axis}"), "m") for axis in "ZYX"]


def _stk(file: tifffile.TiffFile, series: Any) -> list[Declared] | None:
    about = file.stk_metadata or {}
    unit = str(about.get("CalibrationUnits", ""))
    steps = [float(step) for step in about.get("ZDistance", ())]
    values = {axis: about.get(f"{axis}Calibration") for axis in "YX"}
    # A distance of 0 stands for a plane that was not moved, as in a time series.
    even = bool(steps) and max(steps) - min(steps) <= 1e-3 * abs(steps[0]) and steps[0] != 0
    values["Z"] = steps[0] if even else None
    return [Declared(axis, values[axis], unit) for axis in "ZYX"]


def vendor_names(file: tifffile.TiffFile, series: Any) -> tuple[str, ...]:
    """Channel names where the maker keeps them; empty if there are none."""
    if getattr(series, "kind", "") != "lsm":
        return ()
    colours = (file.lsm_metadata or {}).get("ChannelColors") or {}
    return tuple(map(str, colours.get("ColorNames", ())))
