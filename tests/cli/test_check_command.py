"""``unet check``: exit codes, what it prints and what it writes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml

from unet.cli import check_command, main
from unet.config.check_settings import CheckSettings
from unet.config.load import load
from unet.config.run import Config, merge
from unet.data.synthetic import write_dataset
from unet.paths import Paths
from unet.planning.estimated_jobs import Machine

CONFIG: dict[str, Any] = {
    "output": "out",
    "data_root": "raw",
    "device": "cpu",
    "datasets": {"own": {"images": "images", "labels": "labels", "task": "instances"}},
    "models": {"a": {"preset": "unet-bn", "width": 4, "depth": 1, "train": {"patch": 48}}},
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images and a config, and a machine of known speed."""
    write_dataset(tmp_path / "raw", "nuclei", 3, 8, (64, 64), 0.5)
    write(tmp_path, CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check_command, "this_machine", lambda *_: Machine(1e10, 2))
    return tmp_path


def write(folder: Path, config: dict[str, Any]) -> None:
    (folder / "my.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


def check(*words: str) -> int:
    return main.main(["check", *words])


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_it_writes_only_the_pages(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(place)
    assert check("my.yaml") == 0
    assert files(place) - before == {"out/own/check.html", "out/own/check.json"}
    said = capsys.readouterr()
    assert "8 usable" in said.out
    assert "page: out/own/check.html" in said.out
    assert said.err == ""
    assert check("my.yaml", "--output", "else/where") == 0
    folders = ("out", "else/where")
    assert files(place) - before == {
        f"{folder}/own/check.{kind}" for folder in folders for kind in ("html", "json")
    }


def test_json_and_nothing_else(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("my.yaml", "--json") == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert said.err == ""
    assert list(found) == ["own"]
    assert len(found["own"]["survey"]["images"]) == 8
    assert {row["stage"] for row in found["own"]["estimates"]} >= {"prepare", "train"}
    stored = json.loads((place / "out/own/check.json").read_text())
    # No inputs, so a run of the workflow makes it again.
    assert stored.pop("made_by")["inputs"] == {}
    assert found == {"own": stored}


def test_masks_of_other_tools(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare = {"mine": "masks", "gone": "nowhere"}
    split = {"folds": 4}
    write(place, merge(CONFIG, {"datasets": {"own": {"compare": compare, "split": split}}}))
    (place / "raw" / "masks").mkdir()
    for number, path in enumerate(sorted((place / "raw" / "labels").iterdir())):
        if number:
            tifffile.imwrite(place / "raw" / "masks" / path.name, tifffile.imread(path))
    assert check("my.yaml") == 2
    said = capsys.readouterr().out
    assert re.search(r"Masks of mine +7 of 8 test images \(\.tif\)\n", said)
    assert re.search(r"Masks of gone +none that can be used\n", said)
    assert "stop: datasets.own.compare.gone: no folder or file" in said
    assert "warning: datasets.own.compare.mine: no mask for 1 of 8 test images" in said
    page = (place / "out/own/check.html").read_text()
    assert "<dt>Masks of mine</dt><dd>7 of 8 test images (.tif)</dd>" in page
    assert "masks_missing" in page
    assert '<th class="text" scope="row">compare</th><td class="text">mine</td>' in page


def test_a_stop(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (place / "raw" / "labels").iterdir():
        tifffile.imwrite(path, np.zeros((64, 64), np.uint16))
    assert check("my.yaml") == 2
    assert "stop:" in capsys.readouterr().out
    # The page is whole.
    assert "</html>" in (place / "out/own/check.html").read_text()
    assert check_command.show_checks(Paths(Path("out")), ["own"]) is True
    assert check_command.stopped(Paths(Path("out")), ["own"])


def test_mistakes_are_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (("none.yaml",), "none.yaml"),
        (("my.yaml", "--dataset", "owm"), "no dataset 'owm'; there are: own; did you mean own?"),
    ):
        assert check(*words) == 2
        error = capsys.readouterr().err
        assert said in error
        assert len(error.splitlines()) == 1
    write(place, merge(CONFIG, {"train": {"epohcs": 3}}))
    assert check("my.yaml") == 2
    assert "did you mean epochs?" in capsys.readouterr().err
    assert not (place / "out").exists()


@pytest.mark.parametrize("number", ["0", "-3", "2.5", "many"])
def test_threads_are_a_number_above_0(
    place: Path, capsys: pytest.CaptureFixture[str], number: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        check("my.yaml", f"--threads={number}")
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert f"--threads: got {number}; write a whole number above 0" in error
    assert len(error.splitlines()) == 1


def test_generated_images_that_are_not_there_yet(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generated = {"gen": {"synthetic": {"kind": "nuclei", "images": 4}, "task": "instances"}}
    write(place, merge(CONFIG, {"datasets": generated}))
    assert check("my.yaml") == 0
    said = capsys.readouterr()
    assert "gen: not generated yet" in said.err
    assert len(said.err.splitlines()) == 1
    assert "own" in said.out
    assert check("my.yaml", "--dataset", "own") == 0
    assert capsys.readouterr().err == ""


def test_a_folder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("raw", "--output", "there") == 0
    said = capsys.readouterr()
    assert "8 usable" in said.out
    (page,) = (place / "there").glob("*/check.html")
    assert page.is_file()


# The settings of the stage.


def test_settings_have_no_path_and_no_default() -> None:
    config = load(merge(CONFIG, {"output": "elsewhere", "train": {"epochs": 50, "batch": 3}}))
    values = CheckSettings.of(config, "own").to_json()["config"]
    assert values["train"] == {"batch": 3}
    assert not {"output", "data_root"} & values.keys()
    files_ = {"own": {"images": "i*.tif", "labels": "l*.tif"}}
    other = {"output": "b", "data_root": "/other", "train": {"batch": 3}, "datasets": files_}
    moved = load(merge(CONFIG, other))
    assert CheckSettings.of(moved, "own").to_json()["config"] == values


def test_settings_give_the_config_back() -> None:
    both = merge(CONFIG, {
        "datasets": {
            "own": {"models": ["a", "b"]},
            "new": {"images": "more", "predict_with": ["own/a"]},
            "other": {"images": "x", "labels": "y", "task": "instances"},
        },
        "models": {"b": {"preset": "unet2015", "train": {"patch": 188}}},
    })  # fmt: skip
    config: Config = load(both)
    for name in ("own", "new"):
        settings = CheckSettings.from_json(CheckSettings.of(config, name).to_json())
        data = config.datasets[name]
        again = settings.config_at(name, "out", "raw", data.images or "", data.labels)
        assert again.datasets[name] == data
        assert again.models_for(name) == config.models_for(name)
        assert "other" not in again.datasets
        for model in config.models_for(name):
            assert again.train_for("own", "a") == config.train_for("own", "a"), model
