"""`train.from` in the config: names and paths, the models that show a start, what is tracked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from unet.config.check_settings import CheckSettings
from unet.config.load import load
from unet.config.run import Config, merge
from unet.config.schema import schema
from unet.config.shown_config import as_yaml
from unet.config.stage_settings import SETTINGS, ReportAllSettings, ReportSettings, TrainSettings
from unet.errors import UserError
from unet.paths import Paths
from unet.planning.jobs import Run

DATA = {"synthetic": {"kind": "nuclei"}, "task": "instances"}
RAW: dict[str, Any] = {
    "datasets": {
        "big": {**DATA, "models": ["net"], "split": {"folds": 3}},
        "few": {**DATA, "models": ["net"], "train": {"from": "big/net"}},
    },
    "models": {"net": {"preset": "unet-bn", "depth": 2}, "other": {"preset": "unet-bn"}},
    "train": {"patch": 64},
}


def over(**changes: Any) -> dict[str, Any]:
    return merge(RAW, changes)


def of_few(**train: Any) -> dict[str, Any]:
    return over(datasets={"few": {"train": train}})


def mistake(raw: dict[str, Any]) -> str:
    with pytest.raises(UserError) as error:
        load(raw)
    return str(error.value)


def train_of(config: Config, dataset: str = "few", model: str = "net") -> dict[str, Any]:
    found: dict[str, Any] = TrainSettings.of(config, dataset, model).to_json()["train"]
    return found


def without_start() -> Config:
    raw = merge(RAW, {"datasets": {"few": {"train": None}}})
    return load(raw)


# The key.


@pytest.mark.parametrize("value", ["net", "a/b/c", "weights.h5", "../x", ""])
def test_what_is_neither_a_model_nor_a_file(value: str) -> None:
    said = mistake(of_few(**{"from": value}))
    assert said.startswith("config: datasets.few.train.from: must be <dataset>/<model>")
    assert repr(value) in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("m.onnx", "no names of ours; start from the model.pt or the package that it was made of"),
        ("m.keras", "make a model.pt of it: python scripts/import_keras.py"),
        ("m.PT", "did you mean .pt?"),
        ("old/big/net/fold-0", "write the file in it: old/big/net/fold-0/model.pt"),
    ],
)
def test_files_of_other_formats(value: str, said: str) -> None:
    found = mistake(of_few(**{"from": value}))
    assert said in found
    assert "\n" not in found


def test_the_key_is_known_by_its_name() -> None:
    said = mistake(over(train={"form": "big/net"}))
    assert "did you mean" in said
    assert "from" in said
    train = schema()["properties"]["train"]["properties"]
    assert {"from", "freeze", "norm_statistics"} <= set(train)
    assert "from: big/net" in as_yaml(load(RAW), changed=True)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("bigg/net", "dataset 'bigg' is not in the config; there are: big, few; did you mean"),
        ("big/nett", "dataset big trains no model 'nett'; there are: net; did you mean"),
        ("few/net", "few/net would start from itself"),
    ],
)
def test_a_start_that_is_not_there(value: str, said: str) -> None:
    found = mistake(of_few(**{"from": value}))
    assert said in found
    assert "\n" not in found


def test_trainings_that_wait_for_each_other() -> None:
    raw = over(datasets={"big": {"train": {"from": "few/net"}}})
    assert "would each wait for the next one" in mistake(raw)
    assert "would start from itself" in mistake(over(train={"from": "big/net"}))
    # The models of a sweep have names that nobody wrote.
    raw = merge(raw, {"models": {"net": {"sweep": {"train.lr": [0.1, 0.01]}}}})
    found = mistake(raw)
    assert "lr0" not in found
    assert "big/net, few/net would each wait for the next one" in found


def test_a_dataset_that_trains_nothing() -> None:
    new = {"synthetic": {"kind": "nuclei"}, "predict_with": ["big/net"]}
    raw = over(datasets={"new": new, "few": {"train": {"from": "new/net"}}})
    assert "dataset 'new' trains no model" in mistake(raw)


def test_keys_that_do_not_fit() -> None:
    assert "epochs: 0 trains nothing" in mistake(over(train={"epochs": 0}))
    assert "contracting path has 2" in mistake(of_few(freeze=3))
    assert load(of_few(freeze=2)).train_for("few", "net").freeze == 2
    resnet = {"datasets": {d: {"models": ["res"]} for d in ("big", "few")},
              "models": {"res": {"preset": "unet-resnet34"}}}  # fmt: skip
    for levels, said in ((5, ""), (6, "contracting path has 5")):
        raw = merge(merge(RAW, resnet), {"datasets": {"few": {"train": {
            "from": "big/res", "freeze": levels}}}})  # fmt: skip
        if said:
            assert said in mistake(raw)
        else:
            assert load(raw).train_for("few", "res").freeze == levels
    window = {"datasets": {"few": {"models": ["win"], "train": {"from": "x.pt", "freeze": 1}}},
              "models": {"win": {"preset": "ciresan2012"}}, "train": {"patch": 95}}  # fmt: skip
    assert "a sliding-window classifier has no contracting path" in mistake(merge(RAW, window))
    raw = over(models={"flat": {"preset": "unet-bn", "dims": 3}},
               datasets={"few": {"models": ["flat"]}})  # fmt: skip
    assert "no convolution fits" in mistake(raw)
    assert "cannot be swept" in mistake(
        over(models={"net": {"sweep": {"train.from": ["big/net", None]}}})
    )


# The learning rate.


@pytest.mark.parametrize(
    ("raw", "rate"),
    [
        (RAW, 1e-4),
        (of_few(lr=0.001), 0.001),
        (over(train={"lr": 0.02}), 0.02),
        (over(models={"net": {"train": {"lr": 0.03}}}), 0.03),
        (over(models={"net": {"train": "nnunet"}}), 0.001),
        (over(train={"recipe": "nnunet"}), 0.001),
        (over(models={"net": {"train": {"recipe": "nnunet", "lr": 0.01}}}), 0.01),
    ],
)
def test_a_start_lowers_a_rate_that_nobody_wrote(raw: dict[str, Any], rate: float) -> None:
    config = load(raw)
    assert config.train_for("few", "net").lr == rate
    # Also in the config that a run writes, and in the one that is printed.
    assert load(yaml.safe_load(as_yaml(config))).train_for("few", "net").lr == rate


def test_without_a_start_nothing_changes() -> None:
    config, plain = load(RAW), without_start()
    for stage in ("prepare", "train", "predict", "stitch", "evaluate", "report"):
        assert (
            SETTINGS[stage].of(config, "big", "net").to_json()
            == SETTINGS[stage].of(plain, "big", "net").to_json()
        )
    idle = load(merge(RAW, {"datasets": {"few": {"train": {
        "from": None, "freeze": 2, "norm_statistics": "reset"}}}}))  # fmt: skip
    assert train_of(idle) == train_of(plain)
    assert not {"from", "freeze", "norm_statistics", "show_start"} & train_of(plain).keys()
    assert "starts" not in CheckSettings.of(plain, "few").to_json()


# The model that shows the start.


def test_the_start_is_a_model_of_its_own() -> None:
    config = load(RAW)
    assert config.models_for("few") == ("net", "net-start")
    assert config.models_for("big") == ("net",)
    assert train_of(config, model="net-start").items() >= {"from": "big/net", "epochs": 0}.items()
    settings = ReportSettings.of(config, "few")
    assert settings.starts == {"net": "net-start"}
    assert settings.models == ("net", "net-start")
    assert ReportSettings.of(config, "big").starts == {}
    assert ReportAllSettings.of(config).datasets["few"].models == ("net",)


def test_it_is_trained_again_only_for_what_concerns_it() -> None:
    found = train_of(load(RAW), model="net-start")
    changed = load(of_few(lr=0.5, loss="dice", freeze=1, augment={"flip": False}, subset=0.5))
    assert train_of(changed, model="net-start") == found
    assert train_of(changed) != train_of(load(RAW))


def test_models_named_or_not() -> None:
    config = load(over(datasets={"few": {"models": None}, "big": {"models": None}}))
    # On the dataset that the start comes from, nothing starts.
    assert config.models_for("big") == ("net", "other")
    assert config.models_for("few") == ("net", "net-start", "other", "other-start")


@pytest.mark.parametrize("changes", [
    {"show_start": False},
    {"epochs": 0},
])  # fmt: skip
def test_no_start_is_shown(changes: dict[str, Any]) -> None:
    assert load(of_few(**changes)).models_for("few") == ("net",)


def test_none_for_other_outputs_or_a_sweep_of_networks() -> None:
    bordered = over(models={"b": {"preset": "unet-bn", "depth": 2, "head": "border",
                                  "train": {"from": "big/net"}}},
                    datasets={"few": {"models": ["b"], "train": None}})  # fmt: skip
    assert load(bordered).models_for("few") == ("b",)
    swept = over(models={"s": {"preset": "unet-bn", "sweep": {"width": [8, 16]}}},
                 datasets={"few": {"models": ["s"]}})  # fmt: skip
    assert load(swept).models_for("few") == ("s",)
    rates = merge(swept, {"models": {"s": {"sweep": {"width": None}}}})
    rates["models"]["s"]["sweep"] = {"train.freeze": [0, 1]}
    assert load(rates).models_for("few") == ("s", "s-start")


def test_a_learning_curve_has_one_start() -> None:
    config = load(over(models={"net": {"learning_curve": [0.5]}}))
    assert set(config.models_for("few")) == {"net", "net-50pct", "net-start"}
    assert load(yaml.safe_load(as_yaml(config))) == config


def test_names_that_are_taken_or_too_long() -> None:
    taken = over(models={"net-start": {"preset": "unet-bn"}})
    assert "models.net-start is another one" in mistake(taken)
    name = "n" * 60
    raw = over(models={name: {"preset": "unet-bn"}}, datasets={"few": {"models": [name]}})
    assert "longer than 64 characters" in mistake(raw)


def test_a_mistake_is_said_once() -> None:
    said = mistake(of_few(patch=33))
    assert said.count("\n") == 0
    assert "net-start" not in said


def test_a_printed_config_loads_as_the_same_run() -> None:
    config = load(RAW)
    short = yaml.safe_load(as_yaml(config, changed=True))
    assert sorted(short["models"]) == ["net", "other"]
    assert load(short) == config
    # And with the models written out.
    assert load(config.model_dump(mode="json")) == config


# What runs.


def test_the_start_is_trained_first() -> None:
    run, paths = Run(load(RAW)), Paths(Path("results"))
    assert run.start_inputs("few", "net", "0") == [paths.model("big", "net", 0)]
    assert run.start_inputs("few", "net-start", "0") == [paths.model("big", "net", 0)]
    assert run.start_inputs("big", "net", "0") == []
    assert paths.metrics("few", "net-start") in run.report_inputs("few")
    assert not {*paths.details("few", "net-start")} & {*run.targets}


def test_folds_of_the_start() -> None:
    folds = {"split": {"folds": 5}}
    run = Run(load(over(datasets={"few": folds})))
    chosen = [run.start_inputs("few", "net", str(fold))[0].parent.name for fold in range(5)]
    assert chosen == ["fold-0", "fold-1", "fold-2", "fold-0", "fold-0"]
    # On one dataset the fold is always the same: another one was trained on its test images.
    raw = over(models={"again": {"preset": "unet-bn", "train": {"from": "big/net"}}},
               datasets={"big": {"models": ["net", "again"]}})  # fmt: skip
    same = Run(load(raw))
    for fold in range(3):
        (path,) = same.start_inputs("big", "again", str(fold))
        assert path == same.paths.model("big", "net", fold)


def model_file(path: Path, value: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # As models are saved: into an open file, or the archive has the file's name in it.
    with path.open("wb") as handle:
        torch.save({"x": torch.tensor(value)}, handle)
    return path


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    def settings(path: Path) -> str:
        raw = merge(of_few(**{"from": str(path)}), {"output": str(tmp_path / "out")})
        return Run(load(raw)).settings("train", "few", "net")

    first = settings(model_file(tmp_path / "a" / "one.pt"))
    assert str(tmp_path) not in first
    assert "one.pt" not in first
    assert settings(model_file(tmp_path / "b" / "two.pt")) == first
    assert settings(model_file(tmp_path / "b" / "two.pt", 2.0)) != first
    assert TrainSettings.from_json(json.loads(first)).fingerprint


def test_the_check_knows_the_start(tmp_path: Path) -> None:
    path = model_file(tmp_path / "one.pt")
    config = load(merge(of_few(**{"from": str(path)}), {"output": str(tmp_path / "out")}))
    found = Run(config).settings("check", "few")
    assert str(tmp_path) not in found
    assert json.loads(found)["starts"].keys() == {"net", "net-start"}
    # The config of a check is valid alone, with the datasets that trainings start from.
    settings = CheckSettings.of(load(RAW), "few")
    again = settings.config_at("few", "out", "", "images", None)
    assert again.start_for("few", "net") == "big/net"


def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    def check(path: str) -> str:
        raw = merge(of_few(**{"from": path}), {"output": str(tmp_path / "out")})
        with pytest.raises(UserError) as error:
            Run(load(raw)).sources.check()
        return str(error.value)

    found = check(str(tmp_path / "none.pt"))
    assert found.startswith(f"config: datasets.few.train.from: no such file: {tmp_path}")
    assert "write the path of a model.pt" in found
    (tmp_path / "folder.pt").mkdir()
    assert f"{tmp_path / 'folder.pt'} is a folder; write" in check(str(tmp_path / "folder.pt"))
    out = tmp_path / "out"
    own = model_file(out / "big" / "net" / "fold-0" / "model.pt")
    assert "write big/net, so that it is trained first" in check(str(own))
    # Files of no model of the run, and the model whose training it is.
    for name in ("x.pt", "big/x.pt", "checkpoints/big/net/x.pt", "few/net/fold-0/model.pt"):
        found = check(str(model_file(out / name)))
        assert f"{name} is in the output folder of this run" in found
        assert found.endswith("copy it to another folder, and write the path of the copy")
        assert "\n" not in found


def test_a_missing_file_is_named_with_the_key_that_the_user_wrote(tmp_path: Path) -> None:
    def check(**changes: Any) -> str:
        # A dataset that joins others has no files of its own, but a start.
        both = {"join": ["big", "few"], "models": ["net"]}
        raw = over(datasets={"few": {"train": None}, "big": {"split": {"folds": None}}})
        raw = merge(merge(raw, {"datasets": {"both": both}, "data_root": str(tmp_path),
                                "output": str(tmp_path / "out")}), changes)  # fmt: skip
        with pytest.raises(UserError) as error:
            Run(load(raw)).sources.check()
        return str(error.value)

    start = {"train": {"from": "none.pt"}}
    missing = f".train.from: no such file: {tmp_path / 'none.pt'}; "
    found = check(datasets={"both": start})
    assert found.startswith(f"config: datasets.both{missing}")
    assert "\n" not in found
    for more in ({}, {"learning_curve": [0.5]}, {"sweep": {"train.freeze": [0, 1]}}):
        found = check(models={"net": {**start, **more}})
        assert found.startswith(f"config: models.net{missing}")
        assert "\n" not in found
    assert check(**start).startswith("config: train.from: no such file")
