"""What differs between a trained network and the training that starts from it, one line each.

These are warnings: such a training runs, but may be worse than one from random weights. Light: it
compares plain values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from unet.config.presets import AnyArchitecture
from unet.config.sections import NormalizeSection
from unet.errors import how_many

# Pixel sizes that differ by this factor change the size of objects as much as train.augment.scale
# does at most.
SCALE = 1.25
# These values change no weight's place or meaning.
_HARMLESS = {"dropout", "kind"}


@dataclass(frozen=True)
class StartSide:
    """What is compared; None: unknown.

    Attributes:
        architecture: the layers.
        task: semantic or instances.
        head: names of the outputs.
        channels: C of the images.
        pixel_size_um: of the training images ((Z,) Y, X).
        normalize: the section ``prepare.normalize``.
    """

    architecture: AnyArchitecture | None = None
    task: str | None = None
    head: tuple[str, ...] | None = None
    channels: int | None = None
    pixel_size_um: tuple[float, ...] | None = None
    normalize: Mapping[str, Any] | None = None


def differences(start: StartSide, own: StartSide) -> list[str]:
    """Lines for people: what the start has, what this training has, what to write."""
    return [
        *_networks(start.architecture, own.architecture),
        *_tasks(start, own),
        *_scales(start.pixel_size_um, own.pixel_size_um),
        *_normalizations(start.normalize, own.normalize),
    ]


def _networks(start: AnyArchitecture | None, own: AnyArchitecture | None) -> list[str]:
    if start is None or own is None or start == own:
        return []
    if type(start) is not type(own):
        return ["the start is another kind of network, so nothing fits; write its preset"]
    theirs, ours = asdict(start), asdict(own)
    keys = [key for key in ours if ours[key] != theirs[key] and key not in _HARMLESS]
    # Without groups, their number has no effect.
    if {theirs.get("norm"), ours.get("norm")} & {"group"} == set():
        keys = [key for key in keys if key != "groups"]
    if not keys:
        return []
    listed = _listed(theirs, ours, keys)
    return [
        f"the start's network differs, so little of it may fit or mean the same: {listed}; write "
        "the values of the start, or preset: auto, which takes them"
    ]


def _tasks(start: StartSide, own: StartSide) -> list[str]:
    lines = []
    if start.task and own.task and start.task != own.task:
        lines.append(f"the start was trained for task {start.task}, this one is for {own.task}")
    if start.head and own.head and start.head != own.head:
        lines.append(
            f"the start's outputs are {', '.join(start.head)}, here they are "
            f"{', '.join(own.head)}; the last layer starts from random weights"
        )
    if start.channels and own.channels and start.channels != own.channels:
        lines.append(
            f"the start was trained on images with {how_many(start.channels, 'channel')}, these "
            f"have {own.channels}; the first layer is adapted"
        )
    return lines


def _scales(start: Sequence[float] | None, own: Sequence[float] | None) -> list[str]:
    if not start or not own or len(start) != len(own):
        return []
    factor = max(max(a / b, b / a) for a, b in zip(start, own, strict=True))
    if factor < SCALE:
        return []
    return [
        f"the start was trained at a pixel size of {_sizes(start)} um, these images have "
        f"{_sizes(own)} um: objects look {factor:.3g} times as large or small to the network"
    ]


def _normalizations(start: Mapping[str, Any] | None, own: Mapping[str, Any] | None) -> list[str]:
    if start is None or own is None:
        return []
    # Keys at their default may be left out; the images' own statistics always differ.
    default = NormalizeSection().model_dump(mode="json")
    theirs, ours = {**default, **start}, {**default, **own}
    keys = [key for key in default if theirs[key] != ours[key]]
    if not keys:
        return []
    listed = _listed(theirs, ours, keys)
    return [
        f"the start's images were normalised differently: {listed}; write the same in "
        "prepare.normalize of this dataset"
    ]


def _sizes(values: Sequence[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def _listed(theirs: Mapping[str, Any], ours: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(f"{key}: {_text(theirs[key])} (here {_text(ours[key])})" for key in keys)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
