"""Contingency tables and the metrics of objects."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unet.evaluation.metrics.contingency import contingency, summed
from unet.evaluation.metrics.instance import (
    IOU_THRESHOLDS,
    Detection,
    detection,
    instance_metrics,
    match,
    overlaps,
)

COUNTS = ("n_true", "n_pred", "det_missed", "det_false", "det_merged")
LABELS = hnp.arrays(np.uint16, (6, 7), elements=st.integers(0, 5))


def metrics(truth, pred):
    rows = instance_metrics(contingency(np.asarray(truth), np.asarray(pred)))
    return {row.metric: row.value for row in rows}


def pairs(table):
    ids = zip(table.truth_ids.tolist(), table.pred_ids.tolist(), strict=True)
    return dict(zip(ids, table.counts.tolist(), strict=True))


def iou_matrix(truth, pred):
    """IoU of every pair of objects, one mask at a time."""
    true_ids, pred_ids = (np.setdiff1d(labels, 0) for labels in (truth, pred))
    values = [
        [
            np.count_nonzero((truth == i) & (pred == j))
            / np.count_nonzero((truth == i) | (pred == j))
            for j in pred_ids
        ]
        for i in true_ids
    ]
    return np.array(values).reshape(len(true_ids), len(pred_ids))


def best_matching(iou, threshold):
    """(number of matches, sum of IoU) of the best one-to-one matching, by brute force."""
    if iou.shape[0] > iou.shape[1]:
        iou = iou.T
    best = (0, 0.0)
    for columns in itertools.permutations(range(iou.shape[1]), iou.shape[0]):
        values = [v for v in iou[range(iou.shape[0]), list(columns)] if v >= threshold]
        best = max(best, (len(values), math.fsum(values)))
    return best


# --- contingency


def test_table_by_hand():
    truth = np.array([[0, 0, 7, 7], [7, 7, 7, 2]], np.uint8)
    pred = np.array([[0, 3, 3, 3], [3, 0, 3, 9]], np.int64)
    table = contingency(truth, pred)
    assert table.truth_ids.dtype == table.pred_ids.dtype == np.uint64
    assert table.counts.dtype == np.int64
    assert pairs(table) == {(0, 0): 1, (0, 3): 1, (2, 9): 1, (7, 0): 1, (7, 3): 4}
    assert table.total == 8
    assert [a.tolist() for a in table.truth_sizes()] == [[0, 2, 7], [2, 1, 5]]
    assert [a.tolist() for a in table.pred_sizes()] == [[0, 3, 9], [2, 5, 1]]


def test_only_valid_pixels_count():
    truth, pred = np.array([1, 1, 1, 2]), np.array([1, 1, 2, 2])
    valid = np.array([True, False, True, True])
    assert pairs(contingency(truth, pred, valid)) == {(1, 1): 1, (1, 2): 1, (2, 2): 1}
    assert contingency(truth, pred, np.zeros(4, bool)).total == 0


def test_ids_of_64_bits_are_kept_apart():
    big = 2**64 - 1
    truth = np.array([big, big, big - 1, 2**32], np.uint64)
    pred = np.array([1, 1, 2**63, 0], np.uint64)
    assert pairs(contingency(truth, pred)) == {
        (2**32, 0): 1,
        (big - 1, 2**63): 1,
        (big, 1): 2,
    }


@settings(deadline=None)
@given(
    hnp.arrays(np.uint64, 30, elements=st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**63])),
    hnp.arrays(np.uint64, 30, elements=st.sampled_from([0, 5, 2**32 - 1, 2**40])),
)
def test_counts_agree_with_a_plain_dictionary(truth, pred):
    expected: dict[tuple[int, int], int] = {}
    for pair in zip(truth.tolist(), pred.tolist(), strict=True):
        expected[pair] = expected.get(pair, 0) + 1
    got = pairs(contingency(truth, pred))
    assert got == expected
    assert list(got) == sorted(got)


def test_empty_arrays_and_no_tables():
    assert contingency(np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8)).total == 0
    assert summed([]).counts.shape == (0,)


@pytest.mark.parametrize(
    ("truth", "pred", "valid", "message"),
    [
        (np.zeros(3, int), np.zeros(4, int), None, "shape"),
        (np.zeros(3), np.zeros(3, int), None, "truth must contain integer ids, found float64"),
        (np.zeros(3, int), np.array([0, -1, 0]), None, "prediction contains the negative id -1"),
        (np.zeros(3, int), np.zeros(3, int), np.ones(3, int), "must be bool"),
        (np.zeros(3, int), np.zeros(3, int), np.ones(4, bool), "must be bool"),
    ],
)
def test_wrong_input_is_refused(truth, pred, valid, message):
    with pytest.raises(ValueError, match=message):
        contingency(truth, pred, valid)


@settings(deadline=None)
@given(
    hnp.arrays(np.uint16, (3, 5, 6), elements=st.integers(0, 4)),
    hnp.arrays(np.int32, (3, 5, 6), elements=st.integers(0, 4)),
    hnp.arrays(np.bool_, (3, 5, 6)),
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 6)),
)
def test_blocks_merge_to_the_whole(truth, pred, valid, cuts):
    halves = [(slice(0, cut), slice(cut, None)) for cut in cuts]
    blocks = [
        contingency(truth[block], pred[block], valid[block]) for block in itertools.product(*halves)
    ]
    merged, whole = summed(blocks), contingency(truth, pred, valid)
    for name in ("truth_ids", "pred_ids", "counts"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))
        assert getattr(merged, name).dtype == getattr(whole, name).dtype


def test_labels_in_any_memory_order():
    truth = np.arange(12).reshape(3, 4) % 3
    assert pairs(contingency(truth.T, truth.T)) == pairs(contingency(truth, truth))


# --- objects by hand


def test_hand_computed():
    # Object 1 exact (IoU 1), object 2 shifted by one of four pixels (IoU 3/5), 3 missed, 9 false.
    truth = [[1, 1, 0, 2, 2, 2, 2, 0, 3, 3, 0, 0]]
    pred = [[5, 5, 0, 0, 6, 6, 6, 6, 0, 0, 0, 9]]
    got = metrics(truth, pred)
    for threshold in (0.50, 0.55, 0.60):
        assert got[f"ap_{threshold:.2f}"] == pytest.approx(2 / 4)
    for threshold in (0.65, 0.95):
        assert got[f"ap_{threshold:.2f}"] == pytest.approx(1 / 5)
    assert got["ap_mean"] == pytest.approx((3 * 0.5 + 7 * 0.2) / 10)
    assert got["precision_0.50"] == pytest.approx(2 / 3)
    assert got["recall_0.50"] == pytest.approx(2 / 3)
    assert got["f1_0.50"] == got["rq"] == pytest.approx(2 / 3)
    assert got["sq"] == pytest.approx(0.8)
    assert got["pq"] == pytest.approx(1.6 / 3)
    assert got["seg"] == pytest.approx(1.6 / 3)
    assert (got["n_true"], got["n_pred"]) == (3, 3)


def test_names_and_order_of_rows():
    rows = instance_metrics(contingency(np.array([0]), np.array([0])))
    assert [row.metric for row in rows] == [
        *[f"ap_0.{percent}" for percent in range(50, 100, 5)],
        *("ap_mean", "f1_0.50", "precision_0.50", "recall_0.50", "pq", "sq", "rq", "seg"),
        *("det", "det_missed", "det_false", "det_merged", "n_true", "n_pred"),
    ]
    assert {row.class_ for row in rows} == {"instances"}


@pytest.mark.filterwarnings("error")
def test_both_empty():
    got = metrics(np.zeros((3, 3), int), np.zeros((3, 3), int))
    assert [got.pop(name) for name in COUNTS] == [0] * len(COUNTS)
    assert all(math.isnan(value) for value in got.values())


def test_only_false_objects():
    got = metrics(np.zeros((2, 2), int), np.ones((2, 2), int))
    for name in ("ap_0.50", "ap_mean", "f1_0.50", "precision_0.50", "pq", "rq"):
        assert got[name] == 0
    for name in ("recall_0.50", "sq", "seg", "det"):
        assert math.isnan(got[name])
    assert (got["n_true"], got["n_pred"], got["det_false"]) == (0, 1, 1)


def test_only_missed_objects():
    got = metrics(np.ones((2, 2), int), np.zeros((2, 2), int))
    for name in ("ap_0.50", "ap_mean", "f1_0.50", "recall_0.50", "pq", "rq", "seg", "det"):
        assert got[name] == 0
    for name in ("precision_0.50", "sq"):
        assert math.isnan(got[name])
    assert (got["n_true"], got["n_pred"]) == (1, 0)


def test_exactly_half_is_a_match_for_ap_once_but_not_for_seg():
    # Both halves have IoU 0.5: one may match, the other is false; neither covers MORE than half.
    got = metrics([1, 1, 1, 1], [1, 1, 2, 2])
    assert got["ap_0.50"] == pytest.approx(1 / 2)
    assert got["seg"] == 0


def test_one_prediction_may_serve_several_true_objects_in_seg():
    # The merged object covers both wholly: IoU 2/5 and 3/5.
    truth, pred = [1, 1, 2, 2, 2], [4, 4, 4, 4, 4]
    assert metrics(truth, pred)["seg"] == pytest.approx(0.5)
    assert metrics(truth, pred)["ap_0.50"] == pytest.approx(1 / 2)


def test_more_matches_are_preferred_to_a_larger_iou():
    # IoU of (1, 8) is 4/9, of (1, 9) 2/7, of (2, 8) 2/7: best alone is (1, 8), best together
    # are the other two.
    truth = np.array([1] * 2 + [1] * 4 + [2] * 2)
    pred = np.array([9] * 2 + [8] * 4 + [8] * 2)
    table = contingency(truth, pred)
    many = match(table, 0.2)
    assert sorted(zip(many.truth_ids.tolist(), many.pred_ids.tolist(), strict=True)) == [
        (1, 9),
        (2, 8),
    ]
    alone = match(table, 0.45)
    assert (alone.truth_ids.tolist(), alone.pred_ids.tolist()) == ([1], [8])
    assert (alone.tp, alone.fp, alone.fn) == (1, 1, 1)


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01])
def test_thresholds_out_of_range_are_refused(threshold):
    with pytest.raises(ValueError, match="threshold"):
        match(summed([]), threshold)


# --- against other implementations


@settings(max_examples=150, deadline=None)
@given(LABELS, LABELS, st.sampled_from([0.01, 0.1, 0.25, 0.4, 0.5, 0.55, 0.75]))
def test_matching_agrees_with_trying_all(truth, pred, threshold):
    iou = iou_matrix(truth, pred)
    count, iou_sum = best_matching(iou, threshold)
    found = match(contingency(truth, pred), threshold)
    assert found.tp == count
    assert found.iou.sum() == pytest.approx(iou_sum)
    assert len(set(found.truth_ids.tolist())) == len(set(found.pred_ids.tolist())) == count
    assert (found.n_true, found.n_pred) == iou.shape


def blobs(seed):
    """Objects and a disturbed copy: pieces moved, split, lost, [Y, X] uint16."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((64, 64), np.uint16)
    pred = np.zeros_like(truth)
    for number in range(1, 26):
        y, x = rng.integers(0, 52, 2)
        h, w = rng.integers(3, 12, 2)
        dy, dx = rng.integers(0, 3, 2)
        truth[y : y + h, x : x + w] = number
        if number % 6:
            pred[y + dy : y + dy + h, x + dx : x + dx + w] = 60 - number
    return truth, pred


