"""The combinations of a sweep's values, and the names of the models that try them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

Sweep = Mapping[str, Sequence[Any]]


def combinations(sweep: Sweep) -> list[dict[str, Any]]:
    """Every combination of the values: dotted key -> value, in the order written, the last key
    changing fastest; [] without a sweep."""
    if not sweep:
        return []
    return [dict(zip(sweep, values, strict=True)) for values in product(*sweep.values())]


def member_name(model: str, values: Mapping[str, Any]) -> str:
    """The name of the model that tries these values, such as ``unet-width16-lr0_001``.

    It may not be allowed as a name, or belong to another combination too:
    :mod:`unet.config.sweep` refuses both.
    """
    parts = []
    for key, value in values.items():
        text = value_text(value)
        # Words need a separator to be readable: loss_dice, but width16.
        mark = "" if text[:1].isdigit() else "_"
        parts.append(f"{key.rpartition('.')[2]}{mark}{text.replace('.', '_')}")
    return "-".join([model, *parts])


def value_text(value: Any) -> str:
    """A value in a name: ``0.001``, ``dice``, ``true``, ``32x64`` for a list."""
    if isinstance(value, list | tuple):
        return "x".join(map(value_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        # 1e-05 as 0.00001: the name of a folder is read by people.
        return f"{value:.12f}".rstrip("0").rstrip(".") if 1e-9 <= abs(value) < 1e9 else f"{value:g}"
    if isinstance(value, str) and re.fullmatch(r"[0-9.]+e-?[0-9]+", value):
        return value_text(float(value))  # YAML reads 1e-3 as text
    return "null" if value is None else str(value)


def members(model: str, sweep: Sweep) -> dict[str, dict[str, Any]]:
    """The models of a sweep: name -> its values, in the order written."""
    return {member_name(model, values): values for values in combinations(sweep)}
