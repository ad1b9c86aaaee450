"""Memory of training steps: preset auto's estimate against what is kept and measured."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.step_memory import estimate, measured
from tests.architectures import BATCH, saved_bytes
from unet.config.geometry import footprint
from unet.config.layers import layers_of, parameters
from unet.config.presets import Architecture, architecture_of
from unet.models.build import build
from unet.models.network import parameter_counts
from unet.training.auto.memory import LOSS_TENSORS, Numerics, activation_bytes

NETWORKS = {
    "plain": architecture_of("unet2015", width=4, depth=2, dropout=0.0),
    "bn": architecture_of("unet-bn", width=4, depth=3, max_width=16),
    "bn-nearest": architecture_of("unet-bn", width=4, depth=1, up="nearest", order="norm-act"),
    "res": architecture_of("unet-res", width=4, depth=3),
    "res-act-norm": architecture_of("unet-res", width=4, depth=2, order="act-norm", convs=3),
    "res-group": architecture_of("unet-res", width=8, depth=2, norm="group", groups=2),
    "res-plain": architecture_of("unet-res", width=4, depth=1, norm="none"),
    "flat": architecture_of(
        "unet-res", width=4, depth=2, dims=3, norm="group", kernels=((1, 3, 3),) * 3,
        pools=((1, 2, 2), (2, 2, 2)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_what_a_step_keeps_is_what_autograd_keeps(name: str, precision: str) -> None:
    arch = NETWORKS[name]
    assert isinstance(arch, Architecture)
    layers = layers_of(arch, 2, 3)
    assert parameters(layers) == parameter_counts(build(2, 3, arch))[1]
    fps = footprint(arch)
    size = tuple(fp.fit(24) for fp in fps)
    guess = activation_bytes(layers, size, Numerics("cpu", precision))
    # Not the network's: the image before augmentation, the class indices, what the loss keeps.
    outside = math.prod(size) * (2 * (4 + 4) + 2 * 8)
    out = [n - 2 * fp.margin for n, fp in zip(size, fps, strict=True)]
    scored = [
        math.prod(
            n // math.prod(arch.pool(lv)[a] for lv in range(level)) for a, n in enumerate(out)
        )
        for level in arch.supervised
    ]
    outside += LOSS_TENSORS * 4 * 3 * sum(scored)
    real = saved_bytes(build(2, 3, arch).train(), torch.randn(BATCH, 2, *size), precision)
    assert BATCH * (guess - outside) == real


def test_the_estimate_is_on_the_safe_side_of_a_real_step() -> None:
    ratio = estimate("bn-8", "float32", "cpu") / measured("bn-8", "float32", "cpu")
    assert 0.95 < ratio < 1.6


def test_group_norm_keeps_float32_copies() -> None:
    kept = {}
    for norm in ("instance", "group"):
        arch = architecture_of("unet-res", width=16, norm=norm)
        assert isinstance(arch, Architecture)
        kept[norm] = activation_bytes(layers_of(arch, 1, 2), (64, 64), Numerics("cuda", "bfloat16"))
    assert kept["group"] > 1.2 * kept["instance"]
