"""The config as `unet config` prints it: it reads back as the same config, changes are marked, and
the schema accepts what the package accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from unet.cli import main
from unet.config.load import load, load_file
from unet.config.run import Config, merge
from unet.config.shown_config import as_yaml, changed_keys
from unet.config.yaml_file import read_yaml

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ROOT / "config" / "config.yaml"
FILES = [DEFAULT, ROOT / ".test" / "config" / "config.yaml"]
FILES += sorted((ROOT / "config" / "examples").glob("*.yaml"))
MINIMAL: dict[str, Any] = {
    "datasets": {"d": {"images": "i", "labels": "l", "task": "instances"}},
    "models": {"m": {"preset": "unet-bn"}},
}


def config_of(path: Path) -> Config:
    raw = read_yaml(path)
    return load(raw if raw.get("datasets") else merge(read_yaml(DEFAULT), raw))


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name + "/" + path.name)
def test_it_reads_back_as_the_same_config(path: Path, changed: bool) -> None:
    config = config_of(path)
    again = load(yaml.safe_load(as_yaml(config, changed=changed)))
    assert again == config
    assert as_yaml(again, changed=changed) == as_yaml(config, changed=changed)


def test_what_differs_from_the_defaults_is_marked() -> None:
    given = merge(MINIMAL, {"train": {"epochs": 7, "lr": 0.001}, "models": {"m": {"width": 8}}})
    lines = as_yaml(load(given)).splitlines()
    assert "  epochs: 7  # default: 50" in lines
    assert "  lr: 0.001" in lines  # given, but the default
    assert "    width: 8  # default: the preset's" in lines
    assert "    preset: unet-bn  # given" in lines
    text = as_yaml(load(given), changed=True)
    assert yaml.safe_load(text) == {
        "datasets": {"d": {"images": "i", "labels": "l", "task": "instances"}},
        "models": {"m": {"preset": "unet-bn", "width": 8}},
        "train": {"epochs": 7},
    }
    assert all("#" in line or line.endswith(":") for line in text.splitlines())


def test_a_split_that_nobody_wrote_is_not_listed() -> None:
    def splits(**split: Any) -> list[tuple[str, str, str]]:
        over = {"datasets": {"d": {"split": split}}} if split else {}
        return [row for row in changed_keys(load(merge(MINIMAL, over))) if ".split" in row[0]]

    assert splits() == []
    assert splits(folds=3) == [("datasets.d.split.folds", "3", "none")]
    words = "0.25 without folds and column"
    assert splits(test=0.3) == [("datasets.d.split.test", "0.3", words)]


def test_what_preset_auto_chooses_is_not_written() -> None:
    given = merge(MINIMAL, {"models": {"m": {"preset": "auto"}}, "train": {"batch": 4}})
    config = load(given)
    again = load(yaml.safe_load(as_yaml(config)))
    assert "patch" not in again.train.model_fields_set
    assert again.train.batch == 4
    assert again == config


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    assert main.main(["config", str(DEFAULT)]) == 0
    assert load(yaml.safe_load(capsys.readouterr().out)) == load_file(DEFAULT)
    # A file without datasets goes over the default config, as in a run.
    part = tmp_path / "part.yaml"
    part.write_text("train: {epochs: 9}\n")
    monkeypatch.chdir(ROOT)
    assert main.main(["config", str(part), "--changed"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["train"]["epochs"] == 9
    assert set(shown["datasets"]) == {"membranes", "nuclei", "phase"}
    monkeypatch.chdir(tmp_path)
    for words, line in {
        (str(part),): "error: config: datasets: this key is needed",
        (): "error: CONFIG: missing; give a config file, such as config/config.yaml",
        ("--schema", str(part)): "error: --schema: write it alone",
        ("prat.yaml",): "error: prat.yaml: cannot be read: no such file; did you mean part.yaml?",
    }.items():
        assert main.main(["config", *words]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert line in err


def test_the_schema_that_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["config", "--schema"]) == 0
    found = json.loads(capsys.readouterr().out)
    file = ROOT / "workflow" / "schemas" / "config.schema.yaml"
    assert found == yaml.safe_load(file.read_text(encoding="utf-8"))
    validator = Draft202012Validator(found)
    for path in FILES:
        raw = read_yaml(path)
        whole = raw if raw.get("datasets") else merge(read_yaml(DEFAULT), raw)
        assert list(validator.iter_errors(whole)) == [], path
        assert list(validator.iter_errors(yaml.safe_load(as_yaml(config_of(path))))) == [], path
    for over, key in (
        ({"trian": {}}, "trian"),
        ({"train": {"epoch": 3}}, "epoch"),
        ({"models": {"m": {"widht": 3}}}, "widht"),
        ({"datasets": {"d": {"imges": "x"}}}, "imges"),
    ):
        (mistake,) = validator.iter_errors(merge(MINIMAL, over))
        assert f"'{key}' was unexpected" in mistake.message
