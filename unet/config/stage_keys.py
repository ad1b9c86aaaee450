"""How a section of the config is written into a stage's settings, and into the hashes of them.

New keys are written only if they differ from their default, so that a new key reruns nothing. The
settings of finished runs contain all keys that existed when their stage's version was made. So
these keys, listed in ``stage_keys.json`` with their defaults, are always written. A new key needs
no entry there. ``tests/config/test_stage_keys.py`` checks that the defaults do not change; ``make
stage-hashes`` lists the keys again if a stage's version was raised.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import MISSING, asdict, is_dataclass
from dataclasses import fields as fields_of
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

TABLE = Path(__file__).with_suffix(".json")
# The default of a key that has none.
REQUIRED = object()


@cache
def table() -> dict[str, Any]:
    """stage -> ``version``; ``keys`` (class -> key -> default), which are always written; and
    ``later``: the same for keys that were added since, to check their defaults."""
    read: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return read


def written_keys(stage: str, section: Any, *, without: Collection[str] = ()) -> dict[str, Any]:
    """The keys of a section that are written into a stage's settings.

    Args:
        section: a section of the config, or a dataclass of plain values such as an architecture.
        without: keys to leave out.

    Returns:
        plain values by key; those of a section as in JSON.
    """
    # A subclass that adds keys is written like its base class.
    always = _always(stage, *(kind.__name__ for kind in type(section).__mro__))
    plain = _plain(section)
    found = {}
    for name, default in defaults(type(section)):
        if name in without:
            continue
        value = getattr(section, name)
        if name in always or value != default:
            found[name] = (
                written_keys(stage, value) if isinstance(value, BaseModel) else plain[name]
            )
    return found


def defaults(kind: type[Any]) -> Iterator[tuple[str, Any]]:
    """The keys of a class with their defaults; REQUIRED for keys without one."""
    if issubclass(kind, BaseModel):
        for name, info in kind.model_fields.items():
            required = info.is_required()
            yield name, REQUIRED if required else info.get_default(call_default_factory=True)
        return
    for field in fields_of(kind):
        made = field.default if field.default_factory is MISSING else field.default_factory()
        yield field.name, REQUIRED if made is MISSING else made


@cache
def _always(stage: str, *names: str) -> frozenset[str]:
    """The keys that are always written, for the first of these classes that is listed."""
    known = table()[stage]["keys"]
    return frozenset(next((known[name] for name in names if name in known), ()))


def _plain(section: Any) -> dict[str, Any]:
    if isinstance(section, BaseModel):
        return section.model_dump(mode="json")
    if not is_dataclass(section) or isinstance(section, type):
        raise TypeError(f"neither a section nor a dataclass: {section!r}")
    return asdict(section)
