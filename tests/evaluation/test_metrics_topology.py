"""V_rand and V_info of tables and of boundary maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.metrics import adapted_rand_error, variation_of_information

from unet.evaluation.metrics.contingency import contingency, summed
from unet.evaluation.metrics.topology import (
    boundary_map_scores,
    score_thresholds,
    thinned_labels,
    v_info,
    v_rand,
)

LABELS = hnp.arrays(np.int64, (6, 7), elements=st.integers(0, 4))
CELLS = hnp.arrays(np.bool_, (7, 8))
NAMES = {f"v_{kind}{part}" for kind in ("rand", "info") for part in ("", "_split", "_merge")}


def two_cells():
    """A 5 x 11 map of two cells of 25 pixels, a membrane one pixel wide between them."""
    cells = np.ones((5, 11), bool)
    cells[:, 5] = False
    return cells


def singletons(pred):
    """A prediction in which each zero gets its own id."""
    out = pred.astype(np.int64)
    out[pred == 0] = pred.max() + 1 + np.arange(np.count_nonzero(pred == 0))
    return out


def random_cells(seed, shape=(96, 96)):
    rng = np.random.default_rng(seed)
    return np.abs(ndimage.gaussian_filter(rng.normal(size=shape), 3)) > 0.02


# --- tables


def test_table_by_hand():
    # True segments of 4 and 2 pixels; predicted: 3 + 1 of the first, the 1 joined to the second.
    truth = np.array([1, 1, 1, 1, 2, 2, 0, 0])
    pred = np.array([1, 1, 1, 2, 2, 2, 2, 1])
    table = contingency(truth, pred)
    pairs, true, predicted = 9 + 1 + 4, 16 + 4, 9 + 9
    assert v_rand(table) == pytest.approx((pairs / 19, pairs / true, pairs / predicted))
    h_true = -(2 / 3) * math.log2(2 / 3) - (1 / 3) * math.log2(1 / 3)
    h_joint = 1 / 2 * 1 + 1 / 6 * math.log2(6) + 1 / 3 * math.log2(3)
    information = h_true + 1 - h_joint
    expected = (2 * information / (h_true + 1), information / 1, information / h_true)
    assert v_info(table) == pytest.approx(expected)


def test_alpha_weighs_merges_against_splits():
    table = contingency(np.array([1, 1, 1, 1, 2, 2]), np.array([1, 1, 1, 2, 2, 2]))
    for score in (v_rand, v_info):
        assert score(table, alpha=0).score == pytest.approx(score(table).split)
        assert score(table, alpha=1).score == pytest.approx(score(table).merge)
        with pytest.raises(ValueError, match="alpha"):
            score(table, alpha=1.5)


def test_no_foreground_is_not_defined():
    empty = contingency(np.zeros(4, int), np.ones(4, int))
    for table in (empty, summed([])):
        assert all(math.isnan(value) for value in (*v_rand(table), *v_info(table)))


def test_everything_predicted_as_membrane():
    table = contingency(np.array([1] * 8), np.zeros(8, int))
    assert v_rand(table) == pytest.approx((8 / (0.5 * 8 + 0.5 * 64), 8 / 64, 1))
    assert v_info(table) == (0, 0, 1)


@settings(deadline=None)
@given(LABELS.filter(np.any), LABELS)
def test_v_rand_agrees_with_scikit_image(truth, pred):
    # scikit-image counts pairs of different pixels, the challenge also pairs each pixel with
    # itself. And scikit-image takes 0 as one segment, so each zero gets its own id first.
    pred = singletons(pred)
    inside = truth > 0
    n = np.count_nonzero(inside)
    score, split, merge_ = v_rand(contingency(truth, pred))
    sum_true = float(np.sum(np.bincount(truth[inside]).astype(float) ** 2))
    sum_both = split * sum_true
    sum_pred = sum_both / merge_
    assert score == pytest.approx(sum_both / (0.5 * sum_true + 0.5 * sum_pred))
    if sum_true - n < 0.5 or sum_pred - n < 0.5:
        return  # no pair of different pixels: scikit-image divides by zero
    error, precision, recall = adapted_rand_error(truth, pred)
    expected = (sum_both - n) / (0.5 * (sum_true - n) + 0.5 * (sum_pred - n))
    assert 1 - error == pytest.approx(expected, abs=1e-9)
    assert precision == pytest.approx((sum_both - n) / (sum_true - n), abs=1e-9)
    assert recall == pytest.approx((sum_both - n) / (sum_pred - n), abs=1e-9)


@settings(deadline=None)
@given(LABELS.filter(np.any), LABELS)
def test_v_info_agrees_with_scikit_image(truth, pred):
    own = singletons(pred)
    splits, merges = variation_of_information(truth, own, ignore_labels=(0,))
    inside = truth > 0
    p = np.bincount(truth[inside]) / np.count_nonzero(inside)
    h_true = -np.sum(p[p > 0] * np.log2(p[p > 0]))
    information = h_true - merges
    h_pred = information + splits
    score, split, merge_ = v_info(contingency(truth, pred))
    if h_true > 1e-9:
        assert merge_ == pytest.approx(information / h_true, abs=1e-9)
    if h_pred > 1e-9:
        assert split == pytest.approx(information / h_pred, abs=1e-9)
    if h_true + h_pred > 1e-9:
        assert score == pytest.approx(2 * information / (h_true + h_pred), abs=1e-9)


@settings(deadline=None)
@given(LABELS.filter(np.any), LABELS)
def test_each_zero_is_a_segment_of_its_own(truth, pred):
    for score in (v_rand, v_info):
        direct, expanded = (
            score(contingency(truth, pred)),
            score(contingency(truth, singletons(pred))),
        )
        assert direct == pytest.approx(expanded, abs=1e-9)


@settings(deadline=None)
@given(LABELS.filter(np.any), st.permutations(range(1, 5)))
def test_perfect_whatever_the_ids_and_the_background(truth, ids):
    pred = np.array([7, *ids])[truth]
    for score in (v_rand, v_info):
        assert score(contingency(truth, pred)) == pytest.approx((1, 1, 1))


@settings(deadline=None)
@given(LABELS.filter(np.any), LABELS)
def test_scores_lie_between_their_halves(truth, pred):
    for score in (v_rand, v_info):
        total, split, merge_ = score(contingency(truth, pred))
        assert 0 <= total <= 1 + 1e-12
        assert min(split, merge_) - 1e-9 <= total <= max(split, merge_) + 1e-9


# --- boundary maps


def test_two_cells_merged_by_a_gap():
    pred = two_cells()
    pred[2, 5] = True
    got = boundary_map_scores(two_cells(), pred)
    # One region of 50 pixels over two of 25.
    assert set(got) == NAMES
    assert got["v_rand"] == pytest.approx(2 / 3)
    assert (got["v_rand_split"], got["v_rand_merge"]) == pytest.approx((1, 0.5))
    assert (got["v_info"], got["v_info_split"], got["v_info_merge"]) == (0, 1, 0)


def test_one_cell_split_by_a_false_membrane():
    got = boundary_map_scores(np.ones((5, 11), bool), two_cells())
    # Two pieces of 25 pixels and 5 membrane pixels, each alone, of a cell of 55.
    pieces = 2 * 25**2 + 5
    assert got["v_rand"] == pytest.approx(pieces / (0.5 * pieces + 0.5 * 55**2))
    assert (got["v_rand_split"], got["v_rand_merge"]) == pytest.approx((pieces / 55**2, 1))
    assert (got["v_info"], got["v_info_split"], got["v_info_merge"]) == (0, 0, 1)


def test_the_width_of_the_membrane_does_not_matter():
    truth = two_cells()
    thick = truth.copy()
    thick[:, 3:8] = False
    assert boundary_map_scores(truth, thick) == dict.fromkeys(NAMES, 1.0)


def test_a_membrane_that_separates_nothing_vanishes():
    stub = np.ones((9, 9), bool)
    stub[:6, 4] = False
    np.testing.assert_array_equal(thinned_labels(stub), np.ones((9, 9)))
    cells = two_cells()
    cells[2, 2] = False
    np.testing.assert_array_equal(thinned_labels(cells), thinned_labels(two_cells()))


def test_cells_that_touch_at_a_corner_stay_apart():
    corner = np.array([[True, False], [False, True]])
    labels = thinned_labels(corner)
    assert labels[0, 0] != labels[1, 1]
    assert labels[0, 0] > 0
    assert labels[1, 1] > 0


@pytest.mark.parametrize("value", [True, False])
def test_a_map_of_one_kind_is_one_segment(value):
    np.testing.assert_array_equal(thinned_labels(np.full((3, 4), value)), np.ones((3, 4)))
    got = boundary_map_scores(two_cells(), np.full((5, 11), value))
    assert got["v_rand"] == pytest.approx(2 / 3)


def test_wide_membranes_at_the_image_border_still_separate():
    # A skeleton of the membrane is wrong here: it ends before the border.
    cells = np.ones((20, 31), bool)
    cells[:, 12:19] = False
    labels = thinned_labels(cells)
    assert len(np.unique(labels[labels > 0])) == 2
    assert (labels == 0).sum() == 20


def test_slices_are_scored_alone_and_averaged():
    merged = np.ones((5, 11), bool)
    truth = np.stack([two_cells(), two_cells(), np.zeros((5, 11), bool)])
    got = boundary_map_scores(truth, np.stack([two_cells(), merged, merged]))
    assert got["v_rand"] == pytest.approx((1 + 2 / 3) / 2)
    assert got["v_info"] == pytest.approx(1 / 2)


@pytest.mark.filterwarnings("error")
def test_no_true_cell_is_not_defined():
    got = boundary_map_scores(np.zeros((4, 4), bool), np.ones((4, 4), bool))
    assert all(math.isnan(got[name]) for name in NAMES)


@pytest.mark.parametrize(
    ("truth", "pred", "message"),
    [
        (np.ones((4, 4), bool), np.ones((4, 5), bool), "equal"),
        (np.ones(4, bool), np.ones(4, bool), "equal"),
        (np.ones((4, 4)), np.ones((4, 4), bool), "bool"),
    ],
)
def test_wrong_input_is_refused(truth, pred, message):
    with pytest.raises(ValueError, match=message):
        boundary_map_scores(truth, pred)


@settings(max_examples=60, deadline=None)
@given(CELLS.filter(np.any))
def test_perfect_prediction(cells):
    assert boundary_map_scores(cells, cells) == pytest.approx(dict.fromkeys(NAMES, 1.0))


@settings(max_examples=60, deadline=None)
@given(CELLS)
def test_thinning_keeps_the_cells(cells):
    labels = thinned_labels(cells)
    found, count = ndimage.label(cells)
    assert len(np.setdiff1d(labels, 0)) == max(count, 1)
    assert (labels[cells] > 0).all()
    if count:  # each old cell lies in one new segment, and no two in the same
        firsts = [labels[found == number] for number in range(1, count + 1)]
        assert all(len(set(values.tolist())) == 1 for values in firsts)


@pytest.mark.parametrize("seed", range(2))
def test_thinned_membranes_separate_every_pair_of_segments(seed):
    labels = thinned_labels(random_cells(seed))
    for one, other in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        assert not ((one != other) & (one > 0) & (other > 0)).any()


def test_thresholds():
    truth = two_cells()
    probability = np.where(truth, 0.9, 0.4)
    got = score_thresholds(truth, probability, [0.2, 0.4, 0.5])
    assert list(got) == [0.2, 0.4, 0.5]
    assert got[0.2] == boundary_map_scores(truth, np.ones_like(truth))
    assert got[0.4] == got[0.5] == dict.fromkeys(NAMES, 1.0)
    with pytest.raises(ValueError, match="equal"):
        score_thresholds(truth, probability[:, 1:], [0.5])
