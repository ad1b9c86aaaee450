"""The training loop, short enough to read at one sitting.

Everything that a step depends on is in the checkpoint or follows from (seed, step): the batch, its
augmentation, dropout, the learning rate. So a run that was stopped at any moment continues from its
last checkpoint, and ends with the weights of an uninterrupted run.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from unet.config.sections import TrainSection
from unet.errors import UserError
from unet.models.engines import autocast, memory_format, tf32
from unet.models.inference import to_device
from unet.models.network import Network
from unet.models.norms import freeze_statistics
from unet.models.transfer import Late, late_sum
from unet.training.augment import Augment
from unet.training.checkpoint import Checkpoints
from unet.training.compiled import CompiledNetwork
from unet.training.device_images import DeviceImages
from unet.training.less_memory import reproducibility, save_memory_if_needed
from unet.training.losses import Loss
from unet.training.packed_batch import BatchSource, PackedBatch, mixed_seed
from unet.training.progress import Pace, Row, Stopped, TrainingProgress, stop_signals
from unet.training.ranks import Ranks
from unet.training.sampling import PatchSampler
from unet.training.schedule import OPTIMIZERS, RunningAverage, learning_rate, plateau_factor
from unet.training.start.started import Started
from unet.training.supervision import supervised_loss

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UnreadLoss:
    """The loss of a step, which the device may still be computing.

    Attributes:
        step: from 1.
        lr: the learning rate.
        value: the loss.
    """

    step: int
    lr: float
    value: Late


class Trainer:
    """Trains a network.

    Args:
        network: moved to ``device``, channels last.
        loss: called with logits [N, K, *S], target [N, *S] and maps.
        sampler: draws the batch of each step.
        augment: augments the batch, on the device.
        validate: takes the network (with ``ema`` the averaged one), returns (loss, score).
        settings: the train section.
        seed: of augmentation and dropout.
        device: to train on.
        precision: float32, tf32 or bfloat16.
        checkpoints: where the state is saved.
        ranks: the processes that train together; all get the same arguments.
        started: what the network has from trained weights; None: nothing.
        readers: number of threads that cut batches, and of batches cut ahead.
        resident: the sampler's images on the device, to cut patches there.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss,
        sampler: PatchSampler,
        augment: Augment,
        validate: Callable[[Network], tuple[float, float]],
        settings: TrainSection,
        seed: int,
        device: torch.device,
        precision: str,
        checkpoints: Checkpoints,
        ranks: Ranks | None = None,
        started: Started | None = None,
        readers: int = 1,
        resident: DeviceImages | None = None,
    ) -> None:
        self.ranks, self.started, self.readers = ranks or Ranks(), started, readers
        self.rows = self.ranks.rows(settings.batch)
        self.network = to_device(network, device)
        self.forward: Callable[[Tensor], Any] = self.network
        if self.ranks.size > 1:
            # Averages the gradients over the processes.
            self.forward = DistributedDataParallel(self.network, broadcast_buffers=False)
        elif settings.compile:
            self.forward = CompiledNetwork(self.network)
        self.loss = loss.to(device)
        self.source = BatchSource(
            sampler, augment, self.rows, settings.batch, seed, device, resident
        )
        self.validate, self.settings, self.seed = validate, settings, seed
        self.device, self.precision, self.checkpoints = device, precision, checkpoints
        self.optimizer = OPTIMIZERS[settings.optimizer](
            list(self.network.parameters()), settings.lr, settings.momentum, settings.weight_decay
        )
        self._average = RunningAverage(self.network, settings.ema) if settings.ema else None
        # The weights to validate and keep: the running average, or the network's own.
        self.averaged = self._average.network if self._average else self.network
        self.best: dict[str, Tensor] = {}
        self.progress, self.pace = TrainingProgress(), Pace()
        self.total = settings.epochs * settings.steps_per_epoch
        self._unread: deque[UnreadLoss] = deque()
        self._last_loss = math.nan
        self._waited = self._worked = 0.0
        # Seconds of all steps of this run, and of those the seconds that were no waiting for data.
        self.step_seconds = self.busy_seconds = 0.0

    @property
    def warnings(self) -> list[str]:
        """About how it trained."""
        compiled = isinstance(self.forward, CompiledNetwork) and self.forward.failure
        return [compiled] if compiled else []

    def run(self) -> None:
        """Trains from the last checkpoint, if there is one, to the end or to the early stop.

        Raises:
            Stopped: after a signal; the state is saved.
            UserError: the loss is NaN or infinite, or a step does not fit the memory.
        """
        self._resume()
        if self.started is not None and not self.progress.history and not self.progress.step:
            self._score_start(self.started)
        stop = threading.Event()
        saved = shown = time.monotonic()
        with stop_signals(stop), ThreadPoolExecutor(self.readers) as loader:
            batches = self._batches(loader)
            while not self._done():
                started = time.monotonic()
                self._unread.append(self._step(batches))
                self.progress.step += 1
                ends = self.progress.step % self.settings.steps_per_epoch == 0
                # A step late: meanwhile the device computes the next one.
                self._read_losses(0 if ends else 1)
                now = time.monotonic()
                self._worked += now - started
                self.progress.seconds += now - started
                if ends:
                    self._end_epoch()
                elif now - shown > 15 and not math.isnan(self._last_loss):
                    shown = now
                    self._log_step()
                # A signal may reach only one process, and all must end at the same step.
                stopped = self.ranks.any(stop.is_set())
                if stopped or now - saved > self.settings.checkpoint_seconds:
                    # Weights after a loss that is not finite are never saved.
                    self._read_losses(0)
                    self._save()
                    saved = time.monotonic()
                if stopped:
                    raise Stopped(f"after step {self.progress.step}; state saved")
        self._save()

    def _batches(self, loader: ThreadPoolExecutor) -> Iterator[PackedBatch]:
        """The batches from the current step on, read ahead; records the time spent waiting."""
        indices = itertools.count(self.progress.step * self.settings.accumulate)
        ahead = deque(loader.submit(self.source.packed, next(indices)) for _ in range(self.readers))
        while True:
            started = time.monotonic()
            batch = ahead.popleft().result()
            self._waited += time.monotonic() - started
            ahead.append(loader.submit(self.source.packed, next(indices)))
            yield batch

    def _done(self) -> bool:
        p, patience = self.progress, self.settings.patience
        if p.step >= self.total:
            return True
        if patience is None or p.step % self.settings.steps_per_epoch or p.step == 0:
            return False
        idle = (p.step - p.best_step) // self.settings.steps_per_epoch
        return idle >= patience * self.settings.validate_every

    def _step(self, batches: Iterator[PackedBatch]) -> UnreadLoss:
        """One update of the weights."""
        s, step = self.settings, self.progress.step
        lr = self._learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.network.train()
        if s.freeze_norm is not None and step >= s.freeze_norm * self.total:
            freeze_statistics(self.network)
        if self.started is not None:
            self.started.keep()
        compute = partial(self._gradients, batches, [])
        if isinstance(self.forward, CompiledNetwork):
            compute = partial(self.forward.attempt, compute)
        losses = save_memory_if_needed(compute, self.network, s, self.device, self.ranks.size)
        if s.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), s.clip_norm)
        self.optimizer.step()
        if self._average is not None:
            self._average.update(step)
        return UnreadLoss(step + 1, lr, late_sum(losses))

    def _read_losses(self, left: int) -> None:
        """Reads the losses of all steps but so many of the last.

        Raises:
            UserError: one is NaN or infinite.
        """
        while len(self._unread) > left:
            unread = self._unread.popleft()
            value = self._last_loss = unread.value.number() / self.settings.accumulate
            if not math.isfinite(value):
                raise UserError(
                    f"train.lr: the loss became {value} at step {unread.step} with learning rate "
                    f"{unread.lr:.3g}; write a smaller lr (such as {self.settings.lr / 10:.2g}) or "
                    "a smaller clip_norm"
                )
            self.progress.loss_sum += value

    def _gradients(self, batches: Iterator[PackedBatch], taken: list[PackedBatch]) -> list[Tensor]:
        """Computes the gradients of a step, over all parts of its batch; returns their losses.

        Args:
            batches: to take the parts from.
            taken: the parts that an earlier attempt took; new ones are added.
        """
        self.optimizer.zero_grad(set_to_none=True)
        parts, losses = self.settings.accumulate, []
        for part in range(parts):
            if part == len(taken):
                taken.append(next(batches))
            with tf32(self.precision == "tf32"):
                losses.append(self._backward(taken[part], self.progress.step * parts + part))
        return losses

    def _learning_rate(self) -> float:
        s = self.settings
        lr = learning_rate(s.schedule, s.lr, self.progress.step, self.total, s.warmup_steps)
        if s.schedule == "plateau":
            losses = [row["val_loss"] for row in self.progress.history]
            lr *= plateau_factor(losses, s.plateau_patience, s.plateau_factor)
        return lr

    def _backward(self, batch: PackedBatch, index: int) -> Tensor:
        """Adds a batch's gradient to the weights' gradients; returns its loss."""
        sent = batch.opened()
        images, labels, maps = self.source.augment.apply(
            sent["images"], sent["targets"], sent.get("maps"), sent, batch.seeds
        )
        torch.manual_seed(mixed_seed(self.seed + 1 + self.ranks.rank, index))  # for dropout
        with autocast(self.precision, self.device):
            scores = self.forward(images.contiguous(memory_format=memory_format(self.network)))
        # The loss is computed over all rows: the mean of the processes' means may differ from it.
        gather = self.ranks.gathered
        outputs = [gather(o) for o in (scores if isinstance(scores, list) else [scores])]
        labels = gather(labels.long())
        split = () if maps is None else torch.split(gather(maps), list(batch.maps.values()), dim=1)
        by_name = dict(zip(batch.maps, split, strict=True))
        strides = self.network.arch.strides[: len(outputs)]
        loss = supervised_loss(self.loss, outputs, labels, by_name, strides)
        (loss / self.settings.accumulate).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

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
            self._validate(row)
        row["seconds"] = p.seconds
        p.history.append(row)
        p.loss_sum = 0.0
        self.step_seconds += self._worked
        self.busy_seconds += self._worked - self._waited
        self._waited = self._worked = 0.0
        log.info(
            "epoch %d/%d  loss %.4f  val loss %.4f  val score %.4f  %.1f images/s  "
            "data %.0f %%  left %s",
            epoch, s.epochs, row["train_loss"], row["val_loss"], row["val_score"],
            row["images_per_s"], 100 * row["data_share"], self.pace.time_left(p, self.total),
        )  # fmt: skip

    def _validate(self, row: Row) -> None:
        """Validates the weights, and keeps them if they are the best."""
        p, started = self.progress, time.monotonic()
        row["val_loss"], row["val_score"] = self.validate(self.averaged)
        p.seconds += time.monotonic() - started
        score = row["val_score"]
        # Without a score, the newest weights are kept.
        if score > p.best_score or math.isnan(score):
            p.best_score, p.best_step = score, p.step
            state = self.averaged.state_dict()
            self.best = {k: v.detach().cpu().clone() for k, v in state.items()}

    def _score_start(self, started: Started) -> None:
        """Validates the start, as epoch 0: the training must be better than what it began with.

        A start whose last layer is random is no epoch: however it scores, its weights are of no
        use, so they are kept only if nothing is trained.
        """
        if started.random_outputs and self.total:
            before = time.monotonic()
            _, score = self.validate(self.averaged)
            self.progress.untrained_score = score
            self.progress.seconds += time.monotonic() - before
            log.info("start  val score %.4f (new last layer)", score)
            started.renew()
            return
        row: Row = dict.fromkeys(("lr", "train_loss", "images_per_s", "data_share"), math.nan)
        row |= {"epoch": 0, "step": 0}
        self._validate(row)
        row["seconds"] = self.progress.seconds
        self.progress.history.append(row)
        log.info("start  val loss %.4f  val score %.4f", row["val_loss"], row["val_score"])
        started.renew()

    def _rate(self) -> float:
        steps = self.progress.step % self.settings.steps_per_epoch or self.settings.steps_per_epoch
        return steps * self.settings.batch * self.settings.accumulate / max(self._worked, 1e-9)

    def _log_step(self) -> None:
        p = self.progress
        log.info(
            "step %d/%d  loss %.4f  %.1f images/s  left %s",
            p.step, self.total, self._last_loss, self._rate(), self.pace.time_left(p, self.total),
        )  # fmt: skip

    def _save(self) -> None:
        if not self.ranks.first:
            return
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
        state: dict[str, Any] | None = self.checkpoints.load() if self.ranks.first else None
        # The first process renames damaged checkpoints; the others load after it.
        if self.ranks.from_first(state is not None) and state is None:
            state = self.checkpoints.load()
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        if self.settings.ema:
            self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best = state["best"]
        self.progress = TrainingProgress(**state["progress"])
        self.pace = Pace(self.progress.step, self.progress.seconds)
        log.info(
            "resumed at step %d of %d; the weights will be %s as without a stop",
            self.progress.step, self.total, reproducibility(self.device),
        )  # fmt: skip
