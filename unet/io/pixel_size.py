"""Pixel sizes as declared in files: converts their units and rejects impossible values. Light."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

# Micrometres per unit, as OME-XML, OME-Zarr and ImageJ spell them (after NFKC, in lower case).
UNITS_UM: Mapping[str, float] = {
    "fm": 1e-9, "femtometer": 1e-9,
    "pm": 1e-6, "picometer": 1e-6, "picometre": 1e-6,
    "å": 1e-4, "angstrom": 1e-4,
    "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3,
    "um": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "thou": 25.4, "pt": 25_400 / 72,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3,
    "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4,
    "in": 25_400.0, "inch": 25_400.0, "inches": 25_400.0,
    "dm": 1e5, "decimeter": 1e5, "decimetre": 1e5,
    "ft": 304_800.0, "foot": 304_800.0,
    "m": 1e6, "meter": 1e6, "metre": 1e6,
    "km": 1e9, "kilometer": 1e9, "kilometre": 1e9,
}  # fmt: skip
# Units of OME-XML are case-sensitive: Mm is a megametre, mm a millimetre.
_BY_CASE = {"Mm": 1e12, "Pm": 1e21}
# Units that mean that the pixels have no physical size.
_UNCALIBRATED = ("", "pixel", "pixels", "px", "reference frame", "none")
_PRINT = ("in", "inch", "inches")

# Pixels of light and electron microscopes are smaller; larger values come from "72 dpi".
LARGEST_UM = 20.0
# No instrument has smaller or larger pixels (1 pm, 1 m).
POSSIBLE_UM = (1e-6, 1e6)
# Resolutions of screens and printers, which some software writes into uncalibrated files.
_DPI = (72, 96, 100, 120, 144, 150, 200, 300, 600)
# Largest ratio of a pixel's sides, and of an image's pixel size to the median of its dataset.
UNLIKE = 4.0


@dataclass(frozen=True)
class Declared:
    """The size along one axis, as the file declares it.

    Attributes:
        axis: Z, Y or X.
        value: of any type; None = not declared.
        unit: as spelt in the file; None = not given.
        printed: from tags meant for printers: only sizes that a microscope can have are used.
    """

    axis: str
    value: Any
    unit: str | None
    printed: bool = False


def micrometres(size: float, unit: str | None) -> float | None:
    """A length in micrometres; None for an unknown unit or a size that is not positive."""
    factor = _factor(unit)
    if factor is None or not math.isfinite(size) or size <= 0:
        return None
    return float(size) * factor


def _factor(unit: str | None) -> float | None:
    # ImageJ escapes the micro sign; a wrong encoding puts an A with a circumflex in front of it.
    text = (unit or "").replace("\\u00B5", "µ").replace("Âµ", "µ").strip()
    # This makes the letter mu and the micro sign equal, and the two ways to write an angstrom.
    plain = unicodedata.normalize("NFKC", text)
    return _BY_CASE.get(plain, UNITS_UM.get(plain.lower()))


def read_sizes(declared: Iterable[Declared], axes: str) -> tuple[dict[str, float], tuple[str, ...]]:
    """The plausible sizes, and a warning for each impossible one.

    Args:
        axes: of the file; for a single plane the size along Z does not matter.

    Returns:
        axis -> micrometres, for the axes whose size is known; warnings.
    """
    sizes: dict[str, float] = {}
    problems: dict[str, list[str]] = {}
    for one in declared:
        size, problem = _usable_size(one)
        if size is not None:
            sizes[one.axis] = size
        if problem and one.axis in axes:
            problems.setdefault(problem, []).append(one.axis)
    warnings = [f"pixel size along {', '.join(axes)}: {text}" for text, axes in problems.items()]
    if {"Y", "X"} <= set(sizes):
        low, high = sorted((sizes["Y"], sizes["X"]))
        if high >= UNLIKE * low:
            warnings.append(
                f"pixels of {sizes['Y']:g} x {sizes['X']:g} um (Y x X) are far from square; "
                "if that is wrong, write pixel_size_um"
            )
    return sizes, tuple(warnings)


def _usable_size(one: Declared) -> tuple[float | None, str]:
    """Micrometres, or None if the size is missing or unusable; and what is wrong, or ""."""
    if one.value is None:
        return None, ""
    try:
        value = float(one.value)
    except (TypeError, ValueError):
        value = math.nan
    unit = (one.unit or "").strip()
    found = f"the file says {_text(one.value)} {unit}".rstrip()
    ignored = "it is ignored; write pixel_size_um"
    if unit.lower() in _UNCALIBRATED:
        # Uncalibrated files have a size of 1.
        return None, "" if value == 1 or unit else f"{found} without a unit: {ignored}"
    if _factor(unit) is None:
        return None, f"{found}, an unknown unit: {ignored}"
    size = micrometres(value, unit)
    if size is None or not POSSIBLE_UM[0] <= size <= POSSIBLE_UM[1]:
        return None, f"{found}, which is impossible: {ignored}"
    if size < LARGEST_UM:
        return size, ""
    found = f"the file says {size:.4g} um"
    if dots := _dots(size):
        found += f" ({dots} dots per inch, as of a screen or printer)"
    if one.printed or unit.lower() in _PRINT:
        return None, f"{found}: {ignored}"
    return size, f"{found}, large for a microscope; if that is wrong, write pixel_size_um"


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)[:40]


def _dots(size: float) -> int | None:
    return next((dpi for dpi in _DPI if abs(size * dpi / 25_400 - 1) < 2e-3), None)


def partly_known(sizes: Mapping[str, float], axes: str) -> str:
    """A warning if some axes have a size and others have none (then none is used); otherwise "".

    Args:
        axes: the spatial axes of the image, such as "ZYX".
    """
    known, missing = [a for a in axes if a in sizes], [a for a in axes if a not in sizes]
    if not known or not missing:
        return ""
    found = ", ".join(f"{sizes[axis]:g} um along {axis}" for axis in known)
    return (
        f"pixel size: {found}, but none along {', '.join(missing)}: it is treated as unknown; "
        "write pixel_size_um"
    )


def unlike_others(sizes: Sequence[tuple[float, ...] | None], least: int = 3) -> list[str]:
    """Warnings for images whose pixel size is far from that of the others in their dataset.

    Args:
        sizes: micrometres along the axes of each image, X last; None = unknown.
        least: fewer known sizes than this have no meaningful median.

    Returns:
        a warning for each image whose size along X differs from the median by a factor of
        ``UNLIKE`` or more; "" for the others.
    """
    known = [size[-1] for size in sizes if size]
    if len(known) < least:
        return [""] * len(sizes)
    usual = median(known)
    warnings = []
    for size in sizes:
        own = size[-1] if size else usual
        factor = max(own / usual, usual / own)
        far = f"pixels of {own:.4g} um, {factor:.3g} times {'more' if own > usual else 'less'} than"
        wrong = "the median of the images; if that is wrong, fix the file or write pixel_size_um"
        warnings.append(f"{far} {wrong}" if factor >= UNLIKE else "")
    return warnings
