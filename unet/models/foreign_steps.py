"""Pre- and post-processing that packages of the BioImage Model Zoo declare, as far as it is known.

A step that treats each pixel alone is part of the network, so it is exact in tiles. A step that
needs the statistics of an image is done by the prepare stage, which has the same methods: it must
be the first one. To add a step: a line in ``OF_PIXELS`` or ``OF_IMAGES``. The steps are described
in https://bioimage-io.github.io/spec-bioimage-io (format 0.5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unet.models.zoo_archive import short

# A map [N, C, *S] -> the same shape.
Pixelwise = Callable[[Tensor], Tensor]
FLOATS = ("float32", "float64")
LARGEST = float(torch.finfo(torch.float32).max)
# A smaller factor makes everything the same, or infinite.
LEAST = float(torch.finfo(torch.float32).tiny)
# Those that turn scores into probabilities. Last among the steps, they are left to the Predictor.
ACTIVATIONS = ("sigmoid", "softmax")


def is_number(value: Any) -> bool:
    """Whether a value of a description is a number that float32 can hold."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and abs(value) <= LARGEST  # false for NaN


class UnknownStepError(ValueError):
    """A step that is not known here; the message says which."""


@dataclass(frozen=True)
class Step:
    """A step of a description.

    Attributes:
        id: its name.
        values: its arguments.
        channel: id of the channel axis ("" if the array has none).
        channels: length of this axis.
        tensor: id of the array.
        space: ids of the spatial axes.
    """

    id: str
    values: Mapping[str, Any]
    channel: str
    channels: int
    tensor: str
    space: frozenset[str]

    def refuse(self, what: str) -> UnknownStepError:
        return UnknownStepError(f"{self.id} {what}")

    def check_keys(self, *known: str) -> None:
        """Raises UnknownStepError if it has an argument that is not one of these."""
        for key, value in self.values.items():
            if key not in known and value is not None:
                raise self.refuse(f"with {short(key)}")

    def number(self, key: str, default: float) -> float:
        value = self.values.get(key)
        if value is None:
            return default
        if not is_number(value):
            raise self.refuse(f"with {key} {short(value)}")
        return float(value)

    def numbers(self, key: str, default: float | None = None) -> list[float]:
        """One number, or one per channel."""
        given = self.values.get(key, default)
        found = given if isinstance(given, list) else [given]
        if not all(map(is_number, found)):
            raise self.refuse(f"with {key} {short(given)}")
        along = self.values.get("axis")
        fits = len(found) == 1 or (along == self.channel != "" and len(found) == self.channels)
        if not fits:
            raise self.refuse(f"with {key} {short(given)} along axis {short(along)}")
        return [float(x) for x in found]


def _per_channel(values: Sequence[float], x: Tensor) -> Tensor:
    shape = (1, -1) + (1,) * (x.ndim - 2)
    return torch.tensor(values, dtype=x.dtype, device=x.device).reshape(shape)


def _linear(step: Step) -> Pixelwise:
    step.check_keys("axis", "gain", "offset")
    gain, offset = step.numbers("gain", 1.0), step.numbers("offset", 0.0)
    if min(map(abs, gain)) < LEAST:
        raise step.refuse(f"with gain {short(step.values.get('gain'))}")
    return lambda x: x * _per_channel(gain, x) + _per_channel(offset, x)


def _fixed(step: Step) -> Pixelwise:
    step.check_keys("axis", "mean", "std", "eps")
    mean, sd = step.numbers("mean"), step.numbers("std")
    step.number("eps", 0.0)
    if min(sd) < LEAST:
        raise step.refuse(f"with std {short(step.values.get('std'))}")
    return lambda x: (x - _per_channel(mean, x)) / _per_channel(sd, x)


def _clip(step: Step) -> Pixelwise:
    step.check_keys("min", "max")
    low, high = step.number("min", float("-inf")), step.number("max", float("inf"))
    if low >= high:
        raise step.refuse(f"with min {low:g} and max {high:g}")
    return lambda x: x.clamp(low, high)


