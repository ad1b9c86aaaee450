"""Attention gates: by hand, what they start from, and what they leave as it is."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.architectures import architectures
from tests.models.test_exact import check, picture, predictor
from unet.config.geometry import footprint
from unet.config.layers import layers_of, parameters
from unet.config.presets import Architecture, architecture_of
from unet.models.build import build
from unet.models.unet import AttentionGate


def gate_by_hand(padding: str = "same") -> AttentionGate:
    """A gate for 2 channels: W_x = (1, -1), W_g = (2, 0), b_g = -1, psi = 3, b_psi = 1."""
    arch = Architecture(padding=padding, norm="none", width=2, depth=1, attention=True)  # type: ignore[arg-type]
    gate: Any = build(1, 2, arch).gates[0]  # type: ignore[index]
    with torch.no_grad():
        gate.features.weight.copy_(torch.tensor([1.0, -1.0]).view(1, 2, 1, 1))
        gate.signal.weight.copy_(torch.tensor([2.0, 0.0]).view(1, 2, 1, 1))
        gate.signal.bias.fill_(-1.0)
        gate.score.weight.fill_(3.0)
        gate.score.bias.fill_(1.0)
    assert isinstance(gate, AttentionGate)
    return gate


@pytest.mark.parametrize("training", [True, False])
def test_by_hand(training: bool) -> None:
    gate = gate_by_hand().train(training)
    skip = torch.tensor([[0.5, 4.0], [0.25, 1.0]]).view(1, 2, 1, 2)  # channel, pixel
    up = torch.tensor([[1.0, 0.5], [9.0, 9.0]]).view(1, 2, 1, 2)
    # Pixel 0: relu(0.5 - 0.25 + 2 - 1) = 1.25; 3 x 1.25 + 1 = 4.75. Pixel 1: 4 - 1 + 1 - 1 = 3; 10.
    weights = [1 / (1 + math.exp(-4.75)), 1 / (1 + math.exp(-10.0))]
    expected = torch.tensor([[0.5 * weights[0], 4.0 * weights[1]],
                             [0.25 * weights[0], 1.0 * weights[1]]]).view(1, 2, 1, 2)  # fmt: skip
    torch.testing.assert_close(gate(up, skip), expected)
    # Below 0 before the ReLU: the weight is sigmoid(b_psi).
    shut = gate(torch.zeros_like(up), torch.tensor([0.0, 5.0]).view(1, 2, 1, 1).expand_as(skip))
    assert shut[0, 1, 0, 0].item() == pytest.approx(5 / (1 + math.exp(-1.0)))


def test_an_unpadded_skip_is_cropped_in_the_middle() -> None:
    gate = gate_by_hand("valid")
    skip, up = torch.rand(1, 2, 6, 8), torch.rand(1, 2, 4, 4)
    torch.testing.assert_close(gate(up, skip), gate(up, skip[:, :, 1:5, 2:6]))


def test_the_gates_weight_the_skips_of_the_network() -> None:
    """Open gates (weights of 1) give the network without gates."""
    arch = architecture_of("unet-bn", width=4, depth=2)
    plain, gated = build(1, 2, arch).eval(), build(1, 2, replace(arch, attention=True)).eval()
    state = {k: v for k, v in gated.state_dict().items() if k.startswith("gates.")}
    assert state
    assert set(gated.state_dict()) - set(state) == set(plain.state_dict())
    for name, value in state.items():
        value.zero_()
        if name.endswith("score.bias"):
            value.fill_(50.0)
    gated.load_state_dict({**plain.state_dict(), **state})
    x = torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(gated(x), plain(x))
        for name, value in state.items():
            if name.endswith("score.bias"):
                value.fill_(0.0)
        gated.load_state_dict({**plain.state_dict(), **state})
        assert not torch.allclose(gated(x), plain(x))


@settings(max_examples=40)
@given(architectures(), st.integers(1, 3))
def test_gates_look_no_further(arch: Architecture, channels: int) -> None:
    """The same footprint, and the parameters of three 1x1 convolutions per level more."""
    plain, gated = (replace(arch, attention=value) for value in (False, True))
    assert footprint(plain) == footprint(gated)
    more = 0
    for width in arch.widths[:-1]:
        inner = max(1, width // 2)
        more += width * inner + inner + width * inner + inner + 1
    counts = [parameters(layers_of(each, channels, 2)) for each in (plain, gated)]
    assert counts[1] - counts[0] == more


@settings(max_examples=25)
@given(architectures(dims=(2,)), st.integers(1, 3), st.data())
def test_tiled_equals_whole_to_the_bit(
    arch: Architecture, channels: int, data: st.DataObject
) -> None:
    apply = predictor(replace(arch, attention=True), channels)
    shape = [data.draw(st.integers(1, 90), "size") for _ in range(2)]
    tile = [fp.least_tile + data.draw(st.integers(0, 40), "more") for fp in apply.footprint]
    if len(apply.plan(shape, tile).tiles) <= 30:
        check(apply, picture(shape, channels), tile)


def test_gates_learn() -> None:
    network = build(1, 2, architecture_of("unet-res", width=4, depth=3, attention=True)).train()
    scores = network(torch.randn(2, 1, 32, 32))
    assert isinstance(scores, list)
    torch.stack([(each * torch.randn_like(each)).sum() for each in scores]).sum().backward()
    found: list[Tensor | None] = [p.grad for p in network.gates.parameters()]  # type: ignore[union-attr]
    assert len(found) == 3 * 5
    assert all(grad is not None and bool(grad.any()) for grad in found)
