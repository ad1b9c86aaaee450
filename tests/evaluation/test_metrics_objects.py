"""Split, merged, missed and added objects; adapted Rand error and variation of information."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.metrics import adapted_rand_error, variation_of_information

from unet.evaluation.metrics.contingency import contingency, summed
from unet.evaluation.metrics.object_errors import ObjectErrors, object_errors, object_metrics
from unet.evaluation.metrics.rand import rand_metrics

LABELS = hnp.arrays(np.int64, (6, 7), elements=st.integers(0, 4))


def errors_of(truth, pred):
    return object_errors(contingency(np.asarray(truth), np.asarray(pred)))


def values(rows):
    return {row.metric: row.value for row in rows}


# --- objects


def test_found():
    assert errors_of([1, 1, 1, 0], [0, 5, 5, 0]) == ObjectErrors(0, 0, 0, 0, 1, 1)


def test_missed_and_added():
    # Half of the true object is covered, not more; and a predicted one far away.
    assert errors_of([1, 1, 0, 0, 0], [5, 0, 0, 6, 6]) == ObjectErrors(0, 0, 1, 2, 1, 2)


def test_split():
    # The two parts are neither missing nor added.
    assert errors_of([1, 1, 1, 1, 0], [5, 5, 6, 6, 0]) == ObjectErrors(1, 0, 0, 0, 1, 2)


def test_fragments_that_cover_too_little_are_no_split():
    assert errors_of([1, 1, 1, 1], [5, 0, 6, 0]) == ObjectErrors(0, 0, 1, 2, 1, 2)


def test_a_found_object_with_a_fragment_beside_is_split_too():
    assert errors_of([1, 1, 1, 1], [5, 5, 5, 6]) == ObjectErrors(1, 0, 0, 0, 1, 2)


def test_merged():
    # Two true objects in one predicted; both count.
    assert errors_of([1, 1, 0, 2, 2], [5, 5, 5, 5, 5]) == ObjectErrors(0, 2, 0, 0, 2, 1)


def test_objects_swallowed_by_something_much_larger_are_missed():
    # They cover less than half of it: it is not a merger but an added object.
    assert errors_of([1, 0, 0, 0, 2], [5, 5, 5, 5, 5]) == ObjectErrors(0, 0, 2, 1, 2, 1)


def test_cut_elsewhere():
    # 6 and 8 lie in a true object but cover at most half of it; 7 lies in none.
    assert errors_of([1, 1, 1, 1, 2, 2, 2, 2], [6, 6, 7, 7, 7, 7, 8, 8]) == ObjectErrors(
        0, 0, 2, 3, 2, 3
    )


def test_rates_and_their_weights():
    rows = {
        r.metric: r
        for r in object_metrics(contingency(np.array([1, 1, 0, 2, 2]), np.array([5, 5, 0, 0, 0])))
    }
    assert (rows["missed_rate"].value, rows["missed_rate"].weight) == (1 / 2, 2)
    assert (rows["added_rate"].value, rows["added_rate"].weight) == (0, 1)
    assert (rows["n_missed"].value, rows["n_split"].value) == (1, 0)


def test_no_objects():
    nothing = np.zeros(4, int)
    got = values(object_metrics(contingency(nothing, nothing)))
    assert all(got[f"n_{name}"] == 0 for name in ("split", "merged", "missed", "added"))
    assert all(math.isnan(got[f"{name}_rate"]) for name in ("split", "merged", "missed", "added"))
    got = values(object_metrics(contingency(nothing, nothing + 3)))
    assert (got["n_added"], got["added_rate"]) == (1, 1)
    assert math.isnan(got["missed_rate"])
    assert values(object_metrics(contingency(nothing + 3, nothing)))["missed_rate"] == 1


@settings(deadline=None)
@given(LABELS, LABELS)
def test_fates_mirror(truth, pred):
    there, back = errors_of(truth, pred), errors_of(pred, truth)
    assert (there.missed, there.added) == (back.added, back.missed)
    assert (there.split > 0) == (back.merged > 0)
    assert there.missed + there.split <= there.n_true
    assert there.missed + there.merged <= there.n_true


@settings(deadline=None)
@given(LABELS)
def test_perfect_objects(labels):
    found = errors_of(labels, labels)
    assert found == ObjectErrors(0, 0, 0, 0, found.n_true, found.n_true)


# --- adapted Rand error, variation of information


def test_rand_by_hand():
    # True cells of 4 and 2 pixels; predicted 3 + 1 and 2: pairs 6 + 0 + 2 of 12 + 2 and 6 + 6.
    rows = rand_metrics(
        contingency(np.array([1, 1, 1, 1, 2, 2, 0]), np.array([1, 1, 1, 2, 2, 2, 9]))
    )
    got = values(rows)
    assert got["adapted_rand_error"] == pytest.approx(1 - 2 * 8 / (14 + 12))
    assert got["adapted_rand_split"] == pytest.approx(8 / 14)
    assert got["adapted_rand_merge"] == pytest.approx(8 / 12)
    joint = 1 / 2 + 1 / 6 * math.log2(6) + 1 / 3 * math.log2(3)
    true = 2 / 3 * math.log2(3 / 2) + 1 / 3 * math.log2(3)
    assert got["voi_split"] == pytest.approx(joint - true)
    assert got["voi_merge"] == pytest.approx(joint - 1)
    assert got["voi"] == pytest.approx(2 * joint - true - 1)
    assert next(r.weight for r in rows if r.metric == "voi") == 6


def test_rand_without_true_objects():
    for table in (summed([]), contingency(np.zeros(4, int), np.arange(4))):
        assert all(math.isnan(row.value) for row in rand_metrics(table))


def test_rand_of_nothing_predicted():
    # One segment contains both cells.
    got = values(rand_metrics(contingency(np.array([1, 1, 2, 2]), np.zeros(4, int))))
    assert got["adapted_rand_error"] == pytest.approx(1 - 2 * 4 / (4 + 12))
    assert (got["voi_split"], got["voi_merge"]) == (0, 1)


@settings(deadline=None)
@given(LABELS.filter(np.any), LABELS)
def test_rand_agrees_with_scikit_image(truth, pred):
    got = values(rand_metrics(contingency(truth, pred)))
    split, merged = variation_of_information(truth, pred, ignore_labels=(0,))
    assert got["voi_split"] == pytest.approx(split, abs=1e-9)
    assert got["voi_merge"] == pytest.approx(merged, abs=1e-9)
    sizes = [np.unique(labels[truth > 0], return_counts=True)[1] for labels in (truth, pred)]
    if any(counts.max() < 2 for counts in sizes):
        return  # no pair of different pixels: scikit-image divides by zero
    error, of_truth, of_pred = adapted_rand_error(truth, pred)
    assert got["adapted_rand_error"] == pytest.approx(error, abs=1e-9)
    assert got["adapted_rand_split"] == pytest.approx(of_truth, abs=1e-9)
    assert got["adapted_rand_merge"] == pytest.approx(of_pred, abs=1e-9)


def test_rand_of_a_volume_agrees_with_scikit_image():
    truth, pred = np.random.default_rng(0).integers(0, 4, (2, 3, 8, 9))
    got = values(rand_metrics(contingency(truth, pred)))
    assert got["adapted_rand_error"] == pytest.approx(adapted_rand_error(truth, pred)[0])
