"""Bootstrap intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from unet.evaluation import statistics
from unet.evaluation.statistics import bootstrap_interval

VALUES = st.lists(st.floats(0, 1), min_size=2, max_size=20)


def test_no_value():
    for values in ([], [math.nan, math.nan]):
        mean, low, high, n = bootstrap_interval(values)
        assert all(map(math.isnan, (mean, low, high)))
        assert n == 0


def test_one_value_or_one_group_has_no_interval():
    mean, low, high, n = bootstrap_interval([0.25, math.nan])
    assert (mean, n) == (0.25, 1)
    assert math.isnan(low)
    assert math.isnan(high)
    mean, low, high, n = bootstrap_interval([0.25, 0.75], groups=["a", "a"])
    assert (mean, n) == (0.5, 2)
    assert math.isnan(low)
    assert math.isnan(high)


def test_two_values_by_hand():
    # Resampled means are 0, 0.5, 1 with probability 1/4, 1/2, 1/4.
    assert bootstrap_interval([0, 1]) == (0.5, 0, 1, 2)
    assert bootstrap_interval([0, 1], confidence=0.4) == (0.5, 0.5, 0.5, 2)


def test_groups_are_resampled_whole_and_weighted_by_their_images():
    # Draws of two groups: a a -> 0, b b -> 1, a b -> 3/4 (one image of a, three of b).
    values, groups = [0, 1, 1, 1], ["a", "b", "b", "b"]
    assert bootstrap_interval(values, groups) == (0.75, 0, 1, 4)
    assert bootstrap_interval(values, groups, confidence=0.4) == (0.75, 0.75, 0.75, 4)


def test_nan_is_dropped_with_its_group():
    with_nan = bootstrap_interval([0.1, math.nan, 0.4, 0.9], groups=[1, 2, 3, 4])
    assert with_nan == bootstrap_interval([0.1, 0.4, 0.9], groups=[1, 3, 4])
    assert with_nan.n == 3


def test_groups_of_one_image_are_no_groups():
    values = np.random.default_rng(0).random(12)
    assert bootstrap_interval(values, groups=range(12)) == bootstrap_interval(values)


def test_grouped_images_give_a_wider_interval():
    means = np.random.default_rng(1).random(10)
    values, groups = np.repeat(means, 20), np.repeat(np.arange(10), 20)
    naive, honest = bootstrap_interval(values), bootstrap_interval(values, groups)
    assert honest.high - honest.low > 2 * (naive.high - naive.low)


def test_agrees_with_scipy():
    values = np.random.default_rng(2).beta(5, 2, 40)
    ours = bootstrap_interval(values, n=20000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=width / 30)
    assert ours.high == pytest.approx(theirs.high, abs=width / 30)


def test_same_seed_same_interval():
    values = np.random.default_rng(3).random(9)
    assert bootstrap_interval(values, seed=4) == bootstrap_interval(values, seed=4)
    assert bootstrap_interval(values, seed=4) != bootstrap_interval(values, seed=5)


def test_drawing_in_pieces_changes_nothing(monkeypatch):
    values = np.random.default_rng(6).random(50)
    whole = bootstrap_interval(values)
    monkeypatch.setattr(statistics, "_DRAWS", 170)
    assert bootstrap_interval(values) == whole


@settings(max_examples=50, deadline=None)
@given(VALUES, st.floats(0.5, 0.99))
def test_interval_holds_resampled_means_only(values, confidence):
    mean, low, high, n = bootstrap_interval(values, confidence=confidence, n=200)
    assert mean == pytest.approx(np.mean(values))
    assert n == len(values)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"values": [1, 2], "confidence": 1}, "confidence"),
        ({"values": [1, 2], "n": 0}, "resamplings"),
        ({"values": [1, 2], "groups": ["a"]}, "one group per image"),
        ({"values": [[1, 2]]}, "one value"),
    ],
)
def test_wrong_input_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(**kwargs)
