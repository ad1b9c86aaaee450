"""`unet download`: the list, a download, and the config that it gives."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
import yaml

from unet.cli.main import main
from unet.config.load import load_file
from unet.config.public_datasets import public_names


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Of a set whose hash nobody published."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("ISBI-2012-challenge/train-volume.tif", "x")
    path = tmp_path / "mine.zip"
    path.write_bytes(buffer.getvalue())
    return path


def test_the_list(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["download"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in public_names())
    (line,) = [line for line in text.splitlines() if "PhC-C2DH-U373" in line]
    assert "40 MB" in line
    assert "2D" in line
    assert main(["download", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(public_names())
    assert all(row["licence"] and row["page"] and row["cite"] for row in rows)


def test_a_download_and_its_config(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["download", "isbi2012", str(tmp_path / "data"), "--from", str(archive)]
    assert main(words) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["data_root"] == str(tmp_path / "data")
    assert shown["datasets"]["isbi2012"]["download"] == "isbi2012"
    assert (tmp_path / "data/isbi2012/ISBI-2012-challenge/train-volume.tif").is_file()

    config = tmp_path / "my.yaml"
    assert main([*words, "-o", str(config)]) == 0
    said = capsys.readouterr()
    assert "is there already" in said.err
    assert f"unet check {config}" in said.err
    assert not said.out
    assert load_file(config).datasets["isbi2012"].layout == "stack"
    before = config.read_text()
    assert main([*words, "-o", str(config)]) == 2
    assert "exists; write another name, or --force" in capsys.readouterr().err
    assert main([*words, "-o", str(config), "--force", "--json"]) == 0
    assert config.read_text() == before
    found = json.loads(capsys.readouterr().out)
    assert not found["fetched"]
    assert len(found["sha256"]["ISBI-2012-challenge.zip"]) == 64


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["isbi2013"], "no public dataset 'isbi2013'; did you mean isbi2012?"),
        (["NuInsSeg"], "cannot be downloaded by a program; log in at Kaggle"),
        (["isbi2012", "--from", "none.zip"], "--from: no such file: none.zip"),
    ],
)
def test_mistakes(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["download", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
