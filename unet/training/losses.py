"""Losses for per-pixel classification, by name.

Every loss is called as ``loss(logits, target, weight)`` with logits [N, K, (Z,) Y, X] floating,
target [N, (Z,) Y, X] int64 in 0..K-1 or `IGNORE`, and weight [N, (Z,) Y, X] floating or None. It
returns a scalar. Common to all:

- Ignored pixels add nothing, neither to the value nor to the gradient. A batch of ignored pixels
  alone has loss 0 and gradient 0.
- They compute in float32 (float64 if the logits are), autocast or not: a sum over pixels overflows
  float16.
- A pixel of weight w counts as w pixels in the sums; see each loss for what it divides by.

A new loss is one class and one line in `LOSSES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unet.errors import UserError

IGNORE = 255
"""Target value of pixels that take no part."""


class Loss(nn.Module):
    """What the losses share: checks, float32, and the call's signature."""

    needs_weight = False
    """Whether the weight map is part of the loss, so that the data path must make one."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        if not 2 <= num_classes <= IGNORE:
            raise ValueError(f"num_classes: got {num_classes}, needs 2 to {IGNORE}")
        self.num_classes = num_classes

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Scalar loss; see the module's docstring. Raises ValueError if shapes do not fit."""
        shape = (logits.shape[0], *logits.shape[2:])
        if logits.shape[1] != self.num_classes or target.shape != shape:
            raise ValueError(
                f"logits {tuple(logits.shape)}, target {tuple(target.shape)}: "
                f"needs [N, {self.num_classes}, *S] and [N, *S]"
            )
        if weight is not None and weight.shape != shape:
            raise ValueError(f"weight: got shape {tuple(weight.shape)}, target has {shape}")
        if weight is None and self.needs_weight:
            raise ValueError(f"{type(self).__name__} needs a weight map, got None")
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits if logits.dtype == torch.float64 else logits.float()
            weight = None if weight is None else weight.to(logits.dtype)
            return self.compute(logits, target, weight)

    def compute(self, logits: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        raise NotImplementedError


class CrossEntropy(Loss):
    """Cross-entropy, averaged over the valid pixels; optionally weighted by class.

    sum_x w(x) c(t(x)) CE(x) / sum_x c(t(x)) over the valid pixels x, with the class weights c
    (all 1 if None) and the weight map w (1 if None). Without a map that is the mean of
    `torch.nn.functional.cross_entropy`. The map does not enter the divisor: a patch full of heavy
    pixels has to pull harder than one without, else the map would do nothing there.
    """

    class_weights: Tensor | None

    def __init__(self, num_classes: int, class_weights: Sequence[float] | None = None) -> None:
        super().__init__(num_classes)
        values = None if class_weights is None else torch.tensor(class_weights).float()
        # Not persistent: it belongs to the config, not to the model's weights.
        self.register_buffer("class_weights", values, persistent=False)

    def compute(self, logits: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        classes = None if self.class_weights is None else self.class_weights.to(logits.dtype)
        loss = F.cross_entropy(
            logits, target, weight=classes, ignore_index=IGNORE, reduction="none"
        )
        valid = target != IGNORE
        if weight is not None:
            # Also where ignored, so that no nan of the map gets in there.
            loss = loss * torch.where(valid, weight, 0)
        if classes is None:
            total = valid.sum().to(logits.dtype)
        else:
            total = torch.where(valid, classes[torch.where(valid, target, 0)], 0).sum()
        return loss.sum() / torch.where(total > 0, total, 1)


class BorderCrossEntropy(CrossEntropy):
    """Cross-entropy times a weight map, as in the U-Net paper (Ronneberger et al. 2015, eq. 1).

    The energy sum_x w(x) CE(x), here divided by the number of valid pixels (not by the sum of the
    weights), so that the learning rate does not depend on the size of the patch. w comes from
    `unet.training.targets.border_weight_map`, class balance (wc) included.
    """

    needs_weight = True


class Dice(Loss):
    """Soft Dice loss: 1 - the mean over classes of (2 sum p t + s) / (sum p + sum t + s).

    p is the softmax, t the one-hot target, s = `smooth`; the sums run over valid pixels, each
    counted by its weight. Plain sums below, as in Drozdzal et al. 2016 (arXiv:1608.04117).

    Args:
        num_classes: K.
        include_background: whether class 0 takes part in the mean.
        batch: sum over the whole batch, so that a patch without a class is no special case;
            otherwise per sample, then the mean.
        smooth: keeps classes that occur nowhere defined (0 loss if none is predicted); > 0.
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

    def compute(self, logits: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        valid = target != IGNORE
        mass = valid.to(logits.dtype) if weight is None else torch.where(valid, weight, 0)
        mass = mass.unsqueeze(1)
        predicted = logits.softmax(1)
        index = torch.where(valid, target, 0).unsqueeze(1)
        truth = torch.zeros_like(predicted).scatter_(1, index, mass)
        axes = [0, *range(2, logits.ndim)] if self.batch else list(range(2, logits.ndim))
        overlap = (predicted * truth).sum(axes)
        size = (predicted * mass).sum(axes) + truth.sum(axes)
        dice = (2 * overlap + self.smooth) / (size + self.smooth)
        return 1 - dice[..., self.first :].mean()


class CrossEntropyDice(Loss):
    """Cross-entropy plus soft Dice, equally weighted, as in nnU-Net (Isensee et al. 2021)."""

    def __init__(self, num_classes: int, class_weights: Sequence[float] | None = None) -> None:
        super().__init__(num_classes)
        self.cross_entropy = CrossEntropy(num_classes, class_weights)
        self.dice = Dice(num_classes)

    def compute(self, logits: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        cross_entropy = self.cross_entropy.compute(logits, target, weight)
        return cross_entropy + self.dice.compute(logits, target, weight)


LOSSES: dict[str, Callable[..., Loss]] = {
    "ce": CrossEntropy,
    "weighted-ce": CrossEntropy,
    "border-ce": BorderCrossEntropy,
    "dice": Dice,
    "ce-dice": CrossEntropyDice,
}

_NEED_CLASS_WEIGHTS = {"weighted-ce"}
_TAKE_CLASS_WEIGHTS = {"weighted-ce", "ce-dice"}


def make_loss(name: str, num_classes: int, class_weights: list[float] | None = None) -> Loss:
    """The loss of that name.

    Args:
        name: a key of `LOSSES`.
        num_classes: K, the number of channels of the logits.
        class_weights: K numbers >= 0; needed by weighted-ce, optional for ce-dice (where they
            weight the cross-entropy), refused by the others. border-ce has them in its map.

    Raises:
        UserError: an unknown name, or class weights that are missing, out of place or wrong.
    """
    if name not in LOSSES:
        raise UserError(f"loss: got {name!r}, write one of {', '.join(LOSSES)}")
    if class_weights is None:
        if name in _NEED_CLASS_WEIGHTS:
            raise UserError(f"loss {name}: got no class weights, write {num_classes} of them")
        return LOSSES[name](num_classes)
    if name not in _TAKE_CLASS_WEIGHTS:
        takers = " or ".join(sorted(_TAKE_CLASS_WEIGHTS))
        raise UserError(f"loss {name}: takes no class weights, leave them out or write {takers}")
    if len(class_weights) != num_classes or not all(0 <= w < float("inf") for w in class_weights):
        raise UserError(
            f"loss {name}: got class weights {class_weights}, "
            f"write {num_classes} finite numbers >= 0, one per class"
        )
    return LOSSES[name](num_classes, class_weights=class_weights)
