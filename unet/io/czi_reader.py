"""Reader for Zeiss CZI, with Zeiss's own library: scenes, times, mosaics, channels, sections."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.errors import UserError
from unet.io.axes import Raw, block_shape
from unet.io.pixel_size import Declared, read_sizes
from unet.io.plane_source import PlaneSource, chosen_page, joined_names, page_names
from unet.io.raw import RGB_NAMES, check_claim, check_pixels, lazily, needed

Array = NDArray[Any]

# Pixel type -> type of the values, samples per pixel.
_TYPES = {
    "Gray8": ("u1", 1), "Gray16": ("u2", 1), "Gray32Float": ("f4", 1),
    "Bgr24": ("u1", 3), "Bgr48": ("u2", 3), "Bgr96Float": ("f4", 3),
}  # fmt: skip
# Axes of a CZI that are neither space nor channels nor time.
_OTHERS = {"R": "rotations", "I": "illuminations", "H": "phases", "V": "views", "B": "blocks"}
# Most sides of a block that is read at once; tiles that it touches are decoded for it.
_SIDE = 1024


@dataclass(frozen=True)
class _Scene:
    """Where a scene lies: its number (None if the file has no scenes), left, top, and its size."""

    number: int | None
    left: int
    top: int
    shape: tuple[int, int]


def _open_czi(path: Path) -> Any:
    library = needed(path, "pylibCZIrw.czi", "pylibCZIrw")
    return library.CziReader(str(path))


def _read_region(
    scene: _Scene, time: int, file: Any, place: tuple[int, ...], rows: slice, columns: slice
) -> Array:
    """Pixels [y, x] or [y, x, s] of one channel and section; tiles of a mosaic are composed."""
    channel, section = place
    region = (
        scene.left + columns.start, scene.top + rows.start,
        columns.stop - columns.start, rows.stop - rows.start,
    )  # fmt: skip
    plane = {"C": channel, "Z": section, "T": time}
    pixels: Array = file.read(roi=region, plane=plane, scene=scene.number)
    # Colours are stored as blue, green, red.
    return pixels[..., ::-1] if pixels.shape[-1] == 3 else pixels[..., 0]


def read_czi(path: Path, page: int | None) -> Raw:
    """Opens a CZI; each scene at each time is an image [C, Z, Y, X] (or [C, Z, Y, X, S]).

    Raises:
        UserError: axes other than these, values that are not numbers or mixed colours, no library.
        Exception: any error of the library for a file that it cannot parse.
    """
    file = _open_czi(path)
    try:
        sizes = {axis: int(stop) for axis, (_, stop) in file.total_bounding_box.items()}
        scenes = _scenes(file)
        kinds = list(file.pixel_types.values())
        about = _about(file)
    finally:
        file.close()
    if others := [f"{sizes[axis]} {_OTHERS[axis]}" for axis in _OTHERS if sizes.get(axis, 1) > 1]:
        raise UserError(
            f"{path}: {' and '.join(others)}; save each as a file of its own, or convert it to "
            "OME-TIFF with Fiji"
        )
    dtype, samples = _value_type(path, kinds)
    times = page_names(sizes["T"], "t", 3)
    names = [joined_names(s, t) for s in page_names(len(scenes), "s") for t in times]
    index, time = divmod(chosen_page(path, page, len(names)), len(times))
    scene = scenes[index]
    shape = (sizes["C"], sizes["Z"], *scene.shape, *((3,) if samples == 3 else ()))
    check_pixels(path, shape)
    check_claim(path, shape, dtype.itemsize)
    axes = "CZYXS"[: len(shape)]
    source = PlaneSource(path, shape, axes, dtype, _open_czi, partial(_read_region, scene, time))
    array = lazily(source, block_shape((1, 1, _SIDE, _SIDE, 3)[: len(shape)], shape, axes))
    if samples == 3 and shape[0] == 1:
        array, axes = array[0], axes[1:]
    # Without sections the file says 0 along Z.
    spatial = axes if sizes["Z"] > 1 else axes.replace("Z", "")
    found, told = read_sizes(_sizes(about), spatial)
    return Raw(
        array,
        axes,
        found,
        names=RGB_NAMES if samples == 3 else _channel_names(about, shape[0]),
        size_warnings=told,
        page_names=tuple(names) if len(names) > 1 else (),
        together=len(times) > 1,
    )


def _scenes(file: Any) -> list[_Scene]:
    """The scenes in the order of their numbers. Levels of a pyramid may reach further."""
    found = dict(file.scenes_bounding_rectangle_no_pyramid)
    places = found or {None: file.total_bounding_rectangle_no_pyramid}
    return [
        _Scene(number, int(place.x), int(place.y), (int(place.h), int(place.w)))
        for number, place in sorted(places.items(), key=lambda item: item[0] or 0)
    ]


def _value_type(path: Path, kinds: list[str]) -> tuple[np.dtype[Any], int]:
    """The type that holds the values of all channels, and the samples per pixel."""
    if strange := [kind for kind in kinds if kind not in _TYPES]:
        raise UserError(f"{path}: pixels of type {strange[0]}; save them as 8 or 16 bit numbers")
    found = {_TYPES[kind] for kind in kinds}
    samples = {number for _, number in found}
    if len(samples) != 1:
        raise UserError(
            f"{path}: channels of grey values and of colours ({', '.join(kinds)}); save them as "
            "files of their own"
        )
    return np.result_type(*(name for name, _ in found)), samples.pop()


def _about(file: Any) -> ElementTree.Element:
    """The file's metadata; empty if there are none that can be read."""
    try:
        return ElementTree.fromstring(file.raw_metadata)
    except Exception:  # a file without metadata has pixels all the same
        return ElementTree.Element("ImageDocument")


def _sizes(about: ElementTree.Element) -> list[Declared]:
    """Metres per pixel."""
    return [
        Declared(axis, value, "m")
        for axis in "ZYX"
        if (value := about.findtext(f"Metadata/Scaling/Items/Distance[@Id='{axis}']/Value"))
    ]


def _channel_names(about: ElementTree.Element, count: int) -> tuple[str, ...]:
    for place in ("Information/Image/Dimensions", "DisplaySetting"):
        found = about.iterfind(f"Metadata/{place}/Channels/Channel")
        names = [one.get("Name", "") for one in found]
        if len(names) == count and any(names):
            return tuple(names)
    return ()
