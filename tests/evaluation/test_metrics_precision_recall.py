"""Precision, recall and average precision from bins of the probability."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, precision_recall_curve

from unet.evaluation.metrics.precision_recall import (
    PROBABILITY_BINS,
    precision_recall,
    probability_counts,
)


def test_curve_by_hand() -> None:
    # Positives at 0.9, 0.6, 0.2; negatives at 0.9, 0.1, 0.1.
    truth = np.array([1, 1, 1, 0, 0, 0], bool)
    curve = precision_recall(probability_counts(truth, np.array([0.9, 0.6, 0.2, 0.9, 0.1, 0.1])))
    assert curve is not None
    np.testing.assert_allclose(curve.thresholds, [57 / 64, 38 / 64, 12 / 64, 6 / 64])
    np.testing.assert_allclose(curve.precision, [1 / 2, 2 / 3, 3 / 4, 3 / 6])
    np.testing.assert_allclose(curve.recall, [1 / 3, 2 / 3, 1, 1])
    np.testing.assert_allclose(curve.f1, [2 / 5, 2 / 3, 6 / 7, 2 / 3])
    assert curve.average_precision == pytest.approx(1 / 3 * (1 / 2 + 2 / 3 + 3 / 4))
    assert curve.positives == 3
    # Above 0.5 are the pixels of the point with the lowest listed threshold from 0.5 on.
    assert curve.thresholds[curve.at(0.5)] == 38 / 64
    assert curve.at(0.0) == 3
    # Nothing is above it: the highest point is the nearest one.
    assert curve.at(1.0) == 0


def test_without_pixels() -> None:
    none = np.zeros(0, bool)
    assert precision_recall(probability_counts(none, np.zeros(0))) is None
    assert precision_recall(probability_counts(np.zeros(3, bool), np.ones(3))) is None
    every = precision_recall(probability_counts(np.ones(3, bool), np.ones(3)))
    assert every is not None
    assert every.average_precision == 1


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="truth has shape"):
        probability_counts(np.zeros(2, bool), np.zeros(3))


@settings(max_examples=60, deadline=None)
@given(
    truth=hnp.arrays(bool, 40),
    p=hnp.arrays(np.float32, 40, elements=st.floats(0, 1, width=32)),
)
def test_against_scikit_learn(truth: Any, p: Any) -> None:
    curve = precision_recall(probability_counts(truth, p))
    if curve is None:
        assert not truth.any()
        return
    # It sees the same bins.
    binned = np.minimum(np.floor(p.astype(float) * PROBABILITY_BINS), PROBABILITY_BINS - 1)
    assert curve.average_precision == pytest.approx(average_precision_score(truth, binned))
    precision, recall, thresholds = precision_recall_curve(truth, binned)
    np.testing.assert_allclose(curve.precision[::-1], precision[:-1])
    np.testing.assert_allclose(curve.recall[::-1], recall[:-1])
    np.testing.assert_allclose(curve.thresholds[::-1] * PROBABILITY_BINS, thresholds)


def test_bins_lose_little() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(20000) < 0.3
    p = np.clip(rng.normal(np.where(truth, 0.65, 0.35), 0.2), 0, 1)
    curve = precision_recall(probability_counts(truth, p))
    assert curve is not None
    assert curve.average_precision == pytest.approx(average_precision_score(truth, p), abs=0.01)


@settings(max_examples=30, deadline=None)
@given(parts=st.lists(st.integers(0, 30), min_size=2, max_size=2))
def test_blocks_add_up(parts: list[int]) -> None:
    rng = np.random.default_rng(sum(parts))
    truth, p = rng.random(60) < 0.5, rng.random(60)
    cut = sum(parts)
    whole = probability_counts(truth, p)
    added = probability_counts(truth[:cut], p[:cut]) + probability_counts(truth[cut:], p[cut:])
    np.testing.assert_array_equal(whole.positives, added.positives)
    np.testing.assert_array_equal(whole.negatives, added.negatives)
