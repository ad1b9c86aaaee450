"""Each kind of name has one table: the config's table and the code have the same names, and pages
of docs/ that list the names list all of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from unet.config import choices
from unet.config.choices import Entry
from unet.config.engine_table import ENGINE_TABLE
from unet.config.export_section import WEIGHTS_TABLE
from unet.config.heads import HEADS
from unet.config.load import load
from unet.config.loss_table import LOSS_TABLE
from unet.config.presets import ARCHITECTURES, PRESET_TABLE
from unet.config.recipes import RECIPE_TABLE
from unet.config.run import Config, merge
from unet.config.schema import table_of
from unet.config.section_base import Section, sections_of
from unet.config.sections import TrainSection
from unet.data.layouts import LAYOUTS
from unet.data.normalize import NORMALIZE_METHODS
from unet.data.synthetic import KINDS
from unet.errors import UserError
from unet.evaluation.families import FAMILIES
from unet.io.formats import READERS
from unet.models.engines import ENGINES
from unet.models.zoo_package import CONVERT
from unet.prediction.objects.methods import METHODS
from unet.training.losses import LOSSES
from unet.training.patch_targets import MAPS, TARGETS
from unet.training.schedule import OPTIMIZERS, SCHEDULES

DOCS = Path(__file__).resolve().parents[2] / "docs"

# The classes of task instances: a head that learns them needs no target of its own.
INSTANCE_CLASSES = ("background", "foreground")
CHOICES = "unet/config/choices.py"
# What a table names -> the table, its file, the code behind the names, its file.
CODE: dict[str, tuple[Mapping[str, Entry], str, Collection[str], str]] = {
    "loss": (LOSS_TABLE, "unet/config/loss_table.py", LOSSES, "unet/training/losses/__init__.py"),
    "schedule": (choices.SCHEDULE_TABLE, CHOICES, SCHEDULES, "unet/training/schedule.py"),
    "optimizer": (choices.OPTIMIZER_TABLE, CHOICES, OPTIMIZERS, "unet/training/schedule.py"),
    "family of metrics": (
        choices.FAMILY_TABLE, CHOICES, FAMILIES, "unet/evaluation/families.py",
    ),
    "layout": (choices.LAYOUT_TABLE, CHOICES, LAYOUTS, "unet/data/layouts.py"),
    "file format": (choices.FORMAT_TABLE, CHOICES, READERS, "unet/io/formats.py"),
    "kind of generated image": (
        choices.SYNTHETIC_TABLE, CHOICES, KINDS, "unet/data/synthetic/__init__.py",
    ),
    "normalisation": (
        choices.NORMALIZATION_TABLE, CHOICES, NORMALIZE_METHODS, "unet/data/normalize.py",
    ),
    "engine": (ENGINE_TABLE, "unet/config/engine_table.py", ENGINES, "unet/models/engines.py"),
    "method": (choices.METHOD_TABLE, CHOICES, METHODS, "unet/prediction/objects/methods.py"),
    "format of weights": (
        WEIGHTS_TABLE, "unet/config/export_section.py", CONVERT, "unet/models/zoo_package.py",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CODE)
def test_a_table_and_the_code_have_the_same_names(kind: str) -> None:
    table, config, code, registry = CODE[kind]
    missing = [name for name in table if name not in code]
    assert not missing, f"{registry}: the {kind} {', '.join(missing)} of {config} is missing"
    unknown = [name for name in code if name not in table]
    assert not unknown, f"{config}: the {kind} {', '.join(unknown)} of {registry} is missing"
    assert list(table) == list(code), f"{registry}: not in the order of {config}"


def test_what_heads_and_presets_need_exists() -> None:
    for name, head in HEADS.items():
        missing = set(head.maps) - set(MAPS)
        assert not missing, f"unet.training.patch_targets.MAPS: head {name} needs {sorted(missing)}"
        channels = (head.channels or INSTANCE_CLASSES)[: head.softmax]
        own = channels != INSTANCE_CLASSES
        assert own == (name in TARGETS), (
            f"patch_targets.TARGETS: head {name} {'lacks' if own else 'has'} its target"
        )
    for name, loss in LOSS_TABLE.items():
        missing = set(loss.maps) - set(MAPS)
        assert not missing, f"unet.training.patch_targets.MAPS: loss {name} needs {sorted(missing)}"
    for name, preset in PRESET_TABLE.items():
        if name == "auto":
            assert preset.architecture is None
            continue
        assert preset.architecture is not None, f"preset {name}: it has no architecture"
        assert ARCHITECTURES[preset.architecture.kind] is type(preset.architecture)


def keys_with_a_table(kind: type[Section] = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in kind.model_fields.items():
        if (table := table_of(field)) is not None:
            yield prefix + name, table
        for inner in sections_of(field.annotation):
            yield from keys_with_a_table(inner, f"{prefix}{name}.")


KEYS = dict(keys_with_a_table())


def test_each_table_belongs_to_a_key() -> None:
    found = {id(table) for table in KEYS.values()}
    tables = {kind: table for kind, (table, *_) in CODE.items() if kind != "file format"}
    tables |= {"head": HEADS, "preset": PRESET_TABLE, "recipe": RECIPE_TABLE}
    lost = [kind for kind, table in tables.items() if id(table) not in found]
    assert not lost, f"no key of the config takes its values from the table of {lost}"
    assert len(found) == len(tables)


@pytest.mark.parametrize("key", KEYS)
def test_each_name_says_in_a_line_what_it_is(key: str) -> None:
    for name, entry in KEYS[key].items():
        assert entry.text, f"{key}: {name} has no text"
        assert "\n" not in entry.line
        assert "|" not in entry.line
        assert not entry.line.endswith("."), f"{key}: {name}: no full stop at the end"


def test_keys_that_need_a_name_exist() -> None:
    """Keys that only some names read: those of the section that chooses the name, or of train."""
    for key, table in KEYS.items():
        section: Any = Config
        for part in key.split(".")[:-1]:
            (section,) = sections_of(section.model_fields[part].annotation)
        known = {*section.model_fields, *TrainSection.model_fields}
        for name, entry in table.items():
            unknown = set(entry.keys) - known
            assert not unknown, f"{key}: {name} lists keys that do not exist: {sorted(unknown)}"


def test_a_message_lists_the_names_of_the_table() -> None:
    sound: dict[str, Any] = {
        "datasets": {"d": {"synthetic": {"kind": "nuclei"}, "task": "instances"}},
        "models": {"m": {"preset": "unet-bn"}},
    }
    load(sound)
    for key, table in KEYS.items():
        over: Any = ["nothing"] if key in ("evaluate.metrics", "export.weights") else "nothing"
        path = key.replace("datasets.", "datasets.d.").replace("models.", "models.m.").split(".")
        for part in reversed(path):
            over = {part: over}
        with pytest.raises(UserError) as caught:
            load(merge(sound, over))
        (line,) = str(caught.value).splitlines()
        for name in table:
            assert repr(name) in line, (key, name, line)


# Pages with tables that describe the names in more detail: page, first cell of the table's heading,
# table.
LISTED: list[tuple[str, str, Mapping[str, Entry]]] = [
    ("training.md", "`loss`", LOSS_TABLE),
    ("training.md", "`schedule`", choices.SCHEDULE_TABLE),
    ("training.md", "recipe", RECIPE_TABLE),
    ("metrics.md", "family", choices.FAMILY_TABLE),
    ("models.md", "preset", {k: v for k, v in PRESET_TABLE.items() if v.architecture}),
]


@pytest.mark.parametrize(("page", "heading", "table"), LISTED, ids=lambda part: str(part)[:20])
def test_a_table_of_the_docs_has_a_row_for_each_name(
    page: str, heading: str, table: Mapping[str, Entry]
) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    start = text.index(f"\n| {heading} | ")
    rows = text[start:].strip().split("\n\n")[0].splitlines()[2:]
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
    missing = [name for name in table if name not in named]
    assert not missing, f"docs/{page}: the table of {heading} has no row for {', '.join(missing)}"
    unknown = [name for name in named if name not in table]
    assert not unknown, f"docs/{page}: the table of {heading} has rows for {', '.join(unknown)}"


# Pages that describe each name in prose.
DESCRIBED: list[tuple[str, Collection[str]]] = [
    ("data.md", choices.LAYOUT_TABLE),
    ("data.md", choices.FORMAT_TABLE),
    ("training.md", [f"head: {name}" for name in HEADS]),
    ("training.md", choices.OPTIMIZER_TABLE),
    ("prediction.md", [f"method: {name}" for name in choices.METHOD_TABLE]),
]


@pytest.mark.parametrize(("page", "names"), DESCRIBED, ids=lambda part: str(part)[:20])
def test_a_page_of_the_docs_describes_each_name(page: str, names: Collection[str]) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    missing = [name for name in names if f"`{name}`" not in text]
    assert not missing, f"docs/{page}: does not mention {', '.join(missing)}"
