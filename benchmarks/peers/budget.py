"""How long a peer is trained: for a number of minutes or of training pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["minutes", "megapixels"]


@dataclass(frozen=True)
class Budget:
    """The end of a training.

    Attributes:
        kind: "minutes" of training steps, the wait for their data included, or "megapixels" that
            went through the network (batch x patch, summed over the steps).
        amount: how many.
    """

    kind: Kind
    amount: float

    def __post_init__(self) -> None:
        if not self.amount > 0:
            raise ValueError(f"{self.kind}: got {self.amount}, needs a number above 0")

    def share(self, seconds: float, pixels: float) -> float:
        """The completed share of the training, 0 to 1, after these minutes or megapixels."""
        spent = seconds / 60 if self.kind == "minutes" else pixels / 1e6
        return min(1.0, spent / self.amount)


def poly_rate(initial: float, share: float, exponent: float = 0.9) -> float:
    """nnU-Net's "poly" learning rate, from the share of the training that is done."""
    return float(initial * (1.0 - share) ** exponent)


def seen(history: list[dict[str, Any]], batch: int, patch: int | tuple[int, ...]) -> Seen:
    """What a training of ours cost, from the rows of its history.csv.

    Args:
        history: rows with "step" and "seconds" (steps and validation, without the start-up).
        patch: the side of a square patch, or its shape.
    """
    if not history:
        raise ValueError("the history has no row")
    last = max(history, key=lambda row: int(row["step"]))
    pixels = patch * patch if isinstance(patch, int) else 1
    if not isinstance(patch, int):
        for side in patch:
            pixels *= side
    steps = int(last["step"])
    return Seen(float(last["seconds"]) / 60, steps * batch * pixels / 1e6, steps)


@dataclass(frozen=True)
class Seen:
    """Minutes of training, megapixels that went through the network, and steps."""

    minutes: float
    megapixels: float
    steps: int

    def budget(self, kind: Kind) -> Budget:
        """The same amount, for a peer."""
        return Budget(kind, self.minutes if kind == "minutes" else self.megapixels)
