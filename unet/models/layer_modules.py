"""The modules of a network's layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unet.config.layers import Layer
from unet.models.exact import sigmoid
from unet.models.norms import make_norm


class Sigmoid(nn.Module):
    """1 / (1 + exp(-x)). In prediction each pixel is computed by the same operations, see
    :mod:`unet.models.exact`."""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape; in training the kernel that keeps one map for the gradient, not three."""
        return torch.sigmoid(x) if self.training else sigmoid(x)


class UpAlone2d(nn.ConvTranspose2d):
    """A transposed convolution with kernel and stride 1, computed as the convolution that it is.

    On the CPU, one thread would compute it by other code than several, and the values of a pixel
    would depend on the window's size; :mod:`unet.models.exact` sees to convolutions.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """[N, C, Y, X] to [N, outputs, Y, X]."""
        weight = self.weight.transpose(0, 1)
        # All arguments, as convolution modules pass them.
        return F.conv2d(x, weight, self.bias, (1, 1), (0, 0), (1, 1), 1)


def _up(layer: Layer, dims: int) -> nn.Module:
    kind: Callable[..., nn.Module] = UpAlone2d if layer.scale == (1, 1) else _UP[dims]
    return kind(layer.inputs, layer.outputs, kernel_size=layer.scale, stride=layer.scale)


_CONV: dict[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_UP: dict[int, Callable[..., nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_POOL: dict[int, Callable[..., nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
# Makes the module of a layer, by its kind. To add a kind of layer with a module, add a line.
_MODULES: dict[str, Callable[[Layer, int], nn.Module]] = {
    "conv": lambda layer, dims: _CONV[dims](
        layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.padding, bias=layer.bias
    ),
    "norm": lambda layer, dims: make_norm(layer),
    "activation": lambda layer, dims: (
        nn.LeakyReLU(layer.value, inplace=True) if layer.value else nn.ReLU(inplace=True)
    ),
    "sigmoid": lambda layer, dims: Sigmoid(),
    "pool": lambda layer, dims: _POOL[dims](layer.kernel, layer.stride, layer.padding),
    "up": _up,
    "enlarge": lambda layer, dims: nn.Upsample(scale_factor=tuple(map(float, layer.scale))),
}
_MODULES["head"] = _MODULES["conv"]


def module_of(layer: Layer) -> nn.Module:
    """A new module for a layer."""
    return _MODULES[layer.kind](layer, len(layer.kernel))


def modules_of(layers: Sequence[Layer], part: str) -> list[nn.Module]:
    """New modules for the layers of a part of the network, one per layer name."""
    named = {layer.name: layer for layer in layers if f"{layer.name}.".startswith(f"{part}.")}
    return [module_of(layer) for layer in named.values()]
