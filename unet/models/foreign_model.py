"""Models of other programs, from packages of the BioImage Model Zoo.

A package can be applied if its weights are ONNX, its axes are those of one image, its output has
the image's size (or is smaller by a margin), and all its steps are known
(:mod:`unet.models.foreign_steps`). Whatever is not known is refused with its name: it is never
skipped.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from unet.config.geometry import Footprint, Footprints
from unet.config.heads import classes_among
from unet.errors import UserError, one_line
from unet.io.pixel_size import POSSIBLE_UM
from unet.models.foreign_network import ForeignNetwork, ForeignPlan, GivenArchitecture, Layout
from unet.models.foreign_steps import (
    ACTIVATIONS,
    NOTHING,
    Step,
    UnknownStepError,
    is_number,
    normalisation_of,
    pixelwise,
)
from unet.models.model_file import ModelFile, tensors_in
from unet.models.network import Network
from unet.models.zoo_archive import DESCRIPTIONS, Package, short
from unet.models.zoo_arrays import npy_values

LETTERS = {"batch": "b", "channel": "c"}
# Micrometres per unit.
UNITS = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3}
FOREGROUND = ("background", "foreground")
LARGEST_SIZE = 1 << 20
# Pixels of a window: more do not fit into memory with their maps.
LARGEST_WINDOW = 1 << 26
# How far probabilities of the example in a package may be off.
ROUNDING = 1e-3


class UnknownPartError(ValueError):
    """A part of a description that is not known here; the message says which."""


@dataclass(frozen=True)
class ForeignModel(ModelFile):
    """A model of another program.

    Attributes:
        windows: what windows need, per spatial axis.
        plan: how it is applied; None: it can only be trained further.
    """

    architecture: GivenArchitecture  # type: ignore[assignment] # its layers are unknown
    windows: Footprints = ()
    plan: ForeignPlan | None = None

    @property
    def footprint(self) -> Footprints:
        return self.windows

    def network(self) -> Network:
        """The network; see :class:`unet.models.foreign_network.ForeignNetwork` for errors."""
        if self.plan is None:
            raise ValueError("a model that was read to start from is not applied")
        made = ForeignNetwork(
            self.plan, self.architecture, self.in_channels, len(self.head), self.windows
        )
        return made.eval()


@dataclass(frozen=True)
class Array:
    """The input or the output of a network.

    Attributes:
        id: its name.
        axes: letters b, c, z, y, x in the order of the array.
        by_letter: the description of each axis.
        channels: names of the channels; () without a channel axis.
        about: its description.
    """

    id: str
    axes: str
    by_letter: Mapping[str, Mapping[str, Any]]
    channels: tuple[str, ...]
    about: Mapping[str, Any]

    @property
    def space(self) -> str:
        """Letters of the spatial axes, in our order."""
        return "".join(letter for letter in "zyx" if letter in self.axes)

    @property
    def count(self) -> int:
        """Number of channels."""
        return max(1, len(self.channels))

    def steps(self, key: str) -> list[Step]:
        channel = str(self.by_letter["c"].get("id", "channel")) if self.channels else ""
        names = frozenset(str(self.by_letter[letter]["id"]) for letter in self.space)
        found = []
        for step in self.about.get(key) or []:
            if not isinstance(step, Mapping):
                raise UnknownPartError(f"its {key} {short(step)} is")
            values = step.get("kwargs") or {}
            known = isinstance(values, Mapping)
            if not known:
                raise UnknownPartError(f"{key} {short(step)} is")
            made = Step(str(step.get("id")), values, channel, self.count, self.id, names)
            found.append(made)
        return found


@contextmanager
def _described(package: Package) -> Iterator[None]:
    """Turns parts that are not known, and damaged descriptions, into errors of one line."""
    try:
        yield
    except (UnknownPartError, UnknownStepError) as error:
        what = str(error)
        what = what if isinstance(error, UnknownPartError) else f"the step {what} is"
        raise UserError(
            f"{package.path}: {what} not known here, so the model cannot be applied; use the "
            "program that made it"
        ) from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{package.path}: {DESCRIPTIONS[0]} is not valid ({_said(error)}); get the package "
            "again"
        ) from None


def _said(error: Exception) -> str:
    """What is wrong with a description, by Python's error about it."""
    missing = isinstance(error, KeyError) and error.args
    return f"{one_line(error, 60)} is missing" if missing else one_line(error, 100)


def foreign_model(package: Package) -> ModelFile:
    """The model of a package that another program wrote, to be applied.

    Raises:
        UserError: something in it is damaged or not known here.
    """
    with _described(package):
        taken, given = _arrays(package)
        windows = _windows(taken, given)
        normalize, before = normalisation_of(taken.steps("preprocessing"))
        steps = given.steps("postprocessing")
        last = steps[-1].id if steps and steps[-1].id in ACTIVATIONS else ""
        after = pixelwise(steps, "after the network")
        scores = _are_scores(last, given.count)
        if given.count > 1 and classes_among(given.channels) != given.count:
            raise UnknownPartError(f"an output of the channels {short(given.channels)} is")
        outline = _outline(package, taken, given)
    name = f"{package.path}: {_onnx_name(package)}"
    if not scores:
        with _described(package):
            _check_probabilities(package, given)
    plan = ForeignPlan(
        name, package.file(package.weights("onnx"), "onnx"), Layout(taken.axes),
        Layout(given.axes), tuple(_halo(given, letter) for letter in given.space), before,
        after[:-1] if scores else after, scores,
    )  # fmt: skip
    return replace(outline, normalize=normalize, windows=windows, plan=plan)


