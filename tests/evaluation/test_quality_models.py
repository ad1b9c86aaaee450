"""Conformal intervals and the predicted score: by hand, by simulation, and what always holds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from unet.evaluation.quality.conformal import (
    count_interval,
    count_residual,
    margin,
    needed,
    rank,
)
from unet.evaluation.quality.score_model import (
    LEAST_IMAGES,
    STRENGTHS,
    fit_scores,
    rank_correlation,
)

# Intervals.


def test_the_quantile_by_hand() -> None:
    # ceil(5 * 0.75) = 4: the fourth smallest of 4.
    assert margin([0.3, 0.1, 0.4, 0.2], range(4), 0.75) == 0.4
    # ceil(5 * 0.6) = 3.
    assert margin([0.3, 0.1, 0.4, 0.2], range(4), 0.6) == 0.3
    assert rank(19, 0.95) == 19
    assert rank(20, 0.95) == 20
    assert rank(39, 0.95) == 38


def test_it_is_refused_below_the_number_that_the_level_needs() -> None:
    assert [needed(level) for level in (0.95, 0.9, 0.8, 0.99, 0.5)] == [19, 9, 4, 99, 1]
    assert margin([0.1] * 18, range(18), 0.95) is None
    assert margin([0.1] * 19, range(19), 0.95) == 0.1
    assert margin([], [], 0.5) is None
    with pytest.raises(ValueError, match="between 0 and 1, got 1"):
        needed(1)


@given(st.floats(0.01, 0.999))
def test_one_image_less_is_too_few(level: float) -> None:
    least = needed(level)
    assert margin([0.0] * least, range(least), level) == 0
    assert margin([0.0] * (least - 1), range(least - 1), level) is None


def test_counts_by_hand() -> None:
    assert count_residual(16, 25) == 1
    # From (4 - 1)^2 to (4 + 1)^2.
    assert count_interval(16, 1.0) == (9, 25)
    assert count_interval(16, 1.05) == (9, 25)
    assert count_interval(0, 1.5) == (0, 2)
    assert count_interval(1, 2.0) == (0, 9)
    assert count_interval(7, 0.0) == (7, 7)


@given(st.integers(0, 10**6), st.floats(0, 30), st.integers(0, 10**6))
def test_an_interval_has_exactly_the_counts_within_the_margin(
    count: int, half: float, other: int
) -> None:
    low, high = count_interval(count, half)
    assert 0 <= low <= count <= high
    off = count_residual(count, other) - half
    if abs(off) > 1e-6:
        assert (low <= other <= high) == (off < 0)


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_the_coverage_is_the_promised_one(level: float) -> None:
    """Counts of images with 5 to 80 objects, of which a network finds about 85 %."""
    rng = np.random.default_rng(0)
    hits, repetitions, images = 0, 3000, 30
    for _ in range(repetitions):
        true = rng.integers(5, 80, images + 1)
        found = rng.binomial(true, rng.beta(17, 3, images + 1)) + rng.poisson(1, images + 1)
        residuals = [count_residual(p, t) for p, t in zip(found[:-1], true[:-1], strict=True)]
        half = margin(residuals, range(images), level)
        assert half is not None
        low, high = count_interval(int(found[-1]), half)
        hits += low <= true[-1] <= high
    # At least the level, at most 1 / (n + 1) more and ties of whole numbers.
    error = 3 * math.sqrt(level * (1 - level) / repetitions)
    assert level - error <= hits / repetitions <= level + 1 / (images + 1) + error + 0.01


# Groups.


def test_groups_have_the_same_weight_by_hand() -> None:
    # Of (2 + 1) * 0.5 = 1.5 groups: a is whole at 0.2, and half of b is up to 0.3.
    values, groups = [0.4, 0.1, 0.3, 0.2], ["b", "a", "b", "a"]
    assert margin(values, groups, 0.5) == 0.3
    # Of 3 * 0.6 = 1.8 groups.
    assert margin(values, groups, 0.6) == 0.4
    # 3 * 0.7 = 2.1 groups are more than there are, though the images would do.
    assert margin(values, groups, 0.7) is None
    assert margin(values, range(4), 0.7) == 0.4


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), min_size=1, max_size=40),
    st.floats(0.05, 0.95),
    st.integers(2, 5),
    st.randoms(use_true_random=False),
)
def test_more_of_the_same_images_change_no_margin(
    pairs: list[tuple[int, int]], level: float, times: int, random: Any
) -> None:
    groups, residuals = [group for group, _ in pairs], [float(value) for _, value in pairs]
    found = margin(residuals, groups, level)
    number = len(set(groups))
    assert (found is None) == (rank(number, level) > number)
    assert margin(residuals * times, groups * times, level) == found
    random.shuffle(pairs)
    assert margin([float(value) for _, value in pairs], [g for g, _ in pairs], level) == found
    # An image each: the rank of plain conformal prediction.
    plain, place = margin(residuals, range(len(pairs)), level), rank(len(pairs), level)
    assert plain == (sorted(residuals)[place - 1] if place <= len(pairs) else None)


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_the_coverage_is_the_promised_one_for_images_of_a_new_group(level: float) -> None:
    """Images of a group err together, and small groups are the bad ones: a quantile of the images
    covers too little."""
    rng = np.random.default_rng(1)
    hits, repetitions, number = 0, 2000, 24
    for _ in range(repetitions):
        spread = rng.lognormal(0, 0.7, number + 1)
        sizes = 1 + rng.poisson(4 / spread)
        offset = rng.normal(0, spread)
        groups = np.repeat(np.arange(number), sizes[:-1])
        residuals = np.abs(offset[groups] + rng.normal(0, 0.3, len(groups)))
        half = margin(residuals.tolist(), groups.tolist(), level)
        assert half is not None
        new = abs(offset[-1] + rng.normal(0, 0.3))
        hits += new <= half
    error = 3 * math.sqrt(level * (1 - level) / repetitions)
    assert level - error <= hits / repetitions <= level + 1 / (number + 1) + error


def test_few_groups_promise_nothing_however_many_images() -> None:
    """4 groups of 10 images: a quantile of the images would cover 85 % at a level of 95 %."""
    residuals = np.random.default_rng(0).random(40).tolist()
    groups = np.repeat(np.arange(4), 10).tolist()
    assert margin(residuals, groups, 0.95) is None
    assert margin(residuals, groups, 0.8) is not None


def test_no_interval_of_scores_with_too_few_groups() -> None:
    values, scores = images(72)
    for number, there in ((18, False), (36, True)):
        model = fit_scores(values, scores, [k % number for k in range(72)], 0.95)
        assert model is not None
        assert model.groups == number
        assert (model.half is not None) == there


# Scores.


def images(number: int, seed: int = 0, noise: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Features [N, 3], of which the first tells the score [N]."""
    rng = np.random.default_rng(seed)
    values = rng.random((number, 3))
    return values, np.clip(0.2 + 0.6 * values[:, 0] + rng.normal(0, noise, number), 0, 1)


