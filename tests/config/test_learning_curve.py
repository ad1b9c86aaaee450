"""Learning curves: the models that a list of shares stands for, in the config and in what runs."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from unet.cli.stage import parser, settings_of
from unet.config.check_settings import CheckSettings
from unet.config.learning_curve import collapsed
from unet.config.load import load
from unet.config.run import Config, merge
from unet.config.shown_config import as_yaml
from unet.config.stage_settings import SETTINGS, ReportAllSettings, ReportSettings, TrainSettings
from unet.errors import UserError
from unet.paths import Paths
from unet.planning.jobs import Run

MEMBERS = ["net", "net-12pct", "net-25pct", "net-50pct"]
RAW: dict[str, Any] = {
    "datasets": {
        "one": {
            "synthetic": {"kind": "nuclei"}, "task": "instances", "models": ["net"],
            "split": {"folds": 2},
        },
        "all": {"synthetic": {"kind": "nuclei"}, "task": "instances"},
        "new": {"synthetic": {"kind": "nuclei"}, "predict_with": ["one/net-25pct"]},
    },
    "models": {
        "net": {
            "preset": "unet-bn", "depth": 2, "train": {"lr": 0.01},
            "learning_curve": [0.5, 0.125, 0.25],
        },
        "other": {"preset": "unet-bn", "depth": 2},
    },
    "train": {"patch": 64},
}  # fmt: skip


def mistake(raw: dict[str, Any]) -> str:
    with pytest.raises(UserError) as error:
        load(raw)
    return str(error.value)


def test_each_share_is_a_model_that_differs_only_in_its_images() -> None:
    config = load(RAW)
    assert sorted(config.models) == sorted([*MEMBERS, "other"])
    assert config.models_for("one") == tuple(MEMBERS)
    assert config.models_for("all") == tuple(sorted([*MEMBERS, "other"]))
    assert config.models_for("new") == ("net-25pct@one",)
    whole = TrainSettings.of(config, "one", "net").to_json()
    assert "subset" not in whole["train"]
    for member, share in zip(MEMBERS[1:], (0.125, 0.25, 0.5), strict=True):
        found = TrainSettings.of(config, "one", member).to_json()
        assert found["train"].pop("subset") == share
        assert found == whole
        for stage in ("predict", "stitch"):
            assert (
                SETTINGS[stage].of(config, "one", member).to_json()
                == SETTINGS[stage].of(config, "one", "net").to_json()
            )


def test_a_curve_changes_no_other_job() -> None:
    without = load(merge(RAW, {"models": {"net": {"learning_curve": None}},
                               "datasets": {"new": {"predict_with": ["one/net"]}}}))  # fmt: skip
    config = load(RAW)
    for stage in ("train", "predict", "stitch"):
        for model in ("net", "other"):
            assert (
                SETTINGS[stage].of(config, "all", model).to_json()
                == SETTINGS[stage].of(without, "all", model).to_json()
            )
    assert "curves" not in ReportSettings.of(without, "all").to_json()
    assert "learning_curve" not in json.dumps(CheckSettings.of(without, "all").to_json())


def test_the_shares_run_as_jobs() -> None:
    run = Run(load(RAW))
    wanted = run.targets
    paths = Paths(run.paths.output)
    for member in MEMBERS:
        assert paths.model("one", member, 1) in wanted
        assert paths.metrics("one", member) in wanted
        assert paths.metrics("one", member) in run.report_inputs("one")


def test_the_report_compares_only_the_model_itself() -> None:
    config = load(RAW)
    settings = ReportSettings.of(config, "all")
    assert settings.models == ("net", "other")
    assert settings.curves == {
        "net": {"net-12pct": 0.125, "net-25pct": 0.25, "net-50pct": 0.5, "net": 1.0}
    }
    assert settings.of_curves == ("net-12pct", "net-25pct", "net-50pct")
    assert ReportSettings.from_json(settings.to_json()) == settings
    overall = ReportAllSettings.of(config).datasets
    assert overall["all"].models == ("net", "other")
    assert overall["one"].models == ("net",)
    # A share that is named alone is a model like any other.
    assert overall["new"].models == ("net-25pct@one",)
    assert ReportSettings.of(config, "new").curves == {}
    lone = load(merge(RAW, {"datasets": {"one": {"models": ["net-25pct"]}}}))
    assert ReportSettings.of(lone, "one").models == ("net-25pct",)
    assert ReportSettings.of(lone, "one").curves == {}


@pytest.mark.parametrize("train", [{"lr": 0.01}, "nnunet", {"recipe": "nnunet", "lr": 0.1}])
def test_a_printed_config_loads_as_the_same_run(train: Any) -> None:
    config = load(merge(RAW, {"models": {"net": {"train": train}}}))
    short = yaml.safe_load(as_yaml(config, changed=True))
    assert sorted(short["models"]) == ["net", "other"]
    assert short["datasets"]["one"]["models"] == ["net"]
    assert load(short) == config
    assert load(yaml.safe_load(as_yaml(config))) == config
    # And with the models written out.
    whole = config.model_dump(mode="json")
    assert "net-25pct" in whole["models"]
    assert load(whole) == config
    assert load(collapsed(config).model_dump(mode="json")) == config


def test_the_check_sees_the_models_of_the_curve() -> None:
    config = load(RAW)
    for name, data in config.datasets.items():
        assert data.synthetic is not None
        again = CheckSettings.of(config, name).config_at(name, "out", "", "", None)
        assert again.models_for(name) == config.models_for(name)
        for model in again.models_for(name):
            if "@" not in model:
                assert TrainSettings.of(again, name, model) == TrainSettings.of(config, name, model)


def test_a_share_can_be_trained_by_hand(tmp_path: Any) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(RAW))
    words = ["--dataset", "one", "--model", "net-50pct", "--fold", "0", "--config", str(path)]
    args = parser("train", "", model=True, fold=True).parse_args([*words, "--output", "out"])
    assert settings_of(args, TrainSettings).train.subset == 0.5


def curve(*shares: Any) -> dict[str, Any]:
    return {"models": {"net": {"learning_curve": list(shares)}}}


NO_NEW: dict[str, Any] = {"datasets": {"new": None}}


@pytest.mark.parametrize(
    ("over", "words"),
    [
        (curve(0.125, 0.12), "0.125 and 0.12 both make the model net-12pct"),
        (curve(0.25, 0.25), "0.25 and 0.25 both make the model net-25pct"),
        (curve(0), "models.net.learning_curve: write a list of shares of the training images, 0.01 "
         "to below 1, such as [0.25, 0.5] (got [0])"),
        (curve(1), "0.01 to below 1, such as [0.25, 0.5] (got [1])"),
        (curve("a"), "such as [0.25, 0.5] (got ['a'])"),
        (curve(10, 50), "such as [0.1, 0.5] (got [10, 50])"),
        (curve("20%"), "such as [0.1, 0.2] (got ['20%'])"),
        (curve(0.25, 1.5), "such as [0.125, 0.25] (got [0.25, 1.5])"),
        (curve(1.5), "such as [0.25, 0.5] (got [1.5])"),
        (curve(12.5, 50), "such as [0.125, 0.5] (got [12.5, 50])"),
        (curve(0.25, "50%"), "such as [0.25, 0.5] (got [0.25, '50%'])"),
        (curve(0.5, True), "0.01 to below 1"),
        ({"models": {"net": {"learning_curve": 0.25}}}, "such as [0.125, 0.25] (got 0.25)"),
        ({"models": {"net-25pct": {"preset": "unet-bn"}}}, "models.net-25pct is another one"),
        ({"models": {"n" * 60: {"preset": "unet-bn", "depth": 2, "learning_curve": [0.5]}}},
         "longer than 64 characters"),
        ({"train": {"subset": 0}}, "train.subset: must be greater than 0"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(over: dict[str, Any], words: str) -> None:
    lines = mistake(merge(merge(RAW, NO_NEW), over)).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("config: ")
    assert words in lines[0]


def test_a_mistake_of_the_model_is_said_once() -> None:
    for over in ({"train": {"epochs": 0}}, {"train": {"patch": 65}}, {"train": {"loss": "x"}}):
        raw = merge(merge(RAW, NO_NEW), {"models": {"net": over}, "datasets": {"all": None}})
        lines = mistake(raw).splitlines()
        assert len(lines) == 1
        assert "pct" not in lines[0]


def test_shares_have_exact_names() -> None:
    shares = [round(0.01 * k, 2) for k in range(1, 100)]
    for some in (shares[k::10] for k in range(10)):
        config: Config = load(merge(merge(RAW, NO_NEW), curve(*some)))
        assert [f"net-{round(100 * share)}pct" for share in some] == [
            name for name in config.models if name.startswith("net-")
        ]
