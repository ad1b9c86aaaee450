"""What the check says about the weights that trainings start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.test_start import ARCH, start_of
from unet.cli.check_work import judged
from unet.cli.start_findings import start_findings
from unet.config.load import load
from unet.config.run import Config, merge
from unet.data.records import ImageRecord
from unet.data.survey.facts import DatasetSurvey, SurveyedImage
from unet.models.model_file import save_model
from unet.paths import Paths
from unet.planning.estimated_jobs import Machine
from unet.planning.jobs import Run

SIZE = (0.5, 0.5)
DATA = {"synthetic": {"kind": "nuclei"}, "task": "instances"}


def config_of(start: str, output: Path, **few: Any) -> Config:
    few = {**DATA, "models": ["net"], "train": {"from": start}, **few}
    return load({
        "output": str(output),
        "datasets": {"few": few, "big": {**DATA, "models": ["wide"]}},
        "models": {"net": {"preset": "unet-bn", "width": 2, "depth": 1},
                   "wide": {"preset": "unet-bn", "width": 4, "depth": 1}},
        "train": {"patch": 64},
    })  # fmt: skip


def survey(channels: int = 1, size: tuple[float, ...] | None = SIZE) -> DatasetSurvey:
    image = SurveyedImage("a", "a.tif", shape=(channels, 64, 64), pixel_size_um=size)
    return DatasetSurvey("few", "instances", "instances", "folders", (image,), 1, 1)


def test_a_start_that_fits_is_not_mentioned(tmp_path: Path) -> None:
    path = tmp_path / "start.pt"
    save_model(path, start_of(ARCH))
    config = config_of(str(path), tmp_path / "out")
    assert start_findings(config, "few", survey()) == []
    assert start_findings(config, "big", survey()) == []


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (survey(channels=3), "these have 3; the first layer is adapted"),
        (survey(size=(0.125, 0.125)), "objects look 4 times as large or small"),
    ],
)
def test_a_file_is_compared_with_the_images(tmp_path: Path, seen: DatasetSurvey, said: str) -> None:
    path = tmp_path / "start.pt"
    save_model(path, start_of(ARCH))
    (found,) = start_findings(config_of(str(path), tmp_path / "out"), "few", seen)
    assert (found.level, found.kind, found.where) == ("warn", "start_differs", "train.from")
    assert said in found.text
    # The job gets the path from the workflow, its config has none.
    config = config_of("file.pt", tmp_path / "out")
    assert start_findings(config, "few", seen, {"net": path}) == [found]


def test_a_model_of_the_run_is_known_by_its_config(tmp_path: Path) -> None:
    config = config_of("big/wide", tmp_path / "out")
    (found,) = start_findings(config, "few", survey())
    assert "width: 4 (here 2)" in found.text
    other = merge(config.model_dump(mode="json"), {"datasets": {"few": {"prepare": {
        "normalize": {"method": "none"}}}}})  # fmt: skip
    texts = [each.text for each in start_findings(load(other), "few", survey())]
    assert any("normalised differently" in text for text in texts)


def test_a_model_of_the_run_has_seen_the_images_of_its_dataset(tmp_path: Path) -> None:
    config = config_of("big/wide", tmp_path / "out", models=["wide"])

    def said(channels: int, size: tuple[float, ...] | None) -> list[str]:
        images = [ImageRecord("b", "b.tif", shape=(channels, 64, 64), pixel_size_um=size)]
        found = start_findings(config, "few", survey(), None, {"big": images})
        return [each.text for each in found]

    assert said(1, SIZE) == []
    (text,) = said(3, SIZE)
    assert "trained on images with 3 channels, these have 1" in text
    (text,) = said(1, (2.0, 2.0))
    assert "objects look 4 times as large or small" in text
    assert said(1, None) == []


def test_the_check_gets_the_manifests_of_starts(tmp_path: Path) -> None:
    config = config_of("big/wide", tmp_path / "out")
    manifest = Paths(tmp_path / "out").manifest("big")
    assert Run(config).start_manifests("few") == {"big": manifest}
    assert Run(config).start_manifests("big") == {}
    checked = judged(
        config, "few", {"few": survey()}, Machine(1e9, 1), None,
        {"big": [ImageRecord("b", "b.tif", shape=(3, 64, 64))]},
    )  # fmt: skip
    texts = [each.text for each in checked.survey.findings if each.kind == "start_differs"]
    assert any("images with 3 channels, these have 1" in text for text in texts)


def test_a_file_that_is_no_model_stops(tmp_path: Path) -> None:
    path = tmp_path / "start.pt"
    path.write_bytes(b"nothing")
    (found,) = start_findings(config_of(str(path), tmp_path / "out"), "few", survey())
    assert (found.level, found.kind) == ("stop", "start_unreadable")
    assert "\n" not in found.text


@pytest.mark.parametrize("more", [{}, {"learning_curve": [0.5]}])
def test_encoder_weights_that_no_training_reads(tmp_path: Path, more: dict[str, Any]) -> None:
    enc = {"preset": "unet-resnet34", "encoder_weights": "enc.pt", **more}
    raw: dict[str, Any] = {
        "output": str(tmp_path / "out"), "train": {"patch": 64}, "models": {"enc": enc},
        "datasets": {"few": {**DATA, "train": {"from": "big/enc"}}, "big": DATA},
    }  # fmt: skip
    # The training on the other dataset reads it.
    for dataset in ("few", "big"):
        kinds = {found.kind for found in start_findings(load(raw), dataset, survey())}
        assert "encoder_unused" not in kinds
    (tmp_path / "start.pt").write_bytes(b"nothing")
    raw["datasets"].pop("big")
    raw["datasets"]["few"]["train"]["from"] = str(tmp_path / "start.pt")
    (found,) = (
        found for found in start_findings(load(raw), "few", survey()) if found.level == "warn"
    )
    assert (found.kind, found.where) == ("encoder_unused", "models.enc.encoder_weights")
    assert "has no effect with train.from" in found.text
    assert "drop it" in found.text


@pytest.mark.parametrize(("key", "value"), [("freeze", 1), ("norm_statistics", "keep")])
def test_keys_that_need_a_start(tmp_path: Path, key: str, value: object) -> None:
    without = config_of("", tmp_path / "out", train={"from": None, key: value})
    (found,) = start_findings(without, "few", survey())
    assert (found.level, found.kind, found.where) == ("warn", "start_missing", f"train.{key}")
    assert found.text == f"{value} has no effect without train.from; write train.from, or drop it"
    assert start_findings(without, "big", survey()) == []
    # A key for all trainings is read by those that have a start.
    some = merge(without.model_dump(mode="json"), {"train": {key: value}, "datasets": {
        "few": {"train": {"from": "big/wide"}}}})  # fmt: skip
    assert "start_missing" not in {
        each.kind for each in start_findings(load(some), "big", survey())
    }