def test_what_tells_the_score_is_found() -> None:
    values, scores = images(30)
    model = fit_scores(values, scores, range(30), 0.95)
    assert model is not None
    new, true = images(40, seed=1)
    found = [model.score(row) for row in new]
    assert spearmanr(found, true).statistic > 0.9
    assert model.fitted.weights[0] > 5 * model.fitted.weights[1:].max()
    assert model.half is not None
    assert model.half < 0.2


def test_features_that_tell_nothing_give_the_mean() -> None:
    rng = np.random.default_rng(3)
    values, scores = rng.random((12, 3)), np.linspace(0.4, 0.8, 12)
    # The best image by each feature has the worst score: no weight may be below 0.
    values = np.sort(values, axis=0)[::-1]
    model = fit_scores(values, scores, range(12), 0.8)
    assert model is not None
    assert model.fitted.weights.tolist() == [0, 0, 0]
    assert model.score(values[0]) == pytest.approx(0.6)
    assert model.strength == STRENGTHS[-1]


def test_constant_scores_and_features() -> None:
    model = fit_scores(np.ones((19, 2)), np.full(19, 0.7), range(19), 0.95)
    assert model is not None
    assert model.score(np.array([1.0, 1.0])) == pytest.approx(0.7)
    assert model.half == pytest.approx(0, abs=1e-12)
    assert model.score(np.array([9.0, 9.0])) == pytest.approx(0.7)
    # Far worse than anything seen: named, even if the feature was constant.
    assert model.beyond(np.array([0.0, 1.0])).tolist() == [10.0, 0.0]
    assert math.isnan(rank_correlation(model.left_out.tolist(), [0.7] * 19))


