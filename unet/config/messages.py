"""Turns Pydantic's errors about a config into one line per mistake: the key, what is allowed, what
was found.

:mod:`unet.config.checks` finds mistakes that involve several sections.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from unet.config.export_section import PATTERN_WORDS
from unet.config.run import Config
from unet.config.section_base import sections_of
from unet.errors import did_you_mean, one_line

# Sections that a dataset or a model may override.
OVERRIDES = ("prepare", "train", "predict", "stitch", "evaluate", "export")

# Replacements for Pydantic's messages that are about Python and not about the file.
_WORDS = {
    "model_type": "must have keys of its own, each on an indented line below",
    "dict_type": "must have keys of its own, each on an indented line below",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "tuple_type": "must be a list, such as [a, b]",
    "extra_forbidden": "unknown key",
    "missing": "this key is needed",
    "string_too_short": "must not be empty",
}

# Lists with too few or too many entries: word, and where Pydantic gives the limit.
_LENGTHS = {"too_short": ("least", "min_length"), "too_long": ("most", "max_length")}

# Other names that people know for keys: no letters in common, so no spelling would find them.
# A key that has such a name in another section is meant as that key.
SYNONYMS = {
    "learning_rate": "lr",
    "batch_size": "batch",
    "patch_size": "patch",
    "features": "width",
    "channels": "width",
    "levels": "depth",
    "dimensions": "dims",
}

# A config with 100 datasets has a few thousand values, four levels deep.
_MOST_VALUES, _MOST_LEVELS = 100_000, 50
# Most characters of a value in a message; the longest message lists the choices of a key.
_LONGEST = 400


def too_large(raw: Any) -> str:
    """Says why a raw config is too large or too deep to be processed; "" if it is not.

    A YAML alias takes a few characters, but may stand for a structure of any size (ten times ten
    times ten ..., or one that contains itself), which the first copy would write out in full.
    """
    sizes: dict[int, int] = {}

    def size(value: Any, level: int) -> int:
        if not isinstance(value, Mapping | list | tuple | set):
            return 1
        if level > _MOST_LEVELS:
            raise ValueError(f"nested deeper than {_MOST_LEVELS} levels")
        if id(value) not in sizes:
            parts = [*value, *value.values()] if isinstance(value, Mapping) else list(value)
            sizes[id(value)] = 1 + sum(size(part, level + 1) for part in parts)
        if sizes[id(value)] > _MOST_VALUES:
            raise ValueError(f"more than {_MOST_VALUES} values (aliases written out)")
        return sizes[id(value)]

    try:
        size(raw, 0)
    except ValueError as error:
        return str(error)
    return ""


def _located(loc: tuple[int | str, ...], raw: Any) -> tuple[tuple[str, ...], Any]:
    """The key and value of a mistake, without the names that Pydantic gives to the alternatives of
    a key (a number or ``auto``)."""
    key: list[str] = []
    for depth, part in enumerate(loc):
        last = depth == len(loc) - 1
        if isinstance(raw, Mapping) and (part in raw or (last and raw is not None)):
            if part not in raw and str(part).startswith(("[", "tuple", "literal", "constrained")):
                break
            # Pydantic gives a key that YAML read as true or false as a number.
            key.append(str(next((name for name in raw if name == part), part)))
            raw = raw.get(part)
        elif isinstance(raw, list | tuple) and isinstance(part, int) and part < len(raw):
            key.append(str(part))
            raw = raw[part]
        elif isinstance(raw, Mapping) and str(part).startswith("dict["):
            continue
        else:
            break
    return tuple(key), raw


def lines_of(error: ValidationError, raw: Any, prefix: tuple[str, ...] = ()) -> list[str]:
    """One line per mistake: the key, what is wrong, the value that was found.

    Args:
        raw: the mapping that was validated.
        prefix: key of that mapping in the config.
    """
    found: dict[str, tuple[list[str], str]] = {}
    nears: dict[str, str] = {}
    items = error.errors(include_url=False)
    mappings = _mappings(items)
    for item in items:
        if item["type"] == "tuple_type" and item["loc"][:-1] in mappings:
            continue  # it may be a list or a mapping, and is a mapping
        if item["type"] == "too_short" and len(items) > 1 and item["input"]:
            continue  # the list is not too short, its entries are wrong
        where, value = _located(item["loc"], raw)
        if item["loc"][-1:] == ("[key]",):
            name = where[-1] if where else "name"
            advice = f"write it in quotes, such as '{name}'"
            if name in ("True", "False"):
                read = "YAML reads yes, no, on and off as true or false"
                advice = f"{read}; write it in quotes, such as 'no'"
            messages = [f"a name must be text; {advice}"]
            found[".".join([*prefix, *where])] = (messages, "")
            continue
        message = _WORDS.get(item["type"], item["msg"]).removeprefix("Value error, ")
        if item["type"] in _LENGTHS:
            word, limit = _LENGTHS[item["type"]]
            number = item["ctx"][limit]
            message = f"must name at {word} {'one' if number == 1 else number}"
        message = re.sub("(Input|String) should ", "must ", message).split(", unable to ")[0]
        if item["type"] == "string_pattern_mismatch":
            message = PATTERN_WORDS.get(item["ctx"]["pattern"], message)
        if item["type"] == "extra_forbidden":
            message += _known_key((*prefix, *where))
        elif item["type"] == "literal_error" and isinstance(value, str):
            near = did_you_mean(value, re.findall("'([^']+)'", item["ctx"]["expected"]))
            nears[".".join([*prefix, *where])] = near
        plain = item["type"] in ("extra_forbidden", "missing", "value_error")
        key = ".".join([*prefix, *where]) or "config"
        messages, _ = found.setdefault(key, ([], "" if plain else f" (got {_shown(value)})"))
        # A second message for the same key is about another alternative.
        message = message.removeprefix("must ").removeprefix("be ") if messages else message
        messages.append(one_line(message, _LONGEST))
    return [
        f"config: {one_line(key, _LONGEST)}: {' or '.join(texts)}{got}{nears.get(key, '')}"
        for key, (texts, got) in found.items()
    ]


def _mappings(items: Sequence[Any]) -> set[tuple[int | str, ...]]:
    """Keys that may be a list or a mapping, and are a mapping: mistakes were found in it."""
    return {
        item["loc"][:place]
        for item in items
        for place, part in enumerate(item["loc"][:-1])
        if str(part).startswith("dict[")
    }


def _known_key(path: tuple[str, ...]) -> str:
    """Suggests a replacement for an unknown key: a similar key of its section, or the same key in
    another section."""
    *above, key = path
    section: Any = Config
    for part in above:
        if part in OVERRIDES:
            section = Config  # overrides in a dataset or model have the keys of the top level
        field = section.model_fields.get(part)
        if field is None:
            # A dataset's or a model's name.
            continue
        section = next(iter(sections_of(field.annotation)), section)
    elsewhere = _elsewhere(key)
    if not elsewhere and SYNONYMS.get(key) in section.model_fields:
        return f"; did you mean {SYNONYMS[key]}?"
    if near := did_you_mean(key, section.model_fields):
        return near
    return f"; did you mean {elsewhere}?" if elsewhere else "; config/README.md lists all keys"


def _elsewhere(key: str) -> str:
    """The key of this name in a section of the config; "" if there is none."""
    for name, field in Config.model_fields.items():
        for inner in sections_of(field.annotation):
            if key in inner.model_fields:
                named = ".<name>" if name in ("datasets", "models") else ""
                return f"{name}{named}.{key}"
    return ""


def _shown(value: Any) -> str:
    """A value, shortened to fit a message."""
    return one_line(repr(value), _LONGEST)
