"""The speed of the machine, measured to estimate the time of a training."""

from __future__ import annotations

import math

import pytest
import torch

from tests.trainings import history, train
from unet.config.layers import flop, layers_of
from unet.config.presets import architecture_of
from unet.errors import UserError
from unet.training.auto.speed import measured_flops, step_flop


def test_flop_of_a_step() -> None:
    arch = architecture_of("unet-bn", width=4, depth=2)
    one = flop(layers_of(arch, 3, 2), (32, 64))
    assert step_flop(arch, 3, 2, (32, 64), 5) == 5 * one
    # Convolutions only: twice as many pixels are twice as much work.
    assert step_flop(arch, 3, 2, (64, 64), 5) == 2 * 5 * one
    # The scores of the coarser levels are computed in training.
    deep = architecture_of("unet-res", width=4, depth=3)
    assert step_flop(deep, 1, 2, (32, 32), 1) > flop(layers_of(deep, 1, 2), (32, 32))


def test_estimates_a_training(make_store) -> None:  # type: ignore[no-untyped-def]
    """Seconds of a real training; other programs on the machine may slow down one of the two."""
    arch = architecture_of("unet-bn", width=16, depth=3)
    threads = torch.get_num_threads()
    before = measured_flops("cpu", threads)
    paths, sentinel = make_store()
    _, rows = train(
        paths, sentinel, arch=arch, patch=64, batch=8, epochs=1, steps_per_epoch=8, augment={}
    )
    after = measured_flops("cpu", threads)
    estimate = 8 * step_flop(arch, 1, 2, (64, 64), 8) / math.sqrt(before * after)
    took = float(history(paths)[-1]["seconds"])
    assert len(rows) == 1
    assert took / 6 < estimate < took * 6


def test_leaves_the_number_of_threads_alone() -> None:
    before = torch.get_num_threads()
    assert measured_flops("cpu", 1) > 1e7
    assert torch.get_num_threads() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu() -> None:
    with pytest.raises(UserError, match="no usable GPU"):
        measured_flops("cuda", 1)
