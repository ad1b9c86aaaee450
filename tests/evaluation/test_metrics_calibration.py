"""ECE, Brier score and reliability bins."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from unet.evaluation.metrics.calibration import BINS, calibration_metrics, reliability, statements
from unet.evaluation.metrics.chunks import CHUNK

TWO, THREE = ("background", "cell"), ("background", "cell", "wall")


def rows_of(truth, probabilities, names=TWO):
    truth, probabilities = np.asarray(truth, np.uint8), np.asarray(probabilities)
    found = calibration_metrics(reliability(truth, probabilities), names)
    return {(row.class_, row.metric): row for row in found}


def random_image(classes, shape=(40, 50), seed=0):
    """Truth, and overconfident probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (classes, *shape))
    noise = rng.gumbel(size=logits.shape)
    sharp = np.exp(1.6 * logits)
    p = (sharp / sharp.sum(axis=0)).astype(np.float32)
    return (logits + noise).argmax(axis=0).astype(np.uint8), p


def test_by_hand():
    cell = np.array([[0.1, 0.12, 0.9, 0.95, 1.0, 0.5]])
    truth = [[0, 1, 1, 1, 0, 255]]
    got = rows_of(truth, np.stack([1 - cell, cell]))
    assert {class_ for class_, _ in got} == {"cell"}
    errors = [0.1, 0.88, 0.1, 0.05, 1]
    assert got["cell", "brier"].value == pytest.approx(np.mean(np.square(errors)))
    assert got["cell", "brier"].weight == 5
    # Bins of 1/15: 0.1 and 0.12 in the second, 0.9 in the 14th, 0.95 and 1 in the last.
    assert got["cell", "reliability_02"][2:] == (1 / 2, 2)
    assert got["cell", "confidence_02"].value == pytest.approx(0.11)
    assert got["cell", "reliability_14"][2:] == (1, 1)
    assert got["cell", "confidence_15"].value == pytest.approx(0.975)
    assert got["cell", "reliability_15"].value == 0.5
    assert math.isnan(got["cell", "reliability_08"].value)
    gaps = 2 * abs(0.5 - 0.11) + abs(1 - 0.9) + 2 * abs(0.5 - 0.975)
    assert got["cell", "ece"].value == pytest.approx(gaps / 5)


def test_perfect_and_all_ignored():
    truth = np.array([[0, 1, 1]])
    got = rows_of(truth, np.stack([1.0 - truth, truth * 1.0]))
    assert got["cell", "ece"].value == got["cell", "brier"].value == 0
    got = rows_of(np.full((1, 3), 255), np.zeros((2, 1, 3)))
    assert all(math.isnan(row.value) for row in got.values())


def test_what_is_stated():
    assert statements(TWO) == ("cell",)
    assert statements(THREE) == ("cell", "wall", "all")
    with pytest.raises(ValueError, match="shape"):
        reliability(np.zeros((2, 3), np.uint8), np.zeros((2, 3, 2)))


@pytest.mark.parametrize("number", [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK + 77])
def test_chunks_count_each_pixel_once(number):
    rng = np.random.default_rng(number)
    truth = rng.integers(0, 2, number).astype(np.uint8)
    p = (rng.random(number) ** 5).astype(np.float32)
    found = reliability(truth, p[None], first=1)
    at = (p.astype(np.float64) * BINS).astype(np.intp)
    np.testing.assert_array_equal(found.pixels[0], np.bincount(at, minlength=BINS))
    np.testing.assert_array_equal(found.right[0], np.bincount(at[truth == 1], minlength=BINS))
    np.testing.assert_allclose(found.confidence[0], np.bincount(at, p, BINS), rtol=1e-13)
    assert found.squares[0] == pytest.approx(((p.astype(np.float64) - truth) ** 2).sum(), rel=1e-13)
    both = reliability(truth, np.stack([1 - p, p]))  # the first class may be left out
    np.testing.assert_array_equal(found.squares, both.squares)


def test_two_classes_agree_with_scikit_learn():
    truth, p = random_image(2)
    got = rows_of(truth, p)
    flat = (truth.ravel() == 1, p[1].ravel().astype(np.float64))
    assert got["cell", "brier"].value == pytest.approx(brier_score_loss(*flat))
    right, confidence = calibration_curve(*flat, n_bins=BINS)
    names = [f"{b:02d}" for b in range(1, BINS + 1)]
    for expected, kind in ((right, "reliability"), (confidence, "confidence")):
        found = np.array([got["cell", f"{kind}_{name}"].value for name in names])
        np.testing.assert_allclose(found[~np.isnan(found)], expected)


def test_ece_agrees_with_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    truth, p = random_image(2)
    theirs = functional.binary_calibration_error(
        torch.as_tensor(p[1]).flatten(), torch.as_tensor(truth).flatten(), n_bins=BINS
    )
    assert rows_of(truth, p)["cell", "ece"].value == pytest.approx(float(theirs), abs=1e-6)
    assert float(theirs) > 0.02
    truth, p = random_image(3)
    got = rows_of(truth, p, THREE)
    flat = torch.as_tensor(p.reshape(3, -1).T.copy()), torch.as_tensor(truth).flatten().long()
    theirs = functional.multiclass_calibration_error(*flat, num_classes=3, n_bins=BINS)
    assert got["all", "ece"].value == pytest.approx(float(theirs), abs=1e-6)
    squares = (p - np.eye(3)[truth].transpose(2, 0, 1)) ** 2
    assert got["all", "brier"].value == pytest.approx(squares.sum(axis=0).mean())
    assert got["wall", "brier"].value == pytest.approx(squares[2].mean())


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(np.uint8, (2, 5, 6), elements=st.sampled_from([0, 1, 2, 255])),
    hnp.arrays(np.float16, (3, 2, 5, 6), elements=st.floats(0, 1, width=16)),
    st.integers(0, 5),
)
def test_blocks_of_a_volume_add_up(truth, p, cut):
    parts = [reliability(truth[:, rows], p[:, :, rows]) for rows in (slice(cut), slice(cut, None))]
    both, whole = parts[0] + parts[1], reliability(truth, p)
    np.testing.assert_array_equal(both.pixels, whole.pixels)
    np.testing.assert_array_equal(both.right, whole.right)
    np.testing.assert_allclose(both.confidence, whole.confidence)
    np.testing.assert_allclose(both.squares, whole.squares)
    assert (whole.pixels.sum(axis=1) == np.count_nonzero(truth != 255)).all()
    assert (whole.right <= whole.pixels).all()
