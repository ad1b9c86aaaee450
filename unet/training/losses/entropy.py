"""Losses that sum a function of the true class's probability over the pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from unet.config.heads import IGNORE
from unet.config.loss_table import BORDER_WEIGHT
from unet.training.losses.base import Loss, Maps


class _Weighted(Loss):
    """A loss with class weights; None = all 1."""

    class_weights: Tensor | None

    def __init__(self, num_classes: int, class_weights: Sequence[float] | None = None) -> None:
        super().__init__(num_classes)
        values = None if class_weights is None else torch.tensor(class_weights).float()
        # Not persistent: class weights belong to the config, not to the model's weights.
        self.register_buffer("class_weights", values, persistent=False)


class CrossEntropy(_Weighted):
    """Cross-entropy, averaged over the valid pixels; optionally weighted by class.

    sum_x c(t(x)) CE(x) / sum_x c(t(x)) over the valid pixels x, with the class weights c (all 1 if
    None): the mean of `torch.nn.functional.cross_entropy`.
    """

    def compute(self, logits: Tensor, target: Tensor, maps: Maps) -> Tensor:
        classes = None if self.class_weights is None else self.class_weights.to(logits.dtype)
        loss = F.cross_entropy(
            logits, target, weight=classes, ignore_index=IGNORE, reduction="none"
        )
        return self.mean(loss, target)

    def mean(self, loss: Tensor, target: Tensor) -> Tensor:
        """Sum of a loss [N, *S] that is 0 where ignored, over the sum of the class weights."""
        valid = target != IGNORE
        if self.class_weights is None:
            total = valid.sum().to(loss.dtype)
        else:
            classes = self.class_weights.to(loss.dtype)
            total = torch.where(valid, classes[torch.where(valid, target, 0)], 0).sum()
        return loss.sum() / torch.where(total > 0, total, 1)


class BorderCrossEntropy(_Weighted):
    """Cross-entropy times a weight map, as in the U-Net paper (Ronneberger et al. 2015, eq. 1).

    The energy sum_x w(x) CE(x), here divided by the number of valid pixels, so that the learning
    rate does not depend on the size of the patch. It is not divided by the sum of the weights: then
    the map would have no effect in a patch where all pixels have high weights. w comes from
    `unet.training.targets.border_weight_map` with wc = 1; class weights, if given, replace this 1
    (eq. 2: w = wc + the border's term).
    """

    maps = (BORDER_WEIGHT,)

    def compute(self, logits: Tensor, target: Tensor, maps: Maps) -> Tensor:
        valid = target != IGNORE
        loss = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
        weight = maps[BORDER_WEIGHT][:, 0]
        if self.class_weights is not None:
            weight = weight - 1 + self.class_weights.to(loss.dtype)[torch.where(valid, target, 0)]
        return (loss * weight).sum() / valid.sum().clamp(min=1)


class Focal(CrossEntropy):
    """Focal loss (Lin et al. 2017, arXiv:1708.02002, eq. 5): well-classified pixels count less.

    sum_x c(t(x)) (1 - p_t(x))^gamma CE(x) / sum_x c(t(x)) over the valid pixels. gamma = 0 is
    cross-entropy. The class weights c are the paper's alpha; only their ratio matters here. The
    paper divides by the number of objects, because most of its boxes are background. Here, it is a
    mean over pixels, as for the other losses.
    """

    def __init__(
        self,
        num_classes: int,
        class_weights: Sequence[float] | None = None,
        gamma: float = 2.0,
    ) -> None:
        super().__init__(num_classes, class_weights)
        self.gamma = gamma

    def compute(self, logits: Tensor, target: Tensor, maps: Maps) -> Tensor:
        valid = target != IGNORE
        index = torch.where(valid, target, 0).unsqueeze(1)
        log = logits.log_softmax(1)
        # ln(1 - p_t) as the sum over the other classes: 1 - p_t would be rounded to 0 if p_t is
        # near 1, and the slope of its power is infinite at 0 if gamma < 1.
        others = log.scatter(1, index, -torch.inf).logsumexp(1)
        loss = -(self.gamma * others).exp() * log.gather(1, index).squeeze(1)
        if self.class_weights is not None:
            loss = loss * self.class_weights.to(loss.dtype)[index.squeeze(1)]
        return self.mean(torch.where(valid, loss, 0), target)


class TopK(Loss):
    """Mean cross-entropy of only the hardest pixels (Wu et al. 2016, arXiv:1605.06885).

    These are the `share` of the batch's valid pixels with the largest cross-entropy, at least one;
    nnU-Net (Isensee et al. 2021) takes 10 %. share = 1 is cross-entropy.
    """

    def __init__(self, num_classes: int, share: float = 0.1) -> None:
        super().__init__(num_classes)
        self.share = share

    def compute(self, logits: Tensor, target: Tensor, maps: Maps) -> Tensor:
        loss = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
        valid = target != IGNORE
        # Ignored pixels get the lowest value, so that they come last.
        loss = torch.where(valid, loss, -1).flatten()
        most = max(1, round(self.share * loss.numel()))
        # The number of valid pixels stays on the device: reading it would wait for the GPU.
        count = (self.share * valid.sum()).round().clamp(1, most)
        hardest = loss.topk(most).values
        counted = torch.arange(most, device=loss.device) < count
        return torch.where(counted, hardest, 0).clamp(min=0).sum() / count
