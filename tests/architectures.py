"""U-Nets with all combinations of options, small enough to run hundreds of them."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from unet.config.presets import Architecture
from unet.models.engines import autocast
from unet.models.network import Network
from unet.models.norms import BatchNorm, SampleNorm
from unet.models.unet import ConvBlock, UNet

BATCH = 7  # samples for saved_bytes: differs from every number of channels here


@st.composite
def architectures(draw: st.DrawFn, dims: tuple[int, ...] = (2, 3)) -> Architecture:
    """Architectures with any options, at tiny widths and depths."""
    axes = draw(st.sampled_from(dims))
    # The volumes of deep unpadded 3D networks would be large.
    depth = draw(st.integers(1, 3 if axes == 2 else 2))

    def per_level(values: tuple[int, ...], count: int) -> st.SearchStrategy[object]:
        level = st.tuples(*[st.sampled_from(values)] * axes)
        return st.none() | st.tuples(*[level] * count)

    return Architecture(
        padding=draw(st.sampled_from(["valid", "same"])),
        norm=draw(st.sampled_from(["none", "batch", "instance", "group"])),
        norm_eps=draw(st.sampled_from([1e-3, 1e-5])),
        groups=draw(st.integers(1, 4)),
        order=draw(st.sampled_from(["act-norm", "norm-act"])),
        activation=draw(st.sampled_from(["relu", "leaky_relu"])),
        residual=draw(st.booleans()),
        convs=draw(st.integers(1, 3 if axes == 2 else 2)),
        blocks=draw(st.just((1,)) | st.lists(st.integers(1, 2), min_size=1, max_size=3)),  # type: ignore[arg-type]
        decoder_convs=draw(st.none() | st.integers(1, 2)),
        up=draw(st.sampled_from(["transposed", "nearest"])),
        attention=draw(st.booleans()),
        deep_supervision=draw(st.booleans()),
        width=draw(st.integers(1, 3)),
        max_width=draw(st.none() | st.integers(3, 5)),
        depth=depth,
        dropout=draw(st.sampled_from([0.0, 0.5])),
        dims=axes,
        kernels=draw(per_level((1, 3, 5) if axes == 2 else (1, 3), depth + 1)),  # type: ignore[arg-type]
        pools=draw(per_level((1, 2), depth)),  # type: ignore[arg-type]
    )


def saved_bytes(network: Network, x: Tensor, precision: str) -> int:
    """Bytes that autograd keeps from a forward pass, without weights and statistics."""
    kept: dict[int, torch.UntypedStorage] = {}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # Count maps of the network, or one sample of them, but not bfloat16 copies of weights.
        if tensor.ndim == x.ndim and (
            tensor.shape[0] == len(x) or storage.nbytes() == len(x) * tensor.nbytes
        ):
            # The storage must stay alive, so that no other one gets its address. Its own size can
            # exceed the map's: with one thread, PyTorch computes a transposed 3D convolution to a
            # single channel in a buffer twice as large.
            kept[storage.data_ptr()] = storage
            whole = tensor if tensor._base is None else tensor._base
            sizes[storage.data_ptr()] = whole.nbytes
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, autocast(precision, torch.device("cpu")):
        network(x)
    return sum(sizes.values())


def settle(network: nn.Module, seed: int = 0) -> None:
    """Sets random running statistics, scales and shifts, as after a training."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (BatchNorm, SampleNorm)):
                for name, low in (("running_mean", -1.0), ("running_var", 0.3), ("weight", 0.5),
                                  ("bias", -1.0)):  # fmt: skip
                    value = getattr(module, name)
                    value.copy_(torch.rand(value.shape, generator=random) + low)


@torch.no_grad()
def see(network: UNet, channel: int, level: float, gain: float = 20.0) -> None:
    """Sets the weights, so that results do not depend on the processor: the score of class 1 is
    gain * (x - level), with x a channel of the pixel itself, plus a little of its surroundings."""
    settle(network)
    for block, source in ((network.down[0], channel), (network.expand[-1], network.arch.width)):
        assert isinstance(block, ConvBlock)
        last = len(block.convs) - 1
        for i, (conv, norm) in enumerate(zip(block.convs, block.norms, strict=True)):
            adds_shortcut = block.residual and i == last
            _keep(conv, norm, None if adds_shortcut else 0 if i else source)
        if isinstance(block.shortcut, nn.Sequential):
            _keep(block.shortcut[0], block.shortcut[1], source)
    head: Any = network.heads[0]
    head.weight.mul_(0.02 / head.weight.std())
    head.weight[:, 0] = 0
    head.weight[1, 0] = gain
    head.bias.zero_()
    head.bias[1] = -gain * level


def _keep(conv: Any, norm: Any, source: int | None) -> None:
    """Makes the first output of a convolution and its norm equal its input ``source`` (None: 0)."""
    conv.weight[0] = 0
    if conv.bias is not None:
        conv.bias[0] = 0
    if source is not None:
        conv.weight[(0, source, *(n // 2 for n in conv.kernel_size))] = 1
    norm.weight[0] = (norm.running_var[0] + norm.eps).sqrt()
    norm.bias[0] = norm.running_mean[0]
