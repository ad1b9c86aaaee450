"""Which weights of a trained network another network takes over.

Layers are compared by name; a layer is taken whole or not at all:

- all of its tensors have the same shapes: taken.
- it reads the image, and only the number of channels differs: adapted. Each new channel gets the
  sum of the old channels' kernels divided by the number of new channels, so that an image whose
  channels are all equal gives what the start computes for it (as timm does: Wightman,
  https://github.com/huggingface/pytorch-image-models, ``adapt_input_conv``).
- it gives the outputs, and their names differ: new, whatever its shape.
- anything else: new, with the initial weights of the new network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from unet.config.layers import layers_of
from unet.errors import UserError
from unet.models.model_file import ModelFile
from unet.models.network import Network

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class TakenLayers:
    """What became of the layers, by name.

    Attributes:
        taken: of both networks, with the start's weights.
        adapted: the same, with kernels for another number of channels.
        new: of the new network, with random weights.
        left_out: of the start, with weights that are not used.
    """

    taken: tuple[str, ...]
    adapted: tuple[str, ...]
    new: tuple[str, ...]
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {name: list(layers) for name, layers in asdict(self).items()}


def take_weights(start: ModelFile, network: Network, head: Sequence[str]) -> TakenLayers:
    """Copies the weights that fit from the start into the network.

    Args:
        head: names of the network's outputs.

    Raises:
        UserError: no convolution fits.
    """
    theirs, ours = _by_layer(start.weights), _by_layer(network.state_dict())
    outputs = () if tuple(head) == tuple(start.head) else _layers(network, "outputs")
    inputs = _layers(network, "inputs")
    state, found = dict(network.state_dict()), dict[str, str]()
    for layer, own in ours.items():
        given = theirs.get(layer)
        if given is None or layer in outputs:
            found[layer] = "new"
        elif _shapes(given) == _shapes(own):
            found[layer] = "taken"
            state.update(_named(layer, given))
        elif layer in inputs and _differ_in_channels(given, own):
            found[layer] = "adapted"
            state.update(_named(layer, {**given, "weight": _adapted(given, own)}))
        else:
            found[layer] = "new"
    used = {layer for layer, fate in found.items() if fate != "new"}
    if not any(own["weight"].ndim > 1 for layer, own in ours.items() if layer in used):
        raise UserError(
            "train.from: no layer of the start fits this network; write the preset, width, depth "
            "and kernels of the start under models (`unet info` shows them), or preset: auto"
        )
    network.load_state_dict(state)

    def of(fate: str) -> tuple[str, ...]:
        return tuple(layer for layer, each in found.items() if each == fate)

    left_out = tuple(layer for layer in theirs if layer not in used)
    return TakenLayers(of("taken"), of("adapted"), of("new"), left_out)


def output_layers(network: Network) -> set[str]:
    """Names of the layers that give the outputs, without those of training alone."""
    layers = layers_of(network.arch, network.in_channels, network.num_classes)
    return {each.name for each in layers if each.kind == "head" and not each.training_only}


def _layers(network: Network, which: str) -> set[str]:
    """Names of the layers that read the image, or that give the outputs."""
    layers = layers_of(network.arch, network.in_channels, network.num_classes)
    if which == "outputs":
        return {layer.name for layer in layers if layer.kind == "head"}
    return {layer.name for layer in layers if 0 in layer.sources and layer.kind == "conv"}


def _by_layer(weights: Weights) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        layer, _, part = name.rpartition(".")
        found.setdefault(layer, {})[part] = tensor
    return found


def _named(layer: str, weights: Weights) -> dict[str, Tensor]:
    return {f"{layer}.{part}": tensor for part, tensor in weights.items()}


def _shapes(weights: Weights) -> dict[str, torch.Size]:
    return {part: tensor.shape for part, tensor in weights.items()}


def _differ_in_channels(given: Weights, own: Weights) -> bool:
    """Whether two convolutions [K, C, *S] differ in C alone."""
    if given.keys() != own.keys():
        return False
    one, other = given["weight"].shape, own["weight"].shape
    rest = [part for part in own if part != "weight"]
    return (
        len(one) == len(other) > 2
        and (one[0], *one[2:]) == (other[0], *other[2:])
        and all(given[part].shape == own[part].shape for part in rest)
    )


def _adapted(given: Weights, own: Weights) -> Tensor:
    """Kernels [K, C', *S] for C' channels, from those for C channels."""
    channels = own["weight"].shape[1]
    mean = given["weight"].sum(dim=1, keepdim=True) / channels
    return mean.expand(own["weight"].shape).contiguous()
