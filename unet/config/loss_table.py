"""What each loss needs, readable without torch: for checks of the config and for the data path.

``tests/training/test_losses.py`` keeps it in step with the classes in `unet.training.losses`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from unet.errors import UserError

BORDER_WEIGHT = "border-weight"
"""Map [N, 1, *S]: weight of each pixel (`unet.training.targets.border_weight_map`)."""

SIGNED_DISTANCE = "signed-distance"
"""Map [N, K, *S]: pixels to each class, negative inside (`signed_distances`)."""

DISTANCE = "distance"
"""Map [N, 1, *S]: distance to the object's edge in [0, 1] (`object_distance`)."""


@dataclass(frozen=True)
class Option:
    """A number that a user may set: its default and the range low <= value <= high."""

    default: float
    low: float
    high: float
    whole: bool = False
    """Whether it must be a whole number."""
    above: bool = False
    """Whether `low` itself is refused."""
    index: bool = False
    """Whether it is the index of a class, so that it must be below their number, too."""

    def range(self) -> str:
        """The range in words."""
        kind = "a whole number " if self.whole else ""
        return f"{kind}{'above' if self.above else 'from'} {self.low:g} to {self.high:g}"

    def accepts(self, value: float) -> bool:
        enough = value > self.low if self.above else value >= self.low
        return enough and value <= self.high and (not self.whole or value == int(value))


@dataclass(frozen=True)
class LossInfo:
    """What the data path and the user must give to a loss."""

    maps: tuple[str, ...] = ()
    """Names of the maps that it needs beside the target."""
    class_weights: Literal["needed", "optional", "refused"] = "refused"
    options: Mapping[str, Option] = field(default_factory=dict)
    """Its numbers, by the name of the argument."""
    axes: tuple[int, ...] = (2, 3)
    """Numbers of spatial axes that it works with."""


_SHARE = Option(0.1, 0, 1, above=True)
_CLDICE = {
    "alpha": Option(0.5, 0, 1),
    "iterations": Option(5, 1, 100, whole=True),
    "thin": Option(-1, -1, 254, whole=True, index=True),
}

LOSS_TABLE: dict[str, LossInfo] = {
    "ce": LossInfo(),
    "weighted-ce": LossInfo(class_weights="needed"),
    # Its class weights are part of the map (wc in the paper's equation 2).
    "border-ce": LossInfo(maps=(BORDER_WEIGHT,), class_weights="optional"),
    "dice": LossInfo(),
    "ce-dice": LossInfo(class_weights="optional"),
    "focal": LossInfo(class_weights="optional", options={"gamma": Option(2, 0, 10)}),
    "topk": LossInfo(options={"share": _SHARE}),
    "topk-dice": LossInfo(options={"share": _SHARE}),
    "tversky": LossInfo(
        options={"alpha": Option(0.3, 0, 1), "gamma": Option(1, 0, 10, above=True)}
    ),
    "boundary": LossInfo(
        maps=(SIGNED_DISTANCE,), class_weights="optional", options={"alpha": Option(0.01, 0, 100)}
    ),
    "cldice": LossInfo(options=_CLDICE),
    "ce-cldice": LossInfo(class_weights="optional", options=_CLDICE),
}

LOSS_NAMES: tuple[str, ...] = tuple(LOSS_TABLE)


def class_weight_losses() -> tuple[str, ...]:
    """Names of the losses that take class weights."""
    return tuple(name for name, info in LOSS_TABLE.items() if info.class_weights != "refused")


def check_options(name: str, options: Mapping[str, float], num_classes: int | None = None) -> None:
    """Raises UserError, one line, if a loss has no such option or its value is out of range."""
    known = LOSS_TABLE[name].options
    for key, value in options.items():
        if key not in known:
            takes = f"takes {', '.join(known)}" if known else "takes none"
            raise UserError(f"loss {name}: got the option {key!r}, {takes}")
        option = known[key]
        if option.index and num_classes is not None:
            option = replace(option, high=num_classes - 1)
        if not option.accepts(value):
            raise UserError(f"loss {name}: {key}: got {value}, write {option.range()}")
