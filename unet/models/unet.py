"""The one U-Net class that every preset configures; it reads like the paper's figure.

Contracting path (two 3x3 convolutions, then 2x2 max pooling, channels doubled), bridge, expanding
path (2x2 up-convolution that halves the channels, copy and crop, two 3x3 convolutions), 1x1
convolution to the classes. Ronneberger, Fischer, Brox 2015, arXiv:1505.04597, figure 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unet.models.geometry import Footprint, footprint
from unet.models.presets import Architecture

_CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_UP: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_POOL: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_BATCH_NORM: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class DoubleConv(nn.Sequential):
    """Twice: 3x3 convolution, ReLU and, if the architecture has it, batch normalisation."""

    def __init__(self, inputs: int, outputs: int, arch: Architecture) -> None:
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            padding = 1 if arch.padding == "same" else 0
            layers += [
                _CONV[arch.dims](channels, outputs, kernel_size=3, padding=padding),
                nn.ReLU(inplace=True),
            ]
            if arch.norm == "batch":
                layers.append(_BATCH_NORM[arch.dims](outputs, eps=arch.norm_eps))
        super().__init__(*layers)


def center_crop(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Cuts the spatial axes of x [N, C, *S] to ``shape``, the same amount on both sides."""
    for axis, size in enumerate(shape, start=2):
        x = x.narrow(axis, (x.shape[axis] - size) // 2, size)
    return x


class UNet(nn.Module):
    """U-Net of any width, depth and number of spatial axes.

    Args:
        in_channels: C of the images.
        num_classes: channels of the output.
        arch: the layers (see :class:`unet.models.presets.Architecture`).
    """

    def __init__(self, in_channels: int, num_classes: int, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.footprint: Footprint = footprint(arch)
        widths = [arch.width * 2**level for level in range(arch.depth + 1)]
        self.down = nn.ModuleList(
            DoubleConv(a, b, arch)
            for a, b in zip([in_channels, *widths], widths[:-1], strict=False)
        )
        self.pool = _POOL[arch.dims](2)
        self.bridge = DoubleConv(widths[-2], widths[-1], arch)
        self.up = nn.ModuleList(
            _UP[arch.dims](2 * w, w, kernel_size=2, stride=2) for w in reversed(widths[:-1])
        )
        self.expand = nn.ModuleList(DoubleConv(2 * w, w, arch) for w in reversed(widths[:-1]))
        self.head = _CONV[arch.dims](widths[0], num_classes, kernel_size=1)
        # As in the published network: at the end of the contracting path, its last two levels.
        self.dropout = nn.Dropout(arch.dropout)
        self.apply(_he_init)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores before the softmax.

        Args:
            x: [N, C, *S] float; each axis of a size that ``footprint.accepts``.

        Returns:
            [N, K, *S] of the input's size (padded), or smaller by ``2 * footprint.margin``
            (unpadded).

        Raises:
            ValueError: a size does not fit, or the number of channels is another.
        """
        self._check(x)
        skips = []
        for level, block in enumerate(self.down):
            x = block(x)
            if level == self.arch.depth - 1:
                x = self.dropout(x)
            skips.append(x)
            x = self.pool(x)
        x = self.dropout(self.bridge(x))
        for up, block, skip in zip(self.up, self.expand, reversed(skips), strict=True):
            x = up(x)
            x = block(torch.cat([x, center_crop(skip, x.shape[2:])], dim=1))
        scores: Tensor = self.head(x)
        return scores

    def _check(self, x: Tensor) -> None:
        if x.ndim != self.arch.dims + 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"input of shape {tuple(x.shape)}: expected {self.arch.dims} spatial axes and "
                f"{self.in_channels} channel(s)"
            )
        fp = self.footprint
        for size in x.shape[2:]:
            if not fp.accepts(size):
                near = sorted({fp.fit_below(size), fp.fit(size)})
                raise ValueError(
                    f"input size {size} does not fit depth {self.arch.depth} "
                    f"({self.arch.padding} padding); nearest valid: {' or '.join(map(str, near))}"
                )


def _he_init(module: nn.Module) -> None:
    """Normal with standard deviation sqrt(2 / N), N the incoming nodes of a neuron (section 3)."""
    if isinstance(module, (nn.Conv2d, nn.Conv3d)):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, (nn.ConvTranspose2d, nn.ConvTranspose3d)):
        # Stride = kernel size, so that one input pixel of each channel reaches an output pixel.
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / module.in_channels))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build(in_channels: int, num_classes: int, arch: Architecture, seed: int = 0) -> UNet:
    """A network with weights drawn from ``seed`` alone; the global random state is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet(in_channels, num_classes, arch)


def parameter_counts(network: nn.Module) -> tuple[int, int]:
    """(all numbers that the network holds, trainable ones).

    The first counts running statistics too, but not BatchNorm's counter of batches.
    """
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    buffers = sum(b.numel() for b in network.buffers() if b.is_floating_point())
    return sum(p.numel() for p in network.parameters()) + buffers, trainable
