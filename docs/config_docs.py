"""Writes what is derived from the config's classes: the tables of config/README.md and the JSON
schema. Run by ``make config-docs``; ``tests/config/test_config_docs.py`` finds what is out of date.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from unet.config.run import Config
from unet.config.schema import default_in_words, in_yaml, schema, shown, table_of, text_of
from unet.config.section_base import Section, sections_of

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "config" / "README.md"
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
# `<!-- keys of SECTION -->` (a dotted key; `run` for the keys of the run as a whole) up to the end.
BLOCK = re.compile(r"(<!-- keys of (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
COLUMNS = (
    "| key | values | default | what it does, when to change it | from |\n|---|---|---|---|---|\n"
)


def pages() -> dict[Path, str]:
    """Each file as it should be."""
    heading = (
        "# Made from unet/config by `make config-docs`; edit the docstrings of the keys there.\n"
    )
    text = yaml.safe_dump(schema(), sort_keys=False, width=98, allow_unicode=True)
    return {README: readme(README.read_text(encoding="utf-8")), SCHEMA: heading + text}


def readme(text: str) -> str:
    """config/README.md with its tables made from the config's classes."""
    return BLOCK.sub(lambda found: found[1] + _tables(found[2]) + found[3], text)


def _tables(path: str) -> str:
    """The rows of a section's keys, and the names that some of them take."""
    kind: type[Section] = Config
    prefix = "" if path == "run" else f"{path}."
    for part in path.split(".") if prefix else ():
        if part != "<name>":
            (kind,) = sections_of(kind.model_fields[part].annotation)
    made = kind.model_json_schema()["properties"]
    names = [n for n, f in kind.model_fields.items() if prefix or not sections_of(f.annotation)]
    rows = [_row(kind, name, prefix, made[name]) for name in names]
    tables = [COLUMNS + "".join(rows)]
    for name in names:
        if table := table_of(kind.model_fields[name]):
            lines = [f"| {value} | {_cell(entry.line)} |\n" for value, entry in table.items()]
            tables.append(f"| {prefix}{name} | what it is |\n|---|---|\n" + "".join(lines))
    return "\n".join(tables)


def _row(kind: type[Section], name: str, prefix: str, made: dict[str, Any]) -> str:
    field, words = kind.model_fields[name], shown(kind.model_fields[name])
    inner = bool(sections_of(field.annotation))
    values = words.values or ("mapping, see below" if inner else values_of(made))
    default = default_in_words(kind, name) or _default(made)
    cells = [values, default, text_of(kind, name), words.reruns or kind.reruns]
    return f"| `{prefix}{name}` | {' | '.join(_cell(cell) for cell in cells)} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _default(made: dict[str, Any]) -> str:
    if "default" not in made:
        return "needed"
    value = made["default"]
    if isinstance(value, list):
        return ", ".join(value)
    if isinstance(value, dict):
        return "empty" if not value else ""
    return in_yaml(value) if value or value in (0, None) else "empty"


def values_of(made: dict[str, Any]) -> str:
    """The values that a JSON schema allows, in words."""
    if "anyOf" in made:
        parts = [values_of(part) for part in made["anyOf"] if part != {"type": "null"}]
        # Where null is the default, its cell shows that it is a value.
        takes_null = {"type": "null"} in made["anyOf"] and made.get("default") is not None
        return ", or ".join([*parts, "null"] if takes_null else parts)
    if "const" in made:
        return in_yaml(made["const"])
    if "enum" in made:
        return ", ".join(in_yaml(value) for value in made["enum"])
    match made["type"]:
        case "boolean":
            return "true, false"
        case "integer" | "number":
            return ", ".join(filter(None, [made["type"], _range(made)]))
        case "array":
            return f"list of {values_of(made['items'])}"
        case "object":
            return "mapping"
    return "text"


def _range(made: dict[str, Any]) -> str:
    least, above = made.get("minimum"), made.get("exclusiveMinimum")
    most, below = made.get("maximum"), made.get("exclusiveMaximum")
    if made["type"] == "integer":
        least = above + 1 if above is not None else least
        most = below - 1 if below is not None else most
        above = below = None
    low = f"above {above:g}" if above is not None else "" if least is None else f"{least:g}"
    if below is not None:
        return f"{low}{' to ' if least is not None else ', '}below {below:g}"
    if most is not None:
        return f"{low} to {most}" if least is not None else f"{low}, at most {most:g}"
    return f"{low} or more" if least is not None else low


if __name__ == "__main__":
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
