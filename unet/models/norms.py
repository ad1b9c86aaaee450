"""Normalisation layers that use running averages in inference, so that tiles can be predicted.

A tile must give the same values as the whole image. PyTorch's InstanceNorm and GroupNorm compute
statistics over the current window, so that each pixel depends on all others. Here, every
normalisation keeps running averages in training and applies them in inference, as BatchNorm does.
Training can also use them towards its end (:func:`freeze_statistics`), so that the weights adapt to
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from unet.config.layers import Layer


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm for any number of spatial axes, over the samples of all processes.

    PyTorch's SyncBatchNorm does the same, but only on GPUs.

    Attributes:
        fixed_averages: do not update the running averages, see :func:`statistics_unchanged`.
    """

    fixed_averages = False

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 3:
            raise ValueError(f"got {input.ndim} axes, needs [N, C, *S]")

    def forward(self, input: Tensor) -> Tensor:
        """x [N, C, *S], normalised per channel."""
        if not self.training or _processes() == 1:
            if self.training and self.fixed_averages:
                return F.batch_norm(
                    input, self.running_mean, self.running_var, self.weight, self.bias,
                    True, 0.0, self.eps,
                )  # fmt: skip
            return super().forward(input)
        # In float32: sums over the pixels of a batch are too large for bfloat16's precision.
        x = input.float()
        axes = [0, *range(2, x.ndim)]
        count = torch.tensor(float(x.numel() // x.shape[1]), device=x.device)
        sums = torch.stack([x.sum(axes), (x * x).sum(axes)])
        total: Tensor = all_reduce(sums)  # type: ignore[no-untyped-call]
        dist.all_reduce(count)
        mean = total[0] / count
        variance = (total[1] / count - mean * mean).clamp_min(0)
        self._update_averages(mean.detach(), (variance * count / (count - 1).clamp_min(1)).detach())
        shape = (1, -1, *[1] * (x.ndim - 2))
        scale = torch.rsqrt(variance + self.eps) * self.weight
        shift = self.bias - mean * scale
        normalised: Tensor = x * scale.view(shape) + shift.view(shape)
        return normalised.to(input.dtype)

    def _update_averages(self, mean: Tensor, variance: Tensor) -> None:
        if self.fixed_averages or self.momentum is None:
            return
        if self.running_mean is None or self.running_var is None:
            return
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


class SampleNorm(nn.Module):
    """Group or instance normalisation (Wu & He 2018, Ulyanov et al. 2016) with running averages.

    In training, each sample is normalised by its own mean and variance per group of channels. In
    inference, by their running averages over the training samples.

    Args:
        channels: C.
        groups: number of groups of channels that share statistics; C groups are instance
            normalisation.
        eps: added to the variance.
        momentum: weight of the newest batch in the running averages.

    Attributes:
        fixed_averages: do not update the running averages, see :func:`statistics_unchanged`.
    """

    running_mean: Tensor
    running_var: Tensor
    fixed_averages = False

    def __init__(self, channels: int, groups: int, eps: float, momentum: float = 0.1) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"groups: {groups} does not divide {channels} channels")
        self.channels, self.groups, self.eps, self.momentum = channels, groups, eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(groups))
        self.register_buffer("running_var", torch.ones(groups))

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, *S], normalised."""
        if self.training:
            if self.groups == self.channels:
                return self._per_channel(x)
            return self._per_group(x)
        each = self.channels // self.groups
        scale = torch.rsqrt(self.running_var + self.eps).repeat_interleave(each) * self.weight
        shift = self.bias - self.running_mean.repeat_interleave(each) * scale
        shape = (1, -1, *[1] * (x.ndim - 2))
        return x * scale.view(shape).to(x.dtype) + shift.view(shape).to(x.dtype)

    def _per_channel(self, x: Tensor) -> Tensor:
        # Instance norm is the batch norm of single samples, which PyTorch computes several times
        # faster on the CPU than group_norm and instance_norm. With momentum 1, the running averages
        # that it returns are the sample's statistics.
        means = torch.zeros(len(x), self.channels, device=x.device, dtype=self.weight.dtype)
        variances = torch.ones_like(means)
        parts = [
            F.batch_norm(sample, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
            for sample, mean, variance in zip(torch.split(x, 1), means, variances, strict=True)
        ]
        pixels = x[0, 0].numel()
        self._update_averages(means, variances * (pixels - 1) / pixels)
        return torch.cat(parts)

    def _per_group(self, x: Tensor) -> Tensor:
        # In float32: on the CPU, the kernel for bfloat16 takes three times as long.
        shape = (len(x), self.channels, x[0, 0].numel(), self.groups, self.eps)
        y, mean, inverse = torch.native_group_norm(
            x.to(self.weight.dtype), self.weight, self.bias, *shape
        )
        self._update_averages(mean.detach(), inverse.detach().square().reciprocal() - self.eps)
        return y.to(x.dtype)

    @torch.no_grad()
    def _update_averages(self, means: Tensor, variances: Tensor) -> None:
        """Adds the statistics [N, G] of the batches of all processes to the running averages."""
        if self.fixed_averages:
            return
        totals = torch.stack([means.sum(0), variances.sum(0)])
        count = float(len(means))
        if _processes() > 1:
            dist.all_reduce(totals)
            count *= _processes()
        self.running_mean.lerp_(totals[0] / count, self.momentum)
        self.running_var.lerp_(totals[1] / count, self.momentum)


def make_norm(layer: Layer) -> nn.Module:
    """The module for a layer of kind ``norm``."""
    if layer.groups == 0:
        return BatchNorm(layer.inputs, eps=layer.value)
    return SampleNorm(layer.inputs, layer.groups, layer.value)


@contextmanager
def statistics_unchanged(network: nn.Module) -> Iterator[None]:
    """Normalises by the batch's statistics as usual in training, but does not update the running
    averages: for activations that are computed a second time."""
    norms = [m for m in network.modules() if isinstance(m, (BatchNorm, SampleNorm))]
    for norm in norms:
        norm.fixed_averages = True
    try:
        yield
    finally:
        for norm in norms:
            norm.fixed_averages = False


Statistics = dict[torch.dtype, Tensor]


def _by_type(network: nn.Module) -> dict[torch.dtype, list[Tensor]]:
    found: dict[torch.dtype, list[Tensor]] = {}
    for buffer in network.buffers():
        found.setdefault(buffer.dtype, []).append(buffer)
    return found


def copy_statistics(network: nn.Module) -> Statistics:
    """A copy of all running averages, in one tensor per dtype to save GPU calls."""
    return {
        dtype: torch.cat([buffer.detach().reshape(-1) for buffer in buffers])
        for dtype, buffers in _by_type(network).items()
    }


@torch.no_grad()
def restore_statistics(network: nn.Module, statistics: Statistics) -> None:
    """Restores the running averages from a copy, see :func:`copy_statistics`."""
    for dtype, buffers in _by_type(network).items():
        parts = torch.split(statistics[dtype], [buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))


def freeze_statistics(network: nn.Module) -> None:
    """Normalises by the running averages until the next ``network.train()``, also in training."""
    for module in network.modules():
        if isinstance(module, (BatchNorm, SampleNorm)):
            module.eval()
