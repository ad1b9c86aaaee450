"""Joined datasets: how often patches come from each, and their common score."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import discs
from unet.training.balance import common_score, parted, pixel_weights
from unet.training.patch_targets import TargetSettings
from unet.training.sampling import PatchSampler, TrainingImage

AREA = st.floats(1e3, 1e9)
WEIGHT = st.floats(0.01, 100)


@given(
    data=st.dictionaries(
        st.sampled_from("abcd"), st.lists(AREA, min_size=1, max_size=5), min_size=1
    ),
    weights=st.lists(WEIGHT, min_size=4, max_size=4),
)
def test_each_dataset_gets_its_share_whatever_its_size(
    data: dict[str, list[float]], weights: list[float]
) -> None:
    balance = list(zip("abcd", weights, strict=True))
    found = np.array(pixel_weights(data, balance))
    areas = np.array([area for part in data.values() for area in part])
    chances = found * areas / (found * areas).sum()
    total, at = sum(dict(balance)[name] for name in data), 0
    for name, part in data.items():
        own = chances[at : at + len(part)]
        # The dataset by its weight, then its images by their pixels.
        assert own.sum() == pytest.approx(dict(balance)[name] / total)
        np.testing.assert_allclose(own / own.sum(), np.array(part) / sum(part))
        at += len(part)


def image(name: str, side: int) -> TrainingImage:
    return TrainingImage(name, *discs(len(name), (side, side)), TargetSettings(), True)


@settings(max_examples=15, deadline=None)
@given(
    weight=st.sampled_from([1.0, 1.0, 2.0, 5.0]), small=st.integers(1, 3), seed=st.integers(0, 99)
)
def test_patches_are_drawn_from_each_dataset_by_its_weight(
    weight: float, small: int, seed: int
) -> None:
    # One image of 20 times the pixels of a small one: without balance it would take nearly all.
    images = [image(f"a.{k}", 32) for k in range(small)] + [image("b.0", 144)]
    areas = {"a": [32.0**2] * small, "b": [144.0**2]}
    weights = pixel_weights(areas, [("a", weight), ("b", 1.0)])
    sampler = PatchSampler(images, (16, 16), (0, 0), 8, 0.5, seed, weights)
    drawn = Counter(
        sampler._draw(np.random.default_rng([seed, step]))[0].name[0] for step in range(1500)
    )
    expected = weight / (weight + 1)
    # Four standard errors.
    bound = 4 * math.sqrt(expected * (1 - expected) / 1500)
    assert drawn["a"] / 1500 == pytest.approx(expected, abs=bound)


def test_without_weights_the_batches_are_as_before() -> None:
    images = [image("a.0", 32), image("b.0", 48)]
    plain = PatchSampler(images, (16, 16), (0, 0), 4, 0.5, 3)
    even = PatchSampler(images, (16, 16), (0, 0), 4, 0.5, 3, [1.0, 1.0])
    for step in range(3):
        np.testing.assert_array_equal(plain.batch(step).images, even.batch(step).images)


ENTRIES: dict[str, Any] = {f"{d}.{k}": {"dataset": d} for d in "ab" for k in range(2)}


def test_images_by_dataset_in_the_order_of_the_config() -> None:
    ids = sorted(ENTRIES)
    assert parted(ids, str, ENTRIES, []) == {"": ids}
    found = parted(ids, str, ENTRIES, [("b", 1.0), ("a", 1.0), ("c", 1.0)])
    assert found == {"b": ["b.0", "b.1"], "a": ["a.0", "a.1"], "c": []}
    assert list(found) == ["b", "a", "c"]


def test_the_common_score_by_hand() -> None:
    assert common_score({"": (0.3, 0.7)}, []) == (0.3, 0.7)
    found = {"a": (1.0, 0.5), "b": (3.0, 0.9)}
    assert common_score(found, [("a", 1.0), ("b", 1.0)]) == pytest.approx((2.0, 0.7))
    assert common_score(found, [("a", 3.0), ("b", 1.0)]) == pytest.approx((1.5, 0.6))
    one = {"a": (math.nan, math.nan), "b": (3.0, 0.9)}
    assert common_score(one, [("a", 5.0), ("b", 1.0)]) == pytest.approx((3.0, 0.9))
    assert all(map(math.isnan, common_score({"a": (math.nan,) * 2}, [("a", 1.0)])))