def foreign_start(package: Package) -> ModelFile:
    """The weights of PyTorch in a package of another program, to start a training from.

    Raises:
        UserError: there are none, or something is damaged.
    """
    entry = package.weights("pytorch_state_dict")
    if entry is None:
        raise UserError(f"{package.path}: has no weights of PyTorch (pytorch_state_dict)")
    name = f"{package.path}: {entry.get('source')}"
    content = package.file(entry, "pytorch_state_dict")
    values = tensors_in(io.BytesIO(content), name, "get the package again")
    weights = {str(key): each for key, each in values.items() if isinstance(each, Tensor)}
    if not weights:
        raise UserError(f"{name}: contains no tensors by name, so nothing can start from it")
    if any(not bool(each.isfinite().all()) for each in weights.values()):
        raise UserError(f"{name}: NaN or infinite weights; nothing can start from it")
    with _described(package):
        model = _outline(package, *_arrays(package))
        try:
            normalize, _ = normalisation_of(_arrays(package)[0].steps("preprocessing"))
        except UnknownStepError:
            normalize = {**NOTHING, "method": "unknown"}  # to be compared, not to be done
    return replace(model, weights=weights, normalize=normalize)


def _outline(package: Package, taken: Array, given: Array) -> ForeignModel:
    """The model without its weights and steps."""
    head = given.channels if given.count > 1 else FOREGROUND
    tags = {str(tag).lower().replace(" ", "-") for tag in package.about.get("tags") or ()}
    semantic = len(head) > 2 or ("semantic-segmentation" in tags and
                                 "instance-segmentation" not in tags)  # fmt: skip
    return ForeignModel(
        architecture=GivenArchitecture(len(taken.space)),
        in_channels=taken.count,
        head=head,
        class_names=head,
        class_values=tuple(range(len(head))) if semantic else None,
        task="semantic" if semantic else "instances",
        normalize=dict(NOTHING),
        pixel_size_um=_pixel_size(taken),
        settings={},
        versions={},
        score=math.nan,
        step=0,
        weights={},
    )


def _arrays(package: Package) -> tuple[Array, Array]:
    """The input and the output."""
    found = []
    for key in ("inputs", "outputs"):
        listed = package.about.get(key)
        if not isinstance(listed, list) or len(listed) != 1:
            count = len(listed) if isinstance(listed, list) else 0
            raise UnknownPartError(f"a network with {count} {key} is")
        try:
            found.append(_array(listed[0]))
        except (AttributeError, LookupError, TypeError) as error:
            raise ValueError(f"{key}: {_said(error)}") from None
    taken, given = found
    pad = taken.about.get("pad")
    if pad is not None and (not isinstance(pad, Mapping) or pad.get("mode") != "reflect"):
        raise UnknownPartError(f"the padding {short(pad)} (not reflect) is")
    if taken.space != given.space or len(taken.space) < 2:
        raise UnknownPartError(
            f"a network from the axes {short(taken.axes)} to {short(given.axes)} is"
        )
    return taken, given


def _array(about: Mapping[str, Any]) -> Array:
    by_letter: dict[str, Mapping[str, Any]] = {}
    for axis in about["axes"]:
        kind = axis["type"]
        letter = str(axis.get("id")) if kind == "space" else LETTERS.get(kind, "")
        if letter not in ("b", "c", "z", "y", "x") or letter in by_letter:
            raise UnknownPartError(f"the axis {short(axis.get('id', kind))} is")
        if kind == "space" and letter in "bc":
            raise UnknownPartError(f"the axis {short(letter)} is")
        by_letter[letter] = axis
    names: tuple[str, ...] = ()
    if "c" in by_letter:
        listed = by_letter["c"]["channel_names"]
        if not isinstance(listed, list) or not listed:
            raise UnknownPartError(f"the channels {short(listed)} are")
        names = tuple(map(str, listed))
        if len(set(names)) < len(names):
            raise UnknownPartError(f"two channels of the same name, {short(names)}, are")
    return Array(str(about["id"]), "".join(by_letter), by_letter, names, about)


def _windows(taken: Array, given: Array) -> Footprints:
    found = tuple(_along(letter, taken, given) for letter in taken.space)
    sides = [max(each.smallest, each.grid) for each in found]
    if math.prod(sides) > LARGEST_WINDOW:
        raise UnknownPartError(
            f"a network that needs windows of {' x '.join(map(str, sides))} px (by the smallest "
            "size, step, offset and halo of its axes) is"
        )
    return found


