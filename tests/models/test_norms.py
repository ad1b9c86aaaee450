"""Normalisation: like PyTorch's in training, by running averages in inference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unet.config.layers import layers_of
from unet.config.presets import Architecture, architecture_of
from unet.models.build import build
from unet.models.norms import BatchNorm, SampleNorm, freeze_statistics, make_norm

SHAPES = [(4, 6, 9), (3, 6, 5, 8), (2, 6, 3, 4, 5)]


def batches(shape: tuple[int, ...], count: int = 4) -> list[Tensor]:
    """Samples with different means and scales, so that averages over them are a real test."""
    random = torch.Generator().manual_seed(len(shape))
    return [torch.randn(shape, generator=random) * (1 + n) + 3 * n for n in range(count)]


def same_scale_and_shift(one: nn.Module, other: nn.Module) -> None:
    with torch.no_grad():
        for name in ("weight", "bias"):
            value = torch.randn(getattr(one, name).shape)
            getattr(one, name).copy_(value)
            getattr(other, name).copy_(value)


def gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    leaf = x.clone().requires_grad_()
    y = module(leaf)
    target = torch.linspace(-1, 1, y.numel()).view_as(y)
    return [y, *torch.autograd.grad((y * target).sum(), [leaf, *module.parameters()])]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_sample_norm_trains_as_group_norm(shape: tuple[int, ...], groups: int) -> None:
    """In float64, because kernels sum in different orders."""
    ours, torchs = SampleNorm(6, groups, 1e-3), nn.GroupNorm(groups, 6, 1e-3)
    same_scale_and_shift(ours.double(), torchs.double())
    for x in batches(shape):
        both = (gradients(ours, x.double()), gradients(torchs, x.double()))
        for a, b in zip(*both, strict=True):
            torch.testing.assert_close(a, b)


INSTANCE: dict[int, type[nn.Module]] = {
    3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d,
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_a_group_per_channel_is_instance_norm(shape: tuple[int, ...]) -> None:
    ours = SampleNorm(6, 6, 1e-5)
    torchs = INSTANCE[len(shape)](6, 1e-5, affine=True, track_running_stats=True)
    same_scale_and_shift(ours, torchs)
    for x in batches(shape):
        torch.testing.assert_close(ours(x), torchs(x))
    torch.testing.assert_close(ours.running_mean, torchs.running_mean)
    # PyTorch remembers n / (n - 1) times the variance that it divides by; we, that variance.
    n = torch.Size(shape[2:]).numel()
    theirs = (torchs.running_var - 0.9**4) * (n - 1) / n + 0.9**4  # type: ignore[operator]
    torch.testing.assert_close(ours.running_var, theirs)
    ours.eval(), torchs.eval()
    torchs.running_var = ours.running_var.clone()
    torch.testing.assert_close(ours(x), torchs(x))


@pytest.mark.parametrize("groups", [2, 6])
def test_running_averages_by_hand(groups: int) -> None:
    norm = SampleNorm(6, groups, 1e-3, momentum=0.25)
    mean, variance = torch.zeros(groups), torch.ones(groups)
    for x in batches((3, 6, 5, 8)):
        norm(x)
        grouped = x.view(3, groups, -1)
        mean = 0.75 * mean + 0.25 * grouped.mean(2).mean(0)
        variance = 0.75 * variance + 0.25 * grouped.var(2, correction=0).mean(0)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    before = [b.clone() for b in norm.buffers()]
    norm.eval()
    x = torch.randn(1, 6, 4, 4)
    each = 6 // groups
    expected = x - mean.repeat_interleave(each).view(1, 6, 1, 1)
    expected = expected / (variance.repeat_interleave(each).view(1, 6, 1, 1) + 1e-3).sqrt()
    torch.testing.assert_close(norm(x), expected)
    # Inference does not update averages, and a pixel's value does not depend on the others.
    assert all(torch.equal(a, b) for a, b in zip(before, norm.buffers(), strict=True))
    torch.testing.assert_close(norm(x[..., :1, :1]), norm(x)[..., :1, :1])


def test_far_from_zero() -> None:
    """Values with a mean a hundred times their spread: the variance does not cancel out."""
    norm = SampleNorm(2, 2, 1e-5, momentum=1.0)
    x = torch.randn(2, 2, 64, 64, generator=torch.Generator().manual_seed(0)) + 100
    norm(x)
    expected = x.double().var((2, 3), correction=0).mean(0).float()
    torch.testing.assert_close(norm.running_var, expected, atol=0, rtol=0.01)


BATCH: dict[int, type[nn.Module]] = {3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm_is_that_of_torch(shape: tuple[int, ...]) -> None:
    ours, torchs = BatchNorm(6, eps=1e-3), BATCH[len(shape)](6, eps=1e-3)
    same_scale_and_shift(ours, torchs)
    for x in batches(shape):
        for a, b in zip(gradients(ours, x), gradients(torchs, x), strict=True):
            assert torch.equal(a, b)
    assert ours.state_dict().keys() == torchs.state_dict().keys()
    ours.eval(), torchs.eval()
    for a, b in zip(ours.state_dict().values(), torchs.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(ours(x), torchs(x))
    with pytest.raises(ValueError, match="got 2 axes"):
        ours(torch.zeros(3, 6))


def norm_with(norm: str, channels: int, groups: int = 8) -> nn.Module | None:
    """The first norm of a U-Net, if any."""
    arch = Architecture(padding="same", norm=norm, groups=groups, norm_eps=1e-4, width=channels)  # type: ignore[arg-type]
    found = [layer for layer in layers_of(arch) if layer.kind == "norm"]
    return make_norm(found[0]) if found else None


def test_which_norm() -> None:
    assert norm_with("none", 6) is None
    batch = norm_with("batch", 6)
    assert isinstance(batch, BatchNorm)
    assert batch.eps == 1e-4
    instance = norm_with("instance", 6)
    assert isinstance(instance, SampleNorm)
    assert (instance.groups, instance.eps) == (6, 1e-4)
    # The largest number of groups that divides the channels, at most the requested number.
    for channels, groups, expected in ((16, 8, 8), (6, 4, 3), (7, 4, 1), (7, 7, 7), (2, 8, 2)):
        norm = norm_with("group", channels, groups)
        assert isinstance(norm, SampleNorm)
        assert norm.groups == expected
    with pytest.raises(ValueError, match="groups: 4 does not divide 6 channels"):
        SampleNorm(6, 4, 1e-3)


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_frozen_statistics_train_as_they_predict(norm: str) -> None:
    network = build(1, 2, architecture_of("unet-bn", width=4, depth=1, norm=norm, dropout=0.0))
    x = torch.randn(2, 1, 16, 16)
    network.train()(x)
    with torch.no_grad():
        trained, predicted = network(x), network.eval()(x)
    assert not torch.allclose(trained, predicted, atol=1e-3)
    network.train()
    freeze_statistics(network)
    before = [b.clone() for b in network.buffers()]
    frozen = network(x)
    torch.testing.assert_close(frozen, predicted)
    frozen.square().mean().backward()
    assert all(p.grad is not None for p in network.parameters())  # scale and shift go on learning
    assert all(torch.equal(a, b) for a, b in zip(before, network.buffers(), strict=True))
    network.train()
    torch.testing.assert_close(network(x), trained)
