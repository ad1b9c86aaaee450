"""The sliding-window classifier that U-Net replaced.

Ciresan, Giusti, Gambardella, Schmidhuber: Deep neural networks segment neuronal membranes in
electron microscopy images, NIPS 2012. Stages of convolution and max pooling, followed by fully
connected layers, classify a window's centre pixel. To segment an image, the network classifies the
window around each of its pixels.

The same weights give the same scores in two ways. Patch by patch, as published: the input is one
window, and poolings have a stride. Densely: the input is an image, poolings keep their input's
resolution (stride 1), and the layers after them are dilated instead. Work that neighbouring windows
share is then done once (the idea of Giusti et al. 2013, arXiv:1302.1700, in the form of Li et al.
2014, arXiv:1412.4526). Giusti et al. cut the maps into fragments after each pooling instead, which
takes the same number of multiplications and as much time (benchmarks/sliding_window.py compares
them).
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unet.config.geometry import footprint
from unet.config.layers import window_layers
from unet.config.presets import WindowArchitecture
from unet.models.network import Network


class WindowClassifier(Network):
    """A network of convolution, pooling and fully connected layers over a window.

    Args:
        in_channels: C of the images.
        num_classes: K.
        arch: window, stages and hidden layers.
    """

    def __init__(self, in_channels: int, num_classes: int, arch: WindowArchitecture) -> None:
        super().__init__()
        self.arch: WindowArchitecture = arch
        self.in_channels, self.num_classes = in_channels, num_classes
        self.footprint = footprint(arch)
        self.convs, self.full = nn.ModuleList(), nn.ModuleList()
        for layer in window_layers(arch, in_channels, num_classes, dense=False):
            if layer.products:
                part = self.full if layer.name.startswith("full") else self.convs
                part.append(nn.Conv2d(layer.inputs, layer.outputs, layer.kernel))  # type: ignore[arg-type]
        self.dropout = nn.Dropout(arch.dropout)
        for module in (*self.convs, *self.full):
            nn.init.kaiming_normal_(cast(nn.Conv2d, module).weight, nonlinearity="relu")
            nn.init.zeros_(cast(Tensor, module.bias))

    def forward(self, x: Tensor) -> Tensor:
        """Scores [N, K, Y - window + 1, X - window + 1], one for each whole window in x
        [N, C, Y, X]; see :meth:`Network.forward`."""
        self.check(x)
        one_window = all(size == self.arch.window for size in x.shape[2:])
        pool, dilation = self.arch.pool, 1
        for layer in self.convs:
            conv = cast(nn.Conv2d, layer)
            x = F.conv2d(x, conv.weight, conv.bias, dilation=dilation)
            # Pooling before ReLU gives the same values for a quarter of the work.
            x = F.relu_(F.max_pool2d(x, pool, pool if one_window else 1, dilation=dilation))
            dilation *= 1 if one_window else pool
        return self.classified(x, dilation)

    def patches(self, x: Tensor, batch: int = 256) -> Tensor:
        """The same scores as :meth:`forward`, computed window by window, as published.

        Args:
            x: [N, C, Y, X].
            batch: number of windows at once.
        """
        self.check(x)
        size = self.arch.window
        windows = x.unfold(2, size, 1).unfold(3, size, 1)
        n, _, rows, columns = windows.shape[:4]
        flat = windows.permute(0, 2, 3, 1, 4, 5)
        scores = []
        for sample in range(n):
            for row in range(rows):
                for start in range(0, columns, batch):
                    part = flat[sample, row, start : start + batch]
                    part = part.contiguous(memory_format=torch.channels_last)
                    scores.append(self(part).flatten(1))
        return torch.cat(scores).view(n, rows, columns, -1).permute(0, 3, 1, 2)

    def classified(self, x: Tensor, dilation: int = 1) -> Tensor:
        """Class scores from the maps of the last stage: the fully connected layers.

        Args:
            x: [N, maps, Y, X].
            dilation: of the first layer.
        """
        last = len(self.full) - 1
        for i, layer in enumerate(self.full):
            full = cast(nn.Conv2d, layer)
            if i == last:
                x = self.dropout(x)
            # The other layers are 1x1, where dilation has no effect.
            x = F.conv2d(x, full.weight, full.bias, dilation=dilation if i == 0 else 1)
            if i != last:
                x = F.relu_(x)
        return x
