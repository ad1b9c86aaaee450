"""A validated config as YAML for people: every key, or only those that differ from the defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.fields import FieldInfo

from unet.config.run import Config
from unet.config.schema import default_in_words
from unet.config.section_base import Section
from unet.config.sections import ModelSection, TrainSection
from unet.config.sweep import collapsed


def as_yaml(config: Config, *, changed: bool = False) -> str:
    """The config as YAML; reading it back gives the same config.

    A comment after each key that differs from its default says the default.

    Args:
        changed: leave out the keys that have their defaults.
    """
    return "\n".join(_lines(collapsed(config), 0, changed, chosen_keys(config))) + "\n"


def changed_keys(config: Config) -> list[tuple[str, str, str]]:
    """Key (as ``models.plain.width``), value and default of what differs from the defaults, each in
    a line; "given" for what has no default."""
    return list(_changed_keys(collapsed(config), "", chosen_keys(config)))


def _changed_keys(section: Section, path: str, hidden: set[str]) -> Iterator[tuple[str, str, str]]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if name in hidden and isinstance(section, TrainSection):
            continue
        if _is_default(field, value):
            continue
        if isinstance(value, Section):
            yield from _changed_keys(value, f"{path}{name}.", hidden)
        elif isinstance(value, Mapping) and any(isinstance(v, Section) for v in value.values()):
            for key, part in value.items():
                yield from _changed_keys(part, f"{path}{name}.{key}.", hidden)
        elif comment := _comment(section, name, field, value):
            default = comment.removeprefix("  # ").removeprefix("default: ")
            yield f"{path}{name}", _flow(_plain(section, name)), default


def _is_default(field: FieldInfo, value: Any) -> bool:
    """Whether a whole section is the one that stands where none is written, such as a split: its
    keys may differ from their own defaults."""
    return isinstance(value, Section) and bool(
        value == field.get_default(call_default_factory=True)
    )


def chosen_keys(config: Config) -> set[str]:
    """Keys of train whose default depends on others: written out, they would look as if they were
    given. (Planning also leaves them out when it writes the config of a run.)"""
    chosen: set[str] = set()
    if any(model.preset == "auto" for model in config.models.values()):
        chosen |= {"patch", "batch"}
    if any(config.start_for(d, m) for d in config.datasets for m in config.trained_for(d)):
        chosen.add("lr")
    return chosen - config.train.model_fields_set


def _lines(section: Section, level: int, changed: bool, hidden: set[str]) -> Iterator[str]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if name in hidden and isinstance(section, TrainSection):
            continue
        if changed and _is_default(field, value):
            continue
        if isinstance(value, Section):
            yield from _block(name, _lines(value, level + 1, changed, hidden), level, value, field)
        elif isinstance(value, Mapping) and any(isinstance(v, Section) for v in value.values()):
            yield f"{'  ' * level}{name}:"
            for key, part in value.items():
                inner = _lines(part, level + 2, changed, hidden)
                yield from _block(key, inner, level + 1, part, None)
        else:
            comment = _comment(section, name, field, value)
            if comment or not changed:
                yield f"{'  ' * level}{name}: {_flow(_plain(section, name))}{comment}"


def _block(
    name: str, inner: Iterator[str], level: int, value: Section, field: FieldInfo | None
) -> Iterator[str]:
    """A section's key and lines. One without lines is left out, unless it is there only because it
    was given: as an entry of a mapping, or in place of null."""
    lines = list(inner)
    title = f"{'  ' * level}{_flow(name)}:"
    if lines:
        yield title
        yield from lines
    elif field is None or field.default is None:
        yield f"{title} {{}}"


def _comment(section: Section, name: str, field: FieldInfo, value: Any) -> str:
    if field.is_required():
        return "  # given"
    default = field.get_default(call_default_factory=True)
    if value == default:
        return ""
    words = default_in_words(type(section), name)
    if not words or len(words) > 40:  # a sentence would not read well here
        if default is None and isinstance(section, ModelSection):
            words = "the preset's"
        else:
            words = "none" if default in (None, {}, ()) else _flow(_json(default))
    return f"  # default: {words}"


def _plain(section: Section, name: str) -> Any:
    return section.model_dump(mode="json", include={name})[name]


def _json(value: Any) -> Any:
    if isinstance(value, tuple | list | frozenset | set):
        return [_json(part) for part in value]
    return value


def _flow(value: Any) -> str:
    """A value on one line."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**9)
    return text.removesuffix("\n").removesuffix("\n...")
