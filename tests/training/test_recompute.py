"""Training with activations computed twice: the same to the bit, in less memory."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainings import trainer
from unet.config.presets import PRESETS, AnyArchitecture, Architecture, architecture_of
from unet.errors import UserError
from unet.models.build import build
from unet.models.network import Network
from unet.models.norms import copy_statistics, restore_statistics
from unet.training.trainer import Trainer

CASES: dict[str, dict[str, Any]] = {
    "plain": {"norm": "none", "padding": "valid"},
    "batch": {"norm": "batch"},
    "group": {"norm": "group"},
    "instance": {"norm": "instance", "activation": "leaky_relu"},
    "norm last": {"norm": "batch", "order": "act-norm"},
    "residual": {"norm": "batch", "residual": True},
    "dropout": {"norm": "batch", "dropout": 0.5},
    "supervised": {"norm": "batch", "deep_supervision": True},
    "interpolated": {"norm": "batch", "up": "nearest"},
    "3d": {"norm": "batch", "dims": 3},
}


def network(case: str) -> Network:
    arch = PRESETS["unet-bn"]
    assert isinstance(arch, Architecture)
    return build(1, 2, replace(arch, width=4, depth=2, **CASES[case]), seed=0).train()


def images(network: Network) -> Tensor:
    fp = network.footprint[0]
    size = (2, 1, *[fp.fit(24 if network.arch.dims == 2 else 12)] * network.arch.dims)
    return torch.randn(size, generator=torch.Generator().manual_seed(1))


class Held:
    """Bytes that a graph keeps for the gradient (each storage once), without the weights.

    Args:
        limit: with more than this the device has no memory left.
    """

    def __init__(self, network: Network, limit: float = float("inf")) -> None:
        self.weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
        self.bytes: dict[int, int] = {}
        self.limit = limit

    @property
    def total(self) -> int:
        return sum(self.bytes.values())

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.weights:
            self.bytes[storage.data_ptr()] = storage.nbytes()
        if self.total > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return tensor


def gradient(network: Network, x: Tensor) -> tuple[dict[str, Tensor], int]:
    """Gradients, and the bytes that were held between the two passes."""
    held = Held(network)
    network.zero_grad()
    torch.manual_seed(3)
    with torch.autograd.graph.saved_tensors_hooks(held.pack, lambda t: t):
        scores = network(x)
        outputs = scores if isinstance(scores, list) else [scores]
        loss = sum((o.square().mean() for o in outputs), torch.zeros(()))
    total = held.total
    loss.backward()
    return {
        name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None
    }, total


@pytest.mark.parametrize("case", CASES)
def test_gradients_and_statistics_are_the_same(case: str) -> None:
    kept, recomputing = network(case), network(case)
    recomputing.recompute = True
    x = images(kept)
    for _ in range(2):
        expected, much = gradient(kept, x)
        found, little = gradient(recomputing, x)
        assert expected.keys() == found.keys() == dict(kept.named_parameters()).keys()
        for name, value in expected.items():
            assert torch.equal(found[name], value), name
        for name, value in kept.state_dict().items():
            assert torch.equal(recomputing.state_dict()[name], value), name
    # The hooks see the inputs of the blocks, and what is outside of them.
    assert little < 0.6 * much, (little, much)


def test_evaluation_is_not_touched() -> None:
    net = network("batch")
    net.recompute = True
    x = images(net)
    before = copy_statistics(net)
    net.eval()
    y = net(x)
    net.recompute = False
    assert torch.equal(net(x), y)
    assert all(torch.equal(before[k], v) for k, v in copy_statistics(net).items())


def test_statistics_can_be_put_back() -> None:
    net = network("batch")
    state = {name: value.clone() for name, value in net.state_dict().items()}
    kept = copy_statistics(net)
    net(images(net))
    changed = [
        name for name, value in net.state_dict().items() if not torch.equal(value, state[name])
    ]
    assert any("running_mean" in name for name in changed)
    assert any("num_batches" in name for name in changed)
    restore_statistics(net, kept)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


# In training.

DEEP = architecture_of("unet-bn", width=4, depth=2, dropout=0.5)


class Device:
    """Replaces a trainer's step; after some steps, it has a limit of bytes."""

    def __init__(self, run: Trainer, limit: float, after: int = 0) -> None:
        self.run, self.limit, self.after = run, limit, after
        self.most, self.calls, self.refused = 0, 0, 0
        self.backward = run._backward
        run._backward = self  # type: ignore[method-assign, assignment]

    def __call__(self, batch: Any, index: int) -> torch.Tensor:
        self.calls += 1
        limited = self.calls > self.after
        held = Held(self.run.network, self.limit if limited else float("inf"))
        try:
            with torch.autograd.graph.saved_tensors_hooks(held.pack, lambda t: t):
                value = self.backward(batch, index)
        except torch.OutOfMemoryError:
            self.refused += 1
            raise
        self.most = max(self.most, held.total)
        return value


def run_of(folder: Path, arch: AnyArchitecture = DEEP, **train: Any) -> Trainer:
    return trainer(folder, arch=arch, accumulate=2, epochs=2, ema=0.9, **train)


def needed(folder: Path) -> tuple[Trainer, int]:
    """A training without a limit, and the bytes that it needs."""
    run = run_of(folder)
    device = Device(run, float("inf"))
    run.run()
    return run, device.most


@pytest.mark.parametrize("after", [0, 1, 6, 7])
def test_too_little_memory_changes_no_weight(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, after: int
) -> None:
    whole, most = needed(tmp_path / "whole")
    run = run_of(tmp_path / "limited")
    device = Device(run, 0.7 * most, after)
    with caplog.at_level(logging.WARNING):
        run.run()
    assert device.refused == 1
    warnings = [r.message for r in caplog.records if "out of memory on the device" in r.message]
    assert len(warnings) == 1
    for mine, other in ((run.network, whole.network), (run.averaged, whole.averaged)):
        for name, value in other.state_dict().items():
            assert torch.equal(mine.state_dict()[name], value), name
    losses = [[row["train_loss"] for row in r.progress.history] for r in (run, whole)]
    assert losses[0] == losses[1]


def test_far_too_little_memory(tmp_path: Path) -> None:
    _, most = needed(tmp_path / "whole")
    run = run_of(tmp_path / "limited")
    device = Device(run, 0.01 * most)
    with pytest.raises(UserError, match=r"train\.batch: the device has no memory for 2 patches"):
        run.run()
    assert device.refused == 2


def test_networks_that_cannot_recompute_fail_at_once(tmp_path: Path) -> None:
    class Plain(type(run_of(tmp_path / "x").network)):  # type: ignore[misc]
        can_recompute = False

    run = run_of(tmp_path / "limited")
    run.network.__class__ = Plain
    device = Device(run, 0)
    with pytest.raises(UserError, match="no memory for 2 patches"):
        run.run()
    assert device.refused == 1