def _binarize(step: Step) -> Pixelwise:
    step.check_keys("axis", "threshold")
    least = step.numbers("threshold")
    return lambda x: (x > _per_channel(least, x)).to(x.dtype)


def _dtype(step: Step) -> Pixelwise:
    step.check_keys("dtype")
    if step.values.get("dtype") not in FLOATS:
        raise step.refuse(f"with dtype {short(step.values.get('dtype'))}")
    return lambda x: x


def _sigmoid(step: Step) -> Pixelwise:
    step.check_keys()
    return torch.sigmoid


def _softmax(step: Step) -> Pixelwise:
    step.check_keys("axis")
    if step.values.get("axis", step.channel) != step.channel or not step.channel:
        raise step.refuse(f"along axis {short(step.values.get('axis'))}")
    return lambda x: torch.softmax(x, dim=1)


OF_PIXELS: dict[str, Callable[[Step], Pixelwise]] = {
    "scale_linear": _linear,
    "fixed_zero_mean_unit_variance": _fixed,
    "clip": _clip,
    "binarize": _binarize,
    "ensure_dtype": _dtype,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
}


def _check_axes(step: Step) -> None:
    """Statistics must be those of each channel of an image, as ours are."""
    if step.values.get("reference_tensor") not in (None, step.tensor):
        raise step.refuse(f"by {short(step.values['reference_tensor'])}")
    axes = step.values.get("axes")
    whole = step.space <= set(axes) if isinstance(axes, list) else axes is None
    joint = step.channels > 1 and (axes is None or step.channel in axes)
    if not whole or joint:
        raise step.refuse(f"over the axes {short(axes)}")


def _range(step: Step) -> dict[str, Any]:
    step.check_keys("axes", "min_percentile", "max_percentile", "eps", "reference_tensor")
    _check_axes(step)
    step.number("eps", 0.0)
    low, high = step.number("min_percentile", 0.0), step.number("max_percentile", 100.0)
    if not 0 <= low < high <= 100:
        raise step.refuse(f"with percentiles {low:g} and {high:g}")
    if (low, high) == (0.0, 100.0):
        return {"method": "minmax", "scope": "image"}
    return {"method": "percentile", "low": low, "high": high, "scope": "image"}


def _zscore(step: Step) -> dict[str, Any]:
    step.check_keys("axes", "eps")
    _check_axes(step)
    step.number("eps", 0.0)
    return {"method": "zscore", "scope": "image"}


# Step -> the section prepare.normalize that does the same.
OF_IMAGES: dict[str, Callable[[Step], dict[str, Any]]] = {
    "scale_range": _range,
    "zero_mean_unit_variance": _zscore,
}
NOTHING = {"method": "none", "scope": "image"}


def normalisation_of(steps: Sequence[Step]) -> tuple[dict[str, Any], list[Pixelwise]]:
    """What the prepare stage does with an image, and what is then done with each pixel.

    Raises:
        UnknownStepError: a step is not known, or statistics are needed after other steps.
    """
    for step in steps:
        if step.id == "ensure_dtype":  # our images are floats already
            _dtype(step)
    rest = [step for step in steps if step.id != "ensure_dtype"]
    normalize = dict(NOTHING)
    if rest and rest[0].id in OF_IMAGES:
        normalize = OF_IMAGES[rest[0].id](rest[0])
        rest = rest[1:]
    return normalize, pixelwise(rest, "after other steps")


def pixelwise(steps: Sequence[Step], place: str) -> list[Pixelwise]:
    """Functions of steps that treat each pixel alone.

    Args:
        place: where they stand, for messages.

    Raises:
        UnknownStepError: one does not, or is not known.
    """
    found = []
    for step in steps:
        if step.id in OF_IMAGES:
            raise step.refuse(place)
        if step.id not in OF_PIXELS:
            raise UnknownStepError(f"{short(step.id)}")
        found.append(OF_PIXELS[step.id](step))
    return found
