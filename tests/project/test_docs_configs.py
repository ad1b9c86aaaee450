"""Each whole config in the pages loads: those of the how-tos, and all others that name datasets and
models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.project.test_docs_commands import blocks
from unet.config.load import load

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "config" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
HOWTOS = [path for path in PAGES if path.parent.name == "howto" and path.stem != "index"]


def configs(path: Path) -> list[dict[str, Any]]:
    """Blocks in YAML that name datasets."""
    texts = [text for language, text in blocks(path.read_text("utf-8")) if language == "yaml"]
    return [found for text in texts if "datasets" in (found := yaml.safe_load(text) or {})]


WHOLE = [
    pytest.param(config, id=f"{path.relative_to(ROOT)}-{number}")
    for path in PAGES
    for number, config in enumerate(configs(path))
    if "models" in config or path in HOWTOS
]


@pytest.mark.parametrize("config", WHOLE)
def test_a_config_loads(config: dict[str, Any]) -> None:
    found = load(config)
    assert found.datasets
    assert found.models


@pytest.mark.parametrize("path", HOWTOS, ids=lambda path: path.stem)
def test_a_how_to_has_a_whole_config(path: Path) -> None:
    found = configs(path)
    assert [config["output"] for config in found]
    assert 30 <= len(path.read_text("utf-8").splitlines()) <= 80


def test_the_list_of_how_tos_is_whole() -> None:
    index = (ROOT / "docs" / "howto" / "index.md").read_text("utf-8")
    assert [path.name for path in HOWTOS if f"]({path.name})" not in index] == []
    assert len(HOWTOS) >= 10
