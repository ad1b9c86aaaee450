"""The tables of config/README.md and the JSON schema, which are made from the config's classes, are
up to date, and the schema accepts what a run accepts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from docs import config_docs
from tests.config.test_config import BASE, KEYS, MISTAKES
from unet.config.run import Config, merge
from unet.config.schema import text_of
from unet.config.section_base import Section, sections_of

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    ROOT / "config" / "config.yaml",
    ROOT / ".test" / "config" / "config.yaml",
    *sorted((ROOT / "config" / "examples").glob("*.yaml")),
]
SCHEMA = yaml.safe_load(config_docs.SCHEMA.read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)


@pytest.mark.parametrize("path", config_docs.pages(), ids=lambda path: path.name)
def test_it_is_up_to_date(path: Path) -> None:
    made = config_docs.pages()[path]
    assert path.read_text(encoding="utf-8") == made, (
        f"{path.relative_to(ROOT)}: run make config-docs"
    )


def test_each_section_has_its_place_in_the_readme() -> None:
    def places(kind: type[Section], prefix: str) -> list[str]:
        found = [prefix]
        for name, field in kind.model_fields.items():
            named = getattr(field.annotation, "__origin__", None) is dict
            for inner in sections_of(field.annotation):
                key = f"{prefix}.{name}".removeprefix("run.") + (".<name>" if named else "")
                found += places(inner, key)
        return found

    blocks = [found[2] for found in config_docs.BLOCK.finditer(config_docs.README.read_text())]
    assert sorted(blocks) == sorted(places(Config, "run"))


def test_a_key_without_a_text_is_named() -> None:
    class Silent(Section):
        width: int = 3

    with pytest.raises(TypeError, match=r"Silent.width: write a docstring"):
        text_of(Silent, "width")


# The schema.


def property_of(key: str) -> dict[str, Any]:
    """The schema of a key, `datasets.<name>.images`."""
    found: dict[str, Any] = SCHEMA
    for part in key.split("."):
        found = found["additionalProperties"] if part == "<name>" else found["properties"][part]
    return found


def test_the_schema_is_valid() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("key", KEYS)
def test_each_key_has_a_description_and_a_type(key: str) -> None:
    found = property_of(key)
    assert len(found["description"]) > 10
    assert found.keys() & {"type", "anyOf", "enum", "$ref"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_configs_of_the_project_fit_the_schema(path: Path) -> None:
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert [error.message for error in VALIDATOR.iter_errors(raw)] == []
    wrong = merge(raw, {"train": {"lrr": 1}})
    assert ["lrr" in error.message for error in VALIDATOR.iter_errors(wrong)] == [True]


def test_recipes_overrides_and_null_fit_the_schema() -> None:
    for over in (
        {"train": "nnunet"},
        {"models": {"m": {"train": "ronneberger2015"}}},
        {"datasets": {"d": {"train": {"recipe": "nnunet", "lr": 0.1}}}},
        {"train": {"clip_norm": None, "patience": None, "recipe": None}},
        {"predict": {"cluster": {}, "skip": None, "tile": [32, 64]}},
        {"stitch": {"ome_zarr": 0.4, "threshold": "auto"}},
    ):
        assert [
            e.message for e in VALIDATOR.iter_errors(merge({**BASE, "train": {}}, over))
        ] == [], over


# Mistakes that involve a single key: the schema does not compare keys.
ALONE = [
    over
    for over, _, says in MISTAKES
    if re.search("unknown key|did you mean|equal to|(greater|less) than|'speed'", " ".join(says))
    and "unet-w23" not in str(over)
]


@pytest.mark.parametrize("over", ALONE, ids=str)
def test_the_schema_refuses_what_one_key_has_wrong(over: dict[str, Any]) -> None:
    assert len(ALONE) > 25
    assert list(VALIDATOR.iter_errors(merge(BASE, over)))
