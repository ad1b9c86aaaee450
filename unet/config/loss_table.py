"""The losses: what each is and needs, for the config's checks and for loading data. Torch-free. The
classes are in `unet.training.losses`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from unet.config.choices import Entry
from unet.errors import UserError, did_you_mean

BORDER_WEIGHT = "border-weight"
"""Map [N, 1, *S]: weight of each pixel (`unet.training.targets.border_weight_map`)."""

SIGNED_DISTANCE = "signed-distance"
"""Map [N, K, *S]: distance to each class in pixels, negative inside (`signed_distances`)."""

DISTANCE = "distance"
"""Map [N, 1, *S]: distance to the object's edge in [0, 1] (`object_distance`)."""


@dataclass(frozen=True)
class Option:
    """A number that a user may set, with its default and the range low <= value <= high."""

    default: float
    low: float
    high: float
    whole: bool = False
    """Whether it must be a whole number."""
    above: bool = False
    """Whether `low` itself is refused."""
    index: bool = False
    """Whether it is the index of a class, so that it must also be below the number of classes."""

    def range(self) -> str:
        """The range in words."""
        kind = "a whole number " if self.whole else ""
        return f"{kind}{'above' if self.above else 'from'} {self.low:g} to {self.high:g}"

    def words(self) -> str:
        """Default and range, for tables."""
        return (
            f"{self.default:g} ({'index of a class; -1: the last' if self.index else self.range()})"
        )

    def accepts(self, value: float) -> bool:
        enough = value > self.low if self.above else value >= self.low
        return enough and value <= self.high and (not self.whole or value == int(value))


@dataclass(frozen=True, kw_only=True)
class LossInfo(Entry):
    """A loss, with the maps, class weights and options that it takes."""

    maps: tuple[str, ...] = ()
    """Names of the maps that it needs in addition to the target."""
    class_weights: Literal["needed", "optional", "refused"] = "refused"
    options: Mapping[str, Option] = field(default_factory=dict)
    """Its options, by the name of the argument."""
    axes: tuple[int, ...] = (2, 3)
    """Numbers of spatial axes that it supports."""

    @property
    def line(self) -> str:
        verb = {"needed": "needs", "optional": "takes", "refused": ""}[self.class_weights]
        weights = [f"{verb} class weights"] if verb else []
        numbers = [f"{name} {option.words()}" for name, option in self.options.items()]
        return "; ".join([self.text, *weights, *numbers])


_SHARE = Option(0.1, 0, 1, above=True)
_CLDICE = {
    "alpha": Option(0.5, 0, 1),
    "iterations": Option(5, 1, 100, whole=True),
    "thin": Option(-1, -1, 254, whole=True, index=True),
}

LOSS_TABLE: dict[str, LossInfo] = {
    "ce": LossInfo(text="cross-entropy; for calibrated probabilities"),
    "weighted-ce": LossInfo(text="cross-entropy with class weights", class_weights="needed"),
    # Its class weights are part of the map (wc in the paper's equation 2).
    "border-ce": LossInfo(
        text="cross-entropy with the U-Net paper's weight map; for touching objects",
        keys=("w0", "sigma", "cells"),
        maps=(BORDER_WEIGHT,),
        class_weights="optional",
    ),
    "dice": LossInfo(text="soft Dice; for rare foreground"),
    "ce-dice": LossInfo(text="ce + dice", class_weights="optional"),
    "focal": LossInfo(
        text="cross-entropy in which easy pixels weigh less",
        class_weights="optional",
        options={"gamma": Option(2, 0, 10)},
    ),
    "topk": LossInfo(text="cross-entropy of the hardest pixels", options={"share": _SHARE}),
    "topk-dice": LossInfo(text="topk + dice", options={"share": _SHARE}),
    "tversky": LossInfo(
        text="as dice; trades missed against added pixels",
        options={"alpha": Option(0.3, 0, 1), "gamma": Option(1, 0, 10, above=True)},
    ),
    "boundary": LossInfo(
        text="ce-dice + the distance of the predicted outline to the true one",
        keys=("distance_px",),
        maps=(SIGNED_DISTANCE,),
        class_weights="optional",
        options={"alpha": Option(0.01, 0, 100)},
    ),
    "cldice": LossInfo(text="dice + Dice of the skeletons; for thin structures", options=_CLDICE),
    "ce-cldice": LossInfo(text="ce + cldice", class_weights="optional", options=_CLDICE),
}


def class_weight_losses() -> tuple[str, ...]:
    """Names of the losses that take class weights."""
    return tuple(name for name, info in LOSS_TABLE.items() if info.class_weights != "refused")


def check_options(name: str, options: Mapping[str, float], num_classes: int | None = None) -> None:
    """Raises a one-line UserError if a loss has no such option or a value is out of range."""
    known = LOSS_TABLE[name].options
    for key, value in options.items():
        if key not in known:
            takes = f"takes {', '.join(known)}" if known else "takes none"
            raise UserError(
                f"loss {name}: got the option {key!r}, {takes}{did_you_mean(key, known)}"
            )
        option = known[key]
        if option.index and num_classes is not None:
            option = replace(option, high=num_classes - 1)
        if not option.accepts(value):
            raise UserError(f"loss {name}: {key}: got {value}, write {option.range()}")
