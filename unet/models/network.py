"""The interface of all networks, and small helpers that they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unet.config.geometry import Footprints
from unet.config.presets import AnyArchitecture
from unet.errors import how_many
from unet.models.norms import statistics_unchanged


class Network(nn.Module):
    """Base class of the networks, which compute class scores for each pixel of an image.

    Attributes:
        arch: its layers.
        in_channels: C of the images.
        num_classes: K, channels of the output.
        footprint: grid, margin and halo per spatial axis ((Z) Y X).
        can_recompute: whether it supports ``recompute``.
        recompute: gradient checkpointing (Chen et al. 2016, arXiv:1604.06174). Training does not
            keep the activations within blocks, but computes them again for the gradient. The values
            are the same; it saves memory and takes the time of one more forward pass.
    """

    can_recompute: ClassVar[bool] = False
    recompute: bool = False

    arch: AnyArchitecture
    in_channels: int
    num_classes: int
    footprint: Footprints

    @property
    def levels(self) -> tuple[tuple[str, ...], ...]:
        """Names of the modules of each level of the contracting path, from the finest; the bridge
        of a U-Net is none. Empty for a network without such a path."""
        return ()

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Scores before softmax.

        Args:
            x: [N, C, *S] float; each axis of a size that ``footprint`` accepts.

        Returns:
            [N, K, *S], smaller by twice the margin (unpadded). In training with deep supervision a
            list of these, the finest first.

        Raises:
            ValueError: a size or the number of channels does not fit.
        """
        raise NotImplementedError

    def step(self, block: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """``block(*inputs)``; with ``recompute``, only the inputs are kept for the gradient."""
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return block(*inputs)
        result: Tensor = checkpoint(
            block, *inputs, use_reentrant=False,
            context_fn=lambda: (nullcontext(), statistics_unchanged(self)),
        )  # fmt: skip
        return result

    def check(self, x: Tensor) -> None:
        """Raises ValueError if ``x`` does not fit the network; names the nearest valid size."""
        if x.ndim != self.arch.dims + 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"input of shape {tuple(x.shape)}: expected {self.arch.dims} spatial axes and "
                f"{how_many(self.in_channels, 'channel')}"
            )
        for size, fp in zip(x.shape[2:], self.footprint, strict=True):
            if not fp.accepts(size):
                near = sorted({fp.fit_below(size), fp.fit(size)})
                raise ValueError(
                    f"input size {size} does not fit depth {self.arch.depth} "
                    f"({'valid' if fp.margin else 'same'} padding); nearest valid: "
                    f"{' or '.join(map(str, near))}"
                )


def center_crop(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Cuts the spatial axes of x [N, C, *S] to ``shape``, the same amount on both sides."""
    for axis, size in enumerate(shape, start=2):
        if x.shape[axis] != size:
            x = x.narrow(axis, (x.shape[axis] - size) // 2, size)
    return x


def parameter_counts(network: nn.Module) -> tuple[int, int]:
    """(all numbers in the network, trainable numbers).

    The first includes running statistics, but not BatchNorm's counter of batches.
    """
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    buffers = sum(b.numel() for b in network.buffers() if b.is_floating_point())
    return sum(p.numel() for p in network.parameters()) + buffers, trainable
