"""Tiled prediction equals the network applied to the whole image; averages; precision; devices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unet.data.tiling import read_window
from unet.errors import UserError
from unet.models.inference import (
    Predictor,
    choose_device,
    choose_precision,
    is_out_of_memory,
)
from unet.models.presets import PRESETS, architecture_of
from unet.models.unet import UNet, build

CPU = torch.device("cpu")
PRESET_NAMES = sorted(PRESETS)


def network(preset: str, depth: int, seed: int = 0, channels: int = 1) -> UNet:
    """Random weights and, where there are any, random running statistics; scores of about 1, as a
    trained network has them (scores of 100 would turn rounding into differences)."""
    net = build(channels, 3, architecture_of(preset, width=2, depth=depth), seed).eval()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                shape = module.running_mean.shape  # type: ignore[union-attr]
                module.running_mean.copy_(torch.randn(shape, generator=random))  # type: ignore[union-attr]
                module.running_var.copy_(torch.rand(shape, generator=random) + 0.3)  # type: ignore[union-attr]
                module.weight.copy_(torch.rand(shape, generator=random) + 0.5)
                module.bias.copy_(torch.randn(shape, generator=random))
        size = net.footprint.fit(64)
        probe = net(torch.randn(1, channels, size, size, generator=random))
        net.head.weight /= probe.std()
    return net


def predictor(preset: str, depth: int, tta: bool = False) -> Predictor:
    return Predictor([network(preset, depth)], CPU, "float32", tta)


def picture(*shape: int, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(shape)
    return rng.standard_normal((channels, *shape), dtype=np.float32)


def applied_by_hand(net: UNet, image: np.ndarray) -> np.ndarray:
    """The reference without any of the tiling code: pad by numpy, apply, cut."""
    fp = net.footprint
    widths = [(fp.margin, fp.fit(n + 2 * fp.margin) - n - fp.margin) for n in image.shape[1:]]
    padded = np.pad(image, [(0, 0), *widths], mode="reflect")
    with torch.no_grad():
        p = torch.softmax(net.eval()(torch.from_numpy(padded)[None]), dim=1)[0].numpy()
    return p[:, : image.shape[1], : image.shape[2]]


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
            np.testing.assert_allclose(apply.image(image, tile), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("preset", PRESET_NAMES)
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


def test_a_halo_too_small_would_show() -> None:
    """The comparison above can fail: with the halo one grid step short, it does."""
    net = network("unet-bn", 2)
    net.footprint = replace(net.footprint, halo=net.footprint.halo - net.footprint.grid)
    apply = Predictor([net], CPU, "float32")
    image = picture(150, 20)
    assert np.abs(apply.image(image, 50) - apply.whole(image)).max() > 1e-5


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_tta_is_the_mean_over_the_symmetries(preset: str) -> None:
    apply = predictor(preset, 1, tta=True)
    plain = Predictor(apply.networks, CPU, "float32")
    fp = apply.footprint
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


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_tiled_equals_whole_with_tta(preset: str) -> None:
    apply = predictor(preset, 1, tta=True)
    image = picture(45, 70)
    for tile in (44, 60):
        np.testing.assert_allclose(apply.image(image, tile), apply.whole(image), atol=1e-5, rtol=0)


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_a_window_does_not_depend_on_its_batch(preset: str) -> None:
    apply = predictor(preset, 2)
    size = apply.footprint.fit(60)
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
        Predictor([network("unet-bn", 1), network("unet-bn", 2)], CPU)
    bare = nn.Conv2d(1, 1, 1)
    bare.footprint = 3  # type: ignore[assignment]
    with pytest.raises(TypeError, match="Footprint"):
        Predictor([bare], CPU)


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
        monkeypatch.setattr("unet.models.inference.gains_by_bfloat16", lambda device, g=gains: g)
        assert choose_precision("auto", CPU) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
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
    fp = apply.footprint
    image = picture(24, 24)
    size = fp.fit(24 + 2 * fp.margin)
    window = read_window(image, [(-fp.margin, size - fp.margin)] * 2)
    np.testing.assert_array_equal(
        window[0, fp.margin, : fp.margin], image[0, 0, fp.margin : 0 : -1]
    )
    np.testing.assert_allclose(
        apply(window[None])[0][:, :24, :24], apply.whole(image), atol=1e-6, rtol=0
    )
