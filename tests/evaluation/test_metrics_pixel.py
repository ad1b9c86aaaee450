"""Confusion matrices and the metrics of class maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sk

from unet.evaluation.metrics.pixel import confusion, pixel_metrics

NAMES = ["background", "cell", "border"]


def class_maps(count=2, shape=(6, 7), classes=3):
    one = hnp.arrays(np.uint8, shape, elements=st.integers(0, classes - 1))
    return st.tuples(*[one] * count)


def as_dict(matrix, names=NAMES):
    return {row[:2]: row.value for row in pixel_metrics(matrix, names)}


def test_hand_computed():
    truth = np.array([[0, 0, 1, 1], [0, 255, 1, 1]], np.uint8)
    pred = np.array([[0, 1, 1, 1], [0, 2, 0, 1]], np.uint8)
    matrix = confusion(truth, pred, 3)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, [[2, 1, 0], [1, 3, 0], [0, 0, 0]])
    got = as_dict(matrix)
    assert got["all", "pixel_error"] == pytest.approx(2 / 7)
    assert got["cell", "precision"] == pytest.approx(3 / 4)
    assert got["cell", "recall"] == pytest.approx(3 / 4)
    assert got["cell", "iou"] == pytest.approx(3 / 5)
    assert got["cell", "dice"] == pytest.approx(6 / 8)
    assert got["background", "iou"] == pytest.approx(2 / 4)
    # "border" is in neither map (its one pixel is ignored): not defined, and not in the mean.
    for metric in ("precision", "recall", "iou", "dice"):
        assert math.isnan(got["border", metric])
    assert got["foreground-mean", "iou"] == pytest.approx(3 / 5)
    assert got["foreground-mean", "dice"] == pytest.approx(6 / 8)


def test_order_of_rows():
    rows = pixel_metrics(np.eye(2, dtype=np.int64), ["background", "cell"])
    assert [row[:2] for row in rows] == [
        ("all", "pixel_error"),
        *[("background", m) for m in ("precision", "recall", "iou", "dice")],
        *[("cell", m) for m in ("precision", "recall", "iou", "dice")],
        ("foreground-mean", "iou"),
        ("foreground-mean", "dice"),
    ]


def test_class_only_in_the_prediction():
    zeros, ones = np.zeros((3, 3), np.uint8), np.ones((3, 3), np.uint8)
    got = as_dict(confusion(zeros, ones, 3))
    assert got["cell", "precision"] == got["cell", "iou"] == got["cell", "dice"] == 0
    assert math.isnan(got["cell", "recall"])
    assert got["foreground-mean", "iou"] == 0


def test_class_only_in_the_truth():
    zeros, ones = np.zeros((3, 3), np.uint8), np.ones((3, 3), np.uint8)
    got = as_dict(confusion(ones, zeros, 3))
    assert got["cell", "recall"] == got["cell", "iou"] == got["cell", "dice"] == 0
    assert math.isnan(got["cell", "precision"])


@pytest.mark.filterwarnings("error")
def test_nothing_labelled_is_not_defined():
    nothing = np.full((3, 3), 255, np.uint8)
    got = as_dict(confusion(nothing, np.zeros((3, 3), np.uint8), 3))
    assert all(math.isnan(value) for value in got.values())


def test_ignore_can_be_another_value_or_none():
    truth, pred = np.array([0, 1, 2]), np.array([0, 1, 1])
    assert confusion(truth, pred, 2, ignore=2).sum() == 2
    assert confusion(truth, pred, 3, ignore=None).sum() == 3


@pytest.mark.parametrize(
    ("truth", "pred", "message"),
    [
        (np.zeros((2, 2), np.uint8), np.zeros(4, np.uint8), "shape"),
        (np.array([3], np.uint8), np.array([0], np.uint8), "truth contains classes 3..3"),
        (np.array([0], np.uint8), np.array([255], np.uint8), "prediction contains classes"),
        (np.array([0]), np.array([-1]), "prediction contains classes"),
        (np.array([0.0]), np.array([0]), "integer"),
    ],
)
def test_wrong_input_is_refused(truth, pred, message):
    with pytest.raises(ValueError, match=message):
        confusion(truth, pred, 3)


def test_names_must_fit():
    with pytest.raises(ValueError, match="2 classes"):
        pixel_metrics(np.eye(3, dtype=np.int64), ["a", "b"])


@settings(max_examples=40, deadline=None)
@given(class_maps())
def test_agrees_with_scikit_learn(maps):
    truth, pred = maps
    matrix = confusion(truth, pred, 3)
    np.testing.assert_array_equal(
        matrix, sk.confusion_matrix(truth.ravel(), pred.ravel(), labels=[0, 1, 2])
    )
    got = as_dict(matrix)
    flat = (truth.ravel(), pred.ravel())
    options = {"labels": [0, 1, 2], "average": None, "zero_division": np.nan}
    for metric, values in {
        "precision": sk.precision_score(*flat, **options),
        "recall": sk.recall_score(*flat, **options),
        "dice": sk.f1_score(*flat, **options),
    }.items():
        np.testing.assert_allclose([got[name, metric] for name in NAMES], values)


@settings(deadline=None)
@given(class_maps(shape=(5, 6)), st.integers(0, 5), st.integers(0, 6))
def test_blocks_add_up(maps, y, x):
    truth, pred = maps
    truth[0, 0] = 255
    blocks = [
        confusion(truth[rows, columns], pred[rows, columns], 3)
        for rows in (slice(0, y), slice(y, None))
        for columns in (slice(0, x), slice(x, None))
    ]
    np.testing.assert_array_equal(sum(blocks), confusion(truth, pred, 3))


@settings(deadline=None)
@given(class_maps(count=1, shape=(2, 3, 4)))
def test_perfect_prediction(maps):
    got = as_dict(confusion(maps[0], maps[0], 3))
    assert got.pop(("all", "pixel_error")) == 0
    assert all(value == 1 or math.isnan(value) for value in got.values())


@settings(max_examples=50, deadline=None)
@given(class_maps())
def test_dice_and_iou_are_symmetric_and_tied(maps):
    truth, pred = maps
    one, other = as_dict(confusion(truth, pred, 3)), as_dict(confusion(pred, truth, 3))
    for name in NAMES:
        np.testing.assert_equal(one[name, "dice"], other[name, "dice"])
        np.testing.assert_equal(one[name, "iou"], other[name, "iou"])
        np.testing.assert_equal(one[name, "precision"], other[name, "recall"])
        iou = one[name, "iou"]
        np.testing.assert_allclose(one[name, "dice"], 2 * iou / (1 + iou))
