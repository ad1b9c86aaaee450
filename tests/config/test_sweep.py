"""Sweeps: the models that lists of values stand for, in the config and in what runs."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from tests.config.test_learning_curve import mistake
from unet.config.check_settings import CheckSettings
from unet.config.choose_settings import ChooseSettings
from unet.config.load import load
from unet.config.run import merge
from unet.config.shown_config import as_yaml
from unet.config.stage_settings import SETTINGS, ReportAllSettings, ReportSettings, TrainSettings
from unet.config.sweep import collapsed
from unet.config.swept_names import combinations, member_name
from unet.errors import UserError
from unet.paths import Paths
from unet.planning.jobs import Run

MEMBERS = ("net-width8-lr0_01", "net-width8-lr0_0003", "net-width16-lr0_01",
           "net-width16-lr0_0003")  # fmt: skip
RAW: dict[str, Any] = {
    "datasets": {
        "one": {
            "synthetic": {"kind": "nuclei"}, "task": "instances", "models": ["net"],
            "split": {"folds": 2},
        },
        "all": {"synthetic": {"kind": "nuclei"}, "task": "instances"},
        "new": {"synthetic": {"kind": "nuclei"}, "predict_with": ["one/net"]},
    },
    "models": {
        "net": {
            "preset": "unet-bn", "depth": 2, "train": {"ema": 0.9},
            "sweep": {"width": [8, 16], "train.lr": [0.01, 0.0003]},
        },
        "other": {"preset": "unet-bn", "depth": 2},
    },
    "train": {"patch": 64},
}  # fmt: skip
WITHOUT = merge(RAW, {"models": {"net": {"sweep": None}}})


def sweep(**lists: Any) -> dict[str, Any]:
    """The config with this sweep alone; ``__`` stands for a dot."""
    section = {key.replace("__", "."): values for key, values in lists.items()}
    models = {**RAW["models"], "net": {**RAW["models"]["net"], "sweep": section}}
    return {**RAW, "models": models}


def test_each_combination_is_a_model_in_the_order_written() -> None:
    config = load(RAW)
    assert tuple(config.members_of("net")) == MEMBERS
    assert list(config.models) == ["net", "other", *MEMBERS]
    for member, (width, lr) in zip(
        MEMBERS, [(8, 0.01), (8, 0.0003), (16, 0.01), (16, 0.0003)], strict=True
    ):
        assert config.models[member].width == width
        assert config.models[member].depth == 2
        assert config.train_for("one", member).lr == lr
        assert config.train_for("one", member).ema == 0.9


def test_they_are_trained_and_nothing_else() -> None:
    config = load(RAW)
    assert config.models_for("one") == ("net",)
    assert config.models_for("all") == ("net", "other")
    assert config.models_for("new") == ("net@one",)
    assert config.trained_for("one") == MEMBERS
    assert config.trained_for("all") == (*MEMBERS, "other")
    assert config.trained_for("new") == ()
    # Named alone, one of them is a model like any other.
    lone = load(merge(RAW, {"datasets": {"all": {"models": [MEMBERS[0]]}}}))
    assert lone.models_for("all") == lone.trained_for("all") == (MEMBERS[0],)


def test_planning_asks_for_the_chosen_model_alone() -> None:
    run = Run(load(RAW))
    paths = Paths(run.paths.output)
    asked = [*run.targets, *run.report_inputs("one"), *run.report_inputs("all")]
    assert not [path for path in asked if "width" in str(path)]
    assert paths.model("one", "net", 1) in asked
    assert paths.choice("one", "net", 1) in run.report_inputs("one")
    assert run.tried(paths.history, "one", "net") == [
        paths.history("one", member, fold) for member in MEMBERS for fold in (0, 1)
    ]
    assert run.tried(paths.model, "one", "net", "1") == [
        paths.model("one", member, 1) for member in MEMBERS
    ]


def test_one_rule_makes_each_model() -> None:
    def makers(run: Run, model: str) -> list[str]:
        """The rules whose pattern of a path takes this model, as Snakemake asks."""
        path = f"out/one/{model}/fold-0/model.pt"
        patterns = {"train": run.trained_pattern, "choose": run.chosen_pattern}
        return [
            rule
            for rule, pattern in patterns.items()
            if re.fullmatch(rf"out/one/(?P<model>{pattern})/fold-0/model\.pt", path)
        ]

    run = Run(load(RAW))
    assert makers(run, "net") == ["choose"]
    for model in (*MEMBERS, "other", "net2", "ne"):
        assert makers(run, model) == ["train"]
    plain = Run(load(WITHOUT))
    assert makers(plain, "net") == ["train"]
    assert plain.trained_pattern == "[A-Za-z0-9_-]+"


def test_other_jobs_do_not_change() -> None:
    config, without = load(RAW), load(WITHOUT)
    for stage in ("predict", "stitch", "evaluate", "details", "audit"):
        for model in ("net", "other"):
            assert Run(config).settings(stage, "all", model) == Run(without).settings(
                stage, "all", model
            )
    assert (
        SETTINGS["train"].of(config, "all", "other").to_json()
        == SETTINGS["train"].of(without, "all", "other").to_json()
    )
    assert "sweep" not in json.dumps(ReportSettings.of(without, "all").to_json())
    assert "sweep" not in json.dumps(CheckSettings.of(without, "all").to_json())
    assert ReportAllSettings.of(config) == ReportAllSettings.of(without)


def test_settings() -> None:
    config = load(RAW)
    settings = ChooseSettings.of(config, "one", "net")
    assert (settings.members, settings.folds) == (MEMBERS, ())
    assert settings.values[MEMBERS[1]] == {"width": 8, "train.lr": 0.0003}
    assert ChooseSettings.from_json(settings.to_json()) == settings
    report = ReportSettings.of(config, "all")
    assert report.models == ("net", "other")
    assert report.sweeps == {"net": MEMBERS}
    assert ReportSettings.from_json(report.to_json()) == report
    assert ReportSettings.of(config, "new").sweeps == {}
    with pytest.raises(UserError, match="no sweep"):
        ChooseSettings.of(config, "all", "other")
    with pytest.raises(UserError, match="has a sweep"):
        TrainSettings.of(config, "all", "net")


@pytest.mark.parametrize(
    ("split", "deciding"),
    [
        ({"folds": 3}, ()),
        ({"folds": 3, "run": [1]}, ()),
        ({"folds": 3, "test": 0.2}, (0, 1, 2)),
        ({"folds": 3, "test": 0.2, "run": [0, 2]}, (0, 2)),
        ({"test": 0.2}, (0,)),
        ({"column": "part"}, (0,)),
        ({}, (0,)),
    ],
)
def test_a_fold_never_chooses_by_its_own_test_images(
    split: dict[str, Any], deciding: tuple[int, ...]
) -> None:
    """With folds that test their own images, other folds validate on them."""
    raw = merge(RAW, {"datasets": {"one": {"split": None}}})
    run = Run(load(merge(raw, {"datasets": {"one": {"split": split}}})))
    assert ChooseSettings.of(run.config, "one", "net").folds == deciding
    fold = run.folds("one")[-1]
    assert run.deciding("one", "net", str(fold)) == [
        run.paths.history("one", member, k) for member in MEMBERS for k in deciding or (fold,)
    ]


def test_a_changed_split_chooses_again() -> None:
    def settings(**split: Any) -> str:
        return Run(load(merge(RAW, {"datasets": {"one": {"split": split}}}))).settings(
            "choose", "one", "net"
        )

    assert settings(folds=2) != settings(folds=2, test=0.2)
    # A fold more is nothing to those that choose alone.
    assert settings(folds=2) == settings(folds=2, run=[0])


@pytest.mark.parametrize("split", [{"folds": 2}, {"folds": 2, "test": 0.2}, {"test": 0.2}])
@pytest.mark.parametrize(
    ("lists", "fit"),
    [
        ({"preset": ["unet-bn", "unet-res"], "depth": [2, 3]}, True),
        ({"preset": ["unet2015"], "width": [8, 16]}, True),
        ({"preset": ["unet2015", "unet-bn"]}, False),
    ],
)
def test_folds_that_choose_alone_must_fit_one_another(
    split: dict[str, Any], lists: dict[str, Any], fit: bool
) -> None:
    raw = merge(sweep(**lists), {"datasets": {"all": None}})
    raw["datasets"] = {**raw["datasets"], "one": {**raw["datasets"]["one"], "split": split}}
    if fit or split != {"folds": 2}:
        load(raw)
        return
    (line,) = mistake(raw).splitlines()
    assert line.startswith("config: datasets.new.predict_with: each fold of one/net chooses")
    assert "write test beside folds in datasets.one.split" in line


@pytest.mark.parametrize("train", [{"lr": 0.01}, "nnunet", {"recipe": "nnunet", "lr": 0.1}])
def test_a_printed_config_loads_as_the_same_run(train: Any) -> None:
    config = load(merge(RAW, {"models": {"net": {"train": train}}}))
    for text in (as_yaml(config), as_yaml(config, changed=True)):
        short = yaml.safe_load(text)
        assert sorted(short["models"]) == ["net", "other"]
        assert load(short) == config
    whole = config.model_dump(mode="json")
    assert MEMBERS[0] in whole["models"]
    assert load(whole) == config
    assert load(collapsed(config).model_dump(mode="json")) == config


def test_the_check_sees_the_models_of_the_sweep() -> None:
    config = load(RAW)
    for name in config.datasets:
        again = CheckSettings.of(config, name).config_at(name, "out", "", "", None)
        assert again.models_for(name) == config.models_for(name)
        assert again.trained_for(name) == config.trained_for(name)
        for model in again.trained_for(name):
            assert TrainSettings.of(again, name, model) == TrainSettings.of(config, name, model)


def test_the_job_of_the_check_names_the_models_as_the_run_does() -> None:
    run = Run(load(sweep(width=[8, 16], train__lr=[0.01], depth=[2])))  # not in alphabetical order
    names = ("net-width8-lr0_01-depth2", "net-width16-lr0_01-depth2")
    assert run.config.trained_for("one") == names
    for name in ("one", "new"):
        settings = CheckSettings.from_json(json.loads(run.settings("check", name)))
        again = settings.config_at(name, "out", "", "", None)
        assert again.trained_for("one") == names


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"width": 16, "train.lr": 0.001}, "m-width16-lr0_001"),
        ({"train.lr": 1e-5}, "m-lr0_00001"),
        ({"train.lr": "3e-4"}, "m-lr0_0003"),  # YAML reads it as text
        ({"train.loss": "dice"}, "m-loss_dice"),
        ({"preset": "unet-bn"}, "m-preset_unet-bn"),
        ({"residual": True}, "m-residual_true"),
        ({"train.clip_norm": None}, "m-clip_norm_null"),
        ({"train.patch": [32, 64, 64]}, "m-patch32x64x64"),
        ({"train.augment.flip": False, "train.epochs": 5}, "m-flip_false-epochs5"),
    ],
)
def test_names(values: dict[str, Any], name: str) -> None:
    assert member_name("m", values) == name


def test_no_sweep_has_no_combination() -> None:
    assert combinations({}) == []
    assert combinations({"a": [1, 2], "b": []}) == []


def test_presets_and_deeper_keys_can_be_swept() -> None:
    config = load(sweep(preset=["unet-bn", "unet-res"], train__augment__flip=[True, False]))
    flips = [config.train_for("one", m).augment.flip for m in config.trained_for("one")]
    assert flips == [True, False, True, False]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (sweep(widht=[8]), "no key 'widht' of a model"),
        (sweep(train__rl=[0.1]), "no key 'train.rl' of a model"),
        (sweep(width=[]), "width: the list is empty"),
        (sweep(width=8), "models.net.sweep: width: write a list of the values to try, such as "
         "width: [8, 16] (got 8)"),
        (sweep(width="8, 16"), "such as width: [8, 16] (got '8, 16')"),
        (sweep(residual=True), "such as residual: [true, false] (got True)"),
        (sweep(train={"lr": [0.1, 0.2]}), "train: write keys with dots, such as train.lr: [0.1, "
         "0.2]"),
        (sweep(train={"augment": {"flip": [True, False]}}),
         "such as train.augment.flip: [true, false]"),
        (sweep(train={"patch": [[64, 64], None]}), "such as train.patch: [[64, 64], null]"),
        (sweep(train={"augment": {"flip": True}}), "such as train.augment.flip: [true, false]"),
        (merge(RAW, {"models": {"net": {"sweep": [8, 16]}}}), "write a list of values by key"),
        (sweep(train__learning_rate=[0.1, 0.2]), "did you mean train.lr?"),
        (sweep(lr=[0.1, 0.2]), "no key 'lr' of a model; did you mean train.lr?"),
        (sweep(learning_rate=[0.1, 0.2]), "did you mean train.lr?"),
        (sweep(augment__flip=[True, False]), "did you mean train.augment.flip?"),
        (sweep(train__qqq=[1, 2]), "no key 'train.qqq' of a model; write such as width or "
         "train.lr"),
        # Only one of the values does not fit: it is the sweep that has it.
        (merge(sweep(train__patch=[64, 130], width=[4, 8]),
               {"datasets": {"one": None, "new": None}}),
         "config: models.net.sweep: train.patch: 130 does not fit the network"),
        (sweep(width=[8, 0]), "net.sweep: width: must be greater than or equal to 1 (got 0)"),
        (sweep(train__lr=[0.1, -1]), "train.lr: must be greater than 0 (got -1)"),
        (sweep(train__loss=["ce", "x"]), "models.net.sweep: train.loss"),
        (sweep(width=[8, 8]), "two combinations make the model net-width8"),
        (sweep(head=["classes", "border"]), "head: cannot be swept: it changes what the network"),
        (sweep(border_width=[1, 2]), "border_width: cannot be swept"),
        (sweep(train__subset=[0.5, 1]), "write learning_curve to see"),
        (sweep(train__gpus=[1, 2]), "it changes nothing in training"),
        (sweep(stitch__threshold=[0.5]), "stitch.threshold: cannot be swept"),
        (sweep(train__augment=[{"flip": True}]), "a value is a mapping"),
        (sweep(width=list(range(1, 102))), "makes 101 models, at most 100"),
        (merge(RAW, {"models": {"net": {"learning_curve": [0.5]}}}),
         "cannot be used together with learning_curve"),
        (merge(RAW, {"models": {MEMBERS[0]: {"preset": "unet-res"}}}), "is another one"),
        (merge(RAW, {"datasets": {"new": {"predict_with": [f"one/{MEMBERS[0]}"]}}}),
         f"trains no model '{MEMBERS[0]}'; there are: net; {MEMBERS[0]} is tried by a sweep: "
         "write one/net"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(raw: dict[str, Any], words: str) -> None:
    lines = mistake(raw).splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("config: ")
    assert words in lines[0]


def test_one_combination_is_a_sweep_of_one_model() -> None:
    config = load(sweep(width=[8]))
    assert tuple(config.members_of("net")) == ("net-width8",)
    assert config.trained_for("one") == ("net-width8",)
    assert load(yaml.safe_load(as_yaml(config))) == config


def test_names_that_are_too_long_or_not_allowed() -> None:
    long = {**sweep(width=[8, 16]), "datasets": {"all": RAW["datasets"]["all"]}}
    long["models"] = {"n" * 60: long["models"]["net"]}
    assert "longer than 64 characters" in mistake(long)
    raw = sweep(train__cells=["a b"])
    assert "is not allowed; write numbers or plain words" in mistake(raw)


def test_a_mistake_of_all_is_said_once_and_of_some_by_name() -> None:
    for over in ({"train": {"epochs": 0}}, {"train": {"patch": 65}}, {"train": {"loss": "x"}}):
        raw = merge(merge(RAW, {"datasets": {"all": None}}), {"models": {"net": over}})
        lines = mistake(raw).splitlines()
        assert len(lines) == 1, lines
    # A patch that does not fit one of them names that one.
    raw = merge(sweep(train__patch=[64, 65]), {"datasets": {"all": None}})
    assert "(dataset one, model net-patch65)" in mistake(raw)
    # What the model itself would need does not matter: it is never trained.
    load(merge(sweep(train__patch=[32, 64]), {"models": {"net": {"train": {"patch": 65}}}}))
