"""Datasets that join others: what they take from them, mistakes in one line, settings of jobs."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from unet.config.check_settings import CheckAllSettings, CheckSettings
from unet.config.load import load
from unet.config.run import merge
from unet.config.stage_settings import SETTINGS, ReportSettings, StitchSettings, TrainSettings
from unet.errors import UserError
from unet.files import canonical
from unet.planning.jobs import Run

CLASSES = {"background": 0, "cell": 255}
SPLIT = {"folds": 3, "run": [0, 2]}
RAW: dict[str, Any] = {
    "datasets": {
        "a": {"images": "a", "labels": "a-labels", "classes": CLASSES, "split": SPLIT},
        "b": {
            "images": "b", "labels": "b-labels", "classes": {"background": 7, "cell": 9},
            "split": {**SPLIT, "group": "(\\d+)", "val": 0.3}, "models": ["deep"],
            "prepare": {"normalize": {"method": "zscore"}},
        },
        "ab": {"join": ["b", "a"]},
    },
    "models": {name: {"preset": "unet-bn", "depth": 2} for name in ("plain", "deep")},
    "train": {"patch": 64},
}  # fmt: skip
SINGLE = {"datasets": {name: RAW["datasets"][name] for name in ("a", "b")}}


def joined(**keys: Any) -> dict[str, Any]:
    return merge(RAW, {"datasets": {"ab": keys}})


def test_what_a_join_takes_from_its_members() -> None:
    config = load(RAW)
    data = config.datasets["ab"]
    assert (data.task, data.class_names) == ("semantic", ("background", "cell"))
    assert data.labelled
    assert data.images is None
    assert config.folds_for("ab") == config.tested_for("ab") == (0, 2)
    assert config.models_for("ab") == config.trained_for("ab") == ("deep", "plain")
    # The values of the classes in mask files are those of the first.
    assert StitchSettings.of(config, "ab", "deep").class_values == (7, 9)
    assert ReportSettings.of(config, "ab").joined == {"b": ("deep",), "a": ("deep", "plain")}
    split = {"folds": 4, "test": 0.25}
    over = {"datasets": {name: {"split": {**split, "run": None}} for name in "ab"}}
    assert load(merge(RAW, over)).datasets["ab"].split.ensemble
    single = {"datasets": {name: {"split": None} for name in "ab"}}
    assert load(merge(RAW, single)).folds_for("ab") == (0,)


def test_a_resolved_config_is_the_same_config() -> None:
    config = load(RAW)
    for dumped in (
        config.model_dump(mode="json"),
        config.model_dump(mode="json", exclude_defaults=True),
    ):
        again = load(yaml.safe_load(yaml.safe_dump(dumped)))
        assert again.datasets["ab"] == config.datasets["ab"]


def test_settings_of_existing_datasets_stay_byte_for_byte() -> None:
    alone, config = load({**RAW, **SINGLE}), load(RAW)
    for stage in ("manifest", "splits", "prepare"):
        for name in "ab":
            one, two = (SETTINGS[stage].of(each, name) for each in (alone, config))
            assert canonical(one.to_json()) == canonical(two.to_json())
    for name in "ab":
        for stage in ("train", "predict", "stitch", "evaluate", "report"):
            one, two = (SETTINGS[stage].of(each, name, "deep") for each in (alone, config))
            assert canonical(one.to_json()) == canonical(two.to_json())
            assert {"balance", "joined"}.isdisjoint(one.to_json())


def test_weights_are_settings_of_the_training_alone() -> None:
    plain, weighted = load(RAW), load(joined(join={"b": 3, "a": 1}))
    assert TrainSettings.of(plain, "ab", "deep").balance == (("b", 1.0), ("a", 1.0))
    made = TrainSettings.of(weighted, "ab", "deep")
    assert made.balance == (("b", 3.0), ("a", 1.0))
    assert TrainSettings.from_json(json.loads(canonical(made.to_json()))) == made
    for stage in ("join", "predict", "stitch", "evaluate", "report"):
        one, two = (SETTINGS[stage].of(each, "ab", "deep") for each in (plain, weighted))
        assert one == two


def test_a_join_is_no_dataset_with_files() -> None:
    config = load(RAW)
    run = Run(config)
    assert (config.joining, config.with_files) == (("ab",), ("a", "b"))
    assert CheckAllSettings.of(config).datasets == ("a", "b")
    assert run.joined_pattern == "ab"
    names = [path.as_posix() for path in run.joined_inputs("ab")]
    assert names == [
        f"results/{member}/{name}"
        for member in ("b", "a")
        for name in ("manifest.csv", "splits.csv", "prepared.json")
    ]


def test_the_check_of_a_dataset_with_models_of_a_join_has_a_valid_config() -> None:
    config = load(merge(RAW, {"datasets": {"new": {"images": "n", "predict_with": ["ab/plain"]}}}))
    assert Run(config).origin_checks("new") == []
    settings = CheckSettings.from_json(
        json.loads(canonical(CheckSettings.of(config, "new").to_json()))
    )
    found = settings.config_at("new", "out", "", "n", None)
    assert found.models_for("new") == ("plain@ab",)
    assert found.datasets["new"].class_names == ("background", "cell")


def test_the_check_of_a_dataset_that_starts_from_a_model_of_a_join_has_a_valid_config() -> None:
    data = {"images": "n", "labels": "m", "classes": CLASSES, "models": ["deep"],
            "train": {"from": "ab/deep"}}  # fmt: skip
    config = load(merge(RAW, {"datasets": {"new": data}}))
    alone = CheckSettings.of(config, "new").config_at("new", "out", "root", "n", "m")
    assert set(alone.datasets) == {"new", "ab", "a", "b"}
    assert alone.start_for("new", "deep") == "ab/deep"


MISTAKES = [
    ({"join": ["a"]}, r"join: got \['a'\]; name two or more datasets \(a, b\)"),
    ({"join": []}, "join: must name at least one"),
    ({"join": {"a": float("nan"), "b": 1}}, r"join\.a: must be a finite number \(got nan\)$"),
    ({"join": {"a": "x", "b": 1}}, r"join\.a: must be a number \(got 'x'\)$"),
    ({"join": "a"}, "join: must be a list, such as .* or have keys of its own"),
    ({"join": ["a", "a", "b"]}, "join: a stands in it twice; name each dataset once$"),
    ({"join": ["a", "a"]}, r"join: a stands in it twice; name each dataset once; name two or more "
     r"datasets \(a, b\)$"),
    ({"join": ["a", "bb"]}, "join: no dataset 'bb'; there are: a, b.*; did you mean b"),
    ({"join": ["a", "ab"]}, "join: names the dataset itself"),
    ({"join": {"a": 0, "b": 1}}, "join: got weight 0 for a; it must be above 0"),
    ({"images": "x"}, "images: has no effect with join, b and a have this key; drop it here"),
    ({"labels": "x"}, "labels: has no effect with join"),
    ({"synthetic": {"kind": "nuclei"}}, "synthetic: has no effect with join"),
    ({"channels": [0]}, "channels: has no effect with join"),
    ({"pixel_size_um": 1}, "pixel_size_um: has no effect with join"),
    ({"prepare": {"tile": 64}}, "prepare: has no effect with join"),
    ({"split": {"folds": 4}}, "split: the images stay in the parts of the joined datasets"),
    ({"predict_with": ["a/plain"]}, "predict_with: join is for training"),
    ({"compare": {"tool": "masks"}}, "compare: masks are compared where the images are"),
    ({"task": "instances"}, "task: got instances, but b has task semantic; drop this key"),
    ({"classes": {"cell": 1, "background": 0}}, "classes: got cell, background, but b has"),
    ({"jion": ["a", "b"]}, "jion: unknown key; did you mean join"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "text"), MISTAKES, ids=[t.split(":")[0] for _, t in MISTAKES])
def test_mistakes_in_one_line(keys: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=rf"^config: datasets\.ab\.{text}") as error:
        load(joined(**keys))
    assert len(str(error.value).splitlines()) == 1


OTHERS = [
    ({"b": {"task": "instances", "classes": None}}, "join: b has task instances, a task semantic"),
    (
        {"b": {"classes": {"background": 0, "edge": 1}}},
        "join: b has the classes background, cell, edge, a background, cell; write the same names",
    ),
    ({"a": {"channels": [0, 1]}, "b": {"channels": [0]}}, "join: b has 1 channels, a 2"),
    ({"b": {"split": {"folds": 4}}}, r"join: b has 4 folds \(run: \[0, 2\]\), a 3 folds"),
    ({"b": {"split": {"test": 0.5}}}, "join: b has 3 folds that test the same images"),
    ({"b": {"split": None}}, "join: b has a single split, a 3 folds"),
    (
        {"abc": {"join": ["ab", "a"]}},
        "join: dataset ab joins others itself; name these instead",
    ),
    (
        {"new": {"images": "n", "predict_with": ["a/plain"]}, "abc": {"join": ["a", "new"]}},
        "join: dataset new has predict_with and trains no model; there are: a, b",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("datasets", "text"), OTHERS)
def test_datasets_that_cannot_be_joined(datasets: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text) as error:
        load(merge(RAW, {"datasets": datasets}))
    assert len(str(error.value).splitlines()) == 1
