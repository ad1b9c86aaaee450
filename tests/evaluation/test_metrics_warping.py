"""Warping error and the other errors of the first ISBI 2012 leader board."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from unet.evaluation.metrics.isbi2012 import Ratio, Slice, pixel_error, rand_error, warping_errors
from unet.evaluation.metrics.warping import RING, Warping, crossing_numbers, warp, warping

CELLS = hnp.arrays(np.bool_, (6, 7))
SURENESS = hnp.arrays(np.float32, (6, 7), elements=st.sampled_from([0.1, 0.2, 0.3, 0.4]))


def two_cells():
    """A 5 x 11 map of two cells of 25 pixels, a membrane one pixel wide between them."""
    cells = np.ones((5, 11), bool)
    cells[:, 5] = False
    return cells


def topology(cells):
    """Numbers of 4-connected cells and of 8-connected membranes, the outside being one."""
    padded = np.pad(cells, 1)
    return ndimage.label(padded)[1], ndimage.label(~padded, np.ones((3, 3)))[1]


def flipped(cells, y, x):
    out = cells.copy()
    out[y, x] ^= True
    return out


# --- warping


def test_a_membrane_that_is_shifted_is_no_error():
    pred = np.ones((5, 11), bool)
    pred[:, 6] = False
    assert warping(two_cells(), pred * 1.0, 0.5) == Warping(0, 0, 0)
    np.testing.assert_array_equal(warp(two_cells(), pred * 1.0, 0.5), pred)


def test_a_wide_membrane_is_no_error():
    pred = two_cells()
    pred[:, 3:8] = False
    assert warping(two_cells(), pred * 1.0, 0.5) == Warping(0, 0, 0)


def test_a_gap_is_a_merger_of_so_many_pixels():
    pred = two_cells()
    pred[2, 5] = True
    assert warping(two_cells(), pred * 1.0, 0.5) == Warping(1, 1, 0)
    # Without any membrane each of its five pixels is one.
    assert warping(two_cells(), np.ones((5, 11)), 0.5) == Warping(5, 5, 0)


def test_a_false_membrane_is_a_split():
    assert warping(np.ones((5, 11), bool), two_cells() * 1.0, 0.5) == Warping(1, 0, 1)


def test_a_false_hole_is_neither():
    pred = np.ones((5, 11), bool)
    pred[2, 2] = False
    assert warping(np.ones((5, 11), bool), pred * 1.0, 0.5) == Warping(1, 0, 0)


def test_an_object_more_or_less_is_neither():
    cell = np.zeros((7, 7), bool)
    cell[2:5, 2:5] = True
    nothing = np.zeros((7, 7))
    # It shrinks to one pixel, which cannot vanish; and in reverse, no object can appear.
    assert warping(cell, nothing, 0.5) == Warping(1, 0, 0)
    assert warping(nothing > 0, cell * 1.0, 0.5) == Warping(9, 0, 0)


def test_a_hole_less_is_no_split_though_the_pixel_is_a_bridge():
    # A ring of cell: without its last bridge the hole joins the outside, the cell stays one.
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    pred = flipped(ring, 0, 1)
    assert warping(ring, pred * 1.0, 0.5) == Warping(1, 0, 0)


def test_the_surest_pixels_flip_first():
    # One of the two membrane pixels may flip, but not both; the more certain one does.
    truth = np.array([[1, 0, 0, 1]], bool)
    for p in ([1, 0.9, 0.6, 1], [1, 0.6, 0.9, 1]):
        expected = np.array([[1, p[1] > p[2], p[2] > p[1], 1]], bool)
        np.testing.assert_array_equal(warp(truth, np.array([p]), 0.5), expected)


def test_pixels_that_are_not_valid_neither_flip_nor_count():
    valid = np.ones((5, 11), bool)
    valid[:, 5] = False
    assert warping(two_cells(), np.ones((5, 11)), 0.5, valid) == Warping(0, 0, 0)
    np.testing.assert_array_equal(warp(two_cells(), np.ones((5, 11)), 0.5, valid), two_cells())


def test_empty_images():
    nothing = np.zeros((3, 4), bool)
    assert warping(nothing, nothing * 1.0, 0.5) == Warping(0, 0, 0)
    assert warping(~nothing, ~nothing * 1.0, 0.5) == Warping(0, 0, 0)
    with pytest.raises(ValueError, match="equal"):
        warping(nothing, np.zeros((3, 5)), 0.5)


def test_simple_points_against_labelling():
    # Of each of the 256 rings: what flipping the centre does to a 5 x 5 map around it.
    for code, number in enumerate(crossing_numbers()):
        cells = np.zeros((3, 3), bool)
        for k, (dy, dx) in enumerate(RING):
            cells[1 + dy, 1 + dx] = code >> k & 1
        assert (number == 1) == (topology(cells) == topology(flipped(cells, 1, 1))), code


def slow_warping(truth, probability, threshold):
    """The definition, pixel by pixel; the whole image is labelled at every step."""
    pred = probability > threshold
    warped = truth.copy()
    while True:
        points = [(x, y) for x in range(truth.shape[1]) for y in range(truth.shape[0])]
        points = [p for p in points if warped[p[1], p[0]] != pred[p[1], p[0]]]
        points.sort(key=lambda p: -abs(float(probability[p[1], p[0]]) - threshold))
        before = len(points)
        for x, y in points:
            if topology(flipped(warped, y, x)) == topology(warped):
                warped[y, x] ^= True
        left = np.argwhere(warped != pred)
        if len(left) == before:
            break
    mergers = splits = 0
    objects, _ = ndimage.label(np.pad(warped, 1))
    for y, x in left:
        around = set(objects[y : y + 3, x : x + 3].ravel()) - {0}
        around = {objects[y + 1 + dy, x + 1 + dx] for dy, dx in RING} - {0}
        if not warped[y, x]:
            mergers += len(around) >= 2
        else:
            cut = topology(flipped(warped, y, x))[0] > topology(warped)[0]
            splits += len(around) >= 2 or cut
    return warped, Warping(len(left), mergers, splits)


@settings(max_examples=60, deadline=None)
@given(CELLS, CELLS, SURENESS)
def test_agrees_with_the_slow_definition(truth, pred, sureness):
    probability = np.where(pred, 0.5 + sureness, 0.5 - sureness)
    warped, counts = slow_warping(truth, probability, 0.5)
    np.testing.assert_array_equal(warp(truth, probability, 0.5), warped)
    assert warping(truth, probability, 0.5) == counts
    assert topology(warped) == topology(truth)


@settings(max_examples=60, deadline=None)
@given(CELLS)
def test_perfect_prediction(cells):
    assert warping(cells, cells * 1.0, 0.5) == Warping(0, 0, 0)


# --- the three errors


def image(truth, probability, valid=None):
    return Slice(truth, probability, np.ones(truth.shape, bool) if valid is None else valid)


def test_errors_by_hand():
    # A gap of one pixel: one region of 51 pixels, 50 of them in two true cells of 25.
    pred = two_cells()
    pred[2, 5] = True
    pairs, true, predicted = 2 * 25 * 24, 2 * 25 * 24, 50 * 49
    one = image(two_cells(), pred * 1.0)
    assert rand_error(one, 0.5) == Ratio(true + predicted - 2 * pairs, true + predicted)
    assert pixel_error(one, 0.5) == Ratio(1, 101)
    assert warping_errors(one, 0.5) == (Ratio(1, 55), Ratio(1, 55))


def test_a_membrane_too_wide_costs_rand_and_pixel_error():
    # A column of each cell is predicted membrane: these pixels are in no predicted pair.
    wide = two_cells()
    wide[:, 4:7] = False
    one = image(two_cells(), wide * 1.0)
    pairs, true = 2 * 20 * 19, 2 * 25 * 24
    assert rand_error(one, 0.5) == Ratio(true - pairs, true + pairs)
    assert pixel_error(one, 0.5) == Ratio(10, 90)
    assert warping_errors(one, 0.5)[1].above == 0


def test_rand_error_is_one_minus_the_f_score_of_pairs():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    truth, pred = rng.random((2, 7, 8)) < 0.6
    above, below = rand_error(image(truth, pred * 1.0), 0.5)
    t, p = (ndimage.label(cells)[0][truth] for cells in (truth, pred))
    first, second = np.triu_indices(len(t), 1)
    same_true = t[first] == t[second]
    same_pred = (p[first] == p[second]) & (p[first] > 0)
    assert above / below == pytest.approx(1 - f1_score(same_true, same_pred))


def test_ignored_pixels_are_left_out():
    valid = np.ones((5, 11), bool)
    valid[:, 8:] = False
    truth = two_cells() & valid
    pred = np.where(valid, two_cells(), False) * 1.0
    one = image(truth, pred, valid)
    other = image(truth, np.where(valid, pred, 1.0), valid)
    for error in (rand_error, pixel_error):
        assert error(one, 0.5) == error(other, 0.5)
        assert error(one, 0.5).above == 0
    assert warping_errors(other, 0.5) == (Ratio(0, 40), Ratio(0, 40))


def test_nothing_is_not_defined():
    nothing = image(np.zeros((4, 4), bool), np.zeros((4, 4)))
    assert rand_error(nothing, 0.5) == pixel_error(nothing, 0.5) == Ratio(0, 0)
    added = image(np.zeros((4, 4), bool), np.ones((4, 4)))
    assert rand_error(added, 0.5) == Ratio(0, 0)
    assert pixel_error(added, 0.5) == Ratio(16, 16)
    assert sum((Ratio(1, 2), Ratio(3, 4)), Ratio(0, 0)) == Ratio(4, 6)
