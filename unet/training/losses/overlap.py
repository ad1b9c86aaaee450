"""Losses of regions: the overlap of a class's predicted and true regions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unet.config.heads import IGNORE
from unet.training.losses.base import Loss, Maps
from unet.training.losses.entropy import CrossEntropy, TopK


class Dice(Loss):
    """Soft Dice loss: 1 - the mean over classes of (2 sum p t + s) / (sum p + sum t + s).

    p is the softmax, t the one-hot target, s = `smooth`; the sums run over valid pixels. The
    denominator has plain sums (not squares), as in Drozdzal et al. 2016 (arXiv:1608.04117).

    Args:
        num_classes: K.
        include_background: whether the mean includes class 0.
        batch: sum over the whole batch, so that a patch without a class is not a special case;
            otherwise sum per sample, then take the mean.
        smooth: defines the loss of absent classes (0 if none is predicted); > 0.
    """

    def __init__(
        self,
        num_classes: int,
        include_background: bool = False,
        batch: bool = True,
        smooth: float = 1.0,
    ) -> None:
        super().__init__(num_classes)
        if smooth <= 0:
            raise ValueError(f"smooth: got {smooth}, needs > 0")
        self.first = 0 if include_background else 1
        self.batch = batch
        self.smooth = smooth

    def compute(self, logits: Tensor, target: Tensor, maps: Maps) -> Tensor:
        predicted, truth = probabilities(logits, target)
        axes = [0, *range(2, logits.ndim)] if self.batch else list(range(2, logits.ndim))
        overlap = (predicted * truth).sum(axes)
        size = predicted.sum(axes) + truth.sum(axes)
        dice = (2 * overlap + self.smooth) / (size + self.smooth)
        return 1 - dice[..., self.first :].mean()


class CrossEntropyDice(Loss):
    """Cross-entropy plus soft Dice, equally weighted, as in nnU-Net (Isensee et al. 2021)."""

    def __init__(self, num_classes: int, class_weights: Sequence[float] | None = None) -> None:
        super().__init__(num_classes)
        self.cross_entropy = CrossEntropy(num_classes, class_weights)
        self.dice = Dice(num_classes)

    def compute(self, logits: Tensor, target: Tensor, maps: Maps) -> Tensor:
        cross_entropy = self.cross_entropy.compute(logits, target, maps)
        return cross_entropy + self.dice.compute(logits, target, maps)


class TopKDice(Loss):
    """`TopK` plus soft Dice, equally weighted (nnU-Net's DC_and_topk_loss)."""

    def __init__(self, num_classes: int, share: float = 0.1) -> None:
        super().__init__(num_classes)
        self.top_k = TopK(num_classes, share)
        self.dice = Dice(num_classes)

    def compute(self, logits: Tensor, target: Tensor, maps: Maps) -> Tensor:
        return self.top_k.compute(logits, target, maps) + self.dice.compute(logits, target, maps)


class Tversky(Loss):
    """Tversky loss (Salehi et al. 2017, arXiv:1706.05721): Dice with weights for FP and FN.

    The mean over all classes except the first of (1 - T)^gamma, with T = (TP + s) /
    (TP + alpha FP + (1 - alpha) FN + s), TP = sum p t, FP = sum p (1 - t), FN = sum (1 - p) t over
    the valid pixels of the batch, s = `smooth`. alpha = 0.5 is Dice with s doubled; with a smaller
    alpha, a missed pixel costs more than an added one. gamma other than 1 is the focal Tversky loss
    (Abraham and Khan 2019, arXiv:1810.07842; they write it as 1 / gamma: for their 4/3, write
    0.75).
    """

    def __init__(
        self, num_classes: int, alpha: float = 0.3, gamma: float = 1.0, smooth: float = 1.0
    ) -> None:
        super().__init__(num_classes)
        self.alpha = alpha
        self.gamma = gamma
        self.smooth = smooth

    def compute(self, logits: Tensor, target: Tensor, maps: Maps) -> Tensor:
        predicted, truth = probabilities(logits, target)
        axes = [0, *range(2, logits.ndim)]
        overlap = (predicted * truth).sum(axes)
        extra = self.alpha * (predicted.sum(axes) - overlap)
        missed = (1 - self.alpha) * (truth.sum(axes) - overlap)
        missing = ((extra + missed) / (overlap + extra + missed + self.smooth))[1:]
        if self.gamma != 1:
            # For gamma < 1, the slope is infinite at 0.
            some = missing > 1e-6
            missing = torch.where(some, torch.where(some, missing, 1) ** self.gamma, 0)
        return missing.mean()


def probabilities(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax and one-hot target, both [N, K, *S], 0 at ignored pixels."""
    valid = (target != IGNORE).unsqueeze(1)
    predicted = torch.where(valid, logits.softmax(1), 0)
    index = torch.where(valid, target.unsqueeze(1), 0)
    truth = torch.zeros_like(predicted).scatter_(1, index, valid.to(predicted.dtype))
    return predicted, truth
