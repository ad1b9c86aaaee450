"""The file with an encoder's weights: tracked by content, not by path; found before a job runs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from unet.config.load import load
from unet.errors import UserError
from unet.planning.jobs import Run
from unet.training.train import _start_encoder


def run_with(folder: Path, **model: Any) -> Run:
    data = {"synthetic": {"kind": "nuclei", "images": 4, "size": 96}, "task": "instances"}
    models = {"enc": {"preset": "unet-resnet34", **model},
              "plain": {"preset": "unet-bn"}}  # fmt: skip
    raw = {"datasets": {"gen": data}, "models": models, "data_root": str(folder),
           "output": str(folder / "out"), "train": {"patch": 64}}  # fmt: skip
    return Run(load(raw))


def settings(run: Run, model: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run.settings("train", "gen", model))
    return found


def test_tracked_by_content(tmp_path: Path) -> None:
    for name, content in (("a.pt", b"1"), ("b.pt", b"1"), ("c.pt", b"2")):
        (tmp_path / name).write_bytes(content)
    without = settings(run_with(tmp_path), "enc")
    assert "encoder_weights" not in without
    assert "encoder_weights" not in settings(run_with(tmp_path, encoder_weights="a.pt"), "plain")
    a, b, c = (settings(run_with(tmp_path, encoder_weights=f"{n}.pt"), "enc") for n in "abc")
    assert a == b == {**without, "encoder_weights": hashlib.sha256(b"1").hexdigest()}
    assert c["encoder_weights"] == hashlib.sha256(b"2").hexdigest()
    absolute = run_with(tmp_path / "elsewhere", encoder_weights=str(tmp_path / "c.pt"))
    assert settings(absolute, "enc") == c


def test_a_missing_file_shows_before_any_job(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"config: models\.enc\.encoder_weights: no such file: .*a\.pt"
    ):
        run_with(tmp_path, encoder_weights="a.pt").sources.check()
    run_with(tmp_path).sources.check()


def test_a_training_with_a_start_does_not_read_the_file(tmp_path: Path) -> None:
    keys = {"encoder_weights": "a.pt", "train": {"from": "gen/plain"}}
    run = run_with(tmp_path, **keys)
    run.sources.check()
    assert "encoder_weights" not in settings(run, "enc")


def test_a_missing_file_is_one_line_with_the_model_that_the_user_wrote(tmp_path: Path) -> None:
    def check(**model: Any) -> str:
        with pytest.raises(UserError) as error:
            run_with(tmp_path, **model).sources.check()
        return str(error.value)

    where = f"no such file: {tmp_path / 'a.pt'}; save torchvision's state dict there"
    for more in ({"learning_curve": [0.5, 0.25]}, {"sweep": {"train.lr": [0.1, 0.01]}}):
        found = check(encoder_weights="a.pt", **more)
        assert found.startswith(f"config: models.enc.encoder_weights: {where}")
        assert "\n" not in found
    found = check(sweep={"encoder_weights": ["a.pt", None]})
    assert found.startswith(f"config: models.enc.sweep: encoder_weights: {where}")
    (tmp_path / "a.pt").mkdir()
    found = check(encoder_weights="a.pt")
    assert f"{tmp_path / 'a.pt'} is a folder; save torchvision's state dict to a file" in found


def test_only_for_networks_with_an_encoder(tmp_path: Path) -> None:
    for preset in ("unet-bn", "auto"):
        with pytest.raises(UserError, match=r"encoder_weights: the preset \S+ has no encoder"):
            run_with(tmp_path, preset=preset, encoder_weights="a.pt")
    with pytest.raises(UserError, match="width: the preset unet-resnet34 has no such value"):
        run_with(tmp_path, width=8)


def test_a_file_that_changed_after_planning(tmp_path: Path) -> None:
    path, network = tmp_path / "a.pt", None
    path.write_bytes(b"1")
    with pytest.raises(UserError, match="has changed since this training was planned"):
        _start_encoder(network, path, hashlib.sha256(b"2").hexdigest())  # type: ignore[arg-type]
    with pytest.raises(UserError, match="--encoder-weights: no such file: None"):
        _start_encoder(network, None, "0" * 64)  # type: ignore[arg-type]
