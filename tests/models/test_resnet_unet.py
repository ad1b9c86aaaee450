"""U-Nets with a ResNet encoder: torchvision's names and numbers, weights from a file, exact
tiles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.architectures import settle
from tests.config.test_layers import compare
from tests.models.test_exact import check, picture
from unet.config.geometry import footprint
from unet.config.layers import layers_of, parameters
from unet.config.presets import PRESETS, ResNetArchitecture, architecture_from, architecture_of
from unet.config.resnet import ENCODERS
from unet.errors import UserError
from unet.models.build import build
from unet.models.inference import Predictor
from unet.models.resnet_unet import ResNetUNet, for_channels, load_encoder

# torchvision's numbers of parameters, and of those of the last layer (fc), which is left out.
TORCHVISION = {
    "resnet18": (11_689_512, 513_000),
    "resnet34": (21_797_672, 513_000),
    "resnet50": (25_557_032, 2_049_000),
}
ENCODER = st.sampled_from(sorted(ENCODERS))


def small(encoder: Any = "resnet18") -> ResNetArchitecture:
    """With a narrow decoder; the encoder's channels are given."""
    return ResNetArchitecture(encoder=encoder, decoder=(8, 8, 6, 4, 4))


def network(arch: ResNetArchitecture, channels: int = 1, classes: int = 2) -> ResNetUNet:
    made = build(channels, classes, arch)
    assert isinstance(made, ResNetUNet)
    return made


@pytest.mark.parametrize("encoder", ENCODERS)
def test_parameters_of_torchvision(encoder: Any) -> None:
    total, fc = TORCHVISION[encoder]
    with torch.device("meta"):
        made = network(ResNetArchitecture(encoder=encoder), 3, 1)
    assert sum(p.numel() for p in made.get_submodule("encoder").parameters()) == total - fc


def test_parameters_of_the_whole_network() -> None:
    """The number of segmentation_models_pytorch's Unet("resnet34", classes=1)."""
    assert parameters(layers_of(PRESETS["unet-resnet34"], 3, 1)) == 24_436_369