@pytest.mark.parametrize("seed", range(4))
def test_ap_and_pq_agree_with_masks_one_by_one(seed):
    truth, pred = blobs(seed)
    iou = iou_matrix(truth, pred)
    got = metrics(truth, pred)
    for threshold in (0.55, 0.75, 0.9):
        tp = np.count_nonzero(iou >= threshold)
        assert got[f"ap_{threshold:.2f}"] == pytest.approx(tp / (sum(iou.shape) - tp))
    matched = iou[iou >= 0.5]
    assert 3 < len(matched) < min(iou.shape)
    assert got["pq"] == pytest.approx(2 * matched.sum() / sum(iou.shape))


@pytest.mark.parametrize("seed", range(3))
def test_seg_agrees_with_py_ctcmetrics(tmp_path, seed):
    ctc_match = pytest.importorskip("ctc_metrics.utils.representations").match
    ctc_seg = pytest.importorskip("ctc_metrics.metrics").seg
    truth, pred = blobs(seed)
    tifffile.imwrite(tmp_path / "man_seg000.tif", truth)
    tifffile.imwrite(tmp_path / "mask000.tif", pred)
    labels, _, _, _, ious = ctc_match(
        str(tmp_path / "man_seg000.tif"), str(tmp_path / "mask000.tif")
    )
    expected = ctc_seg([labels], [ious])
    assert 0.1 < expected < 0.9
    assert metrics(truth, pred)["seg"] == pytest.approx(expected)


