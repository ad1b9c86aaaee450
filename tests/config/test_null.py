"""``null`` in a config unsets a key that was set before: for every key, in every section and in the
overrides of datasets and models."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from tests.config.test_config import BASE
from tests.rerun_rows import ROWS, Row, config_of
from unet.config.load import load
from unet.config.run import Config, merge
from unet.config.section_base import Section
from unet.config.sections import sections_of
from unet.errors import UserError

# Keys for which null is a value, but not the default.
VALUES = {("train", "clip_norm")}
OVERRIDES = ("prepare", "train", "predict", "stitch", "evaluate", "export")
OF_MODELS = ("train", "predict", "stitch", "export")
KEYS = [
    (section, key)
    for section in (*OVERRIDES, "report")
    for key in Config.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
]


def leaves(over: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in over.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def at(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return dict(value)


def without(config: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    inner = config = copy.deepcopy(config)
    for key in path[:-1]:
        inner = inner[key]
    inner.pop(path[-1], None)
    return config


def outcome(raw: dict[str, Any]) -> Config | str:
    """The config, or what is wrong with it."""
    try:
        return load(raw)
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_null_is_as_if_the_key_were_not_there(row: Row) -> None:
    given = config_of(row)
    for path in leaves(row.over):
        if path[-2:] in VALUES:
            continue
        whole = path[0] in ("datasets", "models") and len(path) > 2 and path[2] in OVERRIDES
        if not whole:
            assert outcome(merge(given, at(path, None))) == outcome(without(given, path)), path
        # The same for the sections above the key, an override, and a whole dataset or model.
        for depth in range(1, min(len(path), 4) if whole else len(path)):
            above = path[:depth]
            assert outcome(merge(given, at(above, None))) == outcome(without(given, above)), above


@pytest.mark.parametrize(("section", "key"), KEYS, ids=lambda part: part)
def test_null_in_a_section_and_its_overrides_is_the_default(section: str, key: str) -> None:
    kind = Config.model_fields[section].annotation
    assert isinstance(kind, type)
    default = None if (section, key) in VALUES else getattr(kind(), key)
    assert getattr(getattr(load(merge(BASE, at((section, key), None))), section), key) == default
    if section == "report":
        return
    model = section in OF_MODELS
    where = [("datasets", "d"), *([("models", "m")] if model else [])]
    for above in where:
        raw = merge(BASE, at((*above, section, key), None))
        found = getattr(load(raw), f"{section}_for")(*(("d", "m") if model else ("d",)))
        assert getattr(found, key) == default


def nested(kind: Any) -> Iterator[tuple[str, str]]:
    for name, field in kind.model_fields.items():
        for inner in sections_of(field.annotation):
            yield from ((name, key) for key in inner.model_fields)


@pytest.mark.parametrize("section", OVERRIDES)
def test_null_in_a_section_within_a_section(section: str) -> None:
    kind: Any = Config.model_fields[section].annotation
    for name, key in nested(kind):
        default = getattr(kind(), name)
        if not isinstance(default, Section):
            continue  # a section that is off, or sections by names of the user
        for above in ((), ("datasets", "d")):
            raw = merge(BASE, at((*above, section, name, key), None))
            pair = ("d", "m") if section in OF_MODELS else ("d",)
            found = getattr(load(raw), f"{section}_for")(*pair)
            assert getattr(getattr(found, name), key) == getattr(default, key), (name, key)


def test_null_in_an_override_gives_the_default_not_the_value_of_the_section() -> None:
    raw = merge(BASE, {"train": {"lr": 0.5, "patience": 3}})
    raw = merge(raw, {"models": {"m": {"train": {"lr": None, "patience": None}}}})
    train = load(raw).train_for("d", "m")
    assert (train.lr, train.patience) == (1e-3, None)
    # The override as a whole is dropped.
    assert load(merge(raw, {"models": {"m": {"train": None}}})).train_for("d", "m").lr == 0.5


def test_null_next_to_a_recipe() -> None:
    train = {"recipe": "ronneberger2015", "optimizer": None, "clip_norm": None}
    config = load(merge(BASE, {"train": train}))
    assert (config.train.optimizer, config.train.clip_norm) == ("adamw", None)


def test_a_dataset_a_model_and_a_class_are_dropped() -> None:
    more = {
        "datasets": {"e": BASE["datasets"]["d"], "d": None},
        "models": {"n": {"preset": "unet-bn", "depth": 2}, "m": None},
    }
    config = load(merge(BASE, more))
    assert (list(config.datasets), list(config.models)) == (["e"], ["n"])
    classes = {"a": 0, "b": 1, "c": 2}
    raw = merge(BASE, {"datasets": {"d": {"task": "semantic", "classes": classes}}})
    config = load(merge(raw, {"datasets": {"d": {"classes": {"b": None}}}}))
    assert config.datasets["d"].class_names == ("a", "c")


def test_null_is_a_value_of_the_keys_that_say_so() -> None:
    """A key that takes null and has another default is named in VALUES and config/README.md."""
    found = set()

    def look(kind: Any, name: str) -> None:
        for key, field in kind.model_fields.items():
            for inner in sections_of(field.annotation):
                look(inner, key)
            if type(None) in get_args(field.annotation) and field.default is not None:
                found.add((name, key))

    look(Config, "")
    assert found == VALUES
