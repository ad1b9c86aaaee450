"""A network as a list of layers, in one file that needs PyTorch alone.

This file is copied as it is into the packages that ``unet export`` writes: other programs build the
network from it, without this pipeline. It computes the same values as the pipeline's own networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CONV: dict[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_UP: dict[int, Callable[..., nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_POOL: dict[int, Callable[..., nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


class AveragedNorm(nn.Module):
    """Batch, group or instance normalisation by running averages, for prediction.

    Args:
        channels: C.
        groups: of channels that share an average; 0: each channel has its own, with the counter of
            batches that PyTorch's batch normalisation keeps.
        eps: added to the variance.
    """

    def __init__(self, channels: int, groups: int, eps: float) -> None:
        super().__init__()
        self.running_mean: Tensor
        self.running_var: Tensor
        self.each, self.eps = channels // (groups or channels), eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(groups or channels))
        self.register_buffer("running_var", torch.ones(groups or channels))
        if not groups:
            self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, *S], normalised."""
        mean, variance = self.running_mean, self.running_var
        if self.each > 1:
            mean = mean.repeat_interleave(self.each)
            variance = variance.repeat_interleave(self.each)
        return F.batch_norm(x, mean, variance, self.weight, self.bias, False, 0.0, self.eps)


def _conv(layer: Mapping[str, Any]) -> nn.Module:
    kernel = layer["kernel"]
    return _CONV[len(kernel)](
        layer["inputs"], layer["outputs"], tuple(kernel), stride=tuple(layer["stride"]),
        padding=tuple(layer["padding"]), dilation=layer["dilation"], bias=layer["bias"],
    )  # fmt: skip


def _up(layer: Mapping[str, Any]) -> nn.Module:
    scale = tuple(layer["scale"])
    return _UP[len(scale)](layer["inputs"], layer["outputs"], kernel_size=scale, stride=scale)


def _pool(layer: Mapping[str, Any]) -> nn.Module:
    kernel, stride = tuple(layer["kernel"]), tuple(layer["stride"])
    return _POOL[len(kernel)](kernel, stride, tuple(layer["padding"]), layer["dilation"])


# Makes the module of a layer, by its kind.
MODULES: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "conv": _conv,
    "head": _conv,
    "up": _up,
    "pool": _pool,
    "norm": lambda layer: AveragedNorm(layer["outputs"], layer["groups"], layer["value"]),
    "activation": lambda layer: nn.LeakyReLU(layer["value"]) if layer["value"] else nn.ReLU(),
    "sigmoid": lambda layer: nn.Sigmoid(),
    "dropout": lambda layer: nn.Dropout(layer["value"]),
    "enlarge": lambda layer: nn.Upsample(scale_factor=tuple(float(n) for n in layer["scale"])),
}
# Combines the maps that a layer takes, by its kind. All have the size of the first one.
MERGES: dict[str, Callable[[list[Tensor]], Tensor]] = {
    "join": lambda maps: torch.cat(maps, dim=1),
    "add": lambda maps: maps[0] + maps[1],
    "multiply": lambda maps: maps[0] * maps[1],
}


def center_crop(x: Tensor, like: Tensor, margin: Sequence[int]) -> Tensor:
    """Cuts x [N, C, *S] to the spatial sizes of ``like``, which begin ``margin`` pixels inside."""
    for axis, before in enumerate(margin, start=2):
        if before:
            x = x.narrow(axis, before, like.shape[axis])
    return x


class ListedNetwork(nn.Module):
    """A network of listed layers: from an image [N, C, (Z,) Y, X] to probabilities of the same
    size.

    Args:
        layers: in the order in which they run; the first one stands for the image. Each has its
            ``kind``, the ``name`` of its module in the state dict, the indices of the layers whose
            maps it takes (``sources``, and per source the pixels that are cut off each side:
            ``crops``), its numbers of channels (``inputs``, ``outputs``) and what its kind needs.
        output: index of the layer whose maps are the class scores.
        softmax: how many channels of the output are classes with a softmax; each of the others
            gets a sigmoid.
        skip: per axis, pixels at the image's start that the network does not see, so that its
            poolings lie on the right grid.
        margin: per axis, pixels at each side of the output that are not predicted, and set to 0
            (networks with unpadded convolutions).
    """

    def __init__(
        self,
        layers: Sequence[Mapping[str, Any]],
        output: int,
        softmax: int,
        skip: Sequence[int],
        margin: Sequence[int],
    ) -> None:
        super().__init__()
        self.layers, self.output, self.softmax = list(layers), output, softmax
        self.skip, self.margin = list(skip), list(margin)
        for layer in self.layers:
            if layer["kind"] in MODULES:
                self._place(layer["name"], MODULES[layer["kind"]](layer))
        # The last layer that takes each map: after it, the map is not needed any more.
        self.until = {s: i for i, layer in enumerate(self.layers) for s in layer["sources"]}

    def _place(self, name: str, module: nn.Module) -> None:
        """Registers a module under a dotted name."""
        *above, own = name.split(".")
        parent: nn.Module = self
        for part in above:
            if part not in parent._modules:
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        if own not in parent._modules:
            parent.add_module(own, module)

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities [N, K, *S] of an image [N, C, *S]."""
        for axis, skipped in enumerate(self.skip, start=2):
            x = x.narrow(axis, skipped, x.shape[axis] - skipped) if skipped else x
        scores = self.scores(x)
        found = torch.softmax(scores[:, : self.softmax], dim=1)
        if self.softmax < scores.shape[1]:
            found = torch.cat([found, torch.sigmoid(scores[:, self.softmax :])], dim=1)
        if not any(self.margin):
            return found
        for axis, skipped in enumerate(self.skip, start=2):
            found = found.narrow(axis, 0, found.shape[axis] - skipped) if skipped else found
        return F.pad(found, [side for n in reversed(self.margin) for side in (n, n)])

    def scores(self, x: Tensor) -> Tensor:
        """Class scores before the softmax; smaller than x for unpadded convolutions."""
        maps = {0: x}
        for index, layer in enumerate(self.layers[: self.output + 1]):
            if index == 0 or layer["training_only"]:
                continue
            taken = [maps[source] for source in layer["sources"]]
            if layer["kind"] in MERGES:
                taken = [
                    center_crop(each, taken[0], crop)
                    for each, crop in zip(taken, layer["crops"], strict=True)
                ]
                maps[index] = MERGES[layer["kind"]](taken)
            else:
                maps[index] = self.get_submodule(layer["name"])(taken[0])
            for source in layer["sources"]:
                if self.until[source] == index:
                    del maps[source]
        return maps[self.output]
