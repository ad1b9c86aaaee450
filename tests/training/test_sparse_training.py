"""Training on labels of only some objects: pixels without a label teach nothing, and patches are
drawn where labels are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from unet.config.heads import IGNORE
from unet.errors import UserError
from unet.training.losses import LOSSES, make_loss
from unet.training.patch_targets import TargetSettings, make_targets
from unet.training.sampling import PatchSampler, TrainingImage
from unet.training.targets import border_classes, object_distance


def labels() -> tuple[np.ndarray, np.ndarray]:
    """Classes and ids [32, 32]: one object with a ring of background, the rest without a label."""
    classes = np.full((32, 32), IGNORE, np.uint8)
    classes[8:18, 8:18] = 0
    classes[10:16, 10:16] = 1
    return classes, (classes == 1).astype(np.uint32) * 7


def image_of(classes: np.ndarray, ids: np.ndarray, name: str = "a", sparse: bool = True) -> Any:
    pixels = np.zeros((1, *classes.shape), np.float32)
    return TrainingImage(name, pixels, classes, ids, TargetSettings(), True, sparse)


@pytest.mark.parametrize("head", ["classes", "border"])
def test_a_labelled_object_ends_at_unlabelled_pixels(head: str) -> None:
    classes, ids = labels()
    classes[classes == 0] = IGNORE  # no ring
    settings = TargetSettings(head=head, maps=("distance",), sparse=True)
    target, maps = make_targets(classes, ids, settings)
    assert np.array_equal(target == IGNORE, classes == IGNORE)
    # As if the surroundings were background.
    inside = ids > 0
    if head == "border":
        assert np.array_equal(target[inside], border_classes(ids, 2)[inside])
    assert np.array_equal(maps["distance"][0][inside], object_distance(ids, 8)[inside])
    assert not maps["distance"][0][~inside].any()
    # Pixels of `ignore` in other labels say nothing about where the object ends.
    plain = make_targets(classes, ids, TargetSettings(head=head, maps=("distance",)))[1]
    assert (plain["distance"][0][inside] == 1).all()


def test_patches_are_drawn_where_labels_are() -> None:
    classes, ids = (np.pad(part, (0, 400), constant_values=value)
                    for part, value in zip(labels(), (IGNORE, 0), strict=True))  # fmt: skip
    empty = np.full_like(classes, IGNORE), np.zeros_like(ids)
    images = [image_of(classes, ids), image_of(*empty, name="b")]
    sampler = PatchSampler(images, (16, 16), (0, 0), 8, 0.0, 0)
    seen = [int(v) for step in range(10) for v in np.unique(sampler.batch(step).targets)]
    for step in range(10):
        for target in sampler.batch(step).targets:
            assert (target != IGNORE).any()
    assert {0, 1} <= set(seen)


def test_draws_from_other_labels_stay_as_they_were() -> None:
    classes, ids = labels()
    sampler = PatchSampler([image_of(classes, ids, sparse=False)], (16, 16), (0, 0), 4, 0.5, 3)
    found = [window for step in range(3) for _, window in sampler.drawn(step)]
    rng, expected = np.random.default_rng([3, 0]), []
    for _ in range(4):
        rng.choice(1, p=[1.0])
        target = None
        if rng.random() < 0.5:
            rng.integers(1)
            places = image_of(classes, ids, sparse=False).positions(3)[0][1]
            target = places[rng.integers(len(places))]
        window = []
        for axis in range(2):
            start = int(rng.integers(0, 17))
            if target is not None:
                start = min(max(int(target[axis]) - int(rng.integers(4, 12)), 0), 16)
            window.append((start, start + 16))
        expected.append(window)
    assert found[:4] == expected


@pytest.mark.parametrize(
    ("kept", "message"),
    [(1, "no background pixel in 1 training image"), (0, "no labelled object in 1 training image")],
)
def test_nothing_to_learn(kept: int, message: str) -> None:
    classes, ids = labels()
    classes[classes != kept] = IGNORE
    with pytest.raises(UserError, match=message):
        PatchSampler([image_of(classes, ids)], (16, 16), (0, 0), 2, 0.5, 0)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_unlabelled_pixels_have_no_gradient(name: str) -> None:
    classes, ids = labels()
    loss = make_loss(name, 2, [0.5, 1.0] if name == "weighted-ce" else None)
    _, maps = make_targets(classes, ids, TargetSettings(maps=tuple(loss.maps), sparse=True))
    logits = torch.randn(1, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    given = {key: torch.from_numpy(np.array(value))[None] for key, value in maps.items()}
    loss(logits, torch.from_numpy(classes.astype(np.int64))[None], given).backward()
    assert logits.grad is not None
    unknown = torch.from_numpy(classes == IGNORE)
    assert float(logits.grad[0][:, unknown].abs().max()) == 0
    assert float(logits.grad[0][:, ~unknown].abs().max()) > 0
