"""Estimates of time, memory and disk space: by hand, and in proportion to the work."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from unet.config.layers import flop, layers_of, parameters
from unet.config.load import load
from unet.config.presets import Architecture
from unet.config.run import Config, merge
from unet.data.survey.facts import DatasetSurvey, SurveyedImage
from unet.planning.estimated_jobs import Machine, sizes_of
from unet.planning.estimates import (
    CHECKPOINT,
    PACKED,
    SCORED,
    START,
    Estimate,
    estimates,
    total,
)

BASE: dict[str, Any] = {
    "datasets": {"d": {"images": "images", "labels": "labels", "task": "instances",
                       "split": {"test": 0.25, "val": 0.2}}},
    "models": {"m": {"preset": "unet-bn", "width": 8, "depth": 2}},
    "train": {"patch": 64, "batch": 4, "epochs": 10, "steps_per_epoch": 20},
    "device": "cpu",
}  # fmt: skip
MACHINE = Machine(1e9, 2)


def survey(
    count: int = 10, shape: tuple[int, ...] = (1, 128, 128), size: float | None = None, **more: Any
) -> DatasetSurvey:
    pixel = None if size is None else (size,) * (len(shape) - 1)
    images = tuple(
        SurveyedImage(f"i{n}", f"i{n}.tif", "l", shape=shape, pixel_size_um=pixel)
        for n in range(count)
    )
    return DatasetSurvey("d", "instances", "instances", "folders", images, count, count, **more)


def found(over: dict[str, Any], one: DatasetSurvey, machine: Machine = MACHINE) -> dict[str, Any]:
    """stage -> its estimate."""
    config = load(merge(BASE, over))
    return {each.stage: each for each in estimates(config, "d", {"d": one}, machine)}


def test_the_stages_of_a_dataset() -> None:
    assert list(found({}, survey())) == [
        "manifest", "splits", "prepare", "train", "predict", "stitch", "evaluate",
        "details", "audit", "report",
    ]  # fmt: skip
    generated = {"images": None, "labels": None, "synthetic": {"kind": "nuclei"}}
    assert "synthesize" in found({"datasets": {"d": generated}}, survey())


def test_a_training_by_hand() -> None:
    train = found({}, survey())["train"]
    config = load(BASE)
    arch = config.architecture_for("m")
    assert isinstance(arch, Architecture)
    layers = layers_of(arch, 1, 2)
    steps = 10 * 20 * 4 * flop(layers, (64, 64), training=True) / 1e9
    # A pass over the validation images (0.15 of 10) per epoch, three times as fast.
    pixels = 0.15 * 10 * 128 * 128
    validation = 10 * pixels * flop(layers, (128, 128)) / 128**2 / 3e9
    assert train.seconds == pytest.approx(START["train"] + steps + validation, rel=1e-6)
    assert train.disk == (4 + 2 * CHECKPOINT) * parameters(layers)


def test_the_prepared_store_by_hand() -> None:
    prepare = found({}, survey(shape=(3, 100, 100)))["prepare"]
    image, labels = 4 * 3 * 10 * 100 * 100, 5 * 10 * 100 * 100
    assert prepare.disk == pytest.approx(PACKED * image + 0.05 * labels)


@pytest.mark.parametrize(
    ("over", "times"),
    [
        ({"train": {"epochs": 20}}, 2),
        ({"train": {"batch": 8}}, 2),
        ({"train": {"steps_per_epoch": 80}}, 4),
        ({"datasets": {"d": {"split": {"folds": 5, "test": None}}}}, 5),
        ({"datasets": {"d": {"split": {"folds": 5, "test": None, "run": [0, 1]}}}}, 2),
    ],
)
def test_more_work_takes_longer(over: dict[str, Any], times: float) -> None:
    one, more = found({}, survey())["train"], found(over, survey())["train"]
    start = START["train"]
    ratio = (more.seconds - start * more.jobs) / (one.seconds - start)
    assert ratio == pytest.approx(times, rel=0.1)


def test_the_masks_of_other_tools_by_hand() -> None:
    over = {"datasets": {"d": {"compare": {"stardist": "masks"}, "evaluate": {
        "metrics": ["pixel", "instance", "calibration"]}}}}  # fmt: skip
    row = found(over, survey())["compare"]
    assert (row.model, row.jobs) == ("stardist", 1)
    # A quarter of 10 images: one pass that stores the masks, and pixel and instance, but not
    # calibration, which needs probabilities.
    pixels = 0.25 * 10 * 128 * 128
    assert row.seconds == pytest.approx(START["compare"] + 3 * pixels / (SCORED * 2))
    assert row.disk == pytest.approx(5 * 0.05 * pixels)
    folds = {"datasets": {"d": {"split": {"folds": 5, "test": None}}}}
    assert found(merge(over, folds), survey())["compare"].disk == pytest.approx(4 * row.disk)
    ensemble = {"datasets": {"d": {"split": {"folds": 5}}}}
    assert found(merge(over, ensemble), survey())["compare"].disk == pytest.approx(row.disk)


def test_a_faster_machine() -> None:
    slow, fast = (
        found({}, survey(), Machine(speed, 2))["train"].seconds - START["train"]
        for speed in (1e9, 1e11)
    )
    assert slow == pytest.approx(100 * fast)


def test_known_splits_are_used() -> None:
    splits = {0: {"train": 1, "val": 1, "test": 8}}
    guessed, known = (found({}, survey(**more))["stitch"] for more in ({}, {"splits": splits}))
    # 0.4 of the images (0.25 + 0.15), or 0.9.
    assert known.disk / guessed.disk == pytest.approx(0.9 / 0.4, rel=1e-6)


def test_what_auto_will_choose_is_not_known() -> None:
    auto = {"models": {"m": {"preset": "auto", "width": None, "depth": None}}}
    rows = found(auto, survey())
    assert rows["train"].seconds is None
    assert rows["train"].disk is None
    assert rows["stitch"].seconds > 0
    assert total(rows.values()).seconds > 0


def _applied(origin: float | None, own: float | None) -> dict[str, Estimate]:
    config: Config = load(merge(BASE, {"datasets": {
        "e": {"images": "others", "predict_with": ["d/m"]}
    }}))  # fmt: skip
    surveys = {"d": survey(size=origin), "e": survey(size=own)}
    return {each.stage: each for each in estimates(config, "e", surveys, MACHINE)}


def test_images_at_the_pixel_size_of_the_model() -> None:
    same, finer = _applied(0.5, 0.5), _applied(0.25, 0.5)
    assert list(same) == ["manifest", "prepare_applied", "predict", "stitch", "quality", "report"]
    # Four times the pixels; the image on its own grid is stored as well.
    assert finer["predict"].disk == 4 * same["predict"].disk  # type: ignore[operator]
    assert finer["prepare_applied"].disk == 5 * same["prepare_applied"].disk  # type: ignore[operator]
    assert finer["stitch"].disk == same["stitch"].disk
    assert _applied(None, 0.5) == same


def test_volumes_and_no_images() -> None:
    volume = {"models": {"m": {"dims": 3}}, "train": {"patch": 16}}
    rows = found(volume, survey(2, (1, 20, 64, 64)))
    assert rows["train"].seconds > START["train"]
    assert rows["predict"].seconds > START["predict"]
    assert sizes_of(survey(0)).count == 0
    assert found({}, survey(0))["manifest"].seconds == START["manifest"]


def test_the_total() -> None:
    rows = [Estimate("a", "", 1, 2.0, 3.0, 4.0), Estimate("b", "", 2, None, 5.0, 1.0)]
    assert total(rows) == Estimate("total", "", 3, 2.0, 5.0, 5.0)


def test_no_heavy_library_is_loaded() -> None:
    code = "import sys, unet.planning.estimates; print({'torch', 'dask', 'zarr', 'numpy', 'pandas'} & set(sys.modules))"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_sweep_costs_trainings_alone() -> None:
    config = load(merge(BASE, {"models": {"m": {"sweep": {"train.lr": [0.01, 0.02]}}}}))
    rows = estimates(config, "d", {"d": survey()}, MACHINE)
    plain = found({}, survey())
    trained = [each for each in rows if each.stage == "train"]
    assert [each.model for each in trained] == ["m-lr0_01", "m-lr0_02"]
    assert {each.seconds for each in trained} == {plain["train"].seconds}
    for stage in ("choose", "predict", "stitch", "evaluate"):
        assert [each.model for each in rows if each.stage == stage] == ["m"]
    (predicted,) = (each for each in rows if each.stage == "predict")
    assert predicted == plain["predict"]


def test_the_chosen_model_is_as_large_as_the_largest_of_its_sweep() -> None:
    def predict(over: dict[str, object]) -> Estimate:
        config = load(merge(BASE, {"models": {"m": over}}))
        rows = estimates(config, "d", {"d": survey()}, MACHINE)
        return next(each for each in rows if each.stage == "predict")

    assert predict({"sweep": {"width": [4, 32, 8]}}) == predict({"width": 32})


def test_a_learning_curve_costs_a_training_for_each_share() -> None:
    config = load(merge(BASE, {"models": {"m": {"learning_curve": [0.25, 0.5]}}}))
    rows = estimates(config, "d", {"d": survey()}, MACHINE)
    plain = found({}, survey())
    for stage in ("train", "predict", "stitch", "evaluate"):
        own = [each for each in rows if each.stage == stage]
        assert [each.model for each in own] == ["m", "m-25pct", "m-50pct"]
        # The same number of steps, and the same images to predict.
        assert {each.seconds for each in own} == {plain[stage].seconds}
