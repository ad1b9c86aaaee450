"""Says in one line what is wrong with the values that a sweep or a learning curve lists, before
they are read as lists. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SWEEP = "such as {width: [16, 32], train.lr: [0.001, 0.0003]}"
_SHARES = "shares of the training images, 0.01 to below 1"
# A number from here on may be a percentage; 1.5 rather is a mistake.
_PERCENT = 2


def sweep_mistake(sweep: Any) -> str:
    """What is wrong with the form of ``sweep``; "" if each key has a list of values."""
    if not isinstance(sweep, Mapping):
        return f"write a list of values by key, {_SWEEP}"
    for key, values in sweep.items():
        if isinstance(values, Mapping):
            inner, value = _first(str(key), values)
            return f"{key}: write keys with dots, such as {inner}: {_as_list(value)}"
        if not isinstance(values, list | tuple):
            listed = f"{key}: {_as_list(values)} (got {values!r})"
            return f"{key}: write a list of the values to try, such as {listed}"
    return ""


def share_mistake(shares: Any) -> str:
    """What is wrong with the shares of a learning curve; "" if they can be read as numbers."""
    listed = isinstance(shares, list | tuple)
    given = list(shares) if listed else [shares]
    if listed and all(_is_share(each) for each in given):
        return ""
    # Beside a share, a number above 1 is no percentage.
    whole = not any(_is_share(each) for each in given)
    known = [_meant(each, whole) for each in given]
    proposed = sorted({share for share in known if share is not None} - {1.0}) or [0.25, 0.5]
    if len(proposed) == 1 and proposed[0] >= 0.02:
        proposed.insert(0, proposed[0] / 2)
    return f"write a list of {_SHARES}, such as {proposed} (got {shares!r})"


def _is_share(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and 0.01 <= float(value) < 1
    except (TypeError, ValueError):
        return False


def _meant(value: Any, percentages: bool) -> float | None:
    """The share that someone may mean: "25%" is 0.25, and so is 25.

    Args:
        percentages: whether a number without a sign may be a percentage.
    """
    text = str(value).strip()
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        return None
    if text.endswith("%") or (percentages and number >= _PERCENT):
        number /= 100
    return number if 0.01 <= number <= 1 else None


def _first(key: str, values: Mapping[Any, Any]) -> tuple[str, Any]:
    """The first dotted key of nested ones, and what it has."""
    for name, value in values.items():
        dotted = f"{key}.{name}"
        return _first(dotted, value) if isinstance(value, Mapping) else (dotted, value)
    return f"{key}.<key>", None


def _as_list(value: Any) -> str:
    """The value, or values, as a list to write in YAML."""
    if isinstance(value, list | tuple):
        return _yaml(value)
    if isinstance(value, bool):
        return "[true, false]"
    if isinstance(value, int | float):
        return f"[{value}, {2 * value}]"
    if isinstance(value, str):
        return f"[{value}]" if "," in value else f"[{value}, ...]"
    return "[...]"


def _yaml(value: Any) -> str:
    """A list as it is written in YAML, on one line."""
    import yaml

    return str(yaml.safe_dump(value, default_flow_style=True, width=10**9)).strip()
