"""Intervals of means, and the test of differences."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from unet.data.tested_units import enough
from unet.evaluation import statistics
from unet.evaluation.statistics import (
    far_apart,
    flip_test,
    mean_interval,
    repeated_split_test,
)

VALUES = st.lists(st.floats(0, 1), min_size=2, max_size=20)
UNIT = (0.0, 1.0)
# t of 97.5 % for 1, 2 and 3 degrees of freedom, from a printed table.
T = {1: 12.706, 2: 4.303, 3: 3.182}


def test_no_value():
    for values in ([], [math.nan, math.nan]):
        mean, low, high, n, units, far = mean_interval(values)
        assert all(map(math.isnan, (mean, low, high)))
        assert (n, units, far) == (0, 0, 0)


@pytest.mark.parametrize(
    ("values", "groups", "mean", "n", "units"),
    [
        ([0.25, math.nan], None, 0.25, 1, 1),
        ([0.25, 0.75], ["a", "a"], 0.5, 2, 1),
        # Equal values do not tell how much another one may differ.
        ([0.7, 0.7, 0.7], None, 0.7, 3, 3),
        ([1, 1, 1, 1], None, 1, 4, 4),
    ],
)
def test_no_interval_where_nothing_is_known_of_the_spread(values, groups, mean, n, units):
    found = mean_interval(values, groups, bounds=UNIT)
    assert found.mean == pytest.approx(mean)
    assert (found.n, found.units, found.far) == (n, units, 0)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_three_values_by_hand():
    # Mean 2, standard deviation 1.
    mean, low, high, n, units, far = mean_interval([1, 2, 3])
    assert (mean, n, units, far) == (2, 3, 3, 0)
    assert (low, high) == pytest.approx((2 - T[2] / 3**0.5, 2 + T[2] / 3**0.5), abs=1e-3)


def test_between_two_bounds_by_hand():
    # Mean 0.8, standard error 0.05; logit(0.8) = ln 4, its slope 1 / (0.8 * 0.2).
    margin = T[1] * 0.05 / 0.16
    _, low, high, *_ = mean_interval([0.75, 0.85], bounds=UNIT)
    assert low == pytest.approx(1 / (1 + math.exp(margin) / 4), abs=1e-4)
    assert high == pytest.approx(1 / (1 + math.exp(-margin) / 4), abs=1e-4)


def test_above_one_bound_by_hand():
    margin = T[2] / 3**0.5 / 2
    _, low, high, *_ = mean_interval([1, 2, 3], bounds=(0, math.inf))
    assert (low, high) == pytest.approx((2 * math.exp(-margin), 2 * math.exp(margin)), abs=0.01)


def test_groups_by_hand():
    # Groups of 1 and 3 images with means 0 and 1: sd sqrt(1/2), sum of w^2 (1 + 9) / 16.
    found = mean_interval([0, 1, 1, 1], ["a", "b", "b", "b"])
    assert (found.mean, found.n, found.units) == (0.75, 4, 2)
    margin = T[1] * math.sqrt(0.5 * 10 / 16)
    assert (found.low, found.high) == pytest.approx((0.75 - margin, 0.75 + margin), abs=1e-3)


def test_nan_is_dropped_with_its_group():
    with_nan = mean_interval([0.1, math.nan, 0.4, 0.9], groups=[1, 2, 3, 4])
    assert with_nan == mean_interval([0.1, 0.4, 0.9], groups=[1, 3, 4])
    assert (with_nan.n, with_nan.units) == (3, 3)


def test_groups_of_one_image_are_no_groups():
    values = np.random.default_rng(0).random(12)
    assert mean_interval(values, groups=range(12)) == mean_interval(values)


def test_images_of_a_group_add_no_certainty():
    means = np.random.default_rng(1).random(10)
    values, groups = np.repeat(means, 20), np.repeat(np.arange(10), 20)
    assert mean_interval(values, groups)[:3] == pytest.approx(mean_interval(means)[:3])


@pytest.mark.parametrize("n", [2, 3, 8, 40])
def test_agrees_with_scipy(n):
    values = np.random.default_rng(2).beta(5, 2, n)
    found = mean_interval(values, confidence=0.9)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))


def test_is_that_of_the_bootstrap_where_there_are_many_images():
    values = np.random.default_rng(2).beta(5, 2, 400)
    found = mean_interval(values, bounds=UNIT)
    theirs = stats.bootstrap((values,), np.mean, rng=np.random.default_rng(5)).confidence_interval
    width = theirs.high - theirs.low
    assert found.low == pytest.approx(theirs.low, abs=width / 20)
    assert found.high == pytest.approx(theirs.high, abs=width / 20)


@settings(max_examples=200, deadline=None)
@given(VALUES, st.floats(0.5, 0.99), st.sampled_from([UNIT, (0.0, math.inf), (-1.0, 1.0)]))
def test_interval_holds_the_mean_and_stays_within_bounds(values, confidence, bounds):
    found = mean_interval(values, confidence=confidence, bounds=bounds)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.n == found.units == len(values)
    if not math.isnan(found.low):
        assert bounds[0] <= found.low <= found.mean + 1e-12
        assert found.mean - 1e-12 <= found.high <= bounds[1]


@settings(max_examples=50, deadline=None)
@given(VALUES)
def test_interval_of_the_error_mirrors_that_of_the_score(values):
    score = mean_interval(values, bounds=UNIT)
    error = mean_interval([1 - v for v in values], bounds=UNIT)
    if not math.isnan(score.low + error.low):
        assert (error.low, error.high) == pytest.approx((1 - score.high, 1 - score.low), abs=1e-6)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("n", [3, 4, 8])
def test_intervals_of_few_skewed_scores_cover(n, grouped):
    # 95 % within 3.5 standard errors of the simulation; a percentile bootstrap covers 74 to 88 %.
    rng = np.random.default_rng(n)
    z = rng.normal(size=(1500, n, 1)) + (rng.normal(size=(1500, n, 3)) if grouped else 0)
    scores = stats.beta(12, 2).ppf(stats.norm.cdf(z / (2**0.5 if grouped else 1)))
    groups = np.repeat(np.arange(n), scores.shape[2])
    found = [mean_interval(row.ravel(), groups, bounds=UNIT) for row in scores]
    assert np.mean([i.low <= 12 / 14 <= i.high for i in found]) > 0.93


def test_few_failed_images_are_far_apart():
    assert far_apart(np.array([0.9, 0.88, 0.91, 0.05])) == 1
    assert far_apart(np.array([0.9, 0.88, 0.91, 0.9, 0.05, 0.1])) == 2
    assert far_apart(np.array([1.0, 1.0, 1.0, 0.2])) == 1
    # Widely spread scores without an outlier; and an outlier that is not a failure.
    assert far_apart(np.array([0.1, 0.3, 0.5, 0.7, 0.9])) == 0
    assert far_apart(np.array([0.90, 0.91, 0.90, 0.91, 0.80])) == 0
    # For an error, the large values are far.
    assert far_apart(np.array([1.0, 1.2, 0.9, 1.1, 8.0])) == 1
    assert far_apart(np.array([0.5])) == 0
    # So many outliers that their share is known.
    assert far_apart(np.array([0.9, 0.91, 0.89] * 20 + [0.05] * 9)) == 9
    assert far_apart(np.array([0.9, 0.91, 0.89] * 20 + [0.05] * 10)) == 0


def test_ordinary_scores_are_not_far_apart():
    rng = np.random.default_rng(0)
    for n in (3, 6, 12, 24):
        assert np.mean([far_apart(rng.beta(12, 2, n)) > 0 for _ in range(500)]) < 0.03


def test_of_groups_it_is_the_groups_that_are_far():
    values = [0.9, 0.85, 0.88, 0.92, 0.05, 0.02]
    assert mean_interval(values, list("aabbcc")).far == 1
    assert mean_interval([0.9, 0.5] * 3, list("aabbcc")).far == 0


def test_flips_of_three_units_by_hand():
    # Sums over the flips: 6, and 0, 2, 4 in absolute value; twice each. Only all alike reach 6.
    assert flip_test(np.array([[1.0], [2.0], [3.0]]), 100, 0) == pytest.approx([1 / 4])
    # 4 is reached by 4 of 8.
    assert flip_test(np.array([[-1.0], [2.0], [3.0]]), 100, 0) == pytest.approx([1 / 2])
    assert flip_test(np.zeros((3, 1)), 100, 0) == pytest.approx([1])
    assert flip_test(np.zeros((0, 2)), 100, 0) == pytest.approx([1, 1])


def test_enough_units_for_the_level():
    # The smallest p of n units is 2 / 2^n.
    assert [enough(n, 0.95) for n in (1, 5, 6)] == [False, False, True]
    assert [enough(n, 0.99) for n in (7, 8)] == [False, True]
    assert flip_test(np.ones((6, 1)), 100, 0) == pytest.approx([2 / 2**6])


@pytest.mark.parametrize("n", [6, 9, 12])
def test_flips_agree_with_scipy(n):
    change = np.random.default_rng(n).normal(0.5, 1, n)
    theirs = stats.permutation_test(
        (change,), lambda x, axis: np.mean(x, axis), permutation_type="samples", n_resamples=10000,
        vectorized=True,
    )  # fmt: skip
    assert flip_test(change[:, None], 100, 0) == pytest.approx([theirs.pvalue])


def test_random_flips_are_close_to_a_t_test_and_repeatable():
    change = np.random.default_rng(3).normal(0.25, 1, (60, 1))
    found = flip_test(change, 20000, 1)
    assert found == pytest.approx([stats.ttest_1samp(change[:, 0], 0).pvalue], abs=0.01)
    assert flip_test(change, 20000, 1) == found
    assert flip_test(change, 20000, 2) != found


def test_largest_statistic_of_all_comparisons_by_hand():
    change = np.random.default_rng(4).normal(0.3, 1, (5, 3))
    found = flip_test(change, 100, 0)
    norms = np.sqrt((change**2).sum(axis=0))
    flips = np.array(list(product([1, -1], repeat=5))) @ change
    largest = np.abs(flips / norms).max(axis=1)
    expected = [np.mean(largest >= t - 1e-9) for t in np.abs(change.sum(axis=0)) / norms]
    assert found == pytest.approx(expected)
    alone = [flip_test(change[:, [k]], 100, 0)[0] for k in range(3)]
    assert all(corrected >= single for corrected, single in zip(found, alone, strict=True))


@pytest.mark.parametrize("n", [8, 40])
def test_drawing_in_pieces_changes_nothing(monkeypatch, n):
    change = np.random.default_rng(6).normal(0.3, 1, (n, 3))
    whole = flip_test(change, 500, 0)
    # Whole bytes of random bits per flip, so pieces draw the same ones.
    monkeypatch.setattr(statistics, "_DRAWS", 40 * 16)
    assert flip_test(change, 500, 0) == pytest.approx(whole)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 16), st.integers(1, 6), st.integers(0, 1000))
def test_p_is_a_probability_and_blind_to_order_and_sign(n, comparisons, seed):
    rng = np.random.default_rng(seed)
    change = rng.normal(size=(n, comparisons)) * rng.integers(0, 2, (n, comparisons))
    p = flip_test(change, 200, 0)
    assert ((p > 0) & (p <= 1)).all()
    order = rng.permutation(comparisons)
    signs = rng.choice([-1, 1], comparisons)
    assert flip_test(change[:, order] * signs, 200, 0) == pytest.approx(p[order])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"values": [1, 2], "confidence": 1}, "confidence"),
        ({"values": [1, 2], "groups": ["a"]}, "one group per image"),
        ({"values": [[1, 2]]}, "one value"),
    ],
)
def test_wrong_input_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        mean_interval(**kwargs)


def test_differences_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="unit, comparison"):
        flip_test(np.ones(3), 100, 0)


def test_repeated_trainings_by_hand():
    # Means 0.2 and 0.1; standard deviations 0.1 and 0.1; 3 trainings.
    table = np.array([[0.1, 0.0], [0.2, 0.1], [0.3, 0.2]])
    # t = 0.2 / (0.1 / sqrt 3) = 3.464 and 1.732; with 2 degrees of freedom
    # p = 1 - t / sqrt(t^2 + 2) = 0.0742 and 0.2254. Holm: 0.0742 * 2, then 0.2254 * 1.
    assert repeated_split_test(table) == pytest.approx([0.1484, 0.2254], abs=1e-4)
    # With 0.25 scored images per training image: variance / 3 + variance / 4, so
    # t = 0.2 / (0.1 * sqrt 0.5833) = 2.619, p = 0.1201.
    assert repeated_split_test(table[:, :1], 0.25) == pytest.approx([0.1201], abs=1e-4)


def test_repeated_trainings_without_an_answer():
    assert np.isnan(repeated_split_test(np.ones((1, 2)))).all()
    assert repeated_split_test(np.ones((5, 0))).shape == (0,)
    # No difference at all speaks for none. One that never varies has no variance: p isn't known.
    found = repeated_split_test(np.array([[0, 0.1], [0, 0.1]]))
    assert found[0] == 1
    assert np.isnan(found[1])
    # It counts as a comparison all the same: t = 3.464, p = 0.0742, times 2.
    found = repeated_split_test(np.array([[0.1, 0.3], [0.2, 0.3], [0.3, 0.3]]))
    assert found == pytest.approx([0.1484, math.nan], abs=1e-4, nan_ok=True)
    with pytest.raises(ValueError, match="comparison"):
        repeated_split_test(np.ones(3))


@given(st.integers(2, 12), st.integers(1, 6), st.integers(0, 99))
def test_repeated_trainings_are_a_paired_t_test_with_holm(n, comparisons, seed):
    table = np.random.default_rng(seed).normal(0.3, 1, (n, comparisons))
    alone = stats.ttest_1samp(table, 0).pvalue
    # Holm by its definition: the largest of the smaller p-values times those not yet rejected.
    expected = [
        min(1, max(q * (alone >= q).sum() for q in alone if q <= p)) for p in alone
    ]  # fmt: skip
    found = repeated_split_test(table)
    assert found == pytest.approx(expected)
    assert (repeated_split_test(table, 0.3) >= found - 1e-12).all()
    shuffled = np.random.default_rng(seed).permutation(comparisons)
    assert repeated_split_test(table[:, shuffled]) == pytest.approx(found[shuffled])
