"""The JSON schema of the config: for editors, and for the table of Snakemake's workflow catalog.

A run is checked by :func:`unet.config.load.load`, which also checks keys against each other.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from unet.config.choices import OneOf
from unet.config.presets import PRESETS
from unet.config.recipes import RECIPE_TABLE
from unet.config.run import Config
from unet.config.section_base import Section, Shown, sections_of
from unet.config.sections import ModelSection, TrainSection


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a whole config."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Config of a run",
        "description": f"{Config.__doc__} config/README.md has the same keys as tables. `null`, "
        "which unsets a key of a file below, is left out of this schema.",
        **_section(Config),
    }


def _section(kind: type[Section]) -> dict[str, Any]:
    plain = kind.model_json_schema()["properties"]
    properties = {}
    for name, field in kind.model_fields.items():
        value = _holds_section(field) if sections_of(field.annotation) else _plain_key(plain[name])
        properties[name] = {**value, "description": description(kind, name)}
    required = [name for name, field in kind.model_fields.items() if field.is_required()]
    found = {"type": "object", "additionalProperties": False, "properties": properties}
    if kind is TrainSection:  # `train: <recipe>`
        recipes = {"if": {"type": "string"}, "then": {"enum": list(RECIPE_TABLE)}}
        found |= {"type": ["object", "string"], **recipes}
    return {**found, "required": required} if required else found


def _plain_key(made: dict[str, Any]) -> dict[str, Any]:
    """A key's schema from Pydantic, in a shorter form."""
    if "x-changes" in made:
        return {"$ref": f"#/properties/{made['x-changes']}"}
    value = {key: part for key, part in made.items() if key != "title"}
    first, *others = value.get("anyOf", [{}])
    if others == [{"type": "null"}] and "type" in first:
        del value["anyOf"]
        value |= {**first, "type": [first["type"], "null"]}
        if "enum" in first:
            value["enum"] = [*first["enum"], None]
    return value


def _holds_section(field: FieldInfo) -> dict[str, Any]:
    """A section, sections by name, or a section that may be off."""
    (kind,) = sections_of(field.annotation)
    if get_origin(field.annotation) is dict:
        least = {"minProperties": 1} if field.is_required() else {}
        return {"type": "object", **least, "additionalProperties": _section(kind)}
    found = _section(kind)
    return {**found, "type": ["object", "null"]} if field.default is None else found


def text_of(kind: type[Section], name: str) -> str:
    """What a key does, in one line.

    Raises:
        TypeError: the key has no docstring.
    """
    text = kind.model_fields[name].description
    if not text:
        raise TypeError(f"{kind.__name__}.{name}: write a docstring that says what this key does")
    return " ".join(text.split())


def description(kind: type[Section], name: str) -> str:
    """What a key does, with its named values and with a default that is given in words."""
    parts = [text_of(kind, name)]
    if table := table_of(kind.model_fields[name]):
        parts += [f"`{value}`: {entry.line}." for value, entry in table.items()]
    if words := default_in_words(kind, name):
        parts.append(f"Default: {words}.")
    return " ".join(parts)


def shown(field: FieldInfo) -> Shown:
    """The parts of the key's row that cannot be derived."""
    return next((part for part in field.metadata if isinstance(part, Shown)), Shown())


def table_of(field: FieldInfo) -> Any:
    """The table of the names that a key takes; None for other keys."""
    parts: list[Any] = [*field.metadata, field.annotation]
    while parts:
        part = parts.pop()
        if isinstance(part, OneOf):
            return part.table
        parts += get_args(part)
    return None


def default_in_words(kind: type[Section], name: str) -> str:
    """A default that depends on other things, in words; "" if the key has a plain default."""
    words = shown(kind.model_fields[name]).default
    return words or (_default_of_presets(name) if kind is ModelSection else "")


def _default_of_presets(name: str) -> str:
    """The values of a network option in the presets that have it."""
    presets: dict[str, list[str]] = {}
    for preset, arch in PRESETS.items():
        if name in {field.name for field in fields(arch)}:
            presets.setdefault(in_yaml(getattr(arch, name)), []).append(preset)
    if len(presets) == 1 and len(*presets.values()) > 1:
        return next(iter(presets))
    return "; ".join(f"{value} for {', '.join(names)}" for value, names in presets.items())


def in_yaml(value: Any) -> str:
    """A value as it is written in the config."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return f"`{json.dumps(value)}`"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)
