"""Reader for Olympus OIB: channels, sections; each time is a page."""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.errors import UserError
from unet.io.axes import Raw
from unet.io.pixel_size import Declared, read_sizes
from unet.io.plane_source import PlaneSource, chosen_page, page_names
from unet.io.raw import check_claim, check_pixels, lazily, needed

Array = NDArray[Any]


# The header of a compound document (MS-CFB, 2.2), in which an OIB holds its files.
_SIGNATURE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def check_chains(path: Path) -> None:
    """Refuses a file whose chains of sectors run in circles: the library would follow them until
    the memory is full.

    Raises:
        UserError: they do, or the file is cut short or of another kind.
    """
    size = path.stat().st_size
    with path.open("rb") as handle:
        head = handle.read(512)
        shift = int.from_bytes(head[30:32], "little")
        if len(head) < 512 or head[:8] != _SIGNATURE or shift not in (9, 12):
            raise UserError(f"{path}: cannot be read (not an OIB file)")
        side = 1 << shift
        (counted,) = struct.unpack_from("<I", head, 44)
        mini_start, mini_counted, more_start, more_counted = struct.unpack_from("<4I", head, 60)

        def sector(number: int) -> Array:
            handle.seek(side * (number + 1))
            content = handle.read(side)
            if len(content) < side:
                raise UserError(f"{path}: cut short ({size} bytes)")
            return np.frombuffer(content, "<u4")

        if max(counted, mini_counted, more_counted) * side > size:
            raise UserError(f"{path}: its header claims more sectors than it has; it is damaged")
        places = list(struct.unpack_from("<109I", head, 76))
        for _ in range(more_counted):
            *found, more_start = map(int, sector(more_start))
            places += found
        table = np.concatenate([*map(sector, places[:counted]), np.empty(0, "<u4")])
        circle = _has_circle(table)
        small, at = [np.empty(0, "<u4")], mini_start
        while not circle and at < len(table) and len(small) <= mini_counted:
            small.append(sector(at))
            at = int(table[at])
    if circle or _has_circle(np.concatenate(small)):
        raise UserError(f"{path}: its sectors follow each other in a circle; it is damaged")


def _has_circle(table: Array) -> bool:
    """Whether following the table from some entry never ends."""
    end = len(table)
    step = np.append(np.minimum(table, end), end).astype(np.int64)
    for _ in range(end.bit_length()):
        step = step[step]  # twice as many steps at once
    return bool((step != end).any())


def _open_oib(path: Path) -> Any:
    return needed(path, "oiffile", "oiffile").OifFile(path)


def _read_plane(
    files: tuple[str, ...], sections: int, file: Any, place: tuple[int, ...],
    rows: slice, columns: slice,
) -> Array:  # fmt: skip
    """Pixels [y, x] of one channel and section.

    Args:
        files: names of the planes, channel by channel.
    """
    channel, section = place
    pixels: Array = file.asarray(series=files[channel * sections + section])
    return np.ascontiguousarray(pixels[rows, columns])


def read_oib(path: Path, page: int | None) -> Raw:
    """Opens an OIB; each time is an image [C, Z, Y, X].

    Raises:
        UserError: axes other than these, planes that are missing, no library.
        Exception: any error of the library for a file that it cannot parse.
    """
    if path.suffix.lower() == ".oib":
        check_chains(path)
    file = _open_oib(path)
    try:
        settings = file.mainfile
        sizes, declared = _axes(settings)
        planes = file.series[0] if file.series else ()
        files, letters = list(getattr(planes, "files", planes)), getattr(planes, "axes", "")
        counts = tuple(int(n) for n in getattr(planes, "shape", ()))
        first: Array = file.asarray(series=files[0]) if files else np.empty(0)
        names = _channel_names(settings, sizes.get("C", 1))
    finally:
        file.close()
    there = dict(zip(letters, counts, strict=True))
    wanted = {axis: sizes.get(axis, 1) for axis in "CZT"}
    if others := [axis for axis, size in sizes.items() if size > 1 and axis not in "XYCZT"]:
        raise UserError(f"{path}: an axis {others[0]}; convert it to OME-TIFF with Fiji")
    if first.ndim != 2 or any(there.get(axis, 1) != n for axis, n in wanted.items()):
        raise UserError(
            f"{path}: {len(files)} planes ({' x '.join(map(str, counts))}), but its header says "
            f"{' x '.join(f'{n} {axis}' for axis, n in wanted.items())}; convert it to OME-TIFF "
            "with Fiji"
        )
    times = page_names(wanted["T"], "t", 3)
    time = chosen_page(path, page, len(times))
    number = np.arange(len(files)).reshape(counts)
    chosen = tuple(
        files[int(number[tuple({"C": c, "Z": z, "T": time}[axis] for axis in letters)])]
        for c in range(wanted["C"])
        for z in range(wanted["Z"])
    )
    shape = (wanted["C"], wanted["Z"], *first.shape)
    check_pixels(path, shape)
    check_claim(path, shape, first.dtype.itemsize)
    read = partial(_read_plane, chosen, wanted["Z"])
    source = PlaneSource(path, shape, "CZYX", first.dtype, _open_oib, read)
    found, told = read_sizes(declared, "CZYX")
    return Raw(
        lazily(source, (1, 1, *first.shape)),
        "CZYX",
        found,
        names=names,
        size_warnings=told,
        page_names=tuple(times) if len(times) > 1 else (),
        together=len(times) > 1,
    )


def _axes(settings: Any) -> tuple[dict[str, int], list[Declared]]:
    """Size of each axis, and the way from the first to the last pixel of those of space."""
    sizes: dict[str, int] = {}
    declared: list[Declared] = []
    for number in range(8):
        about = settings.get(f"Axis {number} Parameters Common", {})
        axis, size = str(about.get("AxisCode", "")), int(about.get("MaxSize", 0))
        if not axis or size < 1:
            continue
        sizes[axis] = size
        ends = about.get("StartPosition"), about.get("EndPosition")
        if axis in "ZYX" and size > 1 and None not in ends:
            # From the first to the last pixel.
            length = abs(float(ends[1]) - float(ends[0]))
            unit = str(about.get("UnitName", ""))
            declared += [Declared(axis, length / (size - 1), unit)] if length else []
    return sizes, declared


def _channel_names(settings: Any, count: int) -> tuple[str, ...]:
    """The dyes of the channels that were recorded, or else the detectors."""
    names = []
    for number in range(1, count + 1):
        about = settings.get(f"Channel {number} Parameters", {})
        dye = str(about.get("DyeName", ""))
        names.append(str(about.get("CH Name", "")) if dye in ("", "None") else dye)
    return tuple(names) if any(names) else ()
