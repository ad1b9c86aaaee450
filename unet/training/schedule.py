"""Optimizers and learning-rate schedules by name; the running average of the weights.

To add one: a function and a line here, and an entry in ``SCHEDULE_TABLE`` or ``OPTIMIZER_TABLE`` of
`unet.config.choices`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

# The factor on the learning rate, from the completed share of the training, in [0, 1).
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    # As in nnU-Net and DeepLab: (1 - t/T)^0.9.
    "poly": lambda done: (1.0 - done) ** 0.9,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
    # Lowered by the validation loss: see plateau_factor.
    "plateau": lambda done: 1.0,
}


def learning_rate(name: str, lr: float, step: int, total: int, warmup: int) -> float:
    """The learning rate of a step: linear warm-up, then the schedule over the remaining steps."""
    if step < warmup:
        return lr * (step + 1) / (warmup + 1)
    return lr * SCHEDULES[name]((step - warmup) / max(1, total - warmup))


def plateau_factor(
    losses: Sequence[float], patience: int, factor: float, threshold: float = 1e-3
) -> float:
    """The factor of schedule ``plateau`` on the learning rate after these validation losses.

    Each time that ``patience`` validations in a row have not improved on the best loss by a
    relative ``threshold``, the rate is multiplied by ``factor``. The factor depends only on the
    history, so that a resumed run has the same rate. NaN (not validated) is skipped.
    """
    best, idle, rate = math.inf, 0, 1.0
    for loss in losses:
        if math.isnan(loss):
            continue
        if loss < best * (1 - threshold):
            best, idle = loss, 0
            continue
        idle += 1
        if idle >= patience:
            rate, idle = rate * factor, 0
    return rate


@torch.no_grad()
def average_weights(averaged: nn.Module, network: nn.Module, ema: float, step: int) -> None:
    """Updates the running average of the weights, after update ``step`` (from 0)."""
    # A short memory at the start, or the random initial weights would stay in the average.
    decay = min(ema, (1 + step) / (10 + step))
    states = averaged.state_dict().values(), network.state_dict().values()
    for kept, new in zip(*states, strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": lambda weights, lr, momentum, decay: torch.optim.AdamW(
        weights, lr=lr, weight_decay=decay
    ),
    # Classical momentum, as in the paper's Caffe training.
    "sgd": lambda weights, lr, momentum, decay: torch.optim.SGD(
        weights, lr=lr, momentum=momentum, weight_decay=decay
    ),
    # As in nnU-Net.
    "nesterov": lambda weights, lr, momentum, decay: torch.optim.SGD(
        weights, lr=lr, momentum=momentum, weight_decay=decay, nesterov=momentum > 0
    ),
}
