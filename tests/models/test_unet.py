"""The network: the figure of the paper, parameter counts, every combination of the options, what it
refuses, initial weights."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.architectures import architectures
from unet.config.anisotropy import anisotropic_layers, fitted
from unet.config.presets import (
    PRESETS,
    Architecture,
    ResNetArchitecture,
    WindowArchitecture,
    architecture_from,
    architecture_of,
)
from unet.models.build import NETWORKS, build
from unet.models.network import center_crop, parameter_counts
from unet.models.unet import UNet

UNETS = [name for name, arch in PRESETS.items() if isinstance(arch, Architecture)]


def on_meta(arch: Any, channels: int = 1, classes: int = 2) -> UNet:
    """A network without memory for its weights: shapes and counts cost nothing."""
    with torch.device("meta"):
        return UNet(channels, classes, arch)


def preset(name: str, **given: Any) -> Architecture:
    arch = architecture_of(name, **given)
    assert isinstance(arch, Architecture)
    return arch


@pytest.mark.parametrize(
    ("name", "everything", "trainable"),
    [("unet2015", 31_030_658, 31_030_658), ("unet-bn", 31_054_210, 31_042_434)],
)
def test_parameters(name: str, everything: int, trainable: int) -> None:
    assert parameter_counts(on_meta(PRESETS[name])) == (everything, trainable)


# Figure 1 of the paper: (channels, size) of every map, from left to right.
FIGURE = [
    ("down.0", [(64, 570), (64, 568)]),
    ("pool.0", [(64, 284)]),
    ("down.1", [(128, 282), (128, 280)]),
    ("pool.1", [(128, 140)]),
    ("down.2", [(256, 138), (256, 136)]),
    ("pool.2", [(256, 68)]),
    ("down.3", [(512, 66), (512, 64)]),
    ("pool.3", [(512, 32)]),
    ("bridge", [(1024, 30), (1024, 28)]),
    ("up.0", [(512, 56)]),
    ("expand.0", [(512, 54), (512, 52)]),
    ("up.1", [(256, 104)]),
    ("expand.1", [(256, 102), (256, 100)]),
    ("up.2", [(128, 200)]),
    ("expand.2", [(128, 198), (128, 196)]),
    ("up.3", [(64, 392)]),
    ("expand.3", [(64, 390), (64, 388)]),
    ("heads.0", [(2, 388)]),
]
# What the up-convolution's output and the cropped skip connection make together.
JOINED = {"expand.0": 1024, "expand.1": 512, "expand.2": 256, "expand.3": 128}


def shapes_of(network: UNet, x: Tensor) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """(name, shape in, shape out) of every convolution and pooling in the order of their work."""
    seen: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []

    def remember(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen.append((name, tuple(inputs[0].shape[1:]), tuple(output.shape[1:])))

        return hook

    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d)
    for name, module in network.named_modules():
        if isinstance(module, kinds):
            module.register_forward_hook(remember(name))
    network(x)
    return seen


def test_every_map_of_figure_1() -> None:
    seen = shapes_of(on_meta(PRESETS["unet2015"]), torch.empty(1, 1, 572, 572, device="meta"))
    expected = [(part, shape) for part, shapes in FIGURE for shape in shapes]
    found = [(name, out) for name, _, out in seen]
    assert len(found) == len(expected)
    for (name, out), (part, (channels, size)) in zip(found, expected, strict=True):
        assert name == part or name.startswith(part + ".")
        assert out == (channels, size, size)
    for part, channels in JOINED.items():
        first = next(shape for name, shape, _ in seen if name.startswith(part))
        assert first[0] == channels
    kernels = [m.kernel_size for m in on_meta(PRESETS["unet2015"]).modules()
               if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]  # fmt: skip
    # "In total the network has 23 convolutional layers."
    assert sorted(kernels) == [(1, 1)] + [(2, 2)] * 4 + [(3, 3)] * 18


def test_padded_keeps_the_size() -> None:
    out = on_meta(PRESETS["unet-bn"], 3, 5)(torch.empty(2, 3, 256, 512, device="meta"))
    assert isinstance(out, Tensor)
    assert out.shape == (2, 5, 256, 512)
    seen = shapes_of(on_meta(PRESETS["unet-bn"]), torch.empty(1, 1, 256, 512, device="meta"))
    sizes = {name: out for name, _, out in seen}
    for level in range(4):
        channels, scale = 64 * 2**level, 2**level
        for name in (f"down.{level}.convs.1", f"expand.{3 - level}.convs.0"):
            assert sizes[name] == (channels, 256 // scale, 512 // scale)
    assert sizes["bridge.convs.1"] == (1024, 16, 32)


@settings(max_examples=60)
@given(architectures(), st.integers(1, 3), st.integers(1, 3), st.data())
def test_any_combination_has_the_shape_of_its_footprint(
    arch: Architecture, channels: int, classes: int, data: st.DataObject
) -> None:
    network = UNet(channels, classes, arch)
    size = [fp.smallest + fp.grid * data.draw(st.integers(0, 2)) for fp in network.footprint]
    x = torch.zeros(1, channels, *size)
    expected = [n - 2 * fp.margin for n, fp in zip(size, network.footprint, strict=True)]
    out = network.eval()(x)
    assert isinstance(out, Tensor)
    assert out.shape == (1, classes, *expected)
    # In training some more pixels: batch statistics of one pixel are refused.
    size = [n + fp.grid for n, fp in zip(size, network.footprint, strict=True)]
    made = network.train()(torch.zeros(2, channels, *size))
    assert isinstance(made, list) == (len(arch.supervised) > 1)
    levels = made if isinstance(made, list) else [made]
    # Deep supervision: scores of every level but the two coarsest, each at its own resolution.
    assert len(levels) == (max(1, arch.depth - 1) if arch.deep_supervision else 1)
    for level, scores in enumerate(levels):
        assert scores.shape[1] == classes
        if arch.padding == "same":
            factor = [
                torch.tensor([arch.pool(n)[axis] for n in range(level)]).prod().item()
                for axis in range(arch.dims)
            ]
            assert list(scores.shape[2:]) == [n // f for n, f in zip(size, factor, strict=True)]
    assert architecture_from(arch.to_json()) == arch


@settings(max_examples=15)
@given(architectures())
def test_any_combination_learns(arch: Architecture) -> None:
    """Every weight has a gradient: no layer is built and then left out."""
    network = build(1, 2, replace(arch, dropout=0.0), seed=1)
    # Batch statistics of one pixel would be a constant, and its gradient 0.
    size = [fp.smallest + fp.grid for fp in network.footprint]
    out = network.train()(torch.randn(2, 1, *size))
    levels = out if isinstance(out, list) else [out]
    torch.stack([(scores * torch.randn_like(scores)).sum() for scores in levels]).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_order_of_the_layers() -> None:
    def order(arch: Architecture) -> list[str]:
        block = UNet(1, 2, replace(arch, width=8, depth=1)).down[0]
        seen: list[str] = []
        for module in block.modules():
            if not list(module.children()) and not isinstance(module, nn.Identity):
                module.register_forward_hook(lambda m, x, y: seen.append(type(m).__name__))
        block(torch.rand(2, 1, 16, 16))
        return seen

    assert order(preset("unet2015")) == ["Conv2d", "ReLU"] * 2
    assert order(preset("unet-bn")) == ["Conv2d", "ReLU", "BatchNorm"] * 2
    assert order(preset("unet-bn", order="norm-act")) == ["Conv2d", "BatchNorm", "ReLU"] * 2
    assert order(preset("unet-bn", convs=3)) == ["Conv2d", "ReLU", "BatchNorm"] * 3
    # The shortcut (1x1 convolution and norm) is added before the last activation.
    first, second = ["Conv2d", "SampleNorm", "LeakyReLU"], ["Conv2d", "SampleNorm"]
    res = order(preset("unet-res"))
    assert sorted(res[3:-1]) == sorted([*second, "Conv2d", "SampleNorm"])
    assert [*res[:3], res[-1]] == [*first, "LeakyReLU"]


def test_residual_block_by_hand() -> None:
    """With convolutions of weight 0 the block is its shortcut, cropped where it is unpadded."""
    for padding, out in (("same", 8), ("valid", 4)):
        arch = Architecture(padding=padding, norm="none", residual=True, width=2, depth=1)  # type: ignore[arg-type]
        block = UNet(2, 1, arch).down[0]  # as many channels in as out: the shortcut is the input
        for parameter in block.parameters():
            nn.init.zeros_(parameter)
        x = torch.rand(1, 2, 8, 8)
        assert torch.equal(block(x), center_crop(x, (out, out)))
        assert torch.equal(block(-x), torch.zeros(1, 2, out, out))  # the ReLU comes after the sum
    assert isinstance(UNet(2, 1, arch).down[0].shortcut, nn.Identity)
    assert isinstance(UNet(1, 1, arch).down[0].shortcut, nn.Conv2d)


def test_upsampled_comes_before_the_skip() -> None:
    """As in the Keras code: concatenation [upsampled, skip]."""
    network = UNet(1, 1, preset("unet-bn", width=1, depth=1)).eval()
    given: list[Tensor] = []
    made: list[Tensor] = []
    network.expand[0].register_forward_pre_hook(lambda m, x: given.append(x[0]))
    network.up[0].register_forward_hook(lambda m, x, y: made.append(y))
    with torch.no_grad():
        network(torch.rand(1, 1, 8, 8))
    assert torch.equal(given[0][:, :1], made[0])


def test_nearest_neighbour_way_up() -> None:
    up = UNet(1, 1, preset("unet-bn", width=1, depth=1, up="nearest")).up[0]
    x = torch.rand(1, 2, 3, 3)
    y = up(x)
    assert y.shape == (1, 1, 6, 6)
    for rows in (slice(0, None, 2), slice(1, None, 2)):
        assert torch.equal(y[:, :, rows, rows], y[:, :, ::2, 1::2])


def test_widths_and_their_limit() -> None:
    assert preset("unet2015").widths == (64, 128, 256, 512, 1024)
    assert preset("unet-res").widths == (32, 64, 128, 256, 512)
    assert preset("unet-res", depth=6).widths == (32, 64, 128, 256, 512, 512, 512)
    network = UNet(1, 2, preset("unet-bn", width=2, depth=3, max_width=4))
    assert [m.out_channels for m in network.bridge.modules() if isinstance(m, nn.Conv2d)] == [4, 4]
    network(torch.rand(2, 1, 16, 16))


def test_dropout_at_the_end_of_the_contracting_path() -> None:
    network = UNet(1, 2, preset("unet2015", width=1, depth=2)).train()
    assert network.dropout.p == 0.5
    shapes: list[tuple[int, ...]] = []
    network.dropout.register_forward_hook(lambda m, x, y: shapes.append(tuple(y.shape[1:])))
    size = network.footprint[0].fit(50)
    network(torch.rand(1, 1, size, size))
    assert [channels for channels, *_ in shapes] == [2, 4]  # the last level and the bridge


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (
            (1, 1, 100, 96),
            "input size 100 does not fit depth 4 (same padding); nearest valid: 96 or 112",
        ),
        ((1, 2, 96, 96), "expected 2 spatial axes and 1 channel"),
        ((1, 1, 96), "expected 2 spatial axes"),
        ((1, 1, 8, 16), "nearest valid: 16"),
    ],
)
def test_refused_kindly(shape: tuple[int, ...], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        on_meta(PRESETS["unet-bn"])(torch.empty(shape, device="meta"))


def test_each_axis_has_its_own_sizes() -> None:
    arch = preset("unet-bn", dims=3, depth=2, width=1, pools=[[1, 2, 2], [1, 2, 2]])
    network = on_meta(arch)
    assert [fp.grid for fp in network.footprint] == [1, 4, 4]
    out = network(torch.empty(1, 1, 5, 8, 12, device="meta"))
    assert isinstance(out, Tensor)
    assert out.shape == (1, 2, 5, 8, 12)
    with pytest.raises(ValueError, match="input size 10 does not fit"):
        network(torch.empty(1, 1, 5, 10, 12, device="meta"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kernels": [[3, 3]]}, "kernels: got [[3, 3]], needs 5 entries of 2 numbers each"),
        ({"pools": [[2, 2, 2]] * 4}, "needs 4 entries of 2 numbers each"),
        ({"kernels": [[2, 3]] * 5}, "needs odd numbers"),
        ({"pools": [[3, 2]] * 4}, "needs 1 or 2"),
        ({"window": 65}, "window: the preset unet-bn has no such value"),
    ],
)
def test_values_that_do_not_fit(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        architecture_of("unet-bn", **given)


def test_anisotropic_layers() -> None:
    """Voxels four times as deep as wide: Z joins after two poolings of Y and X."""
    kernels, pools = anisotropic_layers(3, (4.0, 1.0, 1.0))
    assert kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3))
    assert pools == ((1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert anisotropic_layers(2, (1.0, 1.0, 1.9)) == (((3, 3, 3),) * 3, ((2, 2, 2),) * 2)
    arch = preset("unet-bn", dims=3, depth=3)
    assert fitted(arch, (4.0, 1.0, 1.0)) == replace(arch, kernels=kernels, pools=pools)
    for unchanged, spacing in (
        (arch, None), (arch, (1.0, 1.0, 1.0)), (preset("unet-bn"), (4.0, 1.0)),
        (replace(arch, pools=((1, 2, 2),) * 3), (4.0, 1.0, 1.0)),
    ):  # fmt: skip
        assert fitted(unchanged, spacing) is unchanged
    with pytest.raises(ValueError, match="positive"):
        anisotropic_layers(1, (0.0, 1.0, 1.0))


def test_center_crop() -> None:
    x = torch.arange(6 * 7).reshape(1, 1, 6, 7)
    assert torch.equal(center_crop(x, (2, 3)), x[:, :, 2:4, 2:5])
    assert torch.equal(center_crop(x, (6, 7)), x)


def test_initial_weights() -> None:
    """Normal with standard deviation sqrt(2 / incoming nodes), section 3 of the paper."""
    arch = Architecture(padding="same", norm="none", width=32, depth=1)
    values = build(1, 2, arch, seed=3).state_dict()
    assert values["down.0.convs.1.weight"].std().item() == pytest.approx((2 / 288) ** 0.5, rel=0.05)
    assert values["up.0.layers.0.weight"].std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.05)
    assert not any(v.any() for k, v in values.items() if k.endswith("bias"))


FLAT: dict[str, Any] = {"kernels": ((1, 3, 3), (3, 3, 3)), "pools": ((1, 2, 2),)}
STATE_DICTS = Path(__file__).with_name("state_dicts.json")
STORED = {
    **PRESETS,
    "plain shortcuts": preset("unet-res", norm="none", padding="valid", depth=1),
    "nearest, 3D": preset(
        "unet-bn", up="nearest", dims=3, depth=1, residual=True, convs=3, **FLAT
    ),
    "attention": preset("unet-bn", depth=2, attention=True),
}  # fmt: skip


@pytest.mark.parametrize("name", STORED)
def test_model_files_fit_the_network(name: str) -> None:
    """Names and shapes of the weights, in their order: those of the model files that exist."""
    wanted = json.loads(STATE_DICTS.read_text())
    assert not set(wanted) - set(STORED)
    assert name in wanted, f"{STATE_DICTS.name} lacks {name}: python -m tests.models.test_unet"
    assert list(shapes_in_file(name).items()) == list(wanted[name].items())


def shapes_in_file(name: str) -> dict[str, list[int]]:
    with torch.device("meta"):
        found = NETWORKS[STORED[name].kind](1, 2, STORED[name]).state_dict()
    return {key: list(value.shape) for key, value in found.items()}


@pytest.mark.parametrize(
    ("name", "first", "last", "total"),
    [
        ("unet2015", -0.193668, -0.927563, 355.4344),
        ("unet-bn", -0.193668, -0.927563, 355.4344),
        ("unet-res", -0.291591, -0.770238, 389.706),
        ("ciresan2012", 0.294255, -0.085669, 94.4781),
    ],
)
def test_initial_weights_of_a_seed_stay(name: str, first: float, last: float, total: float) -> None:
    """So that a training that starts again after an upgrade repeats the one before."""
    small = {"width": 2, "depth": 2}
    if name == "ciresan2012":
        small = {"window": 15, "stages": ((4, 4), (5, 5)), "hidden": (6,)}  # type: ignore[dict-item]
    network = build(1, 2, architecture_of(name, **small), seed=5)
    weights = [p.detach() for p in network.parameters() if p.ndim > 1]
    assert weights[0].flatten()[0].item() == pytest.approx(first, abs=2e-6)
    assert weights[-1].flatten()[-1].item() == pytest.approx(last, abs=2e-6)
    assert sum(w.abs().sum().item() for w in weights) == pytest.approx(total, rel=1e-6)


def test_weights_follow_from_the_seed_alone() -> None:
    arch = architecture_of("unet-bn", width=2, depth=1)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = build(1, 2, arch, seed=5).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = build(1, 2, arch, seed=5).state_dict(), build(1, 2, arch, seed=6).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["heads.0.weight"], other["heads.0.weight"])


def test_architecture_travels_as_plain_values() -> None:
    arch = preset("unet2015", width=12, depth=3, dropout=0.0)
    assert architecture_from(arch.to_json()) == arch
    assert (arch.padding, arch.norm, arch.width, arch.depth, arch.dropout) == (
        "valid", "none", 12, 3, 0.0,
    )  # fmt: skip
    for name, value in PRESETS.items():
        assert architecture_of(name) == architecture_from(value.to_json()) == value
        assert value.kind in NETWORKS
    window = architecture_of("ciresan2012", window=63)
    assert isinstance(window, WindowArchitecture)
    assert architecture_from(window.to_json()) == window
    with pytest.raises(ValueError, match=r"kind: got .transformer., there are: unet"):
        architecture_from({**arch.to_json(), "kind": "transformer"})


def test_docs_tell_of_every_option() -> None:
    """docs/models.md has each field, each value that has a name, and the sizes of the figure."""
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    inner = {"kind", "pool"}  # not the user's
    for kind in (Architecture, WindowArchitecture, ResNetArchitecture):
        for field in fields(kind):
            assert field.name in inner or f"`{field.name}`" in text, field.name
    for value in ("valid", "same", "none", "batch", "instance", "group", "act-norm", "norm-act",
                  "relu", "leaky_relu", "transposed", "nearest"):  # fmt: skip
        assert f" {value} |" in text, value
    rows = [line for line in text.splitlines() if re.match(r"\| (\d|bridge) \|", line)]
    assert len(rows) == 5
    for level, row in enumerate(rows):
        names = {f"down.{level}", f"up.{3 - level}", f"expand.{3 - level}"}
        names = names if level < 4 else {"bridge"}
        expected = [size for part, shapes in FIGURE if part in names for _, size in shapes]
        sizes = [int(n) for n in re.findall(r"\d+", re.sub(r"\(.*?\)", "", row.split("|", 3)[3]))]
        entered = 572 if level == 0 else next(
            size for part, [(_, size)] in ((p, s) for p, s in FIGURE if p == f"pool.{level - 1}")
        )  # fmt: skip
        assert sizes == [entered, *expected]
        assert f" {64 * 2**level} |" in row


if __name__ == "__main__":
    # Adds presets that are new; those of existing model files stay as they are.
    kept = json.loads(STATE_DICTS.read_text())
    new = {name: shapes_in_file(name) for name in STORED if name not in kept}
    parts = []
    for name, shapes in {**kept, **new}.items():
        lines = [f"  {json.dumps(key)}: {json.dumps(shape)}" for key, shape in shapes.items()]
        parts.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    STATE_DICTS.write_text("{\n" + ",\n".join(parts) + "\n}\n")
