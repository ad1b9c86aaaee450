"""The network: published sizes, shapes, what it refuses, initial weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from unet.models.presets import PRESETS, Architecture, architecture_of
from unet.models.unet import UNet, build, center_crop, parameter_counts


def on_meta(preset: str, channels: int = 1, classes: int = 2) -> UNet:
    """A network without memory for its weights: shapes and counts cost nothing."""
    with torch.device("meta"):
        return UNet(channels, classes, PRESETS[preset])


@pytest.mark.parametrize(
    ("preset", "everything", "trainable"),
    [("unet2015", 31_030_658, 31_030_658), ("unet-bn", 31_054_210, 31_042_434)],
)
def test_parameters(preset: str, everything: int, trainable: int) -> None:
    assert parameter_counts(on_meta(preset)) == (everything, trainable)


def test_paper_shapes() -> None:
    network = on_meta("unet2015")
    seen: dict[str, tuple[int, ...]] = {}

    def remember(name: str):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            seen[name + " in"] = tuple(inputs[0].shape[1:])
            seen[name] = tuple(output.shape[1:])

        return hook

    convolutions = [m for m in network.bridge if isinstance(m, nn.Conv2d)]
    convolutions[0].register_forward_hook(remember("first"))
    convolutions[1].register_forward_hook(remember("second"))
    out = network(torch.empty(1, 1, 572, 572, device="meta"))
    assert out.shape == (1, 2, 388, 388)
    assert seen["first in"] == (512, 32, 32)
    assert seen["first"] == (1024, 30, 30)
    assert seen["second"] == (1024, 28, 28)


def test_padded_keeps_the_size() -> None:
    out = on_meta("unet-bn", 3, 5)(torch.empty(2, 3, 256, 512, device="meta"))
    assert out.shape == (2, 5, 256, 512)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_three_spatial_axes(preset: str, depth: int) -> None:
    arch = replace(PRESETS[preset], dims=3, width=2, depth=depth)
    network = UNet(1, 2, arch).eval()
    fp = network.footprint
    size = fp.fit(2 * fp.margin + 4)
    with torch.no_grad():
        out = network(torch.zeros(1, 1, size, size, size))
    assert out.shape == (1, 2, *(size - 2 * fp.margin,) * 3)


def test_order_is_convolution_relu_norm() -> None:
    kinds = [type(m).__name__ for m in on_meta("unet-bn").down[0]]
    assert kinds == ["Conv2d", "ReLU", "BatchNorm2d"] * 2
    assert [type(m).__name__ for m in on_meta("unet2015").down[0]] == ["Conv2d", "ReLU"] * 2


def test_upsampled_comes_before_the_skip() -> None:
    """As in the Keras code: concatenation [upsampled, skip]."""
    arch = architecture_of("unet-bn", width=1, depth=1)
    network = UNet(1, 1, arch).eval()
    first = network.expand[0][0]
    assert isinstance(first, nn.Conv2d)
    given: list[torch.Tensor] = []
    made: list[torch.Tensor] = []
    first.register_forward_pre_hook(lambda m, x: given.append(x[0]))
    network.up[0].register_forward_hook(lambda m, x, y: made.append(y))
    with torch.no_grad():
        network(torch.rand(1, 1, 8, 8))
    assert torch.equal(given[0][:, :1], made[0])


def test_dropout_at_the_end_of_the_contracting_path() -> None:
    network = UNet(1, 2, architecture_of("unet2015", width=1, depth=2)).train()
    assert network.dropout.p == 0.5
    shapes: list[tuple[int, ...]] = []
    network.dropout.register_forward_hook(lambda m, x, y: shapes.append(tuple(y.shape[1:])))
    size = network.footprint.fit(50)
    network(torch.rand(1, 1, size, size))
    assert [channels for channels, *_ in shapes] == [2, 4]  # the last level and the bridge


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (
            (1, 1, 100, 96),
            "input size 100 does not fit depth 4 (same padding); nearest valid: 96 or",
        ),
        ((1, 2, 96, 96), "expected 2 spatial axes and 1 channel"),
        ((1, 1, 96), "expected 2 spatial axes"),
        ((1, 1, 8, 16), "nearest valid: 16"),
    ],
)
def test_refused_kindly(shape: tuple[int, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("(", r"\(").replace(")", r"\)")):
        on_meta("unet-bn")(torch.empty(shape, device="meta"))


def test_center_crop() -> None:
    x = torch.arange(6 * 7).reshape(1, 1, 6, 7)
    assert torch.equal(center_crop(x, (2, 3)), x[:, :, 2:4, 2:5])
    assert torch.equal(center_crop(x, (6, 7)), x)


def test_initial_weights() -> None:
    """Normal with standard deviation sqrt(2 / incoming nodes), section 3 of the paper."""
    network = build(1, 2, Architecture(padding="same", norm="none", width=32, depth=1), seed=3)
    second = network.down[0][2]
    assert isinstance(second, nn.Conv2d)
    assert second.weight.std().item() == pytest.approx((2 / (9 * 32)) ** 0.5, rel=0.05)
    assert network.up[0].weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.05)
    assert not any(v.any() for k, v in network.state_dict().items() if k.endswith("bias"))


def test_weights_follow_from_the_seed_alone() -> None:
    arch = architecture_of("unet-bn", width=2, depth=1)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = build(1, 2, arch, seed=5).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = build(1, 2, arch, seed=5).state_dict(), build(1, 2, arch, seed=6).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_architecture_travels_as_plain_values() -> None:
    arch = architecture_of("unet2015", width=12, depth=3, dropout=0.0)
    assert Architecture(**arch.to_json()) == arch
    assert (arch.padding, arch.norm, arch.width, arch.depth, arch.dropout) == (
        "valid", "none", 12, 3, 0.0,
    )  # fmt: skip
    assert architecture_of("unet2015") == PRESETS["unet2015"]
