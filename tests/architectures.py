"""U-Nets of every combination of options, small enough to be run by the hundred."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import nn

from unet.models.norms import BatchNorm, SampleNorm
from unet.models.presets import Architecture


@st.composite
def architectures(draw: st.DrawFn, dims: tuple[int, ...] = (2, 3)) -> Architecture:
    """Any values, at tiny widths and depths."""
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
        up=draw(st.sampled_from(["transposed", "nearest"])),
        deep_supervision=draw(st.booleans()),
        width=draw(st.integers(1, 3)),
        max_width=draw(st.none() | st.integers(3, 5)),
        depth=depth,
        dropout=draw(st.sampled_from([0.0, 0.5])),
        dims=axes,
        kernels=draw(per_level((1, 3, 5) if axes == 2 else (1, 3), depth + 1)),  # type: ignore[arg-type]
        pools=draw(per_level((1, 2), depth)),  # type: ignore[arg-type]
    )


def settle(network: nn.Module, seed: int = 0) -> None:
    """Random running statistics, scales and shifts, as training would leave behind."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (BatchNorm, SampleNorm)):
                for name, low in (("running_mean", -1.0), ("running_var", 0.3), ("weight", 0.5),
                                  ("bias", -1.0)):  # fmt: skip
                    value = getattr(module, name)
                    value.copy_(torch.rand(value.shape, generator=random) + low)
