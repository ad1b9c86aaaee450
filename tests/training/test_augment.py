"""Augmentation: what moves together, what stays exact, what the seed decides."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from tests.trainings import augmentation
from unet.config.sections import AugmentSection
from unet.training.augment import Augment
from unet.training.warp import upsample, upsampling

OFF = {"flip": False, "rotate90": False, "geometric_probability": 1, "intensity_probability": 1}
WARPS: dict[str, Any] = {"rotate_deg": 30.0, "scale": 0.3, "elastic_px": 3.0}
INTENSITIES: dict[str, Any] = {
    "gamma": 1.0,
    "contrast": 0.5,
    "brightness": 1.0,
    "noise": 0.5,
    "blur_px": 1.5,
}
INTEGERS = [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64]


def on(**changes: Any) -> AugmentSection:
    return augmentation(**{**OFF, **changes})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ids(*shape: int, high: int = 9, seed: int = 0) -> Tensor:
    return torch.randint(0, high, shape, generator=seeded(seed))


def run(
    config: AugmentSection, images: Tensor, labels: Tensor | None = None, seed: int = 0
) -> tuple[Tensor, Tensor]:
    labels = images.long() if labels is None else labels
    images, labels, weights = Augment(config)(images, labels, None, seeded(seed))
    assert weights is None
    return images, labels


# Geometry


def symmetries(image: np.ndarray[Any, Any]) -> list[bytes]:
    square = image.shape[-1] == image.shape[-2]
    turned = [np.rot90(image, turns, (-2, -1)) for turns in range(0, 4, 1 if square else 2)]
    return [np.ascontiguousarray(x).tobytes() for t in turned for x in (t, t[..., ::-1])]


@pytest.mark.parametrize("width", [5, 7])
def test_flips_and_rotations_are_the_symmetries(width: int) -> None:
    images = torch.arange(5.0 * width).view(1, 1, 5, width).repeat(1600, 1, 1, 1)
    expected = symmetries(images[0, 0].numpy())
    images, labels = run(on(flip=True, rotate90=True), images)
    assert torch.equal(images, labels.float())
    counts = [0] * len(expected)
    for image in images:
        counts[expected.index(image[0].numpy().tobytes())] += 1
    assert len(expected) == len(set(expected)) == (8 if width == 5 else 4)
    # All alike: 200 or 400 each, less 5 standard deviations.
    assert min(counts) > (130 if width == 5 else 310)


@pytest.mark.parametrize(("flip", "rotate90", "number"), [(True, False, 4), (False, True, 4)])
def test_only_flips_or_only_rotations(flip: bool, rotate90: bool, number: int) -> None:
    images = torch.arange(9.0).view(1, 1, 3, 3).repeat(100, 1, 1, 1)
    images, _ = run(on(flip=flip, rotate90=rotate90), images)
    seen = {image.numpy().tobytes() for image in images}
    base = np.arange(9, dtype=np.float32).reshape(3, 3)
    if flip:
        expected = {base[::a, ::b].tobytes() for a in (1, -1) for b in (1, -1)}
    else:
        expected = {np.rot90(base, turns).tobytes() for turns in range(4)}
    assert seen == expected
    assert len(seen) == number


def coordinates(n: int, height: int, width: int) -> Tensor:
    """[n, 2 (y, x), Y, X]: each pixel holds its own place, so a warp shows where it read.

    Bilinear interpolation of a ramp is exact, and mirroring happens before it.
    """
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    return torch.stack([y, x]).expand(n, 2, height, width)


def test_rotation_is_rigid_and_about_the_centre() -> None:
    n, height, width = 50, 41, 61
    read, _ = run(on(rotate_deg=90.0), coordinates(n, height, width))
    middle = torch.tensor([20.0, 30.0])
    torch.testing.assert_close(read[:, :, 20, 30], middle.expand(n, 2), atol=1e-4, rtol=0)
    along_x = read[:, :, 20, 31] - middle
    angles = torch.rad2deg(torch.atan2(along_x[:, 0], along_x[:, 1]))
    assert -90 <= angles.min() < -70
    assert 70 < angles.max() <= 90
    # The whole disc inside turns by that angle: compare as complex numbers x + iy.
    offset = coordinates(1, height, width)[0] - middle.view(2, 1, 1)
    before = torch.complex(offset[1], offset[0])
    after = torch.complex(read[:, 1] - 30, read[:, 0] - 20)
    turn = torch.polar(torch.ones(n), torch.deg2rad(angles)).view(n, 1, 1)
    error = (after - before * turn).abs()
    assert error[:, before.abs() <= 20].max() < 1e-3


def test_scale_is_about_the_centre_and_mirrors_the_edge() -> None:
    n, height, width = 50, 31, 21
    read, _ = run(on(scale=0.6), coordinates(n, height, width))
    step = read[:, 1, 15, 11] - read[:, 1, 15, 10]
    assert 1 / 1.6 <= step.min() < 0.7
    assert 2.1 < step.max() <= 1 / 0.4 + 1e-4
    for axis, size in ((0, height), (1, width)):
        line = read[:, axis, :, 10] if axis == 0 else read[:, axis, 15]
        last = size - 1
        straight = last / 2 + (torch.arange(size) - last / 2) * step.view(n, 1)
        # numpy's "reflect": a zigzag between 0 and the last pixel, neither of them doubled.
        mirrored = last - (straight.abs() % (2 * last) - last).abs()
        torch.testing.assert_close(line, mirrored, atol=2e-3, rtol=0)
        assert (straight < -1).any()


def test_identity_when_all_is_off() -> None:
    images, labels, weights = torch.randn(2, 1, 6, 7), ids(2, 2, 6, 7), torch.rand(2, 1, 6, 7)
    result = Augment(on())(images, labels, weights, seeded())
    never = augmentation(
        flip=False,
        rotate90=False,
        **WARPS,
        **INTENSITIES,
        geometric_probability=0,
        intensity_probability=0,
    )
    for got in (result, Augment(never)(images, labels, weights, seeded())):
        for before, after in zip((images, labels, weights), got, strict=True):
            assert after is not None
            assert torch.equal(before, after)


@pytest.mark.parametrize("warp", [*WARPS, "all"])
def test_image_label_and_weight_move_together(warp: str) -> None:
    n, height, width = 8, 37, 45
    values = torch.randn(n, 1, height, width, generator=seeded(1))
    images = torch.cat([coordinates(n, height, width), values], 1)
    labels = ids(n, 2, height, width, high=1000)
    config = on(flip=True, rotate90=True, **(WARPS if warp == "all" else {warp: WARPS[warp]}))
    moved, moved_labels, moved_weights = Augment(config)(images, labels, values, seeded())
    assert moved_weights is not None
    torch.testing.assert_close(moved_weights, moved[:, 2:])
    assert (moved[:, :2] % 1 - 0.5).abs().min() < 0.1  # between pixels
    for i in range(n):
        y, x = moved[i, :2].double().numpy()
        expected = ndimage.map_coordinates(
            values[i, 0].double().numpy(), (y, x), order=1, mode="nearest"
        )
        np.testing.assert_allclose(moved[i, 2].numpy(), expected, atol=1e-3)
        # Nearest is defined except halfway between two pixels.
        clear = (np.abs(y % 1 - 0.5) > 1e-3) & (np.abs(x % 1 - 0.5) > 1e-3)
        assert clear.mean() > 0.9
        nearest = labels[i].numpy()[:, np.rint(y).astype(int), np.rint(x).astype(int)]
        np.testing.assert_array_equal(moved_labels[i].numpy()[:, clear], nearest[:, clear])


def test_elastic_displacements() -> None:
    # In the middle, where nothing is mirrored, lies a node.
    images, _ = run(on(elastic_px=10.0), coordinates(300, 101, 101))
    shift = images[:, :, 50, 50] - 50
    # The sd of a sample sd of 600 normals is 0.29.
    assert shift.std().item() == pytest.approx(10, abs=1.2)
    assert abs(shift.mean().item()) < 1.7
    assert abs(torch.corrcoef(shift.T)[0, 1].item()) < 0.25
    # Coarse grid: neighbours move alike.
    step = (images[:, :, 51, 50] - images[:, :, 50, 50])[:, 1]
    assert step.std().item() < 1


@pytest.mark.parametrize("grid", [2, 3, 5])
def test_displacements_go_through_the_nodes(grid: int) -> None:
    nodes = torch.randn(4, 2, grid, grid, generator=seeded())
    height, width = 1 + 12 * (grid - 1), 1 + 20 * (grid - 1)
    field = upsample(nodes, upsampling(grid, (height, width)))
    torch.testing.assert_close(field[:, :, ::12, ::20], nodes, atol=1e-5, rtol=0)
    reference = F.interpolate(nodes, (height, width), mode="bicubic", align_corners=True)
    torch.testing.assert_close(field, reference, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_large_ids_survive(dtype: torch.dtype) -> None:
    top = torch.iinfo(dtype).max
    values = torch.tensor([0, top, top - 1, top - 2, top // 2]).to(dtype)
    labels = torch.from_numpy(values.numpy()[ids(3, 2, 30, 30, high=5).numpy()])
    config = augmentation(**WARPS, geometric_probability=1)
    _, moved = run(config, torch.zeros(3, 1, 30, 30), labels)
    assert moved.dtype == dtype
    before, after = set(np.unique(labels.numpy())), set(np.unique(moved.numpy()))
    assert after == before  # small blocks everywhere: none disappears altogether
    assert not np.array_equal(labels.numpy(), moved.numpy())


# Intensity


def one(name: str, images: Tensor, seed: int = 0) -> Tensor:
    labels = ids(len(images), 1, *images.shape[2:])
    changed, same = run(on(**{name: INTENSITIES[name]}), images, labels, seed)
    assert torch.equal(same, labels)
    return changed


def image_batch(n: int = 32, channels: int = 2) -> Tensor:
    images = torch.randn(n, channels, 24, 20, generator=seeded(7))
    return images * torch.rand(n, channels, 1, 1, generator=seeded(8)) * 9 + 5


def test_gamma_keeps_range_and_order() -> None:
    images = image_batch()
    changed = one("gamma", images)
    low, high = images.amin((2, 3)), images.amax((2, 3))
    torch.testing.assert_close(changed.amin((2, 3)), low)
    torch.testing.assert_close(changed.amax((2, 3)), high)
    unit = (images - low[..., None, None]) / (high - low)[..., None, None]
    new = (changed - low[..., None, None]) / (high - low)[..., None, None]
    middle = (unit > 0.1) & (unit < 0.9)
    exponent = torch.where(middle, new.log() / unit.log(), torch.nan)
    drawn = exponent.flatten(1).nanmedian(1).values
    assert (exponent - drawn.view(-1, 1, 1, 1))[middle].abs().max() < 1e-2
    assert 0.5 <= drawn.min() < 0.7
    assert 1.4 < drawn.max() <= 2.0


def test_contrast_scales_around_the_mean() -> None:
    images = image_batch()
    changed = one("contrast", images)
    torch.testing.assert_close(changed.mean((2, 3)), images.mean((2, 3)))
    factor = changed.std((2, 3)) / images.std((2, 3))
    torch.testing.assert_close(factor[:, 0], factor[:, 1])
    assert 0.5 <= factor.min() < 0.65
    assert 1.35 < factor.max() <= 1.5


def test_brightness_shifts_by_standard_deviations() -> None:
    images = image_batch()
    shift = one("brightness", images) - images
    drawn = shift / images.std((2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(drawn, drawn[:, :1, :1, :1].expand_as(drawn), atol=1e-4, rtol=0)
    assert -1 <= drawn.min() < -0.7
    assert 0.7 < drawn.max() <= 1


def test_noise_has_the_drawn_deviation() -> None:
    images = image_batch()
    noise = (one("noise", images) - images) / images.std((2, 3), correction=0, keepdim=True)
    level = noise.std((2, 3))
    assert level.min() < 0.15
    assert 0.35 < level.max() < 0.55
    assert (noise.mean((2, 3)).abs() < 5 * level / math.sqrt(480)).all()
    assert torch.corrcoef(noise.flatten(1))[0, 1].abs() < 0.2


def test_blur_is_scipys() -> None:
    images = image_batch(n=6, channels=1)
    changed = one("blur_px", images)
    sigmas = np.linspace(0.01, 1.5, 150)
    for image, blurred in zip(images[:, 0].numpy(), changed[:, 0].numpy(), strict=True):
        errors = [
            np.abs(ndimage.gaussian_filter(image, s, mode="mirror", truncate=6) - blurred).max()
            for s in sigmas
        ]
        assert min(errors) < 0.03 * image.std()


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("value", [0.0, -3.5])
def test_constant_and_tiny_images(size: int, value: float) -> None:
    images = torch.full((4, 1, size, size), value)
    config = augmentation(**WARPS, **INTENSITIES, geometric_probability=1, intensity_probability=1)
    changed, labels = run(config, images, ids(4, 1, size, size))
    torch.testing.assert_close(changed, images)
    assert labels.shape == images.shape


# Randomness and the contract

CONFIGS = st.builds(
    augmentation,
    flip=st.booleans(),
    rotate90=st.booleans(),
    rotate_deg=st.sampled_from([0.0, 180.0]),
    scale=st.sampled_from([0.0, 0.5]),
    elastic_px=st.sampled_from([0.0, 10.0]),
    elastic_grid=st.integers(2, 4),
    geometric_probability=st.sampled_from([0.0, 0.5, 1.0]),
    gamma=st.sampled_from([0.0, 1.0]),
    contrast=st.sampled_from([0.0, 0.5]),
    brightness=st.sampled_from([0.0, 0.5]),
    noise=st.sampled_from([0.0, 0.5]),
    blur_px=st.sampled_from([0.0, 2.0]),
    intensity_probability=st.sampled_from([0.0, 0.5, 1.0]),
    channel_dropout=st.sampled_from([0.0, 0.5]),
)


@given(
    CONFIGS,
    st.tuples(st.integers(0, 4), st.integers(1, 2), st.integers(1, 17), st.integers(1, 17)),
    st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=80)
def test_contract(config: AugmentSection, shape: tuple[int, ...], seed: int) -> None:
    images = torch.randn(shape, generator=seeded(seed))
    labels = ids(shape[0], 3, *shape[2:], seed=seed, high=2**40)
    weights = torch.rand(shape[0], 1, *shape[2:], generator=seeded(seed)) + 1
    copies = images.clone(), labels.clone(), weights.clone()
    first = Augment(config)(images, labels, weights, seeded(seed))
    again = Augment(config)(images, labels, weights, seeded(seed))
    for before, copy, after, same in zip(
        (images, labels, weights), copies, first, again, strict=True
    ):
        assert after is not None
        assert same is not None
        assert torch.equal(before, copy)  # not changed in place
        assert torch.equal(after, same)  # a function of the seed
        assert after.shape == before.shape
        assert after.dtype == before.dtype
    moved, scaled = first[1], first[2]
    assert first[0].isfinite().all()
    assert scaled is not None
    if scaled.numel():
        assert weights.min() - 1e-5 <= scaled.min()
        assert scaled.max() <= weights.max() + 1e-5
    for before, after in zip(labels, moved, strict=True):
        assert set(after.unique().tolist()) <= set(before.unique().tolist())
    # All label channels move alike: stack two copies and they stay equal.
    twins = Augment(config)(images, labels[:, :1].repeat(1, 2, 1, 1), None, seeded(seed))[1]
    assert torch.equal(twins[:, 0], twins[:, 1])
    assert torch.equal(twins[:, :1], moved[:, :1])


def test_generator_moves_on_and_other_seeds_differ() -> None:
    images = torch.randn(4, 1, 16, 16)
    generator = seeded()
    augment = Augment(on(rotate_deg=20.0))
    first, *_ = augment(images, images.long(), None, generator)
    second, *_ = augment(images, images.long(), None, generator)
    assert not torch.equal(first, second)
    before = torch.get_rng_state()
    augment(images, images.long(), None, generator)
    assert torch.equal(before, torch.get_rng_state())


def test_one_operation_does_not_disturb_the_draws_of_another() -> None:
    images = ids(6, 1, 32, 32).float()
    _, plain = run(augmentation(rotate_deg=20.0), images)
    _, noisy = run(augmentation(rotate_deg=20.0, **INTENSITIES), images, images.long())
    assert torch.equal(plain, noisy)


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)])
def test_probabilities_are_per_sample(probability: float, share: float) -> None:
    images = torch.randn(200, 1, 6, 6)
    for config in (
        on(rotate_deg=20.0, geometric_probability=probability),
        on(brightness=1.0, intensity_probability=probability),
    ):
        changed, _ = run(config, images)
        moved = (changed != images).flatten(1).any(1).float().mean().item()
        assert moved == pytest.approx(share, abs=0.12)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_channel_dropout(probability: float) -> None:
    """Channels are 0 as often as drawn; one always stays, and all others are unchanged."""
    images = torch.randn(600, 3, 4, 4)
    found, _ = run(on(channel_dropout=probability), images)
    gone = (found == 0).flatten(2).all(2)
    assert torch.equal(found, images * ~gone[:, :, None, None])
    assert not gone.all(1).any()
    # All three at once become two.
    expected = probability - probability**3 / 3
    assert gone.float().mean().item() == pytest.approx(expected, abs=0.05)
    # No channel is left out more often than another.
    assert gone.float().mean(0).tolist() == pytest.approx([expected] * 3, abs=0.07)


def test_channel_dropout_changes_nothing_else() -> None:
    one, three = torch.randn(8, 1, 6, 6), torch.randn(8, 3, 16, 16)
    assert torch.equal(run(on(channel_dropout=0.9), one)[0], one)  # nothing would be left
    settings_of = {**INTENSITIES, **WARPS, "flip": True}
    plain, labels = run(on(**settings_of), three, ids(8, 1, 16, 16))
    dropped, same = run(on(**settings_of, channel_dropout=0.5), three, ids(8, 1, 16, 16))
    assert torch.equal(labels, same)
    kept = (dropped != 0).flatten(2).any(2)
    assert 8 <= int(kept.sum()) < 24
    assert torch.equal(dropped, plain * kept[:, :, None, None])


def test_warps_are_drawn_one_by_one() -> None:
    config = on(rotate_deg=20.0, elastic_px=2.0, geometric_probability=0.5)
    before = coordinates(200, 9, 9)
    after, _ = run(config, before)
    moved = (after != before).flatten(1).any(1)
    # The inner pixels' second differences: 0 where there is no more than a rotation.
    bend = after[:, :, 3:6, 3:6].diff(n=2, dim=2).abs().flatten(1).amax(1) > 1e-4
    assert moved.float().mean().item() == pytest.approx(0.75, abs=0.12)
    assert bend.float().mean().item() == pytest.approx(0.5, abs=0.12)


def test_under_autocast() -> None:
    images = torch.randn(3, 1, 40, 40)
    config = on(flip=True, **WARPS, **INTENSITIES)
    expected, labels = run(config, images, ids(3, 1, 40, 40))
    with torch.autocast("cpu", torch.bfloat16):
        got, got_labels = run(config, images, ids(3, 1, 40, 40))
    assert torch.equal(got, expected)
    assert torch.equal(got_labels, labels)


# Refusals


@pytest.mark.parametrize(
    "wrong",
    [
        {"rotate_deg": -1.0},
        {"scale": 1.0},
        {"contrast": 1.0},
        {"noise": math.nan},
        {"elastic_grid": 1},
        {"geometric_probability": 1.5},
        {"intensity_probability": -0.1},
        {"channel_dropout": 1.0},
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AugmentSection(**wrong)


def test_inputs_that_do_not_fit() -> None:
    images, labels, weights = torch.zeros(2, 1, 4, 4), ids(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    augment = Augment(augmentation())
    for bad, match in (
        ((images.double(), labels, weights), "float32"),
        ((images[0], labels, weights), "images"),
        ((images, labels.float(), weights), "integer"),
        ((images, labels[:1], weights), "labels"),
        ((images, labels, weights[..., 1:]), "maps"),
        ((images, labels, weights.double()), "maps"),
    ):
        with pytest.raises(ValueError, match=match):
            augment(*bad, seeded())
    for spacing in ((1.0, 1.0, 1.0), (1.0,), (0.0, 1.0)):
        with pytest.raises(ValueError, match="spacing"):
            Augment(augmentation(), spacing)(images, labels, weights, seeded())
