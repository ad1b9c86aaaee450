"""Reader for Leica LIF: each image in the file, each tile of its mosaic and each time is a page."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.errors import UserError, how_many
from unet.io.axes import Raw, block_shape
from unet.io.pixel_size import Declared, read_sizes
from unet.io.plane_source import PlaneSource, chosen_page, joined_names, page_names
from unet.io.raw import RGB_NAMES, check_pixels, lazily, needed

Array = NDArray[Any]

# Letters of liffile: M = tile of a mosaic.
_READ = "TMCZYXS"
# DimID in the metadata.
_SPACE = {"1": "X", "2": "Y", "3": "Z"}


@dataclass(frozen=True)
class _Page:
    """An image of the file, at one time and tile of its mosaic."""

    image: int
    name: str
    fixed: tuple[tuple[str, int], ...]


def _open_lif(path: Path) -> Any:
    return needed(path, "liffile", "liffile").LifFile(path, squeeze=False)


def _read_plane(
    page: _Page, file: Any, place: tuple[int, ...], rows: slice, columns: slice
) -> Array:
    """Pixels [y, x] or [y, x, s] of one channel and section."""
    image = file.images[page.image]
    wanted: dict[str, Any] = dict(page.fixed)
    wanted |= {"C": place[0], "Z": place[1], "Y": rows, "X": columns, "S": slice(None)}
    # Mapped into memory, so that only this region is read.
    pixels = image.asarray(out="memmap")[tuple(wanted[letter] for letter in image.dims)]
    left = [letter for letter in image.dims if letter in "YXS"]
    return np.ascontiguousarray(pixels.transpose([left.index(a) for a in "YXS" if a in left]))


def read_lif(path: Path, page: int | None) -> Raw:
    """Opens a LIF; each of its images at each time (and tile) is an image [C, Z, Y, X(, S)].

    Raises:
        UserError: no image that can be read, a file that is cut short, no library.
        Exception: any error of the library for a file that it cannot parse.
    """
    with _open_lif(path) as file:
        images = list(file.images)
        strange = {i: told for i, image in enumerate(images) if (told := _strange(image))}
        good = [i for i in range(len(images)) if i not in strange]
        if not good:
            told = next(iter(strange.values()), "it holds none")
            raise UserError(f"{path}: no image that can be read ({told}); convert it to OME-TIFF")
        end = max(images[i].memory_block.offset + images[i].nbytes for i in good)
        if end > path.stat().st_size:
            raise UserError(f"{path}: cut short ({path.stat().st_size} bytes of {end})")
        pages = list(_pages(images, good))
        chosen = pages[chosen_page(path, page, len(pages))]
        image = images[chosen.image]
        sizes, dtype = dict(image.sizes), np.dtype(image.dtype)
        declared, names = _sizes(image), _channel_names(image, sizes.get("C", 1))
    shape = tuple(sizes.get(letter, 1) for letter in "CZYX")
    axes = "CZYX"
    if "S" in sizes:
        shape, axes, names = (*shape, sizes["S"]), "CZYXS", RGB_NAMES
    check_pixels(path, shape)
    source = PlaneSource(path, shape, axes, dtype, _open_lif, partial(_read_plane, chosen))
    array = lazily(source, block_shape((1, 1, 1, *shape[3:]), shape, axes))
    if "S" in axes and shape[0] == 1:
        array, axes = array[0], axes[1:]
    found, told_sizes = read_sizes(declared, axes)
    return Raw(
        array,
        axes,
        found,
        names=names,
        warnings=_left_out(images, strange),
        size_warnings=told_sizes,
        page_names=tuple(one.name for one in pages) if len(images) > 1 or len(pages) > 1 else (),
        # Tiles of a mosaic overlap.
        together=len(pages) > len(good),
    )


def _strange(image: Any) -> str:
    """What keeps an image of the file from being read; "" if nothing does."""
    try:
        sizes = dict(image.sizes)
        image.dtype, image.memory_block  # noqa: B018 - raises for data that liffile cannot read
    except (ValueError, KeyError, IndexError, AssertionError) as error:
        return str(error)
    if others := [axis for axis, size in sizes.items() if size > 1 and axis not in _READ]:
        return f"an axis {others[0]}"
    if not {"Y", "X"} <= set(sizes):
        shown = "".join(axis for axis, size in sizes.items() if size > 1)
        return f"its axes are {shown}, so no plane of Y and X"
    if sizes.get("S", 1) not in (1, 3):
        return f"{sizes['S']} colours"
    return ""


def _pages(images: list[Any], good: list[int]) -> Iterator[_Page]:
    for image in good:
        sizes = dict(images[image].sizes)
        own = f"s{image}" if len(images) > 1 else ""
        for m, tile in enumerate(page_names(sizes.get("M", 1), "m", 3)):
            for t, time in enumerate(page_names(sizes.get("T", 1), "t", 3)):
                # Axes of length 1 have a place, too.
                fixed = {axis: 0 for axis in sizes if axis not in "CZYXS"}
                fixed |= {a: n for a, n in (("M", m), ("T", t)) if a in sizes}
                yield _Page(image, joined_names(own, tile, time), tuple(fixed.items()))


def _left_out(images: list[Any], strange: dict[int, str]) -> tuple[str, ...]:
    if not strange:
        return ()
    first = min(strange)
    return (
        f"{how_many(len(strange), 'image')} of {len(images)} in this file cannot be read, such as "
        f"{images[first].name} ({strange[first]})",
    )


def _sizes(image: Any) -> list[Declared]:
    """The way from the first to the last pixel, divided by the number of steps."""
    declared = []
    place = "Data/Image/ImageDescription/Dimensions/DimensionDescription"
    for one in image.xml_element.iterfind(place):
        axis = _SPACE.get(one.get("DimID", ""))
        steps = int(one.get("NumberOfElements", 0)) - 1
        length = abs(float(one.get("Length", "nan")))
        if axis and steps > 0 and length > 0 and not math.isnan(length):
            declared.append(Declared(axis, length / steps, one.get("Unit", "")))
    return declared


def _channel_names(image: Any, count: int) -> tuple[str, ...]:
    """The colours that the microscope shows the channels in, if they differ."""
    place = "Data/Image/ImageDescription/Channels/ChannelDescription"
    names = tuple(one.get("LUTName", "") for one in image.xml_element.iterfind(place))
    return names if len(set(names)) == len(names) == count else ()
