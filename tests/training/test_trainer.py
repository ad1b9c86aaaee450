"""The training loop: outputs, stopping, and that a killed run ends with the same weights."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainings import (
    ARCH,
    CPU,
    ROOT,
    TIMES,
    data_of,
    history,
    outputs_of,
    same_weights,
    settings_of,
    train,
    trainer,
)
from unet.config.presets import architecture_of
from unet.config.stage_settings import TrainSettings
from unet.data.store import Prepared
from unet.errors import UserError
from unet.models.build import build
from unet.models.inference import Predictor
from unet.models.model_file import load_model
from unet.models.network import Network
from unet.paths import Paths
from unet.training.patch_targets import TargetSettings
from unet.training.progress import Stopped
from unet.training.sampling import TrainingImage, open_images
from unet.training.train import HISTORY_COLUMNS, train_fold, training_key, write_history
from unet.training.trainer import Trainer
from unet.training.training_job import TrainingResources
from unet.training.validation import validate

# What a training writes.


@pytest.mark.parametrize("loss", ["ce-dice", "border-ce", "weighted-ce"])
def test_model_and_history(make_store, loss: str) -> None:  # type: ignore[no-untyped-def]
    weights = "auto" if loss == "weighted-ce" else None
    model, rows = train(*make_store(), loss=loss, class_weights=weights)
    assert (model.architecture, model.in_channels, model.task) == (ARCH, 1, "instances")
    assert model.head == model.class_names == ("background", "foreground")
    assert (model.pixel_size_um, model.normalize) == ((0.5, 0.5), {"method": "none"})
    assert model.settings["train"]["lr"] == 1e-3
    assert tuple(rows[0]) == HISTORY_COLUMNS
    assert [(r["epoch"], r["step"]) for r in rows] == [("1", "4"), ("2", "8"), ("3", "12")]
    scores = [float(r["val_score"]) for r in rows]
    assert model.score == pytest.approx(max(scores), rel=1e-5)
    # The table has six digits, in which two scores may be equal.
    assert model.step in [int(r["step"]) for r in rows if float(r["val_score"]) == max(scores)]
    assert all(math.isfinite(float(row[name])) for row in rows for name in HISTORY_COLUMNS)


def test_unpadded_network_and_border_head(make_store) -> None:  # type: ignore[no-untyped-def]
    arch = architecture_of("unet2015", width=2, depth=1, dropout=0.3)
    model, rows = train(*make_store(), arch=arch, head="border", patch=36)
    assert model.head == ("background", "inside", "border")
    assert len(rows) == 3


def test_it_learns(make_store) -> None:  # type: ignore[no-untyped-def]
    """Bright discs on a dark ground: some steps are enough for most of them."""
    off = dict.fromkeys(("rotate_deg", "scale", "elastic_px", "gamma", "contrast", "noise"), 0)
    model, rows = train(
        *make_store(), epochs=3, steps_per_epoch=20, lr=0.02, augment=off, batch=4,
        arch=architecture_of("unet-bn", width=4, depth=1),
    )  # fmt: skip
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert model.score > 0.6


def test_the_same_seed_gives_the_same_weights(make_store) -> None:  # type: ignore[no-untyped-def]
    paths, sentinel = make_store()
    first, rows = train(paths, sentinel, "first", checkpoint_seconds=1e-6)
    again, same = train(paths, sentinel, "again")
    other, _ = train(paths, sentinel, "other", seed=1)
    assert same_weights(first, again)
    assert timeless(rows) == timeless(same)
    assert not same_weights(first, other)


def timeless(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def test_no_validation_images_keep_the_last_weights(make_store) -> None:  # type: ignore[no-untyped-def]
    paths, sentinel = make_store()
    data = data_of(paths, sentinel, "a", "")
    train_fold(data, settings_of(), 0, outputs_of(paths), TrainingResources(threads=1))
    model = load_model(paths.model("d", "m", 0))
    assert model.step == 12
    assert model.appearance is not None
    assert len(model.appearance["images"]) == 1  # the training image a
    assert [row["val_score"] for row in history(paths)] == ["", "", ""]


def test_no_training_images(make_store) -> None:  # type: ignore[no-untyped-def]
    paths, sentinel = make_store()
    with pytest.raises(UserError, match="no images left to train on"):
        train_fold(data_of(paths, sentinel, "", "c"), settings_of(), 0, outputs_of(paths))


def test_history_rows(tmp_path: Path) -> None:
    row = dict.fromkeys(HISTORY_COLUMNS, 1.0) | {"epoch": 1, "lr": 1 / 3, "val_loss": math.nan}
    write_history(tmp_path / "h.csv", [row])
    lines = (tmp_path / "h.csv").read_text().splitlines()
    assert lines == [",".join(HISTORY_COLUMNS), "1,1,0.333333,1,,1,1,1,1"]


def test_the_key_of_a_training() -> None:
    images = {name: {"key": f"key {name}"} for name in "abcd"}

    def key_of(lr: float, images: dict[str, Any], train: str, val: str) -> str:
        return training_key(
            settings_of(lr=lr), data_of(Paths(Path()), {"images": images}, train, val)
        )

    key = key_of(1, images, "ab", "c")
    more = {**images, "e": {"key": "new"}}
    # An image more in the test part: the finished training is found again.
    assert key_of(1, more, "ab", "c") == key
    for changed in (
        key_of(2, images, "ab", "c"),
        key_of(1, images, "abd", "c"),
        key_of(1, images, "ab", "d"),
        key_of(1, images, "abc", ""),
        key_of(1, {**images, "a": {"key": "other"}}, "ab", "c"),
    ):
        assert changed != key


# When it stops, and what it keeps.


def test_a_loss_of_nan_is_an_error(tmp_path: Path) -> None:
    wild = trainer(tmp_path, optimizer="sgd", lr=1e30, clip_norm=None, warmup_steps=0, loss="ce")
    with pytest.raises(UserError, match=r"train\.lr: the loss became nan at step \d+ .*smaller lr"):
        wild.run()
    # What was saved before, if anything, holds no such weights.
    state = wild.checkpoints.load()
    assert state is None


@pytest.mark.parametrize(
    ("scores", "patience", "every", "steps", "best"),
    [
        ([0.5, 0.6, 0.4, 0.4, 0.9], 2, 1, 16, 8),
        ([0.5, 0.6, 0.4, 0.7, 0.4], None, 1, 20, 16),
        ([0.5, 0.4, 0.4, 0.4, 0.4], 1, 1, 8, 4),
        # Validated at epochs 2, 4 and at the end: two in a row without a better one.
        ([0.5, 0.4, 0.9], 1, 2, 16, 8),
        ([0.1, 0.2, 0.3, 0.4, 0.5], 1, 1, 20, 20),
    ],
)
def test_early_stopping_and_the_best_weights(
    tmp_path: Path, scores: list[float], patience: int | None, every: int, steps: int, best: int
) -> None:
    left = iter(scores)
    seen: dict[int, torch.Tensor] = {}

    def score(network: Network) -> tuple[float, float]:
        seen[run.progress.step] = network.state_dict()["heads.0.weight"].clone()
        return 1.0, next(left)

    run = trainer(tmp_path, score, epochs=5, patience=patience, validate_every=every)
    run.run()
    assert run.progress.step == steps
    assert run.progress.best_step == best
    assert torch.equal(run.best["heads.0.weight"], seen[best])
    assert len(run.progress.history) == steps // 4
    taken = [not math.isnan(row["val_score"]) for row in run.progress.history]
    assert sum(taken) == len(seen)


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    first = trainer(tmp_path)
    first.run()
    again = trainer(tmp_path, score=lambda network: pytest.fail("validated again"))
    again.run()
    assert again.progress == first.progress
    assert all(torch.equal(again.best[k], first.best[k]) for k in first.best)


def test_the_average_of_the_weights(tmp_path: Path) -> None:
    """By hand from the weights of every step: kept <- kept + (1 - decay) (new - kept)."""
    run = trainer(tmp_path, ema=0.5, epochs=1)
    kept = run.network.state_dict()["heads.0.weight"].clone()
    step = run._step

    def watched(arrays: Any) -> float:
        loss = step(arrays)
        decay = min(0.5, (1 + run.progress.step) / (10 + run.progress.step))
        kept.lerp_(run.network.state_dict()["heads.0.weight"], 1 - decay)
        return loss

    run._step = watched  # type: ignore[method-assign]
    run.run()
    average = run.averaged.state_dict()
    torch.testing.assert_close(average["heads.0.weight"], kept)
    assert not torch.equal(average["heads.0.weight"], run.network.state_dict()["heads.0.weight"])
    # BatchNorm's statistics are averaged, its counter of batches is not.
    assert int(average["down.0.norms.0.num_batches_tracked"]) == 4
    assert torch.equal(run.best["heads.0.weight"], average["heads.0.weight"])


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_resumed_at_any_step(tmp_path: Path, optimizer: str, ema: float) -> None:
    """Stopped after each step, so that every step once is the first after a resume."""
    options: dict[str, Any] = {"optimizer": optimizer, "ema": ema, "lr": 0.01, "epochs": 2}
    options["augment"] = {"noise": 0.1}
    scores = {4: 0.7, 8: 0.6}

    def run(folder: Path, stop_at: int | None) -> Trainer:
        made = trainer(folder, lambda n: (1.0, scores[made.progress.step]), **options)
        step = made._step

        def stopping(arrays: Any) -> float:
            if stop_at is not None and made.progress.step == stop_at - 1:
                signal.raise_signal(signal.SIGTERM)
            return step(arrays)

        made._step = stopping  # type: ignore[method-assign]
        return made

    whole = run(tmp_path / "whole", None)
    whole.run()
    before = signal.getsignal(signal.SIGTERM)
    for stop_at in range(1, 8):
        with pytest.raises(Stopped, match=f"after step {stop_at};"):
            run(tmp_path / "broken", stop_at).run()
    assert signal.getsignal(signal.SIGTERM) == before
    last = run(tmp_path / "broken", None)
    last.run()
    for a, b in ((whole.network, last.network), (whole.averaged, last.averaged)):
        assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
    assert last.progress.best_step == whole.progress.best_step == 4
    assert all(torch.equal(whole.best[k], last.best[k]) for k in whole.best)
    rows = [
        [{k: v for k, v in row.items() if k not in TIMES} for row in t.progress.history]
        for t in (whole, last)
    ]
    assert rows[0] == rows[1]


# Validation.


def test_validation_by_hand() -> None:
    class Fixed(Predictor):
        """Says what the image says: the probability of class 1."""

        def __init__(self) -> None:
            super().__init__([build(1, 2, ARCH, 0)], CPU, "float32")

        def __call__(self, batch: np.ndarray) -> np.ndarray:
            return np.concatenate([1 - batch, batch], axis=1)

    p = np.array([[[0.9, 0.9, 0.2, 0.6]]], dtype=np.float32)
    classes = np.array([[1, 0, 0, 255]], dtype=np.uint8)
    image = TrainingImage("x", p, classes, None, TargetSettings(), cached=True)
    loss, score = validate(Fixed(), [image], tile=64)
    assert loss == pytest.approx(-(math.log(0.9) + math.log(0.1) + math.log(0.8)) / 3, rel=1e-5)
    assert score == pytest.approx(1 / 2)  # one hit, one false; the ignored pixel counts nowhere
    # Pooled over images: 2 hits of 3.
    sure = TrainingImage("y", p[:, :, :1], classes[:, :1], None, TargetSettings(), cached=True)
    assert validate(Fixed(), [image, sure], tile=64)[1] == pytest.approx(2 / 3)
    nothing = TrainingImage("z", p * 0, classes * 0, None, TargetSettings(), cached=True)
    assert math.isnan(validate(Fixed(), [nothing], tile=64)[1])
    ignored = TrainingImage("z", p, classes * 0 + 255, None, TargetSettings(), cached=True)
    assert all(math.isnan(value) for value in validate(Fixed(), [ignored], tile=64))


def test_the_validation_score_is_that_of_prediction(make_store) -> None:  # type: ignore[no-untyped-def]
    """Validation sees whole images, as prediction will."""
    paths, sentinel = make_store()
    model, _ = train(paths, sentinel)
    held = open_images(Prepared(paths.prepared("d")), ["c"], TargetSettings(), 1e9)
    predictor = Predictor([model.network()], CPU, "float32")
    assert validate(predictor, held, 1024)[1] == pytest.approx(model.score, abs=1e-6)
    assert validate(predictor, held, 40)[1] == pytest.approx(model.score, abs=1e-6)


# Killed for real.


def command(paths: Paths, settings: TrainSettings) -> list[str]:
    return [
        sys.executable, str(ROOT / "scripts" / "train.py"), "--output", str(paths.output),
        "--dataset", "d", "--model", "m", "--fold", "0", "--threads", "1",
        "--checkpoint-seconds", "0.000001", "--settings", json.dumps(settings.to_json()),
    ]  # fmt: skip


def stopped_by(number: signal.Signals, paths: Paths, settings: TrainSettings, wait: float) -> int:
    """Starts a training and sends it the signal once it has written a checkpoint.

    Returns:
        Its exit code; None of its results are there yet.
    """
    last = next(iter(paths.checkpoints("d", "m", 0).glob("*/last.pt")), None)
    before = last.stat().st_mtime_ns if last else 0
    log = paths.output / "out.txt"
    with log.open("w") as out, subprocess.Popen(command(paths, settings), stderr=out) as job:
        while job.poll() is None:
            for path in paths.checkpoints("d", "m", 0).glob("*/last.pt"):
                try:
                    new = path.stat().st_mtime_ns > before
                except FileNotFoundError:
                    continue  # between two checkpoints
                if new:
                    time.sleep(wait)
                    os.kill(job.pid, number)
                    job.wait()
            time.sleep(0.001)
    assert "fault" not in log.read_text()
    return int(job.returncode)


def test_killed_and_stopped_runs_end_with_the_same_weights(make_store, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    paths, sentinel = make_store()
    arch = architecture_of("unet-bn", width=4, depth=2, dropout=0.2)
    settings = settings_of(ema=0.9, batch=4, patch=48, steps_per_epoch=12, arch=arch)
    wait = float(np.random.default_rng().uniform(0, 0.03))
    codes = [
        stopped_by(signal.SIGKILL, paths, settings, wait),
        stopped_by(signal.SIGTERM, paths, settings, 0),
    ]
    # Were the machine so fast that a training ended first, nothing would have been tested.
    assert codes == [-signal.SIGKILL, 143]
    assert not paths.model("d", "m", 0).exists()
    assert not paths.history("d", "m", 0).exists()
    done = subprocess.run(command(paths, settings), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "resumed at step" in done.stderr
    broken, rows = load_model(paths.model("d", "m", 0)), history(paths)
    assert paths.curves("d", "m", 0).stat().st_size > 1000

    whole = Paths(tmp_path / "whole")
    outputs = outputs_of(whole)
    train_fold(data_of(paths, sentinel), settings, 0, outputs, TrainingResources(threads=1))
    unbroken = load_model(whole.model("d", "m", 0))
    assert same_weights(broken, unbroken)
    assert (broken.score, broken.step) == (unbroken.score, unbroken.step)
    assert timeless(rows) == timeless(history(whole))
