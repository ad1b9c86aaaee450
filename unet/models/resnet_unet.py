"""A U-Net whose contracting path is a ResNet, and the weights that it can start from.

The layers and their order are those of the list (:mod:`unet.config.resnet`): the network computes
one after the other.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unet.config.geometry import footprint
from unet.config.layers import layers_of
from unet.config.resnet import ResNetArchitecture
from unet.errors import UserError, one_line
from unet.models.layer_modules import module_of
from unet.models.network import Network

# Kinds of layers that compute with several maps, and have no module.
_OF_MAPS = ("join", "add")


class ResNetUNet(Network):
    """U-Net with a ResNet encoder, from C of the images to K classes."""

    def __init__(self, in_channels: int, num_classes: int, arch: ResNetArchitecture) -> None:
        super().__init__()
        self.arch: ResNetArchitecture = arch
        self.in_channels, self.num_classes = in_channels, num_classes
        self.footprint = footprint(arch)
        self.layers = layers_of(arch, in_channels, num_classes)
        for layer in self.layers[1:]:
            if layer.kind not in _OF_MAPS:
                _place(self, layer.name, module_of(layer))
        # The last layer that takes each map; after it, the map is not needed any more.
        self._last = [0] * len(self.layers)
        for place, layer in enumerate(self.layers):
            for source in layer.sources:
                self._last[source] = place
        self.apply(_he_init)

    @property
    def levels(self) -> tuple[tuple[str, ...], ...]:
        """One per halving: the first convolution, and the four stages."""
        stages = tuple((f"encoder.layer{n}",) for n in range(1, self.arch.depth))
        return (("encoder.conv1", "encoder.bn1"), *stages)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores before the softmax; see :meth:`Network.forward`."""
        self.check(x)
        maps: dict[int, Tensor] = {0: x}
        for place, layer in enumerate(self.layers[1:], 1):
            taken = [maps[source] for source in layer.sources]
            for source in layer.sources:
                if self._last[source] == place:
                    maps.pop(source, None)
            if layer.kind == "join":
                maps[place] = torch.cat(taken, dim=1)
            elif layer.kind == "add":
                maps[place] = taken[0] + taken[1]
            else:
                maps[place] = self.get_submodule(layer.name)(taken[0])
        return maps[len(self.layers) - 1]


def _place(parent: nn.Module, name: str, module: nn.Module) -> None:
    """Adds a module below ``parent`` at a name with dots; a name that exists stays."""
    *folders, last = name.split(".")
    for folder in folders:
        if folder not in dict(parent.named_children()):
            parent.add_module(folder, nn.Module())
        parent = parent.get_submodule(folder)
    if last not in dict(parent.named_children()):
        parent.add_module(last, module)


def _he_init(module: nn.Module) -> None:
    """He et al. 2015, as in all networks here."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def for_channels(weight: Tensor, channels: int) -> Tensor:
    """The first convolution's weights [F, 3, Y, X], learned on RGB, for C channels [F, C, Y, X].

    One channel: the sum over RGB, so that a grey image gives what the same image in RGB gives.
    Otherwise the weights of R, G, B in turn, scaled by 3 / C, so that the sum over the channels
    keeps its size.
    """
    if channels == 3:
        return weight
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    return weight[:, [c % 3 for c in range(channels)]] * (3 / channels)


def read_encoder_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of a torchvision ResNet; nothing in the file is ever executed.

    Raises:
        UserError: the file is missing or damaged, or contains more than named tensors.
    """
    key = "models: encoder_weights"
    if not path.is_file():
        raise UserError(f"{key}: no such file: {path}")
    try:
        with warnings.catch_warnings():
            # torch warns about unusual pickles; our one line says enough.
            warnings.simplefilter("ignore")
            value: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = one_line(error, 160)
        raise UserError(
            f"{key}: {path} is not a readable state dict ({reason}); write a file saved by "
            "torch.save(model.state_dict(), ...)"
        ) from None
    if not isinstance(value, Mapping) or not all(isinstance(v, Tensor) for v in value.values()):
        raise UserError(
            f"{key}: {path} contains other things than named tensors; write a file saved by "
            "torch.save(model.state_dict(), ...)"
        )
    return {str(name): tensor for name, tensor in value.items()}


def load_encoder(network: Network, path: Path) -> None:
    """Sets the weights and running statistics of a network's encoder from a file.

    The classifier's layer (``fc``) of the file is ignored.

    Raises:
        UserError: as :func:`read_encoder_weights`; the network has no encoder, or its layers are
            not those of the file.
    """
    key = "models: encoder_weights"
    if not isinstance(network, ResNetUNet):
        raise UserError(f"{key}: the network has no encoder; write preset: unet-resnet34")
    encoder = network.get_submodule("encoder")
    given = {n: v for n, v in read_encoder_weights(path).items() if not n.startswith("fc.")}
    wanted = encoder.state_dict()
    # Files of early PyTorch versions lack the counters.
    missing = [n for n in wanted if n not in given and not n.endswith("num_batches_tracked")]
    strange = [n for n in given if n not in wanted]
    name = network.arch.encoder
    if missing or strange:
        what = f"lacks {missing[0]}" if missing else f"has {strange[0]}"
        raise UserError(
            f"{key}: {path} does not fit encoder {name}: it {what} (names as in torchvision's "
            "models); write the encoder of the file"
        )
    if given["conv1.weight"].shape[1:2] == (3,):
        given["conv1.weight"] = for_channels(given["conv1.weight"], network.in_channels)
    for layer, tensor in given.items():
        if tensor.shape != wanted[layer].shape:
            raise UserError(
                f"{key}: {path} does not fit encoder {name}: {layer} has shape "
                f"{list(tensor.shape)}, needs {list(wanted[layer].shape)}"
            )
        if not bool(tensor.isfinite().all()):
            raise UserError(f"{key}: {path} has NaN or infinite weights in {layer}")
    encoder.load_state_dict(given, strict=False)
