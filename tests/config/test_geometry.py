"""Receptive field, halo and accepted sizes: known values, and comparison with the networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.architectures import architectures
from unet.config.geometry import Footprint, common, footprint, input_interval, sizes_for
from unet.config.presets import PRESETS, Architecture, WindowArchitecture, architecture_of
from unet.models.norms import BatchNorm, SampleNorm
from unet.models.unet import UNet


def preset(name: str, **given: Any) -> Architecture:
    arch = architecture_of(name, **given)
    assert isinstance(arch, Architecture)
    return arch


PAPER, PADDED, RESIDUAL = preset("unet2015"), preset("unet-bn"), preset("unet-res")


def test_paper_sizes() -> None:
    fp, other = footprint(PAPER)
    assert fp == other
    assert fp.accepts(572)
    assert fp.margin == 92  # (572 - 388) / 2, figure 1
    assert fp.grid == 16
    assert fp.remainder == 572 % 16
    assert fp.halo == 0


def test_padded_sizes() -> None:
    fp = footprint(PADDED)[0]
    # 94 pixels of context at most, rounded up to the grid of 16.
    low, high = input_interval(PADDED, (0, 16))
    assert max(-low, high - 16) == 94
    assert (fp.grid, fp.halo, fp.margin, fp.remainder, fp.smallest) == (16, 96, 0, 0, 16)


@pytest.mark.parametrize(
    ("depth", "halo"), [(1, 8), (2, 24), (3, 48), (4, 96), (5, 192)]
)  # multiples of 2 ** depth
def test_halo_by_depth(depth: int, halo: int) -> None:
    fp = footprint(replace(PADDED, depth=depth))[0]
    assert fp.halo == halo
    assert fp.halo % fp.grid == 0


def test_each_axis_on_its_own() -> None:
    """Each axis has the footprint that it would have if all axes were like it."""
    kernels, pools = ((1, 3, 5), (3, 3, 5), (3, 3, 5)), ((1, 2, 2), (2, 2, 1))
    arch = replace(PADDED, dims=3, depth=2, kernels=kernels, pools=pools)
    for axis, found in enumerate(footprint(arch)):
        alike = replace(
            arch,
            kernels=tuple((k[axis],) * 3 for k in kernels),
            pools=tuple((p[axis],) * 3 for p in pools),
        )
        assert footprint(alike) == (found,) * 3
    assert [fp.grid for fp in footprint(arch)] == [2, 4, 2]


def test_by_hand_along_an_axis() -> None:
    """One pooling, one convolution of 3 per level and path. The output pair [0, 2) needs, before
    the convolution of the way up, [-1, 3); in half the resolution [-1, 2), before the convolution
    there [-2, 3); in full resolution [-4, 6), before the convolution of the way down [-5, 7)."""
    arch = Architecture(padding="same", norm="none", depth=1, convs=1)
    assert input_interval(arch, (0, 2)) == (-5, 7)
    assert input_interval(replace(arch, kernels=((1, 1), (3, 3))), (0, 2)) == (-2, 4)
    assert input_interval(replace(arch, pools=((1, 1),)), (0, 2)) == (-3, 5)


def test_window_classifier() -> None:
    fp = footprint(PRESETS["ciresan2012"])[1]
    assert fp == Footprint(grid=1, halo=0, margin=47, remainder=0, smallest=95, receptive_field=95)
    assert footprint(WindowArchitecture(window=63))[0].margin == 31


def test_one_size_or_one_per_axis() -> None:
    fps = footprint(replace(PADDED, dims=3))
    assert sizes_for(32, fps) == (32, 32, 32)
    assert sizes_for([16, 32, 48], fps) == (16, 32, 48)
    with pytest.raises(ValueError, match=r"got \[1, 2\], needs one number or 3"):
        sizes_for([1, 2], fps)


def positive_network(arch: Architecture) -> UNet:
    """Every path from an input pixel to an output pixel has a positive gradient, so a pixel with
    gradient 0 is out of reach. Norms use their running averages, 0 and 1."""
    network = UNet(1, 1, arch).eval().double()
    average = nn.AvgPool2d if arch.dims == 2 else nn.AvgPool3d
    network.pool = nn.ModuleList(average(arch.pool(level)) for level in range(arch.depth))
    with torch.no_grad():
        for parameter in network.parameters():
            # Averages, so that values neither grow nor vanish through the layers.
            weights = parameter.ndim > 1
            parameter.fill_(1.0 / parameter[0].numel() if weights else 0.0)
        for module in network.modules():
            if isinstance(module, (BatchNorm, SampleNorm)):
                module.weight.fill_(1.0)
    return network


def reach(network: UNet, size: list[int], where: tuple[slice, ...]) -> list[tuple[int, int]]:
    """Input pixels [a, b) with a gradient from this part of the output, per axis."""
    x = torch.ones(1, 1, *size, dtype=torch.float64, requires_grad=True)
    y = network(x)
    assert isinstance(y, Tensor)
    y[(0, 0, *where)].sum().backward()
    assert x.grad is not None
    found = []
    for axis in range(len(size)):
        others = [a for a in range(len(size)) if a != axis]
        touched = torch.nonzero(x.grad[0, 0].abs().sum(dim=others)).flatten()
        found.append((int(touched[0]), int(touched[-1]) + 1))
    return found


def compare_with_gradients(arch: Architecture) -> None:
    """Every phase on the grid, all axes at once; then a whole step of the grid."""
    arch = replace(arch, dropout=0.0)
    network, fps = positive_network(arch), footprint(arch)
    # In the middle of an image that is large enough that nothing is cut off at its border.
    starts = [0 if fp.margin else fp.halo for fp in fps]
    size = [
        fp.fit(2 * start + fp.grid + 2 * fp.margin) for fp, start in zip(fps, starts, strict=True)
    ]
    widest = [0] * arch.dims
    for phase in range(max(fp.grid for fp in fps)):
        at = [start + phase % fp.grid for start, fp in zip(starts, fps, strict=True)]
        found = reach(network, size, tuple(slice(n, n + 1) for n in at))
        for axis, (n, (a, b)) in enumerate(zip(at, found, strict=True)):
            assert (a, b) == input_interval(arch, (n, n + 1), axis)
            widest[axis] = max(widest[axis], b - a)
    assert widest == [fp.receptive_field for fp in fps]
    block = tuple(slice(start, start + fp.grid) for start, fp in zip(starts, fps, strict=True))
    for axis, (a, b) in enumerate(reach(network, size, block)):
        fp, start = fps[axis], starts[axis]
        assert (a, b) == input_interval(arch, (start, start + fp.grid), axis)
        if arch.padding == "same":
            context = max(start - a, b - start - fp.grid)
            assert fp.halo - fp.grid < context <= fp.halo  # enough, and no step more than that


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("arch", [PAPER, PADDED, RESIDUAL], ids=["unet2015", "unet-bn", "unet-res"])
def test_receptive_field_is_that_of_the_network(arch: Architecture, depth: int) -> None:
    compare_with_gradients(replace(arch, depth=depth, width=1))


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_receptive_field_of_volumes(padding: str) -> None:
    """Anisotropic layers, as chosen from a voxel size."""
    arch = Architecture(
        padding=padding, norm="none", dims=3, depth=2, width=1,  # type: ignore[arg-type]
        kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)), pools=((1, 2, 2), (2, 2, 2)),
    )  # fmt: skip
    compare_with_gradients(arch)


@settings(max_examples=25)
@given(architectures())
def test_receptive_field_of_any_combination(arch: Architecture) -> None:
    compare_with_gradients(replace(arch, width=1))


ODD_ONES = [
    replace(PAPER, depth=2, kernels=((1, 3), (3, 5), (5, 3)), pools=((1, 2), (2, 2))),
    replace(PADDED, depth=2, kernels=((1, 3), (3, 5), (5, 3)), pools=((1, 2), (2, 2))),
    replace(PAPER, depth=2, convs=3),
    replace(PAPER, depth=2, residual=True, up="nearest", convs=1),
]


@pytest.mark.parametrize(
    "arch",
    [replace(a, depth=d) for a in (PAPER, PADDED, RESIDUAL) for d in (1, 2, 3)] + ODD_ONES,
    ids=lambda a: f"{a.padding}-{a.norm}-{a.depth}-{a.convs}",
)
def test_network_runs_on_exactly_the_accepted_sizes(arch: Architecture) -> None:
    arch = replace(arch, width=1, dropout=0.0)
    # Without the check, so that the layers themselves decide (the other axis at a legal size).
    network = UNet(1, 2, arch).eval()
    network.check = lambda x: None  # type: ignore[method-assign]
    for axis, fp in enumerate(network.footprint):
        shape = [other.fit(other.smallest) for other in network.footprint]
        for size in range(1, fp.smallest + 2 * fp.grid + 1):
            shape[axis] = size
            try:
                with torch.no_grad():
                    out = network(torch.zeros(1, 1, *shape))
                fits = out.shape[2 + axis] == size - 2 * fp.margin  # type: ignore[union-attr]
            except RuntimeError:
                fits = False
            if arch.padding == "valid" and fits:
                # A pooling drops the last row of an odd size, and no other tile would have it.
                fits = all(n % pool == 0 for n, pool in pooled_sizes(arch, axis, size))
            assert fits == fp.accepts(size), size


def pooled_sizes(arch: Architecture, axis: int, size: int) -> list[tuple[int, int]]:
    """(size before each pooling, its factor) of an unpadded network."""
    sizes = []
    for level in range(arch.depth):
        size -= arch.convs * (arch.kernel(level)[axis] - 1)
        sizes.append((size, arch.pool(level)[axis]))
        size //= arch.pool(level)[axis]
    return sizes


@given(architectures(), st.integers(1, 3000))
def test_fit_is_the_nearest_accepted_size(arch: Architecture, size: int) -> None:
    for fp in footprint(arch):
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
    architectures(),
    st.integers(-50, 50),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_a_larger_part_depends_on_more(
    arch: Architecture, start: int, length: int, more: int
) -> None:
    for axis, fp in enumerate(footprint(arch)):
        a, b = input_interval(arch, (start, start + length), axis)
        c, d = input_interval(arch, (start, start + length + more), axis)
        assert c <= a
        assert d >= b
        # A shift by one grid step shifts the result by the same amount.
        shifted = input_interval(arch, (start + fp.grid, start + fp.grid + length), axis)
        assert shifted == (a + fp.grid, b + fp.grid)


def test_what_suits_several_networks() -> None:
    # Halos of 24 and 36 px on grids of 4 and 6: both of 36 on the common grid of 12.
    one, two = Footprint(4, 24, 0, 0, 4, 44), Footprint(6, 36, 0, 0, 6, 70)
    assert common([(one, two), (two, two)]) == (Footprint(12, 36, 0, 0, 12, 70), two)
    assert common([footprint(PAPER), footprint(PAPER)]) == footprint(PAPER)
    for others in (footprint(preset("unet2015", depth=3)), footprint(PADDED), ()):
        with pytest.raises(ValueError, match="of different"):
            common([footprint(PAPER), others])


@given(architectures(), architectures())
@settings(max_examples=30, deadline=None)
def test_windows_that_suit_several_networks(one: Architecture, two: Architecture) -> None:
    prints = [footprint(one), footprint(two)]
    try:
        found = common(prints)
    except ValueError:
        unpadded = any(fp.margin or fp.remainder for axes in prints for fp in axes)
        assert one.dims != two.dims or unpadded
        return
    assert common([found, *prints]) == common(prints[::-1]) == found
    for axes in prints:
        for fp, each in zip(axes, found, strict=True):
            assert each.grid % fp.grid == 0
            assert each.halo >= fp.halo
            assert fp.accepts(each.smallest)
            assert fp.accepts(each.fit(each.least_tile))