def test_too_few_images_or_groups() -> None:
    values, scores = images(LEAST_IMAGES)
    assert fit_scores(values, scores, range(LEAST_IMAGES), 0.8) is not None
    assert fit_scores(values[1:], scores[1:], range(LEAST_IMAGES - 1), 0.8) is None
    assert fit_scores(values, scores, [0, 0, *range(LEAST_IMAGES - 2)], 0.8) is None
    assert fit_scores(np.empty((0, 3)), np.empty(0), [], 0.8) is None


def test_no_interval_below_the_number_that_its_level_needs() -> None:
    for number, there in ((18, False), (19, True)):
        values, scores = images(number)
        model = fit_scores(values, scores, range(number), 0.95)
        assert model is not None
        assert (model.half is not None) == there


def test_images_of_a_group_are_left_out_together() -> None:
    # Each group has its own score, which a feature gives away only within the group.
    values = np.repeat(np.random.default_rng(0).random((10, 1)), 4, axis=0)
    scores = np.repeat(np.random.default_rng(1).random(10), 4)
    groups = np.repeat(np.arange(10), 4).tolist()
    model = fit_scores(values, scores, groups, 0.8)
    assert model is not None
    for group in range(10):
        left = model.left_out[4 * group : 4 * group + 4]
        assert np.ptp(left) == pytest.approx(0, abs=1e-12)
    rest = np.delete(scores, slice(0, 4))
    if math.isinf(model.strength):
        assert model.left_out[0] == pytest.approx(rest.mean())


@given(st.integers(0, 100), st.integers(0, 2), st.floats(0, 3))
@settings(max_examples=40, deadline=None)
def test_a_better_feature_never_gives_a_worse_score(seed: int, which: int, more: float) -> None:
    values, scores = images(14, seed, noise=0.3)
    model = fit_scores(values, scores, range(14), 0.8)
    assert model is not None
    one = np.random.default_rng(seed).normal(0.5, 1, 3)
    better = one.copy()
    better[which] += more
    assert model.score(better) >= model.score(one) - 1e-12
    assert (model.beyond(better) <= model.beyond(one) + 1e-12).all()
    # Nothing is extrapolated upwards.
    assert 0 <= model.score(better) <= scores.max()
    assert model.score(np.full(3, 1e6)) == pytest.approx(model.score(values.max(axis=0)))
    # Unknown features are those of a usual image.
    assert model.score(np.full(3, np.nan)) == pytest.approx(scores.mean())


@given(st.integers(0, 50), st.permutations(range(12)))
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_images_does_not_matter(seed: int, order: list[int]) -> None:
    values, scores = images(12, seed)
    one = fit_scores(values, scores, range(12), 0.8)
    other = fit_scores(values[order], scores[order], order, 0.8)
    assert one is not None
    assert other is not None
    new = np.random.default_rng(seed).random(3)
    assert one.score(new) == pytest.approx(other.score(new), abs=1e-9)
    assert one.half == pytest.approx(other.half, abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=20))
def test_the_rank_correlation_is_spearmans(pairs: list[tuple[int, int]]) -> None:
    one, other = ([float(pair[k]) for pair in pairs] for k in (0, 1))
    found = rank_correlation(one, other)
    if len(set(one)) == 1 or len(set(other)) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(spearmanr(one, other).statistic)
    assert math.isnan(rank_correlation(one[:2], other[:2]))
