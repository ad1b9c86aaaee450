"""Optimizers and learning-rate schedules by name; the running average of the weights.

To add one: a function and a line here, and an entry in ``SCHEDULE_TABLE`` or ``OPTIMIZER_TABLE`` of
`unet.config.choices`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unet.models.network import Network

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


class RunningAverage:
    """The running average of a network's weights and buffers.

    Args:
        network: its tensors are read at each update.
        ema: how much of the average is kept in an update.
    """

    def __init__(self, network: Network, ema: float) -> None:
        self.network, self._ema = copy.deepcopy(network), ema
        kept, new = self.network.state_dict().values(), network.state_dict().values()
        pairs = list(zip(kept, new, strict=True))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._others = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after update ``step`` (from 0)."""
        # A short memory at the start, or the random initial weights would stay in the average.
        decay = min(self._ema, (1 + step) / (10 + step))
        if self._floats:
            # One operation for all on a GPU.
            kept, new = zip(*self._floats, strict=True)
            torch._foreach_lerp_(kept, new, 1 - decay)
        for old, value in self._others:
            old.copy_(value)


def _fused(weights: Sequence[Tensor]) -> bool | None:
    """Whether to update all weights by one operation: on a GPU, where hundreds of small operations
    take longer to start than to compute. None leaves it to PyTorch: the CPU's rounding stays."""
    return all(weight.device.type == "cuda" for weight in weights) or None


def _adamw(
    weights: Sequence[Tensor], lr: float, momentum: float, decay: float
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(weights, lr=lr, weight_decay=decay, fused=_fused(weights))


def _sgd(
    weights: Sequence[Tensor], lr: float, momentum: float, decay: float, nesterov: bool = False
) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        weights, lr=lr, momentum=momentum, weight_decay=decay, nesterov=nesterov,
        fused=_fused(weights),
    )  # fmt: skip


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": _adamw,
    # Classical momentum, as in the paper's Caffe training.
    "sgd": _sgd,
    # As in nnU-Net.
    "nesterov": lambda weights, lr, momentum, decay: _sgd(
        weights, lr, momentum, decay, nesterov=momentum > 0
    ),
}
