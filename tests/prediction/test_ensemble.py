"""Ensembles of folds: their names, which folds are trained and tested, which network predicts which
image, and networks that do not match each other."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scripts.predict import main as predict
from scripts.train import main as train
from unet.cli.stage import parser
from unet.config.data_settings import SplitsSettings
from unet.config.geometry import common
from unet.config.load import load
from unet.config.presets import architecture_of
from unet.config.sections import PredictSection, SplitSection
from unet.config.stage_settings import StitchSettings, TrainSettings
from unet.data.records import ImageRecord, SplitRecord, ids_of
from unet.data.splits import make_splits
from unet.data.tiling import plan, read_window
from unet.errors import UserError
from unet.evaluation.evaluate import write_metrics
from unet.evaluation.metrics.rows import MetricRow
from unet.models.build import build
from unet.models.model_file import ModelFile
from unet.paths import ENSEMBLE, FOLD_PATTERN, Paths, fold_name, fold_number
from unet.planning.jobs import Run
from unet.prediction.tiles.ensemble import Ensemble, Member, held_out
from unet.report.collect import folds_there
from unet.report.costs import stage_costs
from unet.report.score_tables import read_metrics

CPU = torch.device("cpu")
SECTION = PredictSection(precision="float32")


def run_of(tmp_path: Path, **split: Any) -> Run:
    dataset = {"synthetic": {"kind": "nuclei", "images": 12}, "task": "instances", "split": split}
    models = {"m": {"preset": "unet-bn", "width": 2, "depth": 1}}
    return Run(load({"output": str(tmp_path), "datasets": {"d": dataset}, "models": models}))


# Names


@given(st.integers(ENSEMBLE, 1000))
def test_a_fold_has_one_name(fold: int) -> None:
    assert fold_number(fold_name(fold)) == fold
    assert Paths(Path("o")).model("d", "m", fold) == Paths(Path("o")).model(
        "d", "m", fold_name(fold)
    )


def test_the_ensemble_is_called_so(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    assert paths.tiles("d", "m", ENSEMBLE) == tmp_path / "d" / "m" / "fold-ensemble" / "tiles.zarr"
    assert paths.tiles("d", "m", "{fold}") == tmp_path / "d" / "m" / "fold-{fold}" / "tiles.zarr"
    for name in ("-1", "", "one", "1.0", "²"):
        with pytest.raises(ValueError, match="is not a fold"):
            fold_number(name)
    assert FOLD_PATTERN == r"\d+|ensemble"


def test_tables_and_folders_have_the_name(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    rows = [MetricRow("d", "m", k, "a", "", "cell", "iou", 0.5, 2.0) for k in (ENSEMBLE, 3)]
    write_metrics(paths.metrics("d", "m"), rows)
    assert [line.split(",")[2] for line in paths.metrics("d", "m").read_text().splitlines()] == [
        "fold", "ensemble", "3",
    ]  # fmt: skip
    assert read_metrics(paths.metrics("d", "m")) == rows
    for fold in (ENSEMBLE, 0, 10):
        paths.fold("d", "m", fold).mkdir(parents=True)
    (tmp_path / "d" / "m" / "fold-old").mkdir()
    assert folds_there(paths, "d", "m") == [ENSEMBLE, 0, 10]
    for stage, fold, seconds in (("train", "0", 5), ("train", "1", 6), ("predict", "ensemble", 7)):
        path = paths.benchmark(stage, "d", "m", fold)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\tcpu_time\tmax_rss\n{seconds}\t1\t1\n")
    found = stage_costs(paths, "d", ["m"], [0, 1, ENSEMBLE])
    assert [(cost.stage, cost.jobs, cost.seconds) for cost in found] == [
        ("train", 2, 11), ("predict", 1, 7),
    ]  # fmt: skip


# The workflow's folds


@pytest.mark.parametrize(
    ("split", "folds", "tested"),
    [
        ({}, (0,), (0,)),
        ({"folds": 3}, (0, 1, 2), (0, 1, 2)),
        ({"folds": 3, "run": [2, 0]}, (0, 2), (0, 2)),
        ({"folds": 3, "test": 0.2}, (0, 1, 2), (ENSEMBLE,)),
        ({"folds": 3, "test": 0.2, "run": [2, 0]}, (0, 2), (ENSEMBLE,)),
    ],
)
def test_which_folds_are_trained_and_tested(
    tmp_path: Path, split: dict[str, Any], folds: tuple[int, ...], tested: tuple[int, ...]
) -> None:
    run = run_of(tmp_path, **split)
    assert (run.folds("d"), run.tested("d")) == (folds, tested)
    assert run.members("d", "2") == (2,)
    told = json.loads(run.settings("predict", "d", "m"))
    report = json.loads(run.settings("report", "d"))
    assert report["folds"] == list(folds)
    if tested == (ENSEMBLE,):
        assert run.members("d", "ensemble") == folds
        assert told["members"] == list(folds)
        assert report["tested"] == ["ensemble"]
    else:
        # The same as before ensembles existed, so that nothing runs again.
        assert set(told) == {"version", "predict", "device"}
        assert "tested" not in report


def test_other_stages_are_told_nothing_of_the_ensemble(tmp_path: Path) -> None:
    some = run_of(tmp_path, folds=3, test=0.2, run=[0]).config
    every = run_of(tmp_path, folds=3, test=0.2).config
    assert SplitsSettings.of(some, "d") == SplitsSettings.of(every, "d")
    for kind in (TrainSettings, StitchSettings):
        assert kind.of(some, "d", "m") == kind.of(every, "d", "m")


def test_generated_images_must_be_enough(tmp_path: Path) -> None:
    run_of(tmp_path, folds=11, test=0.01)
    with pytest.raises(UserError, match=r"split\.folds: 12 folds need at least 13 images"):
        run_of(tmp_path, folds=12, test=0.01)


# Which network predicts which image


@given(st.integers(2, 5), st.integers(8, 30), st.data())
def test_no_network_predicts_an_image_that_it_trained_on(
    folds: int, count: int, data: st.DataObject
) -> None:
    split = SplitSection(test=0.25, folds=folds)
    records = [ImageRecord(f"i{k}", f"i{k}.tif") for k in range(count)]
    rows = make_splits(records, split, 0)
    run = sorted(data.draw(st.sets(st.integers(0, folds - 1), min_size=1)))
    parts, alone = held_out(rows, run)
    assert set(alone) == {image for image, part in parts.items() if part == "val"}
    for image, part in parts.items():
        by = [run[alone[image]]] if part == "val" else run
        assert all(image not in ids_of(rows, fold, "train") for fold in by)
    tested = set(ids_of(rows, 0, "test"))
    assert set(parts) == tested.union(*(ids_of(rows, fold, "val") for fold in run))
    assert {image for image, part in parts.items() if part == "test"} == tested


def test_folds_of_a_cross_validation_make_no_ensemble() -> None:
    rows = [
        SplitRecord(image, fold, part)  # type: ignore[arg-type]
        for fold, parts in enumerate((("test", "val", "train"), ("train", "test", "val")))
        for image, part in zip("abc", parts, strict=True)
    ]
    assert held_out(rows, [1]) == ({"b": "test", "c": "val"}, {"c": 0})
    with pytest.raises(ValueError, match="folds 0 and 1 test different images"):
        held_out(rows, [0, 1])
    twice = [SplitRecord("a", fold, "val") for fold in (0, 1)]
    with pytest.raises(ValueError, match="image a validates folds 0 and 1"):
        held_out(twice, [0, 1])


def member(
    name: str, preset: str = "unet-bn", channels: int = 1, head: int = 2, **layers: Any
) -> Member:
    arch = architecture_of(preset, **{"width": 2, "depth": 1, **layers})
    names = tuple("abc"[:head])
    model = ModelFile(
        architecture=arch, in_channels=channels, head=names, class_names=names, class_values=None,
        task="semantic", normalize={}, pixel_size_um=None, settings={}, versions={}, score=0.0,
        step=0, weights=build(channels, head, arch, 0).state_dict(),
    )  # fmt: skip
    return Member(Path(name), model, f"hash of {name}")


def test_keys_name_the_networks_in_their_order() -> None:
    one, two = member("1"), member("2")
    ensemble = Ensemble([one, two], {"v": 1}, CPU, SECTION)
    assert ensemble.key("v") == two.key
    assert Ensemble([one], {"v": 0}, CPU, SECTION).key("t") == one.key
    both = ensemble.key("t")
    assert both not in (one.key, two.key)
    assert Ensemble([two, one], {}, CPU, SECTION).key("t") != both
    assert Ensemble([one, replace(two, key="x")], {}, CPU, SECTION).key("t") != both
    # Each network is in memory once.
    assert ensemble.predictor("v").networks[0] is ensemble.predictor("t").networks[1]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (member("2.pt", channels=2), r"their channels differ \(1, 2\)"),
        (member("2.pt", head=3), r"their heads differ \(\['a', 'b'\], \['a', 'b', 'c'\]\)"),
        (member("2.pt", "unet2015"), "their layers need different windows.*plan.yaml.*split.test"),
    ],
)
def test_networks_that_do_not_fit_one_another(other: Member, message: str) -> None:
    with pytest.raises(UserError, match=rf"^1\.pt and 2\.pt: {message}") as error:
        Ensemble([member("1.pt"), other], {}, CPU, SECTION)
    assert "\n" not in str(error.value)
    # Another width is allowed.
    assert Ensemble([member("1.pt"), member("3.pt", width=3)], {}, CPU, SECTION).width == 3


def test_padded_networks_of_different_depth_share_their_windows() -> None:
    members = [member("1.pt"), member("2.pt", "unet-res", depth=3)]
    ensemble = Ensemble(members, {"v": 0}, CPU, SECTION)
    assert ensemble.footprint == common([one.footprint for one in members])
    # The one that validates an image gets the same windows, and its core is exact in them.
    image = np.random.default_rng(0).normal(size=(1, 128, 120)).astype(np.float32)
    layout, alone = plan((128, 120), 8, ensemble.footprint), ensemble.predictor("v")
    found = np.empty((2, 128, 120), np.float32)
    for tile in layout.tiles:
        p = alone(read_window(image, tile.window)[None])[0]
        found[(slice(None), *tile.core)] = p[(slice(None), *tile.inner)]
    assert len(layout.tiles) > 1
    np.testing.assert_allclose(found, alone.whole(image), atol=1e-5, rtol=0)


# The command line


def test_the_command_line_takes_the_name() -> None:
    p: argparse.ArgumentParser = parser("x", "X.", model=True, fold=True)
    words = ["--dataset", "d", "--model", "m", "--settings", "{}", "--fold"]
    assert p.parse_args([*words, "ensemble"]).fold == ENSEMBLE
    assert p.parse_args([*words, "7"]).fold == 7
    with pytest.raises(SystemExit):
        p.parse_args([*words, "-1"])


def test_a_split_that_makes_no_ensemble(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--output", str(tmp_path), "--dataset", "d", "--model", "m", "--fold", "ensemble"]
    told = run_of(tmp_path, folds=3).settings("predict", "d", "m")
    assert predict([*words, "--settings", told]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --fold ensemble: datasets.d.split has none; set both folds")
    assert said.count("\n") == 1
    with pytest.raises(SystemExit):
        train([*words, "--settings", told])
    assert "an ensemble cannot be trained" in capsys.readouterr().err
