"""Optimizers and learning-rate schedules by name; a new one is a function and a line here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

# Each gives the factor on the learning rate from the share of the training that is done, in [0, 1).
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    # nnU-Net's and DeepLab's: (1 - t/T)^0.9.
    "poly": lambda done: (1.0 - done) ** 0.9,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}


def learning_rate(name: str, lr: float, step: int, total: int, warmup: int) -> float:
    """The learning rate of a step: linear warm-up, then the schedule over what remains."""
    if step < warmup:
        return lr * (step + 1) / (warmup + 1)
    return lr * SCHEDULES[name]((step - warmup) / max(1, total - warmup))


def _adamw(
    parameters: Iterable[nn.Parameter], lr: float, momentum: float, decay: float
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=decay)


def _sgd(
    parameters: Iterable[nn.Parameter], lr: float, momentum: float, decay: float
) -> torch.optim.Optimizer:
    # Classical momentum, as in the paper's Caffe training.
    return torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=decay)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adamw": _adamw, "sgd": _sgd}
