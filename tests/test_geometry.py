"""Receptive field, halo and accepted sizes: known figures, and against the network itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from unet.models.geometry import footprint, input_interval
from unet.models.presets import PRESETS, Architecture, architecture_of
from unet.models.unet import UNet

PAPER = PRESETS["unet2015"]
PADDED = PRESETS["unet-bn"]


def test_paper_sizes() -> None:
    fp = footprint(PAPER)
    assert fp.accepts(572)
    assert fp.margin == 92  # (572 - 388) / 2, figure 1
    assert fp.grid == 16
    assert fp.remainder == 572 % 16
    assert fp.halo == 0


def test_padded_sizes() -> None:
    fp = footprint(PADDED)
    # 94 pixels of context at most, rounded up to the grid of 16.
    low, high = input_interval(PADDED, (0, 16))
    assert max(-low, high - 16) == 94
    assert (fp.grid, fp.halo, fp.margin, fp.remainder, fp.smallest) == (16, 96, 0, 0, 16)


@pytest.mark.parametrize(
    ("depth", "halo"), [(1, 8), (2, 24), (3, 48), (4, 96), (5, 192)]
)  # multiples of 2 ** depth
def test_halo_by_depth(depth: int, halo: int) -> None:
    fp = footprint(replace(PADDED, depth=depth))
    assert fp.halo == halo
    assert fp.halo % fp.grid == 0


def positive_network(arch: Architecture) -> UNet:
    """Every path from an input pixel to an output pixel has a positive gradient: what the gradient
    leaves at 0 is out of reach."""
    network = UNet(1, 1, arch).eval().double()
    network.pool = nn.AvgPool2d(2)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    return network


def reach(network: UNet, size: int, rows: range) -> tuple[int, int]:
    """Input rows [a, b) with a gradient from these output rows."""
    x = torch.ones(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    y = network(x)
    y[0, 0, rows.start : rows.stop, y.shape[3] // 2].sum().backward()
    assert x.grad is not None
    found = torch.nonzero(x.grad[0, 0].abs().sum(dim=1)).flatten()
    return int(found[0]), int(found[-1]) + 1


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("arch", [PAPER, PADDED], ids=["unpadded", "padded"])
def test_receptive_field_is_that_of_the_network(arch: Architecture, depth: int) -> None:
    arch = replace(arch, depth=depth, width=1, dropout=0.0)
    fp = footprint(arch)
    network = positive_network(arch)
    # In the middle of an image large enough for nothing to be cut off at its border.
    start = -(-(fp.halo or fp.receptive_field) // fp.grid) * fp.grid if not fp.margin else 0
    size = fp.fit(2 * start + fp.grid + 2 * fp.margin)
    fields = []
    for phase in range(fp.grid):
        a, b = reach(network, size, range(start + phase, start + phase + 1))
        assert (a, b) == input_interval(arch, (start + phase, start + phase + 1))
        fields.append(b - a)
    assert max(fields) == fp.receptive_field
    block = reach(network, size, range(start, start + fp.grid))
    assert block == input_interval(arch, (start, start + fp.grid))
    if not fp.margin:
        assert start - fp.halo <= block[0] < start - fp.halo + fp.grid  # as small as it can be
        assert block[1] <= start + fp.grid + fp.halo


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_network_runs_on_exactly_the_accepted_sizes(preset: str, depth: int) -> None:
    arch = architecture_of(preset, width=1, depth=depth, dropout=0.0)
    fp = footprint(arch)
    # Without the check, so that the layers themselves decide (on a plane of another legal width).
    network = UNet(1, 2, arch).to("meta").eval()
    network._check = lambda x: None  # type: ignore[method-assign]
    other = fp.fit(fp.smallest + 3)
    for size in range(1, fp.smallest + 2 * fp.grid + 1):
        x = torch.empty(1, 1, size, other, device="meta")
        try:
            fits = network(x).shape[2] == size - 2 * fp.margin
        except RuntimeError:
            fits = False
        if arch.padding == "valid" and fits:
            # An odd size before a pooling drops its last row, which no tile could make up for.
            fits = all(n % 2 == 0 for n in pooled_sizes(size, depth))
        assert fits == fp.accepts(size), size


def pooled_sizes(size: int, depth: int) -> list[int]:
    sizes = []
    for _ in range(depth):
        sizes.append(size - 4)
        size = (size - 4) // 2
    return sizes


@given(st.sampled_from(["valid", "same"]), st.integers(1, 6), st.integers(1, 3000))
def test_fit_is_the_nearest_accepted_size(padding: str, depth: int, size: int) -> None:
    fp = footprint(Architecture(padding=padding, norm="none", depth=depth))  # type: ignore[arg-type]
    up, down = fp.fit(size), fp.fit_below(size)
    assert fp.accepts(up)
    assert fp.accepts(down)
    assert up >= size
    assert not any(fp.accepts(n) for n in range(size, up))
    if size >= fp.smallest:
        assert down <= size
        assert not any(fp.accepts(n) for n in range(down + 1, size + 1))
    else:
        assert up == down == fp.smallest


@given(
    st.sampled_from(["valid", "same"]),
    st.integers(1, 5),
    st.integers(-50, 50),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_a_larger_part_depends_on_more(
    padding: str, depth: int, start: int, length: int, more: int
) -> None:
    arch = Architecture(padding=padding, norm="none", depth=depth)  # type: ignore[arg-type]
    a, b = input_interval(arch, (start, start + length))
    c, d = input_interval(arch, (start, start + length + more))
    assert c <= a
    assert d >= b
    # Shifted by a grid step, all is shifted by as much.
    grid = 2**depth
    assert input_interval(arch, (start + grid, start + grid + length)) == (a + grid, b + grid)
