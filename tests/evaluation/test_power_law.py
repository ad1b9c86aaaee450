"""The power law through a learning curve: its fit, its band, and when it can't tell."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from unet.evaluation import power_law
from unet.evaluation.power_law import (
    FALLS,
    HARDLY,
    MORE,
    POINTS,
    UNITS,
    UNKNOWN,
    WIDE,
    Outlook,
    PowerLaw,
)

N = np.array([10.0, 20.0, 40.0, 80.0])


def scores_at(
    rng: np.random.Generator,
    law: PowerLaw,
    images: int = 60,
    folds: int = 1,
    training: float = 0.0,
    image: float = 0.1,
    own: float = 0.02,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores [image, point] around a law and the fold of each image; standard deviations of a
    training, of an image (the same at all points), and of an image at a point."""
    fold = np.arange(images) % folds
    found = law.at(N) + rng.normal(0, image, (images, 1)) + rng.normal(0, own, (images, len(N)))
    return found + rng.normal(0, training, (folds, len(N)))[fold], fold


def outlook(scores: np.ndarray, fold: np.ndarray, seed: int = 0, draws: int = 400) -> Outlook:
    units = list(range(len(scores)))
    return power_law.outlook(N, scores, units, list(fold), 1.0, draws=draws, seed=seed)


def test_by_hand() -> None:
    # 1 - 1 / sqrt(n) at 1, 4, 16: 0, 1/2, 3/4.
    law = power_law.fit(np.array([1.0, 4.0, 16.0]), np.array([0.0, 0.5, 0.75]))
    assert law == pytest.approx((1, 1, 0.5), abs=1e-5)
    assert law.at(64.0) == pytest.approx(0.875, abs=1e-6)


@given(st.floats(0.3, 1), st.floats(0.1, 2), st.floats(0.1, 1.5), st.integers(3, 8), st.booleans())
def test_it_recovers_what_made_the_points(
    a: float, b: float, c: float, count: int, bounded: bool
) -> None:
    n = 5 * 2.0 ** np.arange(count)
    truth = PowerLaw(a, b, c)
    law = power_law.fit(n, truth.at(n), 1.0 if bounded else math.inf)
    assert law.at(4 * n[-1]) == pytest.approx(float(truth.at(4 * n[-1])), abs=1e-4)
    assert law.c == pytest.approx(c, rel=0.02)
    assert law.a == pytest.approx(a, abs=0.02 * (1 + b))


def test_it_fits_as_well_as_scipy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        n = np.sort(rng.choice(np.arange(4, 400), 6, replace=False)).astype(float)
        y = PowerLaw(0.9, 1.0, 0.5).at(n) + rng.normal(0, 0.02, 6)
        law = power_law.fit(n, y)
        assert law.b >= 0
        assert power_law.EXPONENTS[0] - 1e-9 <= law.c <= power_law.EXPONENTS[1] + 1e-9
        error = float(np.square(law.at(n) - y).sum())
        starts = [(0.9, 1.0, c) for c in (0.1, 0.5, 1.5)]
        bounds = ([-np.inf, 0, power_law.EXPONENTS[0]], [np.inf, np.inf, power_law.EXPONENTS[1]])
        for start in starts:
            found, _ = curve_fit(
                lambda n, a, b, c: a - b * n**-c, n, y, start, bounds=bounds, max_nfev=20_000
            )
            other = PowerLaw(*found)
            assert error <= float(np.square(other.at(n) - y).sum()) * (1 + 1e-6) + 1e-12


def test_bounds_hold() -> None:
    falling = power_law.fit(N, np.array([0.8, 0.7, 0.6, 0.5]), 1.0)
    assert falling.b == 0
    assert falling.a == pytest.approx(0.65)
    # A straight rise through the top: the score can't exceed 1.
    steep = power_law.fit(N, np.array([0.4, 0.6, 0.8, 0.99]), 1.0)
    assert steep.a <= 1
    assert float(steep.at(1e9)) <= 1


def test_a_clear_curve_says_how_many() -> None:
    law = PowerLaw(0.9, 1.2, 0.5)
    scores, fold = scores_at(np.random.default_rng(1), law, images=100, folds=4, training=0.002)
    found = outlook(scores, fold)
    assert found.verdict == MORE
    truth = (1.2 / (1.2 * 80**-0.5 - 0.02)) ** 2 - 80
    assert found.needed.low <= truth <= found.needed.high <= 3 * 80
    assert found.needed.low <= found.needed.middle <= found.needed.high
    assert (found.low <= found.high).all()
    assert found.numbers[0] == pytest.approx(10)
    assert found.numbers[-1] == pytest.approx(power_law.REACH * 80)
    # Same seed, same band; the order of the images does not matter for the law.
    assert (outlook(scores, fold).high == found.high).all()


def test_a_flat_curve_hardly_gains() -> None:
    scores, fold = scores_at(np.random.default_rng(2), PowerLaw(0.8, 0.0, 0.5))
    found = outlook(scores, fold)
    assert (found.verdict, found.reason) == (HARDLY, "")
    assert 0 <= found.gain.high < found.goal
    assert found.needed.low == math.inf


def test_all_points_the_same() -> None:
    found = outlook(np.full((20, 4), 0.7), np.zeros(20, int))
    assert found.verdict == HARDLY
    assert found.law is not None
    assert found.law.at(320.0) == pytest.approx(0.7)


