"""Reader for Nikon ND2: each position at each time is a page; channels and sections."""

from __future__ import annotations

import math
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


def _open_nd2(path: Path) -> Any:
    return needed(path, "nd2", "nd2").ND2File(path)


def _read_plane(
    frames: tuple[int, ...], size: tuple[int, ...], file: Any, place: tuple[int, ...],
    rows: slice, columns: slice,
) -> Array:  # fmt: skip
    """Pixels [y, x] or [y, x, s] of one channel and section.

    Args:
        frames: number of the frame of each section.
        size: of a frame: C, Y, X, samples.
    """
    channel, section = place
    # nd2 leaves out axes of length 1.
    frame = file.read_frame(frames[section]).reshape(size)
    pixels: Array = frame[channel, rows, columns]
    return np.ascontiguousarray(pixels if size[3] > 1 else pixels[..., 0])


def read_nd2(path: Path, page: int | None) -> Raw:
    """Opens an ND2; each position at each time is an image [C, Z, Y, X] (or [C, Z, Y, X, S]).

    Raises:
        UserError: frames that are missing or in an order that is not known, no library.
        Exception: any error of the library for a file that it cannot parse.
    """
    with _open_nd2(path) as file:
        sizes, about = dict(file.sizes), file.attributes
        dtype = np.dtype(file.dtype)
        channels = int(about.channelCount or 1)
        samples = int(about.componentCount) // channels
        loops = {axis: int(sizes.get(axis, 1)) for axis in "PTZ"}
        if math.prod(loops.values()) > path.stat().st_size:
            raise UserError(
                f"{path}: the header claims {math.prod(loops.values())} frames, more "
                "than the file can hold"
            )
        places = [dict(one) for one in file.loop_indices]
        declared, names = _sizes(file), _channel_names(file, channels)
        there = _frames_there(file)
    if samples not in (1, 3):
        raise UserError(f"{path}: {samples} colours per channel; convert it to OME-TIFF with Fiji")
    if math.prod(loops.values()) != len(places) or set().union(*places) - set("PTZC"):
        found = " x ".join(f"{size} {axis}" for axis, size in sizes.items())
        raise UserError(
            f"{path}: {len(places)} frames, but its loops are {found}; only positions, times and "
            "sections are read: convert it to OME-TIFF with Fiji"
        )
    times = page_names(loops["T"], "t", 3)
    ids = [joined_names(s, t) for s in page_names(loops["P"], "s") for t in times]
    position, time = divmod(chosen_page(path, page, len(ids)), len(times))
    number = {tuple(one.get(axis, 0) for axis in "PTZ"): n for n, one in enumerate(places)}
    frames = tuple(number[position, time, z] for z in range(loops["Z"]))
    if there is not None and (missing := [n for n in frames if n not in there]):
        raise UserError(f"{path}: frame {missing[0]} of {len(places)} is missing; it is damaged")
    size = (channels, int(about.heightPx), int(about.widthPx or 0), samples)
    shape = (channels, loops["Z"], *size[1:3], *((samples,) if samples > 1 else ()))
    check_pixels(path, shape)
    check_claim(path, shape, dtype.itemsize)
    axes = "CZYXS"[: len(shape)]
    source = PlaneSource(path, shape, axes, dtype, _open_nd2, partial(_read_plane, frames, size))
    array = lazily(source, block_shape((1, 1, *shape[2:]), shape, axes))
    if samples > 1 and channels == 1:
        array, axes, names = array[0], axes[1:], RGB_NAMES
    known, told = read_sizes(declared, axes)
    return Raw(
        array,
        axes,
        known,
        names=names,
        size_warnings=told,
        page_names=tuple(ids) if len(ids) > 1 else (),
        together=len(times) > 1,
    )


def _frames_there(file: Any) -> set[int] | None:
    """The frames that are in the file, as far as the library says: it reads others as zeros."""
    offsets = getattr(getattr(file, "_rdr", None), "_frame_offsets", None)
    return None if offsets is None else set(offsets)


def _sizes(file: Any) -> list[Declared]:
    """Micrometres, along the axes that are calibrated."""
    channels = file.metadata.channels if file.metadata else None
    if not channels:
        return []
    volume = channels[0].volume
    known = zip("XYZ", volume.axesCalibrated, volume.axesCalibration, strict=False)
    return [Declared(axis, float(step), "um") for axis, calibrated, step in known if calibrated]


def _channel_names(file: Any, count: int) -> tuple[str, ...]:
    channels = (file.metadata.channels if file.metadata else None) or ()
    names = tuple(str(one.channel.name or "") for one in channels)
    return names if len(names) == count else ()
