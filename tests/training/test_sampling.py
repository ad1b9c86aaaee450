"""Patches: independent of the first step and of the cache, and at the requested places."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import discs
from unet.data.store import Prepared
from unet.data.tiling import read_window
from unet.training.patch_targets import TargetSettings, make_targets
from unet.training.sampling import POSITIONS, Batch, PatchSampler, TrainingImage, open_images

CLASSES = TargetSettings()
BORDER = TargetSettings(head="border", border_width=2)
WEIGHTED = TargetSettings(maps=("border-weight",), sigma=2.0)


def image(
    seed: int = 0,
    shape: tuple[int, int] = (60, 50),
    settings: TargetSettings = CLASSES,
    cached: bool = True,
) -> TrainingImage:
    return TrainingImage(str(seed), *discs(seed, shape), settings, cached)


def sampler(
    images: list[TrainingImage], patch: int = 24, margin: int = 0, **options: float
) -> PatchSampler:
    values = {"batch": 4, "foreground": 0.5, "seed": 7, **options}
    return PatchSampler(
        images,
        (patch,) * 2,
        (margin,) * 2,
        int(values["batch"]),
        values["foreground"],
        int(values["seed"]),
    )


def arrays(batch: Batch) -> list[np.ndarray]:
    return [batch.images, batch.targets, *batch.maps.values()]


def test_shapes_and_types() -> None:
    batch = sampler([image(settings=WEIGHTED)]).batch(0)
    images, targets, weights = batch.images, batch.targets, batch.maps["border-weight"]
    assert (images.shape, images.dtype) == ((4, 1, 24, 24), np.float32)
    assert (targets.shape, targets.dtype) == ((4, 24, 24), np.uint8)
    assert (weights.shape, weights.dtype) == ((4, 1, 24, 24), np.float32)
    assert not sampler([image()]).batch(0).maps


def test_a_batch_follows_from_seed_and_step_alone() -> None:
    first = sampler([image(0), image(1)])
    steps = {step: first.batch(step) for step in range(6)}
    # Another sampler, another order, some steps twice: as after a resume.
    second = sampler([image(0, cached=False), image(1)])
    for step in (4, 5, 4, 0):
        for a, b in zip(arrays(second.batch(step)), arrays(steps[step]), strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(steps[0].images, steps[1].images)
    other = sampler([image(0), image(1)], seed=8)
    assert not np.array_equal(other.batch(0).images, steps[0].images)


@pytest.mark.parametrize(
    "settings", [CLASSES, BORDER, WEIGHTED], ids=["classes", "border", "weights"]
)
def test_what_is_cached_changes_nothing(settings: TargetSettings) -> None:
    inside = [(10, 34), (5, 45)]
    # Beyond the border: up to as far as an unpadded network's patch may reach.
    beyond = [(-12, 20), (30, 62)]
    for seed in range(4):
        lazy, held = (image(seed, settings=settings, cached=c) for c in (False, True))
        for window in (inside, beyond):
            a, b = lazy.read(window), held.read(window)
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_array_equal(a.target, b.target)
            assert list(a.maps) == list(b.maps) == list(settings.maps)
            for name in a.maps:
                np.testing.assert_allclose(a.maps[name], b.maps[name], atol=1e-4)


def test_image_and_target_of_a_window_belong_together() -> None:
    picture, classes, instances = discs(3, (60, 50))
    held = TrainingImage("x", picture, classes, instances, CLASSES, cached=True)
    window = [(-5, 30), (20, 61)]
    patch = held.read(window)
    np.testing.assert_array_equal(patch.image, read_window(picture, window))
    np.testing.assert_array_equal(patch.target, read_window(classes, window))


def test_foreground_is_drawn_as_often_as_asked() -> None:
    """One small object in a corner: at random it would be met in about one of 25 patches."""
    classes = np.zeros((200, 200), dtype=np.uint8)
    classes[190:194, 190:194] = 1
    picture = np.zeros((1, 200, 200), dtype=np.float32)
    rare = TrainingImage("x", picture, classes, None, CLASSES, cached=True)
    for share, low, high in ((1.0, 1.0, 1.0), (0.5, 0.4, 0.65), (0.0, 0.0, 0.1)):
        drawn = sampler([rare], foreground=share, batch=10)
        seen = [t.any() for step in range(20) for t in drawn.batch(step).targets]
        assert low <= np.mean(seen) <= high


def test_rare_classes_are_drawn_as_often_as_frequent_ones() -> None:
    classes = np.zeros((120, 120), dtype=np.uint8)
    classes[:60, :] = 1
    classes[115:118, 115:118] = 2
    picture = np.zeros((1, 120, 120), dtype=np.float32)
    mixed = TrainingImage("x", picture, classes, None, CLASSES, cached=True)
    drawn = sampler([mixed], foreground=1.0, batch=10)
    seen = [(t == 2).any() for step in range(20) for t in drawn.batch(step).targets]
    assert 0.35 <= np.mean(seen) <= 0.65


def test_the_output_lies_within_the_image() -> None:
    """Pixel values tell where a patch comes from; the margin may be mirrored, the output not."""
    height, width = 40, 36
    code = np.arange(height * width, dtype=np.float32).reshape(1, height, width)
    classes = np.zeros((height, width), dtype=np.uint8)
    classes[0, 0] = classes[-1, -1] = 1
    coded = TrainingImage("x", code, classes, None, CLASSES, cached=True)
    margin = 6
    drawn = sampler([coded], patch=28, margin=margin, foreground=0.7, batch=8)
    corners = set()
    for step in range(20):
        for patch in drawn.batch(step).images[:, 0]:
            inner = patch[margin:-margin, margin:-margin]
            start = int(inner[0, 0])
            y, x = divmod(start, width)
            np.testing.assert_array_equal(inner, code[0, y : y + 16, x : x + 16])
            corners.add((y == 0, x == 0))
    assert (True, True) in corners


@pytest.mark.parametrize("shape", [(1, 1), (5, 40), (24, 24), (23, 25)])
def test_images_smaller_than_a_patch(shape: tuple[int, int]) -> None:
    small = image(0, shape)
    drawn = sampler([small], patch=24)
    for step in range(5):
        batch = drawn.batch(step)
        images, targets = batch.images, batch.targets
        assert images.shape == (4, 1, 24, 24)
        assert np.isfinite(images).all()
        assert targets.max() <= 1


def test_images_are_drawn_in_proportion_to_their_pixels() -> None:
    zeros = [
        TrainingImage(
            str(value),
            np.full((1, *shape), value, np.float32),
            np.zeros(shape, np.uint8),
            None,
            CLASSES,
            cached=True,
        )
        for value, shape in ((0, (30, 30)), (1, (90, 30)))
    ]
    drawn = sampler(zeros, patch=16, batch=20)
    values = np.concatenate([drawn.batch(step).images.mean(axis=(1, 2, 3)) for step in range(30)])
    assert 0.7 < values.mean() < 0.8


def test_positions_and_counts() -> None:
    classes = np.zeros((30, 40), dtype=np.uint8)
    classes[3, 7] = 2
    classes[:, 20:] = 1
    classes[0, 0] = 255
    some = TrainingImage("x", np.zeros((1, 30, 40), np.float32), classes, None, CLASSES, True)
    positions, counts = some.positions(seed=0)
    assert set(positions) == {1, 2}  # neither the background nor what is ignored
    np.testing.assert_array_equal(positions[2], [[3, 7]])
    assert (classes[tuple(positions[1].T)] == 1).all()
    assert len(np.unique(positions[1], axis=0)) == 600 <= POSITIONS
    assert (counts[0], counts[1], counts[2], counts[255]) == (598, 600, 1, 1)


def test_only_so_much_is_held_in_memory(make_store) -> None:  # type: ignore[no-untyped-def]
    paths, _ = make_store()
    store = Prepared(paths.prepared("d"))
    size = 48 * 56 * 5
    for held in (0, 1, 3, 4):
        images = open_images(store, list("abcd"), CLASSES, size * held + 1)
        assert sum(i._patch is not None for i in images) == held
        assert [i.name for i in images] == list("abcd")


def test_targets() -> None:
    classes = np.array([[0, 1, 1], [255, 0, 1]], dtype=np.uint8)
    target, maps = make_targets(classes, None, CLASSES)
    np.testing.assert_array_equal(target, classes)
    assert not maps
    with pytest.raises(ValueError, match="needs instances"):
        make_targets(classes, None, BORDER)
    target, _ = make_targets(classes, (classes == 1).astype(np.uint32), BORDER)
    assert target[1, 0] == 255
    weight = make_targets(classes, None, WEIGHTED)[1]["border-weight"][0]
    assert weight.min() >= 1


def test_no_images() -> None:
    with pytest.raises(ValueError, match="no images"):
        sampler([])


def test_the_cells_of_the_weight_map_are_those_of_the_named_class() -> None:
    """Two cells (class 0) with a membrane (class 1) of 3 px between them."""
    classes = np.zeros((16, 21), np.uint8)
    classes[:, 9:12] = 1
    settings = TargetSettings(maps=("border-weight",), cells=0)
    weight = make_targets(classes, None, settings)[1]["border-weight"][0]
    # Middle of the membrane: 2 px to the nearest pixel of either cell, equation 2 of the paper.
    assert weight[8, 10] == pytest.approx(1 + 10 * np.exp(-(4**2) / (2 * 5**2)), rel=1e-5)
    assert weight[8, 3] == 1
    # By default the cells are all classes but the first: here one membrane, with no gap in it.
    other = make_targets(classes, None, TargetSettings(maps=("border-weight",)))[1][
        "border-weight"
    ][0]
    assert other is not None
    assert (other == 1).all()


def test_some_rows_are_those_of_the_whole_batch() -> None:
    """What one of several processes reads."""
    drawn = sampler([image(0, settings=WEIGHTED), image(1, settings=WEIGHTED)], batch=6)
    for step in range(3):
        whole, part = drawn.batch(step), drawn.batch(step, slice(2, 4))
        for a, b in zip(arrays(whole), arrays(part), strict=True):
            np.testing.assert_array_equal(a[2:4], b)


def test_the_distance_head_learns_foreground_and_distance() -> None:
    settings = TargetSettings(head="distance", maps=("distance",), distance_px=4)
    batch = sampler([image(settings=settings)]).batch(0)
    distance = batch.maps["distance"]
    assert distance.shape == (4, 1, 24, 24)
    assert set(np.unique(batch.targets)) <= {0, 1, 255}
    inside = batch.targets[:, None] == 1
    assert (distance[batch.targets[:, None] == 0] == 0).all()
    assert (distance[inside] > 0).all()
    assert distance.max() == 1


def test_signed_distances_have_a_channel_per_class() -> None:
    settings = TargetSettings(maps=("signed-distance",), distance_px=5, num_classes=2)
    batch = sampler([image(settings=settings)]).batch(0)
    phi = batch.maps["signed-distance"]
    assert phi.shape == (4, 2, 24, 24)
    known = batch.targets != 255
    np.testing.assert_array_equal((phi[:, 1] < 0)[known], (batch.targets == 1)[known])
