"""Measures how fast this machine trains, to estimate how long a training will take.

A small U-Net takes a few real steps (augmentation, forward, backward, optimizer) on random pixels.
Speed is counted in FLOP of the *forward* pass (:func:`unet.config.layers.flop`), so that the
estimate needs no model of the backward pass: ``steps * step_flop(...) / measured_flops(...)`` are
the seconds of a training, without reading the images and without validation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch

from unet.config.layers import flop, layers_of
from unet.config.presets import AnyArchitecture, architecture_of
from unet.config.sections import TrainSection
from unet.models.build import build
from unet.models.devices import choose_device, choose_precision
from unet.models.engines import autocast, memory_format
from unet.models.inference import to_device
from unet.training.augment import Augment
from unet.training.losses import Loss, make_loss

# Seconds of steps to time after the first one, which prepares things; and the least number.
SECONDS, LEAST_STEPS = 1.0, 3
# On an overloaded machine a step can take many seconds.
MOST_SECONDS = 5.0
CLASSES = 2


class _Probe(NamedTuple):
    """The training that is timed: large enough to keep the device busy, small enough for 1 s."""

    width: int
    patch: int
    batch: int


PROBES = {"cpu": _Probe(16, 128, 4), "cuda": _Probe(32, 256, 8)}


def step_flop(
    arch: AnyArchitecture, channels: int, outputs: int, patch: Sequence[int], batch: int
) -> int:
    """FLOP of the forward pass of a training step.

    Args:
        outputs: number of class scores of the network.
        patch: (Z) Y X, in pixels.
    """
    return batch * flop(layers_of(arch, channels, outputs), patch, training=True)


def measured_flops(device: str = "auto", threads: int = 0) -> float:
    """FLOP of the forward pass that this machine trains per second; takes a second or two.

    Args:
        device: auto, cpu or cuda.
        threads: threads on the CPU; 0: as many as PyTorch takes by itself.

    Raises:
        UserError: there is no such device.
    """
    where = choose_device(device)
    with _threads(threads):
        probe = PROBES[where.type]
        step = _Step(architecture_of("unet-bn", width=probe.width), probe, where)
        step.run()
        seconds = [step.run()]
        while (spent := math.fsum(seconds)) < SECONDS or (
            len(seconds) < LEAST_STEPS and spent < MOST_SECONDS
        ):
            seconds.append(step.run())
    # The fastest step: what else runs just now should not decide how long a training may be.
    return step.flop / min(seconds)


class _Step:
    """A network with all that a training step needs."""

    def __init__(self, arch: AnyArchitecture, probe: _Probe, device: torch.device) -> None:
        size = (probe.patch,) * arch.dims
        self.flop = step_flop(arch, 1, CLASSES, size, probe.batch)
        settings = TrainSection()
        self.device, self.precision = device, choose_precision("auto", device)
        self.network = to_device(build(1, CLASSES, arch), device)
        self.network.train()
        self.loss: Loss = make_loss(settings.loss, CLASSES).to(device)
        self.augment = Augment(settings.augment)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=settings.lr)
        self.random = torch.Generator().manual_seed(0)
        # Noise, not zeros: products with zeros may be faster.
        self.images = torch.rand((probe.batch, 1, *size), generator=self.random).to(device)
        self.labels = (self.images > 0.5).to(torch.int64)

    def run(self) -> float:
        """Takes a step; returns its seconds."""
        started = time.monotonic()
        images, labels, _ = self.augment(self.images, self.labels, None, self.random)
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.precision, self.device):
            scores = self.network(images.contiguous(memory_format=memory_format(self.network)))
        scores = scores[0] if isinstance(scores, list) else scores
        loss = self.loss(scores, labels[:, 0], None)
        loss.backward()
        self.optimizer.step()
        loss.item()  # a GPU computes in the background: wait for it
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.monotonic() - started


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Uses this many threads, and restores the number afterwards."""
    before = torch.get_num_threads()
    if number:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