def reference(state: dict[str, Tensor], x: Tensor, blocks: tuple[int, ...]) -> list[Tensor]:
    """The maps of a ResNet of basic or bottleneck blocks, written out with functions, from a state
    dict with torchvision's names."""

    def norm(y: Tensor, name: str) -> Tensor:
        parts = [state[f"{name}.{n}"] for n in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(y, *parts, False, 0.0, 1e-5)

    def block(y: Tensor, name: str, stride: int) -> Tensor:
        short = y
        if f"{name}.downsample.0.weight" in state:
            short = F.conv2d(y, state[f"{name}.downsample.0.weight"], stride=stride)
            short = norm(short, f"{name}.downsample.1")
        deep = f"{name}.conv3.weight" in state
        strides = (1, stride, 1) if deep else (stride, 1)
        for n, step in enumerate(strides, 1):
            weight = state[f"{name}.conv{n}.weight"]
            y = norm(
                F.conv2d(y, weight, stride=step, padding=weight.shape[-1] // 2), f"{name}.bn{n}"
            )
            y = y if n == len(strides) else F.relu(y)
        return F.relu(y + short)

    x = F.relu(norm(F.conv2d(x, state["conv1.weight"], stride=2, padding=3), "bn1"))
    maps = [x]
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, number in enumerate(blocks, 1):
        for n in range(number):
            x = block(x, f"layer{stage}.{n}", 2 if stage > 1 and n == 0 else 1)
        maps.append(x)
    return maps


@pytest.mark.parametrize("encoder", ["resnet18", "resnet50"])
@torch.no_grad()
def test_the_encoder_computes_what_torchvision_does(encoder: Any) -> None:
    made = network(small(encoder), 3).eval()
    settle(made)
    part = made.get_submodule("encoder")
    found = [torch.empty(0)] * 5
    for place, name in enumerate(("relu", "layer1", "layer2", "layer3", "layer4")):
        module = part.get_submodule(name)
        if name != "relu":
            # The ReLU of the last block; it is called once per convolution.
            module = list(module.children())[-1].get_submodule("relu")
        module.register_forward_hook(lambda m, x, y, n=place: found.__setitem__(n, y.clone()))
    x = torch.randn(2, 3, 64, 96)
    made(x)
    expected = reference(dict(part.state_dict()), x, ENCODERS[encoder].blocks)
    assert [tuple(y.shape[2:]) for y in expected] == [(64 // n, 96 // n) for n in (2, 4, 8, 16, 32)]
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def torchvision_file(path: Path, encoder: Any = "resnet18", **changes: Tensor) -> dict[str, Tensor]:
    """A file as torchvision's: an encoder for RGB with random weights, and a classifier."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        made = ResNetUNet(3, 2, small(encoder))
    settle(made, 7)
    state = {**made.get_submodule("encoder").state_dict(), "fc.weight": torch.rand(1000, 512),
             "fc.bias": torch.rand(1000), **changes}  # fmt: skip
    torch.save(state, path)
    return state


@pytest.mark.parametrize("old", [False, True])
def test_weights_from_a_file(tmp_path: Path, old: bool) -> None:
    state = torchvision_file(tmp_path / "a.pth")
    if old:  # written by an early PyTorch: without counters, not a zip archive
        state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
        torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    made = network(small(), 3)
    before = {k: v.clone() for k, v in made.state_dict().items()}
    load_encoder(made, tmp_path / "a.pth")
    for name, value in made.state_dict().items():
        inner = name.removeprefix("encoder.")
        wanted = state.get(inner, before[name]) if inner != name else before[name]
        assert torch.equal(value, wanted), name


@torch.no_grad()
def test_grey_images_are_rgb_images_of_equal_channels(tmp_path: Path) -> None:
    torchvision_file(tmp_path / "a.pth")
    grey, colour = network(small(), 1).eval(), network(small(), 3).eval()
    for each in (grey, colour):
        load_encoder(each, tmp_path / "a.pth")
    rest = {k: v for k, v in colour.state_dict().items() if k != "encoder.conv1.weight"}
    grey.load_state_dict(rest, strict=False)
    x = torch.rand(1, 1, 64, 64)
    torch.testing.assert_close(grey(x), colour(x.expand(1, 3, 64, 64)), rtol=1e-4, atol=1e-4)


def test_weights_for_other_numbers_of_channels() -> None:
    weight = torch.rand(4, 3, 7, 7)
    assert torch.equal(for_channels(weight, 3), weight)
    for channels in (1, 2, 4, 5, 6):
        made = for_channels(weight, channels)
        assert made.shape == (4, channels, 7, 7)
        if channels % 3 == 0 or channels == 1:
            torch.testing.assert_close(made.sum(1), weight.sum(1))
    torch.testing.assert_close(for_channels(weight, 2), weight[:, :2] * 1.5)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    path, made = tmp_path / "a.pth", network(small("resnet18"))
    with pytest.raises(UserError, match="encoder_weights: no such file"):
        load_encoder(made, path)
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a readable state dict"):
        load_encoder(made, path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(UserError, match="other things than named tensors"):
        load_encoder(made, path)
    torchvision_file(path, "resnet34")
    with pytest.raises(UserError, match=r"does not fit encoder resnet18: it has layer1\.2\.conv1"):
        load_encoder(made, path)
    torchvision_file(path)
    with pytest.raises(
        UserError, match=r"does not fit encoder resnet34: it lacks layer1\.2\.conv1"
    ):
        load_encoder(network(small("resnet34")), path)
    torchvision_file(path, **{"bn1.weight": torch.rand(65)})
    with pytest.raises(UserError, match=r"bn1\.weight has shape \[65\], needs \[64\]"):
        load_encoder(made, path)
    torchvision_file(path, **{"bn1.weight": torch.full((64,), torch.nan)})
    with pytest.raises(UserError, match=r"NaN or infinite weights in bn1\.weight"):
        load_encoder(made, path)
    with pytest.raises(UserError, match="has no encoder"):
        load_encoder(build(1, 2, architecture_of("unet-bn", width=2, depth=1)), path)


def test_nothing_in_the_file_is_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"conv1.weight": Trap()}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="not a readable state dict"):
        load_encoder(network(small()), tmp_path / "a.pth")
    assert not (tmp_path / "executed").exists()


def test_geometry_by_hand() -> None:
    """One stage after the other, from the deepest map: resnet18 has 2 blocks of two 3x3
    convolutions per stage."""
    fp = footprint(PRESETS["unet-resnet34"])[0]
    assert (fp.grid, fp.margin, fp.remainder, fp.smallest) == (32, 0, 0, 32)
    low, high = 0, 32
    low, high = low - 1, high + 1  # head
    for _ in range(5):  # decoder: two convolutions, then half the size, rounded outwards
        low, high = (low - 2) // 2, -(-(high + 2) // 2)
    for number, first in ((3, 2), (6, 2), (4, 2), (3, 1)):  # layer4 .. layer1
        low, high = low - (2 * number - 1), high + (2 * number - 1)
        low, high = first * low - 1, first * (high - 1) + 2
    low, high = 2 * low - 1, 2 * (high - 1) + 2  # the pooling of 3, stride 2
    low, high = 2 * low - 3, 2 * (high - 1) + 4  # the first convolution of 7, stride 2
    assert fp.halo == -(-max(-low, high - 32) // 32) * 32


@pytest.mark.parametrize("encoder", ["resnet18", "resnet50"])
def test_gradients_reach_as_far_as_the_footprint(encoder: Any) -> None:
    """All that an output pixel depends on lies within the halo, and nearly all of the halo is
    needed: measured with gradients."""
    arch = small(encoder)
    made = network(arch).eval().double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(1.0 / parameter[0].numel() if parameter.ndim > 1 else 0.0)
        for name, parameter in made.named_parameters():
            if "bn" in name or "norms" in name or "downsample.1" in name:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    (fp, _) = footprint(arch)
    size = 2 * fp.halo + fp.grid
    # Rising to a point in the middle, so that the pooling's maximum is in no fixed place.
    x = torch.rand(1, 1, 32, size, dtype=torch.float64, requires_grad=True)
    y = made(x)
    y[..., fp.halo : fp.halo + fp.grid].sum().backward()
    assert x.grad is not None
    touched = torch.nonzero(x.grad[0, 0].abs().sum(0)).flatten()
    assert int(touched[0]) >= 0
    assert size - 2 * 32 - 64 < int(touched[-1]) - int(touched[0]) + 1 <= size


@settings(max_examples=8, deadline=None)
@given(ENCODER, st.integers(1, 4), st.integers(1, 3))
def test_any_network_matches_its_list(encoder: Any, channels: int, classes: int) -> None:
    arch = small(encoder)
    compare(arch, layers_of(arch, channels, classes), [64, 64])


def predictor(encoder: Any, channels: int) -> Predictor:
    made = network(small(encoder), channels).eval()
    settle(made)
    return Predictor([made], torch.device("cpu"), "float32", head=("background", "cell"))


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(["resnet18", "resnet50"]), st.integers(1, 3), st.data())
def test_tiled_equals_whole_to_the_bit(encoder: Any, channels: int, data: st.DataObject) -> None:
    apply = predictor(encoder, channels)
    fp = apply.footprint[0]
    short, more = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 90))
    tile = [fp.grid * data.draw(st.integers(3, 4)), fp.least_tile]
    tile[0] = max(tile[0], fp.least_tile)
    assert check(apply, picture([short, fp.least_tile + more], channels), tile) > 1


def test_as_plain_values() -> None:
    arch = small("resnet50")
    assert architecture_from(arch.to_json()) == arch
    assert PRESETS["unet-resnet34"].to_json() == {"kind": "resnet"}
    for wrong, says in (({"encoder": "vgg"}, "encoder: got 'vgg'"), ({"dims": 3}, "dims: got 3"),
                        ({"decoder": (8, 8)}, r"decoder: got \[8, 8\]")):  # fmt: skip
        with pytest.raises(ValueError, match=says):
            replace(arch, **wrong)
