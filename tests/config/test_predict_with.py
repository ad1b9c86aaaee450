"""Trained models on other images: the config, what reruns, which thresholds are used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.evaluated import Stores, add_cells, cells, probability
from unet.config.data_settings import PrepareAppliedSettings
from unet.config.load import load, load_file
from unet.config.run import Config, merge
from unet.config.sections import EvaluateSection
from unet.config.stage_settings import SETTINGS, EvaluateSettings, ReportAllSettings, StitchSettings
from unet.errors import UserError
from unet.evaluation.evaluate import chosen_thresholds, evaluate_model
from unet.files import canonical, write_json
from unet.paths import ENSEMBLE, Origin, Paths, origin_of
from unet.planning.jobs import Run
from unet.prediction.objects.threshold import carried_threshold

RAW: dict[str, Any] = {
    "datasets": {
        "cells": {
            "synthetic": {"kind": "membranes"}, "classes": {"membrane": 0, "cell": 255},
            "split": {"folds": 3}, "models": ["plain"], "stitch": {"min_size": 3, "pyramid": 2},
        },
        "nuclei": {
            "synthetic": {"kind": "nuclei", "images": 8}, "task": "instances",
            "split": {"folds": 4, "test": 0.25, "run": [0, 2]},
        },
        "new": {"images": "new/*.tif", "predict_with": ["nuclei/plain", "nuclei/border"]},
    },
    "models": {
        "plain": {"preset": "unet-bn", "depth": 2, "predict": {"tta": True}},
        "border": {"preset": "unet-bn", "depth": 2, "head": "border", "stitch": {"method": "grow"}},
    },
    "train": {"patch": 64},
}  # fmt: skip
# `border` needs instances, so `cells` must not use it.


def new(**keys: Any) -> dict[str, Any]:
    return {"datasets": {"new": keys}}


def test_names() -> None:
    assert origin_of("plain") is None
    assert origin_of("plain@nuclei") == Origin("plain", "nuclei")
    assert Origin("plain", "nuclei").name == "plain@nuclei"
    paths = Paths(Path("out"))
    assert paths.model("new", "plain@nuclei", 2) == paths.model("nuclei", "plain", 2)
    assert paths.prepared("new", "plain") == Path("out/new/prepared.zarr")
    assert paths.prepared_done("new", "plain@nuclei") == Path("out/new/plain@nuclei/prepared.json")
    assert paths.tiles("new", "plain@nuclei", ENSEMBLE).parent.name == "fold-ensemble"


@pytest.mark.parametrize("split", [{"group": "(plate)"}, {"group": "(plate)", "test": 0.25}, {}])
def test_the_group_alone_may_be_given(split: dict[str, Any]) -> None:
    section = load(merge(RAW, new(split=split))).datasets["new"].split
    assert section.group == split.get("group")


def test_what_a_dataset_takes_from_the_models() -> None:
    config = load(RAW)
    data = config.datasets["new"]
    assert (data.task, data.classes, data.labelled) == ("instances", None, False)
    assert config.models_for("new") == ("plain@nuclei", "border@nuclei")
    assert config.head_for("new", "border@nuclei") == ("background", "inside", "border")
    assert (config.folds_for("new"), config.tested_for("new")) == ((), (ENSEMBLE,))
    # Overrides of the dataset it was trained on apply here, then those of this dataset.
    over = new(predict_with=["cells/plain"], stitch={"pyramid": 4}, predict={"tile": 200})
    config = load(merge(RAW, over))
    data = config.datasets["new"]
    assert (data.task, data.classes) == ("semantic", {"membrane": 0, "cell": 255})
    section = config.stitch_for("new", "plain@cells")
    assert (section.min_size, section.pyramid) == (3, 4)
    assert config.predict_for("new", "plain@cells").tta
    assert config.predict_for("new", "plain@cells").tile == 200
    # The label values may differ from those in training.
    named = new(predict_with=["cells/plain"], labels="x", classes={"membrane": 7, "cell": 1})
    config = load(merge(RAW, named))
    assert config.datasets["new"].labelled
    assert StitchSettings.of(config, "new", "plain@cells").class_values == (7, 1)
    assert PrepareAppliedSettings.of(config, "new", "plain@cells").to_json()["classes"] == [
        ["membrane", 7], ["cell", 1],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("over", "line"),
    [
        (new(predict_with=["nuclei"]), "predict_with: got 'nuclei'; write <dataset>/<model>"),
        (new(predict_with=["nuclei/plain", "nuclei/plain"]), "name each model once"),
        (new(predict_with=[]), "must name at least one"),
        (new(predict_with=["nucle/plain"]), "no dataset 'nucle'; there are: cells, nuclei"),
        (new(predict_with=["cells/border"]),
         "dataset cells trains no model 'border'; there are: plain"),
        (new(predict_with=["new/plain"]), "new/plain is of the dataset itself"),
        # A cycle, or a chain.
        (merge(new(), {"datasets": {"nuclei": {"predict_with": ["new/plain"]}}}),
         "nuclei.predict_with: dataset new has predict_with itself and trains no model; there are: "
         "cells"),
        (new(models=["plain"]), "datasets.new.models: has no effect with predict_with"),
        (new(split={"folds": 3}), "datasets.new.split: has no effect"),
        (new(train={"lr": 0.1}), "datasets.new.train: has no effect"),
        (new(prepare={"normalize": {"method": "minmax"}}),
         "prepare.normalize: has no effect with predict_with, the model's own normalisation is"),
        (new(task="semantic", classes={"a": 0, "b": 1}),
         "datasets.new.task: got semantic, but nuclei/plain was trained for task instances; write "
         "task: instances"),
        (new(predict_with=["cells/plain", "nuclei/plain"]),
         "cells/plain has task semantic, nuclei/plain has task instances; make a dataset for each"),
        (new(predict_with=["cells/plain"], classes={"cell": 255, "membrane": 0}),
         "datasets.new.classes: got cell, membrane, but cells/plain predicts membrane, cell"),
        (new(predict_with=["nuclei/plain"], stitch={"method": "grow"}),
         "stitch.method: grow needs a model with head: border (dataset new, model plain@nuclei)"),
        (new(predict_with=["nuclei/plain"], predict={"tile": 8}), "predict.tile: 8 is too small"),
        (merge(new(channels=[0, 1, 2]), {"datasets": {"nuclei": {"channels": [0]}}}),
         "datasets.new.channels: got 3 of them, but nuclei/plain was trained on 1; choose as many"),
        # Datasets without predict_with still need these keys.
        ({"datasets": {"other": {"images": "x"}}}, "datasets.other: classes: needed"),
        ({"datasets": {"other": {"images": "x", "task": "instances"}}}, "datasets.other.labels"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_each(over: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        load(merge(RAW, over))
    lines = str(caught.value).splitlines()
    assert any(line in text for text in lines), lines
    assert len(lines) == len(set(lines)) <= 2
    assert all(text.startswith("config: ") for text in lines)


def all_settings(config: Config, *without: str) -> dict[str, str]:
    """The settings of all jobs, except those of the given datasets."""
    found = {}
    for dataset in config.datasets:
        if dataset in without:
            continue
        applied = bool(config.origins_for(dataset))
        for stage in (
            "manifest",
            "evaluate",
            "details",
            "report",
            *(() if applied else ("splits", "prepare")),
        ):
            found[f"{stage}:{dataset}"] = canonical(SETTINGS[stage].of(config, dataset).to_json())
        for model in config.models_for(dataset):
            own = ("prepare_applied",) if applied else ("train",)
            for stage in (*own, "predict", "stitch"):
                value = canonical(SETTINGS[stage].of(config, dataset, model).to_json())
                found[f"{stage}:{dataset}:{model}"] = value
    return found


def test_another_dataset_changes_no_other_settings() -> None:
    alone = {key: RAW["datasets"][key] for key in ("cells", "nuclei")}
    before = all_settings(load({**RAW, "datasets": alone}))
    config = load(RAW)
    assert all_settings(config, "new") == before
    mine = {k: v for k, v in all_settings(config).items() if k not in before}
    assert {key.split(":")[0] for key in mine} == {
        "manifest", "evaluate", "details", "report", "prepare_applied", "predict", "stitch",
    }  # fmt: skip
    assert json.loads(mine["manifest:new"])["labelled"] is False
    assert json.loads(mine["predict:new:plain@nuclei"])["members"] == [0, 2]
    assert json.loads(mine["report:new"])["applied"] == {
        "labelled": False, "networks": {"plain@nuclei": [0, 2], "border@nuclei": [0, 2]},
    }  # fmt: skip
    overall = ReportAllSettings.of(config).to_json()["datasets"]
    assert overall["new"]["labelled"] is False
    assert "labelled" not in overall["cells"]


def test_what_changes_the_settings_of_such_a_dataset() -> None:
    base = all_settings(load(RAW))

    def changed(over: dict[str, Any]) -> set[str]:
        now = all_settings(load(merge(RAW, over)))
        return {key for key in base if now.get(key) != base[key] and ":new" in key}

    # A retrained network is another file: an input of the stages, not part of any settings.
    assert changed({"train": {"lr": 0.5}}) == set()
    assert changed({"prepare": {"normalize": {"method": "minmax"}}}) == set()
    assert changed({"prepare": {"tile": 64}}) == {
        "prepare_applied:new:plain@nuclei", "prepare_applied:new:border@nuclei",
    }  # fmt: skip
    one = {"models": {"border": {"stitch": {"grow_px": 3}}}}
    assert changed(one) == {"stitch:new:border@nuclei"}
    auto = {"stitch": {"threshold": "auto"}}
    assert changed(auto) == {"stitch:new:plain@nuclei", "stitch:new:border@nuclei"}
    config = load(merge(RAW, auto))
    assert StitchSettings.of(config, "new", "plain@nuclei").thresholds_of == ("ensemble",)
    config = load(merge(merge(RAW, auto), new(predict_with=["cells/plain"])))
    assert StitchSettings.of(config, "new", "plain@cells").thresholds_of == ("0", "1", "2")


def test_the_run(tmp_path: Path) -> None:
    run = Run(load({**RAW, "output": str(tmp_path / "out"), "stitch": {"threshold": "auto"}}))
    paths, where = run.paths, ("new", "plain@nuclei")
    assert run.networks(*where) == [paths.model("nuclei", "plain", fold) for fold in (0, 2)]
    assert run.networks("cells", "plain", "1") == [paths.model("cells", "plain", 1)]
    assert (run.splits("new"), run.splits("cells")) == ([], [paths.splits("cells")])
    assert run.thresholds(*where) == [paths.segmentation_done("nuclei", "plain", ENSEMBLE)]
    assert run.thresholds("nuclei", "plain") == []
    done = [
        paths.segmentation_done("new", model, ENSEMBLE) for model in run.config.models_for("new")
    ]
    judged = [paths.quality("new", model) for model in run.config.models_for("new")]
    assert run.report_inputs("new") == [*done, *judged]
    assert set(judged) <= set(run.targets)
    assert run.quality_inputs("nuclei", "plain") == []
    assert run.quality_inputs(*where) == [
        paths.segmentation_done(*where, ENSEMBLE),
        paths.prepared_done(*where),
        *run.networks(*where),
        paths.segmentation_done("nuclei", "plain", ENSEMBLE),
        paths.prepared_done("nuclei"),
        paths.metrics("nuclei", "plain"),
    ]
    assert (
        run.threshold_scores("new", "plain@nuclei"),
        run.threshold_scores("cells", "plain"),
    ) == ([], [])
    over = new(evaluate={"metrics": ["topology"]}, predict_with=["cells/plain"])
    choosing = Run(load({**merge(RAW, over), "output": str(tmp_path / "out")}))
    assert choosing.threshold_scores("new", "plain@cells") == [paths.metrics("cells", "plain")]
    own = ("cells", "plain")
    assert {paths.metrics(*own), *paths.details(*own)} <= set(run.report_inputs("cells"))
    run.write_config()
    assert load_file(paths.config) == run.config


def test_the_carried_threshold_is_the_mean_over_folds(tmp_path: Path) -> None:
    files = [tmp_path / f"{k}.json" for k in range(3)]
    for path, threshold in zip(files, (0.4, 0.5, 0.7), strict=True):
        write_json(path, {"threshold": threshold})
    assert carried_threshold(files[:1]) == 0.4
    assert carried_threshold(files) == pytest.approx(0.533333)


# Scores


def test_thresholds_of_metrics_come_from_where_the_model_was_trained(tmp_path: Path) -> None:
    """Images without labels are skipped."""
    source = Stores(tmp_path, "src")
    for fold, membrane in ((0, 0.32), (1, 0.52)):
        add_cells(source, f"v{fold}", membrane, membrane + 0.1, part="val", fold=fold)
        add_cells(source, f"t{fold}", membrane, 1, fold=fold)
    chosen = chosen_thresholds(source.evaluate("topology", "isbi2012"))
    assert chosen["foreground", "topology_threshold"] == pytest.approx((0.4 + 0.55) / 2)
    assert ("foreground", "isbi_rand_threshold") in chosen

    stores = Stores(tmp_path, "new", "net@src")
    add_cells(stores, "a", 0.45, 0.49, fold=ENSEMBLE)
    stores.truth("b", None, shape=(5, 11))
    stores.prediction("b", cells(), probabilities=probability(0, 1), fold=ENSEMBLE)
    section = EvaluateSection(metrics=("pixel", "topology"))
    folds = {ENSEMBLE: stores.segmentation(ENSEMBLE)}
    where = (stores.dataset, stores.model, folds, stores.prepared, {})
    names = ("background", "foreground")
    settings = EvaluateSettings.made(
        evaluate=section, task="semantic", class_names=names, applied=True
    )

    def scores(**more: Any) -> dict[str, float]:
        rows = evaluate_model(*where, settings, **more)
        assert {row.image for row in rows} == {"a"}
        return {row.metric: row.value for row in rows if row.class_ == "foreground"}

    found = scores(thresholds={("foreground", "topology_threshold"): 0.47})
    assert (found["topology_threshold"], found["v_rand"]) == (0.47, 1)
    assert scores()["topology_threshold"] == 0.5
    with pytest.raises(UserError, match="has no labels"):
        evaluate_model(*where, settings.model_copy(update={"applied": False}))
