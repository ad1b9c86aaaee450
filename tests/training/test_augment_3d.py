"""Augmentation of volumes: as in 2D, with sections that lie further apart than pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from tests.trainings import augmentation
from unet.config.sections import AugmentSection
from unet.training import warp
from unet.training.augment import Augment

OFF = {"flip": False, "rotate90": False, "geometric_probability": 1, "intensity_probability": 1}
WARPS: dict[str, Any] = {"rotate_deg": 30.0, "scale": 0.3, "elastic_px": 3.0}
SPACING = (2.5, 1.0, 1.0)
SHAPE = (11, 25, 31)


def on(**changes: Any) -> AugmentSection:
    return augmentation(**{**OFF, **changes})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ids(*shape: int, high: int = 9, seed: int = 0) -> Tensor:
    return torch.randint(0, high, shape, generator=seeded(seed))


def coordinates(n: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """[n, 3 (z, y, x), Z, Y, X]: each voxel holds its own place, so a warp shows where it read."""
    places = torch.meshgrid(*(torch.arange(float(size)) for size in shape), indexing="ij")
    return torch.stack(places).expand(n, 3, *shape)


def read_places(config: AugmentSection, n: int, seed: int = 0) -> Tensor:
    images = coordinates(n)
    return Augment(config, SPACING)(images, images.long(), None, seeded(seed))[0]


def test_flips_and_right_angles_are_the_sixteen_symmetries() -> None:
    images = torch.arange(18.0).view(1, 1, 2, 3, 3).repeat(300, 1, 1, 1, 1)
    augment = Augment(on(flip=True, rotate90=True), SPACING)
    images, labels, _ = augment(images, images.long(), None, seeded())
    assert torch.equal(images, labels.float())
    volume = np.arange(18, dtype=np.float32).reshape(2, 3, 3)
    expected = {
        np.ascontiguousarray(np.rot90(v, turns, (1, 2))[:, :, ::step]).tobytes()
        for v in (volume, volume[::-1])
        for turns in range(4)
        for step in (1, -1)
    }
    assert {image.numpy().tobytes() for image in images} == expected
    assert len(expected) == 16


@pytest.mark.parametrize("warped", [*WARPS, "all"])
def test_image_label_and_map_move_together(warped: str) -> None:
    n = 4
    values = torch.randn(n, 1, *SHAPE, generator=seeded(1))
    images = torch.cat([coordinates(n), values], 1)
    labels = ids(n, 2, *SHAPE, high=2**40)
    config = on(flip=True, rotate90=True, **(WARPS if warped == "all" else {warped: WARPS[warped]}))
    moved, moved_labels, moved_maps = Augment(config, SPACING)(images, labels, values, seeded())
    assert moved_maps is not None
    torch.testing.assert_close(moved_maps, moved[:, 3:])
    for i in range(n):
        places = moved[i, :3].double().numpy()
        expected = ndimage.map_coordinates(
            values[i, 0].double().numpy(), places, order=1, mode="nearest"
        )
        np.testing.assert_allclose(moved[i, 3].numpy(), expected, atol=1e-3)
        # Nearest is defined except halfway between two voxels.
        clear = (np.abs(places % 1 - 0.5) > 1e-3).all(axis=0)
        assert clear.mean() > 0.7
        nearest = labels[i].numpy()[:, *np.rint(places).astype(int)]
        np.testing.assert_array_equal(moved_labels[i].numpy()[:, clear], nearest[:, clear])


def test_rotation_turns_sections_and_leaves_their_order() -> None:
    read = read_places(on(rotate_deg=180.0), 20)
    z = torch.arange(float(SHAPE[0])).view(1, -1, 1, 1).expand_as(read[:, 0])
    torch.testing.assert_close(read[:, 0], z, atol=1e-4, rtol=0)
    torch.testing.assert_close(read[:, 1:], read[:, 1:, :1].expand_as(read[:, 1:]))
    step = read[:, 1:, 0, 12, 16] - read[:, 1:, 0, 12, 15]
    torch.testing.assert_close(step.norm(dim=1), torch.ones(20), atol=1e-3, rtol=0)
    assert step[:, 0].abs().max() > 0.9  # turned by about a right angle


def test_scale_is_the_same_along_all_axes_and_mirrors_the_edge() -> None:
    read = read_places(on(scale=0.5), 30)
    middle = [(size - 1) // 2 for size in SHAPE]
    steps = []
    for axis, size in enumerate(SHAPE):
        where: list[Any] = list(middle)
        where[axis] = slice(None)
        line = read[(slice(None), axis, *where)]
        step = line[:, middle[axis] + 1] - line[:, middle[axis]]
        straight = (size - 1) / 2 + (torch.arange(size) - (size - 1) / 2) * step.view(-1, 1)
        mirrored = (size - 1) - (straight.abs() % (2 * (size - 1)) - (size - 1)).abs()
        torch.testing.assert_close(line, mirrored, atol=2e-3, rtol=0)
        assert (straight < -1).any()
        steps.append(step)
    torch.testing.assert_close(steps[0], steps[2], atol=1e-4, rtol=0)
    torch.testing.assert_close(steps[1], steps[2], atol=1e-4, rtol=0)


def test_elastic_displacements_are_lengths_and_not_voxels() -> None:
    shape = (21, 61, 61)
    images = coordinates(100, shape)
    config = on(elastic_px=3.0)
    read = Augment(config, SPACING)(images, images.long(), None, seeded())[0]
    shift = read[:, :, 10, 30, 30] - torch.tensor([10.0, 30.0, 30.0])
    # The sd of a sample sd of 200 normals is 5 %, of 100 it is 7 %.
    assert shift[:, 1:].std().item() == pytest.approx(3.0, rel=0.25)
    assert shift[:, 0].std().item() == pytest.approx(3.0 / SPACING[0], rel=0.3)
    # Sections next to each other move alike: the grid is coarse along Z too.
    step = read[:, 2, 11, 30, 30] - read[:, 2, 10, 30, 30]
    assert 0 < step.std().item() < 0.5


def test_thin_volumes_are_bent_less_and_do_not_fold() -> None:
    assert warp.elastic_sd(5.0, 3, (256, 256), (1.0, 1.0)) == 5.0
    assert warp.elastic_sd(5.0, 3, (9, 65, 65), (1.0, 1.0, 1.0)) == 0.5
    assert warp.elastic_sd(5.0, 3, (9, 65, 65), (4.0, 1.0, 1.0)) == 2.0
    assert warp.elastic_sd(5.0, 3, (1, 65, 65), (1.0, 1.0, 1.0)) == 4.0
    images = coordinates(40, (9, 33, 33))
    config = on(elastic_px=50.0)
    read = Augment(config, (1.0, 1.0, 1.0))(images, images.long(), None, seeded())[0]
    steps = read[:, 0, 4:6, 16, 16].diff(dim=1)
    assert steps.min() > 0


@pytest.mark.parametrize("grid", [2, 3, 4])
def test_displacements_go_through_the_nodes(grid: int) -> None:
    nodes = torch.randn(2, 3, grid, grid, grid, generator=seeded())
    shape = tuple(1 + k * (grid - 1) for k in (4, 6, 5))
    field = warp.upsample(nodes, warp.upsampling(grid, shape))
    assert field.shape == (2, 3, *shape)
    torch.testing.assert_close(field[:, :, ::4, ::6, ::5], nodes, atol=1e-5, rtol=0)


def test_blur_is_scipys_with_a_sigma_per_axis() -> None:
    images = torch.randn(4, 1, 12, 20, 24, generator=seeded(7))
    config = on(blur_px=2.0)
    blurred = Augment(config, SPACING)(images, images.long(), None, seeded())[0]
    sigmas = np.linspace(0.02, 2.0, 200)
    alike, apart = [], []
    for before, after in zip(images[:, 0].numpy(), blurred[:, 0].numpy(), strict=True):
        for errors, spacing in ((apart, SPACING), (alike, (1.0, 1.0, 1.0))):
            found = (
                ndimage.gaussian_filter(before, s / np.array(spacing), mode="mirror", truncate=6)
                for s in sigmas
            )
            errors.append(min(np.abs(other - after).max() for other in found) / before.std())
    assert max(apart) < 0.07
    assert max(alike) > 0.3


def test_large_ids_survive_in_more_voxels_than_a_float_can_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = ids(1, 1, *SHAPE, high=2**62)
    augment = Augment(on(**WARPS), SPACING)
    expected = augment(torch.zeros(labels.shape), labels, None, seeded())[1]
    assert set(expected.unique().tolist()) <= set(labels.unique().tolist())
    assert not torch.equal(expected, labels)
    monkeypatch.setattr(warp, "_EXACT", 100)
    again = augment(torch.zeros(labels.shape), labels, None, seeded())[1]
    assert torch.equal(again, expected)


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
    noise=st.sampled_from([0.0, 0.5]),
    blur_px=st.sampled_from([0.0, 2.0]),
    intensity_probability=st.sampled_from([0.5, 1.0]),
)


@given(
    CONFIGS,
    st.tuples(st.integers(1, 4), st.integers(1, 2), *[st.integers(1, 9)] * 3),
    st.sampled_from([None, (1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (1.0, 2.0, 1.5)]),
    st.integers(0, 2**31),
)
@settings(max_examples=40)
def test_contract(
    config: AugmentSection,
    shape: tuple[int, ...],
    spacing: tuple[float, ...] | None,
    seed: int,
) -> None:
    images = torch.randn(shape, generator=seeded(seed))
    labels = ids(shape[0], 2, *shape[2:], seed=seed, high=2**40)
    maps = torch.rand(shape[0], 1, *shape[2:], generator=seeded(seed))
    copies = images.clone(), labels.clone(), maps.clone()
    augment = Augment(config, spacing)
    first = augment(images, labels, maps, seeded(seed))
    again = augment(images, labels, maps, seeded(seed))
    given_ = (images, labels, maps)
    for before, copy, after, same in zip(given_, copies, first, again, strict=True):
        assert after is not None
        assert same is not None
        assert torch.equal(before, copy)
        assert torch.equal(after, same)
        assert (after.shape, after.dtype) == (before.shape, before.dtype)
    assert first[0].isfinite().all()
    for before, after in zip(labels, first[1], strict=True):
        assert set(after.unique().tolist()) <= set(before.unique().tolist())
    # Some rows of the batch alone come out as they do with the others beside them.
    rows = slice(shape[0] // 2, None)
    part = augment(images[rows], labels[rows], maps[rows], seeded(seed), (rows, shape[0]))
    for whole, some in zip(first, part, strict=True):
        assert whole is not None
        assert some is not None
        assert torch.equal(whole[rows], some)
