"""The training loop, short enough to read at one sitting.

Everything that a step depends on is in the checkpoint or follows from (seed, step): the batch, its
augmentation, dropout, the learning rate. So a run that was stopped at any moment goes on from its
last checkpoint and ends with the weights of the unbroken run.
"""

from __future__ import annotations

import copy
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unet.config import TrainSection
from unet.errors import UserError
from unet.models.inference import autocast, memory_format, to_device
from unet.models.unet import UNet, center_crop
from unet.training.augment import Augment
from unet.training.checkpoint import Checkpoints
from unet.training.losses import Loss
from unet.training.sampling import PatchSampler
from unet.training.schedule import OPTIMIZERS, learning_rate

log = logging.getLogger(__name__)

Row = dict[str, float]


class Stopped(Exception):
    """The process was told to end; the state is saved."""


@dataclass
class Progress:
    """How far the training is; part of the checkpoint."""

    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    best_score: float = -math.inf
    best_step: int = 0
    history: list[Row] = field(default_factory=list)


@contextmanager
def stop_signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGUSR1 (time limits, preemption) end the training after the current step."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def tell(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {s: signal.signal(s, tell) for s in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Trainer:
    """Trains a network.

    Args:
        network: moved to ``device``, channels last.
        loss: called with logits [N, K, *S], target [N, *S] and, if it needs one, a weight map.
        sampler: gives the batch of each step.
        augment: what is done to it, on the device.
        validate: takes the network (the averaged one with ``ema``), gives (loss, score).
        settings: the train section.
        seed: of augmentation and dropout.
        device: to train on.
        precision: float32 or bfloat16.
        checkpoints: where the state is kept.
    """

    def __init__(
        self,
        network: UNet,
        loss: Loss,
        sampler: PatchSampler,
        augment: Augment,
        validate: Callable[[UNet], tuple[float, float]],
        settings: TrainSection,
        seed: int,
        device: torch.device,
        precision: str,
        checkpoints: Checkpoints,
    ) -> None:
        self.network = to_device(network, device)
        self.loss, self.sampler, self.augment = loss.to(device), sampler, augment
        self.validate, self.settings, self.seed = validate, settings, seed
        self.device, self.precision, self.checkpoints = device, precision, checkpoints
        self.optimizer = OPTIMIZERS[settings.optimizer](
            self.network.parameters(), settings.lr, settings.momentum, settings.weight_decay
        )
        # What is validated and kept: the running average of the weights, or the weights themselves.
        self.averaged = copy.deepcopy(self.network) if settings.ema else self.network
        self.best: dict[str, Tensor] = {}
        self.progress = Progress()
        self.total = settings.epochs * settings.steps_per_epoch
        self._waited = self._worked = 0.0

    def run(self) -> None:
        """Trains to the end, or to the early stop, from the last checkpoint if there is one.

        Raises:
            Stopped: a signal came; the state is saved.
            UserError: the loss is no longer a number.
        """
        self._resume()
        stop = threading.Event()
        saved = shown = time.monotonic()
        with stop_signals(stop), ThreadPoolExecutor(1) as loader:
            batch = loader.submit(self.sampler.batch, self.progress.step)
            while not self._done():
                started = time.monotonic()
                arrays = batch.result()
                self._waited += time.monotonic() - started
                batch = loader.submit(self.sampler.batch, self.progress.step + 1)
                loss = self._step(arrays)
                self._worked += time.monotonic() - started
                self._count(loss, time.monotonic() - started)
                now = time.monotonic()
                if self.progress.step % self.settings.steps_per_epoch == 0:
                    self._end_epoch()
                elif now - shown > 15:
                    shown = now
                    self._show(loss)
                if stop.is_set() or now - saved > self.settings.checkpoint_seconds:
                    self._save()
                    saved = time.monotonic()
                if stop.is_set():
                    raise Stopped(
                        f"told to end after step {self.progress.step}; the state is saved"
                    )
        self._save()

    def _done(self) -> bool:
        p, patience = self.progress, self.settings.patience
        if p.step >= self.total:
            return True
        if patience is None or p.step % self.settings.steps_per_epoch or p.step == 0:
            return False
        idle = (p.step - p.best_step) // self.settings.steps_per_epoch
        return idle >= patience * self.settings.validate_every

    def _step(self, arrays: tuple[np.ndarray, np.ndarray, np.ndarray | None]) -> float:
        """One update of the weights; returns the loss."""
        step = self.progress.step
        images = torch.from_numpy(arrays[0]).to(self.device, non_blocking=True)
        labels = torch.from_numpy(arrays[1]).to(self.device, non_blocking=True)[:, None]
        weights = None
        if arrays[2] is not None:
            weights = torch.from_numpy(arrays[2]).to(self.device, non_blocking=True)[:, None]
        draws = torch.Generator().manual_seed(_mixed(self.seed, step))
        images, labels, weights = self.augment(images, labels, weights, draws)
        torch.manual_seed(_mixed(self.seed + 1, step))  # of dropout

        s = self.settings
        lr = learning_rate(s.schedule, s.lr, step, self.total, s.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.precision, self.device):
            logits = self.network(images.contiguous(memory_format=memory_format(self.network)))
        size = logits.shape[2:]
        target = center_crop(labels, size)[:, 0].long()
        weight = None if weights is None else center_crop(weights, size)[:, 0]
        loss = self.loss(logits, target, weight)
        loss.backward()
        if s.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), s.clip_norm)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise UserError(
                f"train.lr: the loss became {value} at step {step + 1} with learning rate "
                f"{lr:.3g}; write a smaller lr (such as {s.lr / 10:.2g}) or a smaller clip_norm"
            )
        self.optimizer.step()
        if s.ema:
            self._average()
        return value

    @torch.no_grad()
    def _average(self) -> None:
        # A short memory at the start, or the random first weights would linger.
        decay = min(self.settings.ema, (1 + self.progress.step) / (10 + self.progress.step))
        for kept, new in zip(
            self.averaged.state_dict().values(), self.network.state_dict().values(), strict=True
        ):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - decay)
            else:
                kept.copy_(new)

    def _count(self, loss: float, seconds: float) -> None:
        self.progress.step += 1
        self.progress.loss_sum += loss
        self.progress.seconds += seconds

    def _end_epoch(self) -> None:
        p, s = self.progress, self.settings
        epoch = p.step // s.steps_per_epoch
        row: Row = {
            "epoch": epoch,
            "step": p.step,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": p.loss_sum / s.steps_per_epoch,
            "val_loss": math.nan,
            "val_score": math.nan,
            "images_per_s": self._rate(),
            "data_share": self._waited / max(self._worked, 1e-9),
        }
        if epoch % s.validate_every == 0 or p.step >= self.total:
            started = time.monotonic()
            row["val_loss"], row["val_score"] = self.validate(self.averaged)
            p.seconds += time.monotonic() - started
            score = row["val_score"]
            # Without a score there is nothing to choose by: the newest weights are kept.
            if score > p.best_score or math.isnan(score):
                p.best_score, p.best_step = score, p.step
                self.best = {k: v.detach().cpu().clone() for k, v in self._weights().items()}
        row["seconds"] = p.seconds
        p.history.append(row)
        p.loss_sum = 0.0
        self._waited = self._worked = 0.0
        left = p.seconds / p.step * (self.total - p.step)
        log.info(
            "epoch %d/%d  loss %.4f  val loss %.4f  val score %.4f  %.1f images/s  "
            "data %.0f %%  left %s",
            epoch, s.epochs, row["train_loss"], row["val_loss"], row["val_score"],
            row["images_per_s"], 100 * row["data_share"], _clock(left),
        )  # fmt: skip

    def _weights(self) -> dict[str, Tensor]:
        return dict(self.averaged.state_dict())

    def _rate(self) -> float:
        steps = self.progress.step % self.settings.steps_per_epoch or self.settings.steps_per_epoch
        return steps * self.settings.batch / max(self._worked, 1e-9)

    def _show(self, loss: float) -> None:
        p = self.progress
        left = p.seconds / p.step * (self.total - p.step)
        log.info(
            "step %d/%d  loss %.4f  %.1f images/s  left %s",
            p.step, self.total, loss, self._rate(), _clock(left),
        )  # fmt: skip

    def _save(self) -> None:
        self.checkpoints.save(
            {
                "progress": dict(vars(self.progress)),
                "network": self.network.state_dict(),
                "averaged": self.averaged.state_dict() if self.settings.ema else {},
                "optimizer": self.optimizer.state_dict(),
                "best": self.best,
            }
        )

    def _resume(self) -> None:
        state: dict[str, Any] | None = self.checkpoints.load()
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        if self.settings.ema:
            self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best = state["best"]
        self.progress = Progress(**state["progress"])
        log.info("resumed at step %d of %d", self.progress.step, self.total)


def _mixed(seed: int, step: int) -> int:
    """A 63-bit seed of its own for each (seed, step)."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min"
