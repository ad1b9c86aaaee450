"""Checks the arguments of a prediction: one line that names the argument."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from unet.config.choices import METHOD_TABLE
from unet.errors import ArgumentError, did_you_mean, one_line
from unet.prediction.apply.chosen_settings import Requested

DEVICES = ("auto", "cpu", "cuda")
LEAST_TILE, LARGEST_TILE = 8, 16384


def checked(dims: int, **given: Any) -> Requested:
    """The arguments of ``Model.predict`` as the stages want them.

    Args:
        dims: spatial axes of the images.
        given: name -> value; None = not given.

    Raises:
        ArgumentError: a value is not allowed.
    """
    given = {name: plain(value) for name, value in given.items()}
    threads = whole("threads", given["threads"], 1)
    memory = number("memory_gb", given["memory_gb"], "a number above 0")
    return Requested(
        pixel_size=_pixel_size(given["pixel_size_um"], dims),
        threshold=_threshold(given["threshold"]),
        method=_one_of("method", given["method"], sorted(METHOD_TABLE)),
        grow_px=whole("grow_px", given["grow_px"], 0),
        min_size=whole("min_size", given["min_size"], 0),
        tta=_flag("tta", given["tta"]),
        tile=_tile(given["tile"], dims),
        float32=bool(_flag("float32", given["float32"])),
        device=_one_of("device", given["device"], DEVICES) or "auto",
        threads=threads or os.cpu_count() or 1,
        memory_gb=memory or 4.0,
        options=False,
    )


def plain(value: Any) -> Any:
    """A number instead of an array without axes."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def path_of(name: str, value: Any, wanted: str) -> Path:
    """A path that is not empty.

    Args:
        wanted: what to write.
    """
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise ArgumentError(f"{name}: got {_shown(value)}; write {wanted}")
    return Path(path)


def checked_out(value: Any) -> Path:
    """The output folder as an absolute path; it is created."""
    folder = path_of("out", value, "a folder, such as 'segmented'").absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ArgumentError(f"out: {folder} is a file; give a folder") from None
    except OSError as error:
        raise ArgumentError(
            f"out: {folder} cannot be created ({error.strerror}); give another folder"
        ) from None
    return folder


def checked_name(value: Any) -> str:
    """The name of an image."""
    if not isinstance(value, str) or not value:
        raise ArgumentError(f"name: got {_shown(value)}; write a text, such as 'image'")
    return value


def flag(name: str, value: Any) -> bool:
    """True or False."""
    if value is None:
        raise ArgumentError(f"{name}: got None; write True or False")
    return bool(_flag(name, value))


def number(name: str, value: Any, wanted: str, most: float = float("inf")) -> float | None:
    """A number above 0 and below ``most``."""
    if value is None:
        return None
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not isfinite(value) or not 0 < value < most:
        raise ArgumentError(f"{name}: got {_shown(value)}; write {wanted}")
    return float(value)


def whole(name: str, value: Any, least: int) -> int | None:
    """A whole number from ``least`` on."""
    if value is None:
        return None
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ArgumentError(f"{name}: got {_shown(value)}; write a whole number from {least}")
    return int(value)


def _threshold(value: Any) -> float | None:
    return number("threshold", value, "a number above 0 and below 1", 1.0)


def _flag(name: str, value: Any) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise ArgumentError(f"{name}: got {_shown(value)}; write True or False")
    return value


def _one_of(name: str, value: Any, known: Sequence[str]) -> str | None:
    if value is not None and (not isinstance(value, str) or value not in known):
        near = did_you_mean(value, known)
        raise ArgumentError(f"{name}: got {_shown(value)}; write one of {', '.join(known)}{near}")
    return None if value is None else str(value)


def _tile(value: Any, dims: int) -> int | list[int] | None:
    if value is None:
        return None
    sizes = [value] if isinstance(value, Integral) else list(value) if _is_list(value) else []
    fits = all(isinstance(n, Integral) and LEAST_TILE <= int(n) <= LARGEST_TILE for n in sizes)
    if not fits or len(sizes) not in (1, dims) or isinstance(value, bool):
        raise ArgumentError(
            f"tile: got {_shown(value)}; write {LEAST_TILE} to {LARGEST_TILE} pixels, one "
            f"number or one for each of {_axes(dims)}"
        )
    return int(sizes[0]) if len(sizes) == 1 else [int(n) for n in sizes]


def _pixel_size(value: Any, dims: int) -> float | list[float] | None:
    if value is None:
        return None
    wanted = f"micrometres above 0, one number or one for each of {_axes(dims)}"
    if not _is_list(value):
        return number("pixel_size_um", value, wanted)
    sizes = [number("pixel_size_um", size, wanted) for size in value]
    if len(sizes) != dims or None in sizes:
        raise ArgumentError(f"pixel_size_um: got {_shown(value)}; write {wanted}")
    return [size for size in sizes if size is not None]


def checked_channels(value: Any) -> tuple[int | str, ...] | None:
    """Channels by number or name, one or several."""
    value = plain(value)
    if value is None:
        return None
    listed = list(value) if _is_list(value) else [value]
    fits = all(
        isinstance(one, str) or (isinstance(one, Integral) and not isinstance(one, bool))
        for one in listed
    )
    if not listed or not fits:
        raise ArgumentError(
            f"channels: got {_shown(value)}; write numbers from 0 or names, such as [0]"
        )
    return tuple(one if isinstance(one, str) else int(one) for one in listed)


def _is_list(value: Any) -> bool:
    return not isinstance(value, str) and hasattr(value, "__iter__")


def _shown(value: Any) -> str:
    return one_line(repr(value), 80)


def _axes(dims: int) -> str:
    return ", ".join("ZYX"[-dims:])