# --- invariants


@settings(deadline=None)
@given(LABELS, LABELS)
def test_ap_never_rises_with_the_threshold(truth, pred):
    got = metrics(truth, pred)
    values = [got[f"ap_{threshold:.2f}"] for threshold in IOU_THRESHOLDS]
    assert all(a >= b for a, b in itertools.pairwise(values)) or all(map(math.isnan, values))


@settings(deadline=None)
@given(LABELS.filter(np.any))
def test_perfect_prediction(labels):
    got = metrics(labels, labels)
    n = len(np.setdiff1d(labels, 0))
    assert [got.pop(name) for name in COUNTS] == [n, n, 0, 0, 0]
    assert set(got.values()) == {1}


@settings(deadline=None)
@given(LABELS, LABELS, st.permutations(range(1, 6)), st.permutations(range(1, 6)))
def test_names_of_objects_do_not_matter(truth, pred, new_truth, new_pred):
    other = metrics(
        np.array([0, *new_truth], np.uint64)[truth] * 2**40, np.array([0, *new_pred])[pred]
    )
    for name, value in metrics(truth, pred).items():
        assert other[name] == pytest.approx(value, nan_ok=True)


# --- detection


def test_detection_by_hand():
    # 1 is found, 2 and 3 by the same object, 4 is missed (exactly half is not enough), 8 and 9 find
    # nothing.
    truth = np.array([1, 1, 1, 0, 2, 2, 3, 3, 0, 4, 4, 0, 0])
    pred = np.array([5, 5, 0, 0, 6, 6, 6, 6, 0, 8, 0, 0, 9])
    table = contingency(truth, pred)
    assert detection(overlaps(table)) == Detection(missed=1, false=2, merged=1)
    assert metrics(truth, pred)["det"] == pytest.approx(1 - (5 + 10 + 2) / 40)