@pytest.mark.parametrize(("level", "known"), [(0.0, False), (0.019, False), (0.021, True)])
def test_a_curve_at_the_bottom_cannot_tell(level: float, known: bool) -> None:
    scores = np.full((20, 4), level)
    found = power_law.outlook((10, 20, 40, 80), scores, range(20), [0] * 20, top=1.0, bottom=0.0)
    assert (found.verdict == HARDLY) == known
    assert known or (found.verdict, found.reason) == (UNKNOWN, power_law.FLOOR)
    # One point above it is enough to see that something can be learned.
    scores[:, 0] = 0.5
    found = power_law.outlook((10, 20, 40, 80), scores, range(20), [0] * 20, top=1.0, bottom=0.0)
    assert found.reason != power_law.FLOOR


def test_rising_noise_widens_the_band_until_nobody_can_tell() -> None:
    scores, fold = scores_at(np.random.default_rng(3), PowerLaw(0.9, 1.2, 0.5), images=100)
    # Points that lie alternately above and below the law.
    found = [
        outlook(scores + noise * np.array([1, -1, 1, -1]), fold) for noise in (0, 0.01, 0.03, 0.06)
    ]
    widths = [each.high[-1] - each.low[-1] for each in found]
    assert widths == sorted(widths)
    assert found[0].verdict == MORE
    assert (found[-1].verdict, found[-1].reason) == (UNKNOWN, WIDE)


def test_folds_that_disagree_widen_the_band() -> None:
    rng, law = np.random.default_rng(3), PowerLaw(0.9, 1.2, 0.5)
    scores, fold = scores_at(rng, law, images=60, folds=3, training=0)
    noise = rng.normal(0, 0.04, (3, 4))
    apart = scores + (noise - noise.mean(axis=0))[fold]  # the points stay where they are
    assert apart.mean(axis=0) == pytest.approx(scores.mean(axis=0))
    near, far = outlook(scores, fold), outlook(apart, fold)
    assert far.high[-1] - far.low[-1] > 1.5 * (near.high[-1] - near.low[-1])


def test_a_falling_curve_cannot_tell() -> None:
    rng = np.random.default_rng(4)
    scores = 0.9 - 0.1 * np.arange(4) + rng.normal(0, 0.02, (40, 4))
    found = outlook(scores, np.arange(40) % 4)
    assert (found.verdict, found.reason) == (UNKNOWN, FALLS)


@pytest.mark.parametrize("numbers", [(), (10,), (10, 20), (10, 10, 20, 20)])
def test_fewer_than_three_points_cannot_tell(numbers: tuple[int, ...]) -> None:
    scores = np.full((30, len(numbers)), 0.5)
    found = power_law.outlook(numbers, scores, range(30), [0] * 30)
    assert (found.verdict, found.reason, found.law) == (UNKNOWN, POINTS, None)
    assert len(found.numbers) == 0
    with pytest.raises(ValueError, match="three or more"):
        power_law.fit(np.array(numbers, float), scores[0])


def test_too_few_test_images_cannot_tell() -> None:
    scores, fold = scores_at(np.random.default_rng(5), PowerLaw(0.9, 1.2, 0.5), images=5)
    found = outlook(scores, fold)
    assert (found.verdict, found.reason) == (UNKNOWN, UNITS)
    assert found.law is not None
    # Ten images of five animals are five units.
    twice = np.repeat(scores, 2, axis=0)
    animals = np.repeat(range(5), 2).tolist()
    assert power_law.outlook(N, twice, animals, [0] * 10).reason == UNITS
    empty = power_law.outlook(N, np.empty((0, 4)), [], [])
    assert (empty.verdict, empty.reason) == (UNKNOWN, POINTS)


def test_an_error_is_the_negative_of_a_score() -> None:
    law = PowerLaw(0.9, 1.2, 0.5)
    scores, fold = scores_at(np.random.default_rng(6), law, images=100, folds=4, training=0.002)
    errors = 1 - scores
    found = power_law.outlook(N, -errors, range(100), fold.tolist(), 0.0, draws=400)
    assert found.law is not None
    assert found.law.a == pytest.approx(outlook(scores, fold).law.a - 1, abs=1e-6)
    assert found.verdict == MORE


def test_wrong_shapes() -> None:
    with pytest.raises(ValueError, match="image, point"):
        power_law.outlook(N, np.zeros((5, 3)), range(5), [0] * 5)


@pytest.mark.parametrize(
    ("images", "folds", "training"), [(20, 1, 0.01), (60, 4, 0.01), (60, 4, 0.003)]
)
def test_the_band_covers_the_truth(images: int, folds: int, training: float) -> None:
    """Of 100 simulated curves, the 95 % band covers the true score with four times the images (an
    extrapolation) about as often as it says. 89 of 100 would be rare for a true coverage of 95 %
    (p = 0.01)."""
    rng = np.random.default_rng(7)
    law, covered = PowerLaw(0.85, 1.0, 0.5), 0
    for seed in range(100):
        scores, fold = scores_at(rng, law, images, folds, training)
        found = outlook(scores, fold, seed, draws=200)
        covered += bool(found.low[-1] <= law.at(4 * N[-1]) <= found.high[-1])
    assert covered >= 89
