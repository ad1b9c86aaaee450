"""Trainings with accumulated batches, frozen normalisation, deep supervision; every preset."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainings import (
    augmentation,
    train,
    trainer,
)
from unet.config.geometry import footprint
from unet.config.presets import architecture_of
from unet.errors import UserError
from unet.models.build import build
from unet.training.augment import Augment
from unet.training.losses import make_loss
from unet.training.sampling import PatchSampler
from unet.training.supervision import supervised_loss

# Accumulation, frozen normalisation, deep supervision, plateau.


def test_accumulated_batches_are_one_large_batch(tmp_path: Path) -> None:
    """Without normalisation and with equal numbers of valid pixels, the mean of the gradients."""
    arch = architecture_of("unet-bn", width=2, depth=1, norm="none")
    runs = [
        trainer(tmp_path / str(n), arch=arch, loss="ce", batch=4 // n, accumulate=n, epochs=1)
        for n in (1, 2)
    ]
    # The same patches in both: rows of one sampler.
    halves: Any = Halves(runs[0].source.sampler)
    runs[1].source = replace(runs[1].source, sampler=halves)
    for run in runs:
        plain = Augment(augmentation(flip=False, rotate90=False))
        run.source = replace(run.source, augment=plain)
        run.run()
    for name, values in runs[0].network.state_dict().items():
        torch.testing.assert_close(runs[1].network.state_dict()[name], values)
    losses = [run.progress.history[0]["train_loss"] for run in runs]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


class Halves:
    """Batch 2 n and 2 n + 1 are the two halves of another sampler's batch n."""

    def __init__(self, source: PatchSampler) -> None:
        self.source = source

    def batch(self, step: int, rows: slice | None = None) -> Any:
        return self.source.batch(step // 2, slice(0, 2) if step % 2 == 0 else slice(2, 4))


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_frozen_statistics_no_longer_move(tmp_path: Path, norm: str) -> None:
    arch = architecture_of("unet-bn", width=2, depth=1, norm=norm)
    run = trainer(tmp_path, arch=arch, freeze_norm=0.5, epochs=2)
    seen = []
    step = run._step

    def watched(batches: Any) -> float:
        loss = step(batches)
        seen.append(run.network.state_dict()["down.0.norms.0.running_mean"].clone())
        return loss

    run._step = watched  # type: ignore[method-assign]
    run.run()
    moved = [not torch.equal(a, b) for a, b in pairwise(seen)]
    assert moved == [True] * 3 + [False] * 4


def test_the_plateau_lowers_the_rate(tmp_path: Path) -> None:
    losses = iter([1.0, 1.0, 1.0])
    run = trainer(
        tmp_path, lambda network: (next(losses), 0.5), schedule="plateau", plateau_patience=1,
        plateau_factor=0.1, lr=0.01, warmup_steps=0,
    )  # fmt: skip
    run.run()
    assert [row["lr"] for row in run.progress.history] == pytest.approx([0.01, 0.01, 0.001])


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_deep_supervision_by_hand(padding: str) -> None:
    """Coarser outputs are compared with every second or fourth pixel that they cover."""
    arch = architecture_of(
        "unet-bn", width=2, depth=3, padding=padding, deep_supervision=True, norm="none"
    )
    network = build(1, 2, arch).train()
    size = network.footprint[0].fit(40)
    labels = torch.arange(size * size).view(1, 1, size, size) % 3 % 2
    outputs = network(torch.randn(1, 1, size, size))
    assert isinstance(outputs, list)
    assert len(outputs) == 2
    loss = make_loss("ce", 2)
    margin = (size - outputs[0].shape[-1]) // 2
    fine = labels[0, 0, margin : size - margin, margin : size - margin]
    # What the coarser output covers, centred on the input like all of an unpadded network.
    extent = 2 * outputs[1].shape[-1]
    first = (size - extent) // 2
    coarse = labels[0, 0, first + 1 : first + extent : 2, first + 1 : first + extent : 2]
    expected = (2 * loss(outputs[0], fine[None]) + loss(outputs[1], coarse[None])) / 3
    torch.testing.assert_close(supervised_loss(loss, outputs, labels, {}, arch.strides), expected)


@pytest.mark.parametrize("preset", ["unet2015", "unet-res", "ciresan2012"])
def test_every_preset_trains(make_store, preset: str) -> None:  # type: ignore[no-untyped-def]
    small: dict[str, dict[str, Any]] = {
        "unet2015": {"width": 2, "depth": 1},
        "unet-res": {"width": 2, "depth": 2},
        "ciresan2012": {"window": 11, "stages": [[4, 4], [4, 3]], "hidden": [5]},
    }
    arch = architecture_of(preset, **small[preset])
    patch = {"unet2015": 36, "unet-res": 32, "ciresan2012": 11}[preset]
    model, rows = train(*make_store(), arch=arch, patch=patch, freeze_norm=0.7)
    assert model.architecture == arch
    assert len(rows) == 3
    assert 0 <= float(rows[-1]["val_score"]) <= 1
    assert model.network().footprint == footprint(arch)


def test_the_distance_head_trains(make_store) -> None:  # type: ignore[no-untyped-def]
    model, rows = train(*make_store(), head="distance", epochs=12, lr=0.01, loss="ce")
    assert model.head == ("background", "foreground", "distance")
    losses = [float(row["val_loss"]) for row in rows]
    assert losses[-1] < losses[0]


def test_images_of_other_axes_than_the_network(make_store) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match="write dims: 2"):
        train(*make_store(), arch=architecture_of("unet-bn", width=2, depth=1, dims=3))
