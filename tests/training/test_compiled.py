"""Compiled steps: the weights of plain ones except for rounding; plain ones where it fails."""

from __future__ import annotations

import logging
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.train import warn_of_training
from tests.trainings import trainer
from unet.config.presets import architecture_of
from unet.config.sections import TrainSection
from unet.data.dataset_warnings import training_warnings
from unet.errors import UserError
from unet.paths import Paths
from unet.training.trainer import Trainer

# Dropout, whose masks must be those of plain steps, and statistics that must count each step once.
ARCH = architecture_of("unet-bn", width=2, depth=1, dropout=0.5)
SIZES: dict[str, Any] = {"arch": ARCH, "epochs": 2, "steps_per_epoch": 3, "schedule": "constant"}


def weights(run: Trainer) -> dict[str, torch.Tensor]:
    run.run()
    return run.network.state_dict()


# torch itself uses what it will remove.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_compiled_steps_are_the_same_steps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = weights(trainer(tmp_path / "plain", **SIZES))
    caplog.set_level(logging.INFO, "unet")
    whole = trainer(tmp_path / "whole", **SIZES, compile=True)
    compiled = weights(whole)
    assert [r.levelname for r in caplog.records if "compile" in r.getMessage()] == ["INFO"]
    for name, values in plain.items():
        torch.testing.assert_close(compiled[name], values, atol=1e-4, rtol=1e-3)
    # Stopped and resumed: to the bit.
    first = trainer(tmp_path / "cut", **SIZES, compile=True)
    first.total = 4
    weights(first)
    rest = weights(trainer(tmp_path / "cut", **SIZES, compile=True))
    assert all(torch.equal(rest[name], values) for name, values in compiled.items())


def broken(error: Exception) -> Callable[..., Any]:
    """Replaces torch.compile: the network changes its statistics, then compiling fails."""

    def compile_(network: Any, **options: Any) -> Any:
        def run(x: torch.Tensor) -> Any:
            network(x)
            raise error

        return run

    return compile_


def test_without_a_compiler_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = weights(trainer(tmp_path / "plain", **SIZES))
    monkeypatch.setattr(torch, "compile", broken(RuntimeError("no C++ compiler\nand more")))
    run = trainer(tmp_path / "other", **SIZES, compile=True)
    found = weights(run)
    assert all(torch.equal(found[name], values) for name, values in plain.items())
    (line,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    start = "warning: train.compile: the network could not be compiled here (no C++ compiler), so"
    assert line.startswith(start)
    assert "\n" not in line
    assert [f"warning: {text}" for text in run.warnings] == [line]


@pytest.mark.parametrize(
    "error", [UserError("train.lr: wrong"), torch.cuda.OutOfMemoryError("out of memory")]
)
def test_other_failures_are_no_failures_of_compiling(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", broken(error))
    with pytest.raises(UserError, match="train"):
        trainer(tmp_path, **SIZES, compile=True).run()


def test_a_mistake_of_the_network_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", broken(RuntimeError("x")))
    run = trainer(tmp_path, **SIZES, compile=True)

    def fail(x: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError("of the network")

    monkeypatch.setattr(run.network, "forward", fail)
    with pytest.raises(ZeroDivisionError, match="of the network"):
        run.run()


def test_the_report_says_that_nothing_was_compiled(
    tmp_path: Path,
) -> None:
    paths, args = Paths(tmp_path), Namespace(dataset="d", model="m", fold=0)
    section = TrainSection(epochs=100)
    warn_of_training(tmp_path / "start.json", paths, args, False, section, ["train.compile: no"])
    assert training_warnings(paths, "d", "m", 0) == ["train.compile: no"]
