"""Settings as they are written for the stages: new keys do not rerun finished runs."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import key_table
from unet.cli.predict_request import add_request, requested
from unet.config import presets, sections, stage_keys
from unet.config import run as config_module
from unet.config.data_settings import PrepareSettings
from unet.config.load import load
from unet.config.presets import PRESETS, Architecture, architecture_from
from unet.config.run import Config
from unet.config.sections import PrepareSection, Section, SplitSection
from unet.config.stage_settings import SETTINGS, PredictSettings, ReportAllSettings, TrainSettings
from unet.config.tracked import Settings
from unet.data.prepare import _keys
from unet.data.records import ImageRecord
from unet.errors import UserError
from unet.files import canonical, digest
from unet.prediction.apply.applied_images import with_all_keys
from unet.prediction.apply.chosen_settings import (
    TrainingChoices,
    predict_settings,
    stitch_settings,
)
from unet.prediction.tiles.prediction_job import image_key
from unet.training.train import training_key
from unet.training.training_job import TrainingData
from unet.versions import STAGES

# Settings, and the keys made from them, as the code wrote them before this mechanism existed.
OLD: dict[str, Any] = json.loads(Path(__file__).with_name("old_slices.json").read_text())


def all_settings(config: Config) -> dict[str, Settings]:
    """stage:dataset[:model] -> settings."""
    found: dict[str, Settings] = {"report_all": ReportAllSettings.of(config)}
    for dataset, data in config.datasets.items():
        applied = bool(config.origins_for(dataset))
        stages = ["manifest", "prepare", "evaluate", "report"] + ([] if applied else ["splits"])
        if data.synthetic is not None:
            stages.append("synthesize")
        for stage in stages:
            found[f"{stage}:{dataset}"] = SETTINGS[stage].of(config, dataset)
        for model in config.models_for(dataset):
            for stage in ("predict", "stitch", "prepare_applied" if applied else "train"):
                found[f"{stage}:{dataset}:{model}"] = SETTINGS[stage].of(config, dataset, model)
    return found


def written(found: Mapping[str, Settings]) -> dict[str, dict[str, Any]]:
    return {name: settings.to_json() for name, settings in found.items()}


def all_keys(found: Mapping[str, Settings]) -> dict[str, str]:
    """The hashes that identify trainings, tiles, prepared images and splits."""
    images = {name: {"key": name} for name in "abc"}
    record = ImageRecord(
        "a", "a.tif", "l.tif", axes="CYX", shape=(1, 8, 9), sha256="1", label_sha256="2"
    )
    keys = {}
    data = TrainingData(Path(), {"images": images}, ["a", "b"], ["c"])
    for name, value in found.items():
        stage = name.split(":")[0]
        if isinstance(value, TrainSettings):
            keys[name] = training_key(value, data)
        elif isinstance(value, PredictSettings):
            used = value.with_section(precision="float32", engine="torch")
            keys[name] = image_key("model", "image", used.keyed())
        elif stage == "splits":
            # The key under which images' parts are kept.
            keys[name] = digest(value.to_json())
        elif stage == "prepare":
            assert isinstance(value, PrepareSettings)
            keys[name] = _keys({"a": record}, value, None)["a"]
    parser = argparse.ArgumentParser()
    add_request(parser)
    asked = requested(
        parser.parse_args(["m.pt", "i.tif", "-o", "out", "--tta", "--threshold", "0.25"])
    )
    predict, stitch = (
        predict_settings(asked, TrainingChoices()),
        stitch_settings(_Model, asked, TrainingChoices()),
    )  # type: ignore[arg-type]
    prepare = stage_keys.written_keys("prepare_applied", PrepareSection())
    keys["unet predict"] = digest([with_all_keys(predict), stitch.to_json(), prepare])
    return keys


class _Model:
    head = class_names = ("background", "cell")
    task, class_values = "instances", None
    settings: Mapping[str, Any] = {}


def comparable(name: str) -> bool:
    """Whether the stage still has the version that it had in old_slices.json."""
    wanted = ("predict", "stitch", "prepare_applied") if name == "unet predict" else (name,)
    stages = [item.split(":")[0].removesuffix("_all") for item in wanted]
    return all(OLD["versions"][stage] == STAGES[stage] for stage in stages)


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"predict": {"tiel": 3}}, "predict.tiel: unknown key; did you mean tile?"),
        ({"predict": {"tile": 3}}, "predict.tile: "),
        ({"device": "gpu"}, "device: must be 'auto', 'cpu' or 'cuda' (got 'gpu')"),
        ({"members": "all", "device": 3}, "device: must be"),
    ],
)
def test_a_mistake_in_the_json_is_one_line(over: dict[str, Any], said: str) -> None:
    good = json.loads(OLD["slices"]["predict:own:plain"])
    with pytest.raises(UserError) as error:
        PredictSettings.from_json({**good, **over})
    assert str(error.value).startswith(f"--settings: {said}")
    assert "\n" not in str(error.value)
    del good["version"]
    with pytest.raises(UserError, match=r"^--settings: version: this key is needed$"):
        PredictSettings.from_json(good)


def test_finished_runs_stay_finished() -> None:
    found = all_settings(load(OLD["config"]))
    assert set(found) == set(OLD["slices"])
    same = [name for name in found if comparable(name)]
    assert {name.split(":")[0] for name in same} >= {"train", "prepare", "splits"}
    for name in same:
        assert canonical(found[name].to_json()) == OLD["slices"][name]
        # The records of finished runs are read as the same settings.
        read = type(found[name]).from_json(json.loads(OLD["slices"][name]))
        assert read == found[name]
        assert canonical(read.to_json()) == OLD["slices"][name]
    keys = all_keys(found)
    assert set(keys) == set(OLD["keys"])
    for name in keys:
        assert keys[name] == OLD["keys"][name] or not comparable(name), name
    for name, values in OLD["presets"].items():
        assert canonical(PRESETS[name].to_json()) == values


# Keys that are added.


class TrainMore(sections.TrainSection):
    mixup: float = 0.0


class AugmentMore(sections.AugmentSection):
    shear_deg: float = 0.0


class TrainWithAugmentMore(sections.TrainSection):
    augment: AugmentMore = AugmentMore()


class PrepareMore(sections.PrepareSection):
    smooth_px: float | None = None


class NormalizeMore(sections.NormalizeSection):
    per_channel: bool = False


class PrepareWithNormalizeMore(sections.PrepareSection):
    normalize: NormalizeMore = NormalizeMore()


class PredictMore(sections.PredictSection):
    tf32: bool = False


class SkipMore(sections.SkipSection):
    blur_px: int = 0


class PredictWithSkipMore(sections.PredictSection):
    skip: SkipMore | None = None


class StitchMore(sections.StitchSection):
    smooth: tuple[int, ...] = ()


class EvaluateMore(sections.EvaluateSection):
    ignore_px: int = 0


class ReportMore(sections.ReportSection):
    style: str = "plain"


class SyntheticMore(sections.SyntheticSection):
    blur_px: float = 0


class SplitMore(sections.SplitSection):
    stratify: str | None = None


# The section of the config, the new class, an edit of the new key, the stages that it affects.
ADDED: list[tuple[str, type[Section], dict[str, Any], set[str]]] = [
    ("train", TrainMore, {"mixup": 0.2}, {"train"}),
    ("train", TrainWithAugmentMore, {"augment": {"shear_deg": 3}}, {"train"}),
    ("prepare", PrepareMore, {"smooth_px": 1}, {"prepare", "prepare_applied"}),
    ("prepare", PrepareWithNormalizeMore, {"normalize": {"per_channel": True}}, {"prepare"}),
    ("predict", PredictMore, {"tf32": True}, {"predict"}),
    ("predict", PredictWithSkipMore, {"skip": {"brighter_than": 3, "blur_px": 2}}, {"predict"}),
    ("stitch", StitchMore, {"smooth": [3]}, {"stitch"}),
    ("evaluate", EvaluateMore, {"ignore_px": 2}, {"evaluate"}),
    ("report", ReportMore, {"style": "dark"}, {"report"}),
]


def with_class(name: str, kind: type[Section]) -> type[Config]:
    """The config class, with a section that has more keys."""
    return type("Config", (Config,), {"__annotations__": {name: kind}, name: kind()})


def text_of(value: object) -> str:
    """A test id that is the same in every process (the order of a set is not)."""
    return str(sorted(value) if isinstance(value, set) else value)[:50]


@pytest.mark.parametrize(("name", "kind", "over", "stages"), ADDED, ids=text_of)
def test_a_new_key_changes_nothing_at_its_default(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kind: type[Section],
    over: dict[str, Any],
    stages: set[str],
) -> None:
    settings = all_settings(load(OLD["config"]))
    before, keys = written(settings), all_keys(settings)
    monkeypatch.setattr("unet.config.load.Config", with_class(name, kind))
    after = all_settings(load(OLD["config"]))
    assert written(after) == before
    assert all_keys(after) == keys
    # With another value only its stages change, unless the key is overridden.
    raw = {**OLD["config"], name: config_module.merge(OLD["config"].get(name, {}), over)}
    more = all_settings(load(raw))
    edited = written(more)
    changed = {item.split(":")[0] for item in edited if edited[item] != before[item]}
    assert changed == stages
    now = all_keys(more)
    keyed = {item.split(":")[0] for item in now if now[item] != keys[item]}
    assert keyed == stages & {"train", "predict", "splits", "prepare"}


@pytest.mark.parametrize(
    ("stage", "base", "more", "value"),
    [
        ("synthesize", sections.SyntheticSection(kind="nuclei"), SyntheticMore, {"blur_px": 1}),
        ("splits", SplitSection(folds=3), SplitMore, {"stratify": "well"}),
    ],
)
def test_a_new_key_of_a_dataset(
    stage: str, base: Section, more: type[Section], value: dict[str, Any]
) -> None:
    given = base.model_dump(exclude_unset=True)
    assert stage_keys.written_keys(stage, more(**given)) == stage_keys.written_keys(stage, base)
    assert (
        stage_keys.written_keys(stage, more(**given, **value))
        == stage_keys.written_keys(stage, base) | value
    )


def test_a_new_value_of_an_architecture() -> None:
    from dataclasses import make_dataclass

    more = make_dataclass("More", [("gate", bool, False)], bases=(Architecture,), frozen=True)
    values = {"padding": "same", "norm": "batch", "depth": 2}
    assert more(**values).to_json() == Architecture(**values).to_json()  # type: ignore[arg-type]
    assert more(**values, gate=True).to_json()["gate"] is True
    # A model.pt without the value has its default.
    known = {**presets.ARCHITECTURES, "unet": more}
    old = Architecture(**values).to_json()  # type: ignore[arg-type]
    assert known["unet"](**old).gate is False
    assert architecture_from(old) == Architecture(**values)  # type: ignore[arg-type]


# Defaults.


@pytest.mark.parametrize("stage", STAGES)
def test_the_defaults_are_those_of_the_version(stage: str) -> None:
    entry, found = stage_keys.table().get(stage, {"version": 0}), key_table.now(stage)
    assert entry["version"] == STAGES[stage], (
        f"stage {stage} is new, or its version was raised: run `make stage-hashes` and commit "
        "unet/config/stage_keys.json"
    )
    lines = key_table.changed(stage, entry, found)
    assert not lines, "\n".join([*lines, key_table.HINT])


def test_the_defaults_of_every_written_section_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[tuple[str, str]] = set()

    def spy(stage: str, name: str, *_: str) -> frozenset[str]:
        asked.add((stage, name))
        return frozenset()

    monkeypatch.setattr(stage_keys, "_always", spy)
    settings = all_settings(load(OLD["config"]))
    written(settings)
    all_keys(settings)
    checked = {
        (stage, kind.__name__) for stage, kinds in key_table.CLASSES.items() for kind in kinds
    }
    assert asked <= checked


def test_a_changed_default_is_noticed() -> None:
    entry = json.loads(json.dumps(stage_keys.table()["train"]))
    found = json.loads(json.dumps(key_table.now("train")))
    assert key_table.changed("train", entry, found) == []
    later = key_table.updated("train", entry, found)["later"]
    # A new key is not checked until it is listed.
    found["TrainSection"]["mixup"] = 0.0
    assert key_table.changed("train", entry, found) == []
    noted = key_table.updated("train", entry, found)
    more = {**later.get("TrainSection", {}), "mixup": 0.0}
    assert noted["later"] == {**later, "TrainSection": more}
    assert noted["keys"] == entry["keys"]
    found["TrainSection"] |= {"mixup": 0.1, "lr": 0.5}
    del found["AugmentSection"]["flip"]
    lines = key_table.changed("train", noted, found)
    assert [re.split(r" of |: ", line)[0] for line in lines] == [
        "TrainSection.lr", "AugmentSection.flip", "TrainSection.mixup",
    ]  # fmt: skip
    assert lines[0].endswith("was 0.001, is 0.5")
    # A new version gets a new list.
    raised = key_table.updated("train", {**noted, "version": 0}, found)
    assert raised == {"version": STAGES["train"], "keys": found, "later": {}}
