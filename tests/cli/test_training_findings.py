"""What the check says about the settings of trainings."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from scripts.train import warn_of_training
from unet.cli.training_findings import training_findings
from unet.config.load import load
from unet.config.run import Config
from unet.config.sections import TrainSection
from unet.data.dataset_warnings import read_warnings
from unet.paths import Paths

DATA = {"synthetic": {"kind": "nuclei"}, "task": "instances"}
MODEL = {"preset": "unet-bn", "width": 2, "depth": 1}


def config_of(train: Any, **models: Any) -> Config:
    return load({"datasets": {"d": DATA}, "models": {"m": MODEL, **models},
                 "train": {"patch": 64, **train}})  # fmt: skip


def test_a_warm_up_that_is_as_long_as_the_training() -> None:
    short = {"epochs": 2, "steps_per_epoch": 25}
    (found,) = training_findings(config_of(short), "d")
    assert (found.level, found.kind, found.where) == ("warn", "long_warm_up", "train.warmup_steps")
    assert found.text.startswith("50 steps, but the training has 50 (epochs x steps_per_epoch)")
    assert "such as 5" in found.text
    assert training_findings(config_of({**short, "warmup_steps": 49}), "d") == []
    # A model that shows a start takes no step.
    tuned = {**MODEL, "train": {"from": "file.pt"}}
    config = config_of(short, n=tuned)
    assert "n-start" in config.trained_for("d")
    (same,) = training_findings(config, "d")
    assert same == found
    # Only one of the models.
    other = {**MODEL, "train": {"warmup_steps": 0}}
    (found,) = training_findings(config_of(short, n=other), "d")
    assert found.text.endswith("(models: m)")


def test_the_run_says_it_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths, train = Paths(tmp_path), TrainSection(epochs=1, steps_per_epoch=10)
    for fold in (0, 1):
        args = Namespace(dataset="d", model="m", fold=fold)
        warn_of_training(tmp_path / "start.json", paths, args, False, train)
    (line,) = read_warnings(paths.dataset("d"), ["m"])
    assert line.startswith("train.warmup_steps: 50 steps, but the training has 10")
    assert f"warning: {line}" in caplog.messages
