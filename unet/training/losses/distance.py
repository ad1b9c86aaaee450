"""The loss of the head ``distance``: for the classes and the distance to the object's edge."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unet.config.heads import IGNORE
from unet.config.loss_table import DISTANCE
from unet.training.losses.base import Loss, Maps


class DistanceLoss(Loss):
    """A loss of the first two channels, plus weight * smooth L1 of the third, the distance.

    Logits are [N, 3, *S]: background and foreground (softmax) and distance (sigmoid); the target
    has classes 0 and 1. The second term is the mean over the valid pixels, background included,
    of r^2 / (2 beta) if |r| < beta, else |r| - beta / 2 (Girshick 2015, arXiv:1504.08083), with r
    the difference between the sigmoid and the map ``distance``.

    Args:
        base: a loss of two classes.
        weight: of the second term, >= 0.
        beta: size of r from which its slope is constant, > 0.
    """

    def __init__(self, base: Loss, weight: float = 1.0, beta: float = 0.1) -> None:
        super().__init__(3)
        if base.num_classes != 2:
            raise ValueError(f"base: got a loss of {base.num_classes} classes, needs 2")
        if weight < 0 or beta <= 0:
            raise ValueError(f"got weight={weight}, beta={beta}; needs weight >= 0, beta > 0")
        self.base = base
        self.weight = weight
        self.beta = beta
        self.maps = (*base.maps, DISTANCE)

    def channels(self, name: str) -> int:
        return 1 if name == DISTANCE else self.base.channels(name)

    def compute(self, logits: Tensor, target: Tensor, maps: Maps) -> Tensor:
        valid = target != IGNORE
        error = F.smooth_l1_loss(
            logits[:, 2].sigmoid(), maps[DISTANCE][:, 0], reduction="none", beta=self.beta
        )
        error = torch.where(valid, error, 0).sum() / valid.sum().clamp(min=1)
        classes: Tensor = self.base(logits[:, :2], target, maps)
        return classes + self.weight * error
