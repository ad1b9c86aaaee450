"""Losses for per-pixel classification, by name.

In: scores [N, K, (Z,) Y, X], labels [N, (Z,) Y, X], maps [N, M, (Z,) Y, X]. Out: a scalar.
Start with `base.py`, then `entropy.py`.

Every loss is called as ``loss(logits, target, maps)`` with logits [N, K, (Z,) Y, X] floating,
target [N, (Z,) Y, X] int64 in 0..K-1 or `IGNORE`, and maps, a mapping from names to tensors
[N, M, (Z,) Y, X]. The maps must include those in the loss's attribute ``maps``; they may be None if
there are none. It returns a scalar. All losses have in common:

- Ignored pixels add nothing, neither to the value nor to the gradient. A batch with only ignored
  pixels has loss 0 and gradient 0.
- They compute in float32 (float64 if the logits are), with autocast or without: sums over pixels
  overflow float16.
- They are never negative, and a perfect prediction has loss 0.

To add a loss, write a class, and add a line to `LOSSES` and one to `unet.config.loss_table`, which
describes it and what it needs.
"""

from __future__ import annotations

from collections.abc import Callable

from unet.config.loss_table import LOSS_TABLE, check_options, class_weight_losses
from unet.errors import UserError
from unet.training.losses.base import Loss, Maps
from unet.training.losses.distance import DistanceLoss
from unet.training.losses.entropy import BorderCrossEntropy, CrossEntropy, Focal, TopK
from unet.training.losses.overlap import CrossEntropyDice, Dice, TopKDice, Tversky
from unet.training.losses.shape import Boundary, ClDice, CrossEntropyClDice

__all__ = [
    "LOSSES",
    "BorderCrossEntropy",
    "Boundary",
    "ClDice",
    "CrossEntropy",
    "CrossEntropyClDice",
    "CrossEntropyDice",
    "Dice",
    "DistanceLoss",
    "Focal",
    "Loss",
    "Maps",
    "TopK",
    "TopKDice",
    "Tversky",
    "make_loss",
]

LOSSES: dict[str, Callable[..., Loss]] = {
    "ce": CrossEntropy,
    "weighted-ce": CrossEntropy,
    "border-ce": BorderCrossEntropy,
    "dice": Dice,
    "ce-dice": CrossEntropyDice,
    "focal": Focal,
    "topk": TopK,
    "topk-dice": TopKDice,
    "tversky": Tversky,
    "boundary": Boundary,
    "cldice": ClDice,
    "ce-cldice": CrossEntropyClDice,
}


def make_loss(
    name: str, num_classes: int, class_weights: list[float] | None = None, **numbers: float
) -> Loss:
    """Makes a loss by its name.

    Args:
        name: a key of `LOSSES`.
        num_classes: K, the number of channels of the logits.
        class_weights: K numbers >= 0; `LOSS_TABLE` says whether the loss needs, takes or refuses
            them. Losses with a weight map use them in the map.
        numbers: the loss's options, as in `LOSS_TABLE`; omitted ones have their defaults.

    Raises:
        UserError: an unknown name or option, a number out of range, or class weights that are
            missing, not allowed or wrong.
    """
    if name not in LOSSES:
        raise UserError(f"loss: got {name!r}, write one of {', '.join(LOSSES)}")
    check_options(name, numbers, num_classes)
    options = LOSS_TABLE[name].options
    numbers = {key: int(n) if options[key].whole else n for key, n in numbers.items()}
    use_of_weights = LOSS_TABLE[name].class_weights
    if class_weights is None:
        if use_of_weights == "needed":
            raise UserError(f"loss {name}: got no class weights, write {num_classes} of them")
        return LOSSES[name](num_classes, **numbers)
    if use_of_weights == "refused":
        others = " or ".join(class_weight_losses())
        raise UserError(f"loss {name}: takes no class weights, leave them out or write {others}")
    if len(class_weights) != num_classes or not all(0 <= w < float("inf") for w in class_weights):
        raise UserError(
            f"loss {name}: got class weights {class_weights}, "
            f"write {num_classes} finite numbers >= 0, one per class"
        )
    return LOSSES[name](num_classes, class_weights=class_weights, **numbers)
