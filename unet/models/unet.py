"""The U-Net class that all presets configure. It reads like the paper's figure.

Contracting path (two 3x3 convolutions, then 2x2 max pooling, channels doubled), bridge, expanding
path (2x2 up-convolution that halves the channels, copy and crop, two 3x3 convolutions), 1x1
convolution to the classes. Ronneberger, Fischer, Brox 2015, arXiv:1505.04597, figure 1.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn

from unet.config.geometry import footprint
from unet.config.layers import Layers, layers_of
from unet.config.presets import Architecture
from unet.models.layer_modules import modules_of
from unet.models.network import Network, center_crop


class ConvBlock(nn.Module):
    """Convolutions of a level, each with its activation and normalisation.

    Args:
        layers: all layers of the network.
        part: the block's name.
    """

    def __init__(self, layers: Layers, part: str) -> None:
        super().__init__()
        names = [layer.name for layer in layers]
        self.residual = f"{part}.sum" in names
        norm, activation = f"{part}.norms.0", f"{part}.activation"
        # Without norms, the order has no effect.
        self.norm_first = norm in names and names.index(norm) < names.index(activation)
        (self.activation,) = modules_of(layers, activation)
        self.convs = nn.ModuleList(modules_of(layers, f"{part}.convs"))
        norms = modules_of(layers, f"{part}.norms")
        self.norms = nn.ModuleList(norms or [nn.Identity() for _ in self.convs])
        shortcut = modules_of(layers, f"{part}.shortcut") or [nn.Identity()]
        self.shortcut = shortcut[0] if len(shortcut) == 1 else nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, *S] to [N, outputs, *S']; unpadded convolutions make S' smaller than S."""
        y = x
        last = len(self.convs) - 1
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = conv(y)
            if self.residual and i == last:
                # The sum comes before the block's last activation (He et al. 2016).
                return self._joined(norm, y, x)
            y = self.activation(norm(y)) if self.norm_first else norm(self.activation(y))
        return y

    def _joined(self, norm: nn.Module, y: Tensor, x: Tensor) -> Tensor:
        short = center_crop(self.shortcut(x), y.shape[2:])
        if self.norm_first:
            joined: Tensor = self.activation(norm(y) + short)
        else:
            joined = norm(self.activation(y + short))
        return joined


def _level(layers: Layers, part: str, number: int) -> nn.Module:
    """The blocks of a level."""
    if number == 1:
        return ConvBlock(layers, part)
    return nn.Sequential(*(ConvBlock(layers, f"{part}.{i}") for i in range(number)))


class AttentionGate(nn.Module):
    """Additive attention gate (Oktay et al. 2018, arXiv:1804.03999, equations 1 and 2): weights the
    skip connection by sigmoid(psi(relu(W_x skip + W_g up + b_g)) + b_psi).

    As in most code, the gating signal is the upsampled map, so that the weights have the skip's
    resolution; the paper takes the map below, and interpolates the weights.

    Args:
        layers: all layers of the network.
        part: the gate's name.
    """

    def __init__(self, layers: Layers, part: str) -> None:
        super().__init__()
        (self.signal,) = modules_of(layers, f"{part}.signal")
        (self.features,) = modules_of(layers, f"{part}.features")
        (self.activation,) = modules_of(layers, f"{part}.activation")
        (self.score,) = modules_of(layers, f"{part}.score")
        (self.sigmoid,) = modules_of(layers, f"{part}.sigmoid")

    def forward(self, up: Tensor, skip: Tensor) -> Tensor:
        """The skip [N, C, *S], cropped to the size of the upsampled map and weighted."""
        signal = self.signal(up)
        x = self.activation(signal + center_crop(self.features(skip), signal.shape[2:]))
        weights: Tensor = self.sigmoid(self.score(x))
        return weights * center_crop(skip, weights.shape[2:])


class UNet(Network):
    """U-Net of any width, depth and number of spatial axes, from C of the images to K classes."""

    can_recompute = True

    def __init__(self, in_channels: int, num_classes: int, arch: Architecture) -> None:
        super().__init__()
        self.arch: Architecture = arch
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.footprint = footprint(arch)
        levels, layers = range(arch.depth), layers_of(arch, in_channels, num_classes)
        self.down = nn.ModuleList(_level(layers, f"down.{n}", arch.blocks_of(n)) for n in levels)
        self.pool = nn.ModuleList(modules_of(layers, "pool"))
        self.bridge = _level(layers, "bridge", arch.blocks_of(arch.depth))
        self.up = nn.ModuleList(
            nn.Sequential(OrderedDict(layers=nn.Sequential(*modules_of(layers, f"up.{n}"))))
            for n in levels
        )
        gates = [AttentionGate(layers, f"gates.{n}") for n in levels if arch.attention]
        self.gates = nn.ModuleList(gates)
        self.expand = nn.ModuleList(ConvBlock(layers, f"expand.{n}") for n in levels)
        # The finest first; the others are used in training only.
        self.heads = nn.ModuleList(modules_of(layers[::-1], "heads"))
        # As in the published network: after the last two levels of the contracting path.
        self.dropout = nn.Dropout(arch.dropout)
        self.apply(lambda module: _he_init(module, arch))

    @property
    def levels(self) -> tuple[tuple[str, ...], ...]:
        return tuple((f"down.{n}",) for n in range(self.arch.depth))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Class scores before the softmax; see :meth:`Network.forward`."""
        self.check(x)
        skips = []
        for level, block in enumerate(self.down):
            x = self.step(block, x)
            if level == self.arch.depth - 1:
                x = self.dropout(x)
            skips.append(x)
            x = self.pool[level](x)
        x = self.dropout(self.step(self.bridge, x))
        coarse: list[Tensor] = []
        for n in range(self.arch.depth):
            level = self.arch.depth - 1 - n
            x = self.step(partial(self._expanded, n), x, skips[level])
            if self.training and 0 < level < len(self.heads):
                coarse.append(self.heads[level](x))
        scores: Tensor = self.heads[0](x)
        return [scores, *reversed(coarse)] if self.training and len(self.heads) > 1 else scores

    def _expanded(self, n: int, x: Tensor, skip: Tensor) -> Tensor:
        """The n-th step of the expanding path: up-convolution, copy and crop, convolutions."""
        x = self.up[n](x)
        if self.arch.attention:
            skip = self.gates[n](x, skip)
        y: Tensor = self.expand[n](torch.cat([x, center_crop(skip, x.shape[2:])], dim=1))
        return y


def _he_init(module: nn.Module, arch: Architecture) -> None:
    """Draws weights from a normal distribution with standard deviation sqrt(2 / N), where N is the
    number of incoming nodes of a neuron (section 3)."""
    if isinstance(module, (nn.Conv2d, nn.Conv3d)):
        slope = 0.01 if arch.activation == "leaky_relu" else 0.0
        nn.init.kaiming_normal_(module.weight, a=slope, mode="fan_in", nonlinearity="leaky_relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, (nn.ConvTranspose2d, nn.ConvTranspose3d)):
        # Stride = kernel size, so one input pixel of each channel contributes to an output pixel.
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / module.in_channels))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