def test_detection_is_never_worse_than_nothing_at_all():
    assert metrics([1, 0, 0, 0], [0, 2, 3, 4])["det"] == 0
    assert Detection(missed=0, false=11, merged=0).score(1) == 0


@pytest.mark.parametrize("seed", range(3))
def test_det_agrees_with_py_ctcmetrics(tmp_path, seed):
    representations = pytest.importorskip("ctc_metrics.utils.representations")
    ctc_det = pytest.importorskip("ctc_metrics.metrics").det
    truth, pred = blobs(seed)
    pred[10:40, 20:24] = 77  # and one that merges or finds nothing
    tifffile.imwrite(tmp_path / "a.tif", truth)
    tifffile.imwrite(tmp_path / "b.tif", pred)
    names = representations.match(str(tmp_path / "a.tif"), str(tmp_path / "b.tif"))[:4]
    counts = representations.count_acyclic_graph_correction_operations(
        None, None, *([labels] for labels in names)
    )
    found = detection(overlaps(contingency(truth, pred)))
    assert (found.missed, found.false, found.merged) == (counts["FN"], counts["FP"], counts["NS"])
    assert min(counts["FN"], counts["FP"]) > 0
    assert metrics(truth, pred)["det"] == pytest.approx(ctc_det(**counts))


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_stardist(seed):
    matching = pytest.importorskip("stardist.matching").matching
    truth, pred = blobs(seed)
    got = metrics(truth, pred)
    for threshold in (0.5, 0.75, 0.9):
        theirs = matching(truth, pred, thresh=threshold)
        assert got[f"ap_{threshold:.2f}"] == pytest.approx(theirs.accuracy)
    half = matching(truth, pred, thresh=0.5)
    assert 0 < half.tp < min(half.n_true, half.n_pred)
    assert got["precision_0.50"] == pytest.approx(half.precision)
    assert got["recall_0.50"] == pytest.approx(half.recall)
    assert got["f1_0.50"] == pytest.approx(half.f1)
    assert got["pq"] == pytest.approx(half.panoptic_quality)
    assert got["sq"] == pytest.approx(half.mean_matched_score)


def test_volumes():
    rng = np.random.default_rng(0)
    truth, pred = rng.integers(0, 5, (2, 3, 8, 9))
    flat = metrics(truth.ravel(), pred.ravel())
    assert metrics(truth, pred) == pytest.approx(flat, nan_ok=True)


@settings(deadline=None)
@given(LABELS, LABELS)
def test_a_value_is_a_ratio_whose_denominator_is_its_weight(truth, pred):
    for row in instance_metrics(contingency(truth, pred)):
        if row.weight == row.weight:
            assert math.isnan(row.value) == (row.weight == 0)
            # Twice, because PQ counts each error as a half.
            above = 0 if row.weight == 0 else 2 * row.value * row.weight
            assert row.metric in ("pq", "sq", "seg") or above == pytest.approx(round(above))
