"""Losses for per-pixel classification, by name.

In: scores [N, K, (Z,) Y, X], labels [N, (Z,) Y, X], maps [N, M, (Z,) Y, X]. Out: a scalar.
Start with `base.py`, then `entropy.py`.

Every loss is called as ``loss(logits, target, maps)`` with logits [N, K, (Z,) Y, X] floating,
target [N, (Z,) Y, X] int64 in 0..K-1 or `IGNORE`, and maps, a mapping from names to tensors
[N, M, (Z,) Y, X], with at least those that the loss names in its attribute ``maps`` (None will do
if it names none). It returns a scalar. Common to all:

- Ignored pixels add nothing, neither to the value nor to the gradient. A batch of ignored pixels
  alone has loss 0 and gradient 0.
- They compute in float32 (float64 if the logits are), autocast or not: a sum over pixels overflows
  float16.
- None is negative, and the perfect prediction has loss 0.

A new loss is one class, one line in `LOSSES`, and one in `unet.config.loss_table` that says what
it is and needs.
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
    """The loss of that name.

    Args:
        name: a key of `LOSSES`.
        num_classes: K, the number of channels of the logits.
        class_weights: K numbers >= 0; `LOSS_TABLE` says who needs, takes and refuses them. Where
            there is a weight map they are in it.
        numbers: the loss's options, as in `LOSS_TABLE`; what is left out has its default.

    Raises:
        UserError: an unknown name or option, a number out of range, or class weights that are
            missing, out of place or wrong.
    """
    if name not in LOSSES:
        raise UserError(f"loss: got {name!r}, write one of {', '.join(LOSSES)}")
    check_options(name, numbers, num_classes)
    options = LOSS_TABLE[name].options
    numbers = {key: int(n) if options[key].whole else n for key, n in numbers.items()}
    needs = LOSS_TABLE[name].class_weights
    if class_weights is None:
        if needs == "needed":
            raise UserError(f"loss {name}: got no class weights, write {num_classes} of them")
        return LOSSES[name](num_classes, **numbers)
    if needs == "refused":
        takers = " or ".join(class_weight_losses())
        raise UserError(f"loss {name}: takes no class weights, leave them out or write {takers}")
    if len(class_weights) != num_classes or not all(0 <= w < float("inf") for w in class_weights):
        raise UserError(
            f"loss {name}: got class weights {class_weights}, "
            f"write {num_classes} finite numbers >= 0, one per class"
        )
    return LOSSES[name](num_classes, class_weights=class_weights, **numbers)
