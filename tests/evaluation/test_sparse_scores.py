"""Scores on labels of only some objects: what is predicted where nobody labelled counts neither for
nor against."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import unet
from unet.errors import ArgumentError
from unet.evaluation.metrics.contingency import contingency, of_counted
from unet.evaluation.metrics.instance import instance_metrics
from unet.evaluation.metrics.object_errors import object_metrics
from unet.prediction.objects.counted_pairs import UNLABELLED_ID

U = UNLABELLED_ID


def scores(truth: Any, pred: Any) -> dict[str, float]:
    table = of_counted(contingency(np.array(truth, np.uint32), np.array(pred, np.uint32)))
    rows = [*instance_metrics(table), *object_metrics(table)]
    return {row.metric: row.value for row in rows}


def test_scores_by_hand() -> None:
    # Labelled: 1 (four pixels) and 2 (two); a background of four pixels; the rest has no label.
    # Predicted: 5 covers object 1 and two unlabelled pixels, 6 lies on unlabelled pixels and one of
    # background, 7 on background, 8 is object 2 and far too large.
    truth = [
        [1, 1, U, U, U, U, U, U],
        [1, 1, 0, 0, 0, 0, U, U],
        [2, 2, U, U, U, U, U, U],
    ]
    pred = [
        [5, 5, 5, 5, 6, 6, 6, 0],
        [5, 5, 0, 0, 6, 7, 0, 0],
        [8, 8, 8, 8, 8, 8, 8, 8],
    ]
    found = scores(truth, pred)
    # 6 does not count (3 of its 4 pixels are unlabelled). 7 is false. 8 covers a labelled object,
    # so it counts although most of it is unlabelled.
    assert (found["n_true"], found["n_pred"]) == (2, 3)
    assert found["recall_0.50"] == pytest.approx(1 / 2)
    assert found["precision_0.50"] == pytest.approx(1 / 3)
    assert found["ap_0.50"] == pytest.approx(1 / 4)
    # Unlabelled pixels are part of the union: 4 / 6 and 2 / 8.
    assert found["sq"] == pytest.approx(4 / 6)
    assert found["seg"] == pytest.approx((4 / 6 + 2 / 8) / 2)
    assert (found["det_missed"], found["det_false"]) == (0, 1)
    assert (found["n_missed"], found["n_added"]) == (1, 2)


def test_half_of_an_object_on_unlabelled_pixels_still_counts() -> None:
    assert scores([[0, 0, U, U]], [[3, 3, 3, 3]])["n_pred"] == 1
    assert scores([[0, 0, U, U, U]], [[3, 3, 3, 3, 3]])["n_pred"] == 0


def test_empty_masks() -> None:
    nothing = scores([[U, U, U]], [[0, 0, 0]])
    assert (nothing["n_true"], nothing["n_pred"]) == (0, 0)
    assert math.isnan(nothing["ap_0.50"])
    only_predicted = scores([[U, U, U]], [[4, 4, 0]])
    assert only_predicted["n_pred"] == 0
    assert math.isnan(only_predicted["ap_0.50"])
    missed = scores([[1, 1, U]], [[0, 0, 0]])
    assert (missed["recall_0.50"], missed["seg"], missed["n_missed"]) == (0, 0, 1)


TRUTH = hnp.arrays(np.uint32, (6, 7), elements=st.sampled_from([0, 1, 2, U]))
PRED = hnp.arrays(np.uint32, (6, 7), elements=st.integers(0, 3))


@given(truth=TRUTH, pred=PRED, extra=hnp.arrays(np.uint32, (6, 7), elements=st.integers(10, 12)))
def test_objects_on_unlabelled_pixels_change_no_score(
    truth: np.ndarray, pred: np.ndarray, extra: np.ndarray
) -> None:
    free = (truth == U) & (pred == 0)
    assert scores(truth, np.where(free, extra, pred)) == pytest.approx(
        scores(truth, pred), nan_ok=True
    )


@given(truth=TRUTH, pred=PRED)
def test_without_unlabelled_pixels_nothing_changes(truth: np.ndarray, pred: np.ndarray) -> None:
    truth = np.where(truth == U, np.uint32(0), truth)
    table = contingency(truth, pred)
    counted = of_counted(table)
    for name in ("truth_ids", "pred_ids", "counts"):
        assert np.array_equal(getattr(table, name), getattr(counted, name))


@settings(max_examples=20)
@given(truth=TRUTH, pred=PRED)
def test_arrays_are_scored_alike(truth: np.ndarray, pred: np.ndarray) -> None:
    labels = np.where(truth == U, np.uint32(0), truth)
    table = unet.evaluate(pred, labels, unlabelled="ignore", metrics="instance")
    found = table.set_index("metric")["value"].to_dict()
    # Without marked background, all pixels of value 0 are unlabelled.
    expected = scores(np.where(labels == 0, np.uint32(U), labels), pred)
    assert found == pytest.approx({name: expected[name] for name in found}, nan_ok=True)


def test_outlines_are_not_scored() -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[2:5, 2:5] = 1
    table = unet.evaluate(labels, labels, unlabelled="ignore")
    assert not table["metric"].str.startswith("boundary").any()
    assert (table[table["metric"] == "seg"]["value"] == 1).all()


def test_scribbles_of_classes() -> None:
    truth = np.array([[1, 1, 0, 0, 2, 2]], np.uint8)
    pred = np.array([[1, 2, 2, 1, 2, 2]], np.uint8)
    options: dict[str, Any] = {"task": "semantic", "classes": {"ground": 1, "cell": 2}}
    table = unet.evaluate(pred, truth, unlabelled="ignore", metrics="pixel", **options)
    found = table.set_index(["class", "metric"])["value"]
    assert found["all", "pixel_error"] == pytest.approx(1 / 4)
    assert found["cell", "iou"] == pytest.approx(2 / 3)


def test_unknown_choice() -> None:
    labels = np.zeros((4, 4), np.uint8)
    with pytest.raises(ArgumentError, match="unlabelled: got 'yes'; write background or ignore"):
        unet.evaluate(labels, labels, unlabelled="yes")
