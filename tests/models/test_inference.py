"""Tiled prediction equals the network applied to the whole image; averages; precision; devices."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.architectures import architectures, settle
from unet.config.geometry import footprint
from unet.config.presets import (
    PRESETS,
    AnyArchitecture,
    Architecture,
    ResNetArchitecture,
    WindowArchitecture,
    architecture_of,
)
from unet.data.tiling import read_window
from unet.errors import UserError, is_out_of_memory
from unet.models.build import build
from unet.models.devices import choose_device, choose_precision
from unet.models.exact import activate
from unet.models.inference import Predictor, symmetries
from unet.models.network import Network

CPU = torch.device("cpu")
PRESET_NAMES = sorted(PRESETS)


def network(preset: str | AnyArchitecture, depth: int, seed: int = 0, channels: int = 1) -> Network:
    """Random weights and running statistics, with scores of about 1, as in a trained network
    (with scores of 100, rounding errors would be larger)."""
    arch = preset if not isinstance(preset, str) else small(preset, depth)
    net = build(channels, 3, arch, seed).eval()
    settle(net, seed)
    random = torch.Generator().manual_seed(seed)
    last = [module for module in net.modules() if isinstance(module, (nn.Conv2d, nn.Conv3d))][-1]
    if not isinstance(arch, (WindowArchitecture, ResNetArchitecture)):
        last = net.heads[0]  # type: ignore[index, assignment]
    size = 64 if arch.dims == 2 else 24
    with torch.no_grad():
        probe = net(
            torch.randn(1, channels, *(fp.fit(size) for fp in net.footprint), generator=random)
        )
        last.weight /= probe.std().clamp_min(1e-3)
    return net


def small(preset: str, depth: int) -> AnyArchitecture:
    """The preset with width 2; for the sliding window, with this many stages; the smallest
    ResNet."""
    if isinstance(PRESETS[preset], WindowArchitecture):
        stages = ((2, 2), (3, 4))[:depth]
        return architecture_of(preset, window=(11, 23)[depth - 1], stages=stages, hidden=(4,))
    if isinstance(PRESETS[preset], ResNetArchitecture):
        return architecture_of(preset, encoder="resnet18", decoder=(4, 4, 2, 2, 2))
    return architecture_of(preset, width=2, depth=depth)


def predictor(preset: str, depth: int, tta: bool = False) -> Predictor:
    return Predictor([network(preset, depth)], CPU, "float32", tta)


def picture(*shape: int, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(shape)
    return rng.standard_normal((channels, *shape), dtype=np.float32)


def applied_by_hand(net: Network, image: np.ndarray) -> np.ndarray:
    """The reference, without the tiling code: pad with numpy, apply, crop."""
    shape, fps = image.shape[1:], net.footprint
    widths = [
        (fp.margin, fp.fit(n + 2 * fp.margin) - n - fp.margin)
        for n, fp in zip(shape, fps, strict=True)
    ]
    padded = np.pad(image, [(0, 0), *widths], mode="reflect")
    with torch.no_grad():
        p = torch.softmax(net.eval()(torch.from_numpy(padded)[None]), dim=1)[0].numpy()
    return p[(slice(None), *(slice(0, n) for n in shape))]


def rounding(net: Network, image: np.ndarray) -> float:
    """How much float32 rounding changes the probabilities: the largest difference from float64.

    It can be above 1e-5: with random weights, large maps can cancel each other almost completely,
    and their rounding errors remain. Independent of the tiling code."""
    exact = applied_by_hand(deepcopy(net).double(), image.astype(np.float64))
    return float(np.abs(applied_by_hand(net, image) - exact).max())


# Down to a pixel, odd, narrow, just beyond a multiple of the grid.
SHAPES = [(1, 1), (1, 37), (2, 2), (16, 16), (17, 33), (61, 96), (97, 64)]


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_tiled_equals_whole(preset: str, depth: int) -> None:
    apply = predictor(preset, depth)
    for shape in SHAPES:
        image = picture(*shape)
        whole = apply.whole(image)
        np.testing.assert_allclose(
            whole, applied_by_hand(apply.networks[0], image), atol=1e-5, rtol=0
        )
        for tile in (1, 60, 80):
            if len(apply.plan(shape, tile).tiles) > 100:  # the window classifier's, a pixel each
                continue
            np.testing.assert_allclose(apply.image(image, tile), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("preset", ["unet-bn", "unet-res", "unet2015"])
def test_tiled_equals_whole_at_the_papers_depth(preset: str) -> None:
    apply = predictor(preset, PRESETS[preset].depth)
    image = picture(270, 35)
    plan = apply.plan(image.shape[1:], 230)
    assert len(plan.tiles) > 1
    np.testing.assert_allclose(apply.image(image, 230), apply.whole(image), atol=1e-5, rtol=0)


@given(st.sampled_from(PRESET_NAMES), st.integers(1, 70), st.integers(1, 70), st.integers(30, 90))
@settings(max_examples=25)
def test_tiled_equals_whole_for_any_size(preset: str, height: int, width: int, tile: int) -> None:
    apply = predictor(preset, 1)
    image = picture(height, width)
    np.testing.assert_allclose(apply.image(image, tile), apply.whole(image), atol=1e-5, rtol=0)


@given(architectures(), st.booleans(), st.data())
@settings(max_examples=40)
def test_tiled_equals_whole_for_any_combination(
    arch: Architecture, tta: bool, data: st.DataObject
) -> None:
    """2D and 3D, every axis with its own kernels, poolings, size and tile."""
    arch = replace(arch, width=2)
    apply = Predictor([network(arch, arch.depth)], CPU, "float32", tta)
    longest = 60 if arch.dims == 2 else 20
    shape = [data.draw(st.integers(1, longest), "size") for _ in range(arch.dims)]
    if tta:
        shape = [min(n, 30) for n in shape]
    image = picture(*shape)
    whole = apply.whole(image)
    # The order of sums in oneDNN depends on the layout and size of the input. Rounding errors are
    # about as large in each order; the largest differ by less than a factor of 3.
    atol = max(1e-5, 4 * rounding(apply.networks[0], image))
    if not tta:
        by_hand = applied_by_hand(apply.networks[0], image)
        np.testing.assert_allclose(whole, by_hand, atol=atol, rtol=0)
    least = [fp.least_tile for fp in apply.footprint]
    tiles: list[int | list[int]] = [1, [n + data.draw(st.integers(0, 30), "more") for n in least]]
    for tile in tiles:
        if len(apply.plan(shape, tile).tiles) <= 60:  # more of the same would only take time
            np.testing.assert_allclose(apply.image(image, tile), whole, atol=atol, rtol=0)


def test_tiled_equals_whole_in_anisotropic_volumes() -> None:
    arch = architecture_of(
        "unet-res", width=2, dims=3, depth=2,
        kernels=[[1, 3, 3], [3, 3, 3], [3, 3, 3]], pools=[[1, 2, 2], [2, 2, 2]],
    )  # fmt: skip
    apply = Predictor([network(arch, 2)], CPU, "float32")
    image = picture(31, 57, 29)
    whole = apply.whole(image)
    np.testing.assert_allclose(whole, applied_by_hand(apply.networks[0], image), atol=1e-5, rtol=0)
    tile = [fp.least_tile for fp in apply.footprint]
    assert len({*tile}) > 1
    for size, count in ((tile, 16), (28, 2), (1000, 1)):
        assert len(apply.plan(image.shape[1:], size).tiles) >= count  # type: ignore[arg-type]
        np.testing.assert_allclose(apply.image(image, size), whole, atol=1e-5, rtol=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_halo_too_small_would_show(axis: int) -> None:
    """The comparison above can fail: it does if the halo is one grid step too small."""
    net = network("unet-bn", 2)
    fps = list(net.footprint)
    fps[axis] = replace(fps[axis], halo=fps[axis].halo - fps[axis].grid)
    net.footprint = tuple(fps)
    apply = Predictor([net], CPU, "float32")
    image = picture(150, 20) if axis == 0 else picture(20, 150)
    assert np.abs(apply.image(image, 50) - apply.whole(image)).max() > 1e-5


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_tta_is_the_mean_over_the_symmetries(preset: str) -> None:
    apply = predictor(preset, 1, tta=True)
    plain = Predictor(apply.networks, CPU, "float32")
    fp = apply.footprint[0]
    size = fp.fit(24 + 2 * fp.margin)
    x = picture(size, size)[None]
    views = []
    for turns in range(4):
        turned = np.rot90(x, turns, axes=(2, 3))
        for flip in (False, True):
            view = turned[..., ::-1] if flip else turned
            p = plain(np.ascontiguousarray(view))
            p = p[..., ::-1] if flip else p
            views.append(np.rot90(p, -turns, axes=(2, 3)))
    np.testing.assert_allclose(apply(x), np.mean(views, axis=0), atol=1e-6)
    # So it does not matter how the image is turned.
    turned = apply(np.ascontiguousarray(np.rot90(x, axes=(2, 3))))
    np.testing.assert_allclose(turned, np.rot90(apply(x), axes=(2, 3)), atol=1e-6)


def test_tta_of_a_volume_is_the_mean_over_its_flips() -> None:
    arch = architecture_of("unet-bn", width=2, depth=1, dims=3, kernels=[[1, 3, 3], [3, 3, 3]])
    apply = Predictor([network(arch, 1)], CPU, "float32", tta=True)
    plain = Predictor(apply.networks, CPU, "float32")
    x = picture(6, 8, 4)[None]
    views = []
    for flips in product([(), (2,)], [(), (3,)], [(), (4,)]):
        axes = tuple(axis for flip in flips for axis in flip)
        views.append(np.flip(plain(np.flip(x, axes).copy()), axes))
    assert len(views) == 8
    np.testing.assert_allclose(apply(x), np.mean(views, axis=0), atol=1e-6)


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("dims", [2, 3])
def test_symmetries_are_all_different_and_undone(dims: int, alike: bool) -> None:
    fps = [footprint(Architecture("same", "none", depth=1 if alike else n + 1)) for n in range(3)]
    views = symmetries(tuple(fp[0] for fp in fps[:dims]))
    # Y and X are exchanged only where the network treats them alike.
    assert len(views) == (8 if dims == 3 or alike else 4)
    x = torch.arange(2 * 3**dims).view(1, 2, *(3,) * dims)
    assert len({tuple(view.apply(x).flatten().tolist()) for view in views}) == len(views)
    for view in views:
        assert torch.equal(view.undo(view.apply(x)), x)


class Equivariant(Network):
    """A network that commutes with symmetries: all neighbours of a pixel have the same weight."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.arch = Architecture("same", "none", depth=1, dims=dims)
        self.in_channels, self.num_classes = 1, 2
        self.footprint = footprint(self.arch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pool = nn.functional.avg_pool2d if x.ndim == 4 else nn.functional.avg_pool3d
        return torch.cat([x, pool(x, 3, stride=1, padding=1)], dim=1)


@pytest.mark.parametrize("shape", [(8, 8), (6, 10), (4, 6, 8)])
def test_tta_changes_no_function_that_turns_with_its_image(shape: tuple[int, ...]) -> None:
    net = Equivariant(len(shape))
    x = picture(*shape)[None]
    turned, plain = (Predictor([net], CPU, "float32", tta)(x) for tta in (True, False))
    np.testing.assert_allclose(turned, plain, atol=1e-6)


def test_tta_where_the_axes_differ() -> None:
    """A network that treats Y and X differently is not applied to transposed images."""
    arch = architecture_of("unet-bn", width=2, depth=1, kernels=[[1, 3]] * 2, pools=[[1, 2]])
    apply = Predictor([network(arch, 1)], CPU, "float32", tta=True)
    image = picture(33, 40)
    np.testing.assert_allclose(apply.image(image, [11, 20]), apply.whole(image), atol=1e-5, rtol=0)


def test_activation_of_a_head() -> None:
    scores = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(activate(scores, 3), torch.softmax(scores, 1))
    p = activate(scores, 2)
    torch.testing.assert_close(p[:, :2], torch.softmax(scores[:, :2], 1))
    torch.testing.assert_close(p[:, 2], 1 / (1 + torch.exp(-scores[:, 2])))
    net = network("unet-bn", 1)
    image = picture(16, 16)
    head = ("background", "foreground", "distance")
    p = Predictor([net], CPU, "float32", head=head).whole(image)
    np.testing.assert_allclose(p[:2].sum(0), 1, atol=1e-5)
    with torch.no_grad():
        scores = net(torch.from_numpy(image)[None])
    np.testing.assert_allclose(p, activate(scores, 2)[0].numpy(), atol=1e-6)
    three = Predictor([net], CPU, "float32", head=("background", "inside", "border")).whole(image)
    np.testing.assert_allclose(three.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_tiled_equals_whole_with_tta(preset: str) -> None:
    apply = predictor(preset, 1, tta=True)
    image = picture(45, 70)
    for tile in (44, 60):
        np.testing.assert_allclose(apply.image(image, tile), apply.whole(image), atol=1e-5, rtol=0)


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_a_window_does_not_depend_on_its_batch(preset: str) -> None:
    apply = predictor(preset, 2)
    size = apply.footprint[0].fit(60)
    batch = np.stack([picture(size, size) + i for i in range(5)])
    together = apply(batch)
    for i in range(5):
        np.testing.assert_allclose(apply(batch[i : i + 1])[0], together[i], atol=1e-5, rtol=0)


def test_several_networks_are_averaged() -> None:
    nets = [network("unet-bn", 1, seed) for seed in range(3)]
    x = picture(16, 16)[None]
    each = [Predictor([net], CPU, "float32")(x) for net in nets]
    np.testing.assert_allclose(
        Predictor(nets, CPU, "float32")(x), np.mean(each, axis=0), atol=1e-6, rtol=0
    )


def test_probabilities_and_types() -> None:
    apply = Predictor([network("unet-bn", 1, channels=2)], CPU, "float32")
    image = picture(20, 31, channels=2)
    p = apply.image(image, 32)
    assert p.shape == (3, 20, 31)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p.sum(axis=0), 1, atol=1e-5)
    assert np.array_equal(image, picture(20, 31, channels=2))  # the input is left alone


def test_bfloat16_is_close() -> None:
    net = network("unet2015", 1)
    image = picture(40, 40)
    exact = Predictor([net], CPU, "float32").whole(image)
    rough = Predictor([net], CPU, "bfloat16").whole(image)
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() < 0.1
    assert all(p.dtype == torch.float32 for p in net.parameters())


def test_networks_must_belong_together() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Predictor([], CPU)
    with pytest.raises(ValueError, match="different footprints"):
        Predictor([network("unet-bn", 1), network("unet2015", 1)], CPU)
    with pytest.raises(ValueError, match="different footprints"):
        Predictor([network("unet2015", 1), network("unet2015", 2)], CPU)


@pytest.mark.parametrize("tta", [False, True])
def test_padded_networks_of_any_depth_are_averaged(tta: bool) -> None:
    """Grids of 2, 4 and 8: windows on multiples of 8."""
    nets = [network("unet-bn", 1), network("unet-res", 2, seed=1), network("unet-bn", 3, seed=2)]
    apply = Predictor(nets, CPU, "float32", tta)
    assert {fp.grid for fp in apply.footprint} == {8}
    for size in ((128, 160), (121, 157)):
        image = picture(*size)
        layout = apply.plan(size, 8)
        assert len(layout.tiles) > 1
        whole = apply.whole(image)
        np.testing.assert_allclose(apply.image(image, 8), whole, atol=1e-5, rtol=0)
        assert whole.shape[1:] == size
    each = [Predictor([net], CPU, "float32", tta).whole(picture(128, 160)) for net in nets]
    # 128 and 160 are multiples of 8, so alone each network sees the same image.
    np.testing.assert_allclose(
        apply.whole(picture(128, 160)), np.mean(each, axis=0), atol=1e-5, rtol=0
    )


def test_dropout_is_off_in_prediction() -> None:
    net = build(1, 2, architecture_of("unet2015", width=4, depth=1, dropout=0.5)).train()
    apply = Predictor([net], CPU, "float32")
    image = picture(30, 30)
    np.testing.assert_array_equal(apply.whole(image), apply.whole(image))


def test_device_and_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == CPU
    assert choose_device("cpu") == CPU
    with pytest.raises(UserError, match="device: cuda"):
        choose_device("cuda")
    assert choose_precision("bfloat16", CPU) == "bfloat16"
    assert choose_precision("auto", CPU) in ("float32", "bfloat16")
    for gains, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr("unet.models.devices.gains_by_bfloat16", lambda device, g=gains: g)
        assert choose_precision("auto", CPU) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_out_of_memory_is_recognised(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_a_window_beyond_the_image_is_mirrored() -> None:
    """The unpadded network's border sees the mirrored image, as in the paper's figure 2."""
    apply = predictor("unet2015", 1)
    fp = apply.footprint[0]
    image = picture(24, 24)
    size = fp.fit(24 + 2 * fp.margin)
    window = read_window(image, [(-fp.margin, size - fp.margin)] * 2)
    np.testing.assert_array_equal(
        window[0, fp.margin, : fp.margin], image[0, 0, fp.margin : 0 : -1]
    )
    np.testing.assert_allclose(
        apply(window[None])[0][:, :24, :24], apply.whole(image), atol=1e-6, rtol=0
    )