def _along(letter: str, taken: Array, given: Array) -> Footprint:
    """The windows along an axis.

    The size of the output is that of the input, or smaller by the same number of pixels on both
    sides; a ``halo`` of it is not kept. As in the zoo's own program, the image is mirrored by so
    much that these pixels lie outside of it. So the network is like an unpadded one of ours.
    """
    source, result = taken.by_letter[letter], given.by_letter[letter]
    size, made = source["size"], result["size"]
    if not isinstance(size, Mapping) or not {"min", "step"} <= set(size):
        raise UnknownPartError(f"the size {short(size)} of the axis {letter} (not min and step) is")
    least, step = _whole(size["min"], 1), _whole(size["step"], 1)
    own = isinstance(made, Mapping) and (made.get("tensor_id"), made.get("axis_id")) == (
        taken.id, source["id"],
    )  # fmt: skip
    if not own or source.get("scale", 1) != result.get("scale", 1):
        raise UnknownPartError(f"an output of another size than the input (axis {letter}) is")
    lost, odd = divmod(-int(made.get("offset") or 0), 2)
    if odd or lost < 0:
        raise UnknownPartError(f"an offset of {short(made.get('offset'))} (axis {letter}) is")
    margin = lost + _halo(given, letter)
    if not margin and least % step:
        raise UnknownPartError(
            f"a smallest size, {least}, that is no multiple of the step, {step} (axis {letter}), is"
        )
    if margin and 2 * margin >= least:
        least += -(-(2 * margin + 1 - least) // step) * step
    return Footprint(step, 0, margin, least % step, least, 2 * margin + 1)


def _halo(given: Array, letter: str) -> int:
    """Pixels at each side of the output that are not kept."""
    return _whole(given.by_letter[letter].get("halo") or 0)


def _whole(value: Any, least: int = 0) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not least <= value <= LARGEST_SIZE:
        raise UnknownPartError(f"the size {short(value)} is")
    return int(value)


def _pixel_size(taken: Array) -> tuple[float, ...] | None:
    sizes: list[float | None] = []
    for letter in taken.space:
        axis = taken.by_letter[letter]
        factor, scale = UNITS.get(str(axis.get("unit"))), axis.get("scale", 1)
        low, high = POSSIBLE_UM
        if not is_number(scale) or not low <= scale * (factor or 1) <= high:
            raise UnknownPartError(f"the scale {short(scale)} of the axis {letter} is")
        sizes.append(None if factor is None else factor * scale)
    known = [size for size in sizes if size is not None]
    return tuple(known) if len(known) == len(sizes) else None


def _are_scores(last: str, channels: int) -> bool:
    """Whether the last step is the one with which the Predictor makes probabilities.

    Raises:
        UnknownPartError: the channels are no classes that exclude each other.
    """
    if last == "sigmoid" and channels > 1:
        raise UnknownPartError(
            f"an output of {channels} channels with a sigmoid each (not classes, of which each "
            "pixel has one) is"
        )
    if last == "softmax" and channels == 1:
        raise UnknownPartError("a softmax of a single channel is")
    return bool(last)


def _check_probabilities(package: Package, given: Array) -> None:
    """Checks by the example in a package that the output is probabilities, as the description does
    not say it."""
    entry: Any = given.about.get("test_tensor")
    content = package.file(entry, "the example of the output")
    try:
        example = npy_values(content)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{package.path}: {short(entry['source'])}, the example of the output, is damaged "
            f"({one_line(error, 100)}); get the package again"
        ) from None
    if example.ndim == len(given.axes):
        for place, letter in enumerate(given.axes):
            halo = _halo(given, letter) if letter in given.space else 0
            example = example.take(range(halo, example.shape[place] - halo), axis=place)
    if example.ndim != len(given.axes) or not example.size:
        raise UnknownPartError(f"an example of shape {list(example.shape)} is")
    low, high = float(example.min()), float(example.max())
    if not -ROUNDING <= low <= high <= 1 + ROUNDING:
        raise UnknownPartError(
            f"an output from {low:.3g} to {high:.3g} (not probabilities, from 0 to 1) is"
        )
    if given.count > 1:
        total = example.astype(np.float64).sum(axis=given.axes.index("c"))
        if np.abs(total - 1).max() > ROUNDING:
            raise UnknownPartError(
                f"an output of {given.count} channels that do not add up to 1 (not classes, of "
                "which each pixel has one) is"
            )


def _onnx_name(package: Package) -> Any:
    """Name of the file of the network.

    Raises:
        UserError: there is none that can be run here.
    """
    entry = package.weights("onnx")
    if entry is None:
        weights: Any = package.about.get("weights")
        listed = ", ".join(map(str, weights)) if isinstance(weights, Mapping) else ""
        there = f"has weights as {one_line(listed, 100)}" if listed else "names no weights"
        raise UserError(
            f"{package.path}: {there}, but only onnx is applied (other formats can "
            "run code); add it with `bioimageio add-weights` (pip install bioimageio.core)"
        )
    if entry.get("external_data"):
        raise UserError(
            f"{package.path}: its ONNX weights are in a file of their own, which is not read"
        )
    return entry.get("source")
