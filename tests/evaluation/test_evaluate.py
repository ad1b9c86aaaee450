"""The evaluate stage, on stores written by the code of the earlier stages."""

from __future__ import annotations

import json
import logging
import math
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.evaluated import BORDER, NAMES, PIXEL, Stores, add_cells, cells, probability, values
from unet.config.sections import EvaluateSection
from unet.errors import UserError
from unet.evaluation.block_parts import TABLE, confusion_matrix, outlines
from unet.evaluation.blockwise import ScoredPair
from unet.evaluation.families import FAMILIES
from unet.evaluation.metrics.contingency import contingency
from unet.evaluation.metrics.pixel import confusion
from unet.evaluation.scan import scanned
from unet.report.score_tables import better


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(tmp_path)


# --- pixel


def test_pixels_by_hand_without_ignored_ones(stores: Stores) -> None:
    stores.truth("a", [[1, 1, 1, 0], [0, 0, 255, 255]])
    stores.prediction("a", [[1, 1, 0, 1], [0, 0, 0, 1]])
    rows = stores.evaluate("pixel", groups={"a": "mouse 1"})
    assert {row[:5] for row in rows} == {("cells", "net", 0, "a", "mouse 1")}
    assert tuple(row.metric for row in rows) == PIXEL
    assert values(rows, class_="all") == {"pixel_error": pytest.approx(2 / 6)}
    assert values(rows, class_="foreground") == {
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "iou": pytest.approx(2 / 4),
        "dice": pytest.approx(4 / 6),
    }
    assert values(rows, class_="background")["iou"] == pytest.approx(2 / 4)
    assert values(rows, class_="foreground-mean")["iou"] == pytest.approx(2 / 4)


def test_all_ignored_is_not_defined(stores: Stores) -> None:
    stores.truth("a", [[255, 255]])
    stores.prediction("a", [[0, 1]])
    assert all(math.isnan(row.value) for row in stores.evaluate("pixel"))


# --- instances


def test_objects_by_hand(stores: Stores) -> None:
    # Truth: 1 (four pixels), 2 (two). Predicted: 7 covers three of the four, 8 nothing true,
    # 9 lies in ignored pixels alone, 2 is found exactly but for ignored pixels.
    stores.truth(
        "a",
        [[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 255, 255]],
        [[1, 1, 1, 1, 0, 0], [2, 2, 0, 0, 0, 0]],
    )
    stores.prediction(
        "a",
        [[1, 1, 1, 0, 0, 1], [1, 1, 0, 0, 1, 1]],
        [[7, 7, 7, 0, 0, 8], [5, 5, 0, 0, 9, 9]],
    )
    rows = stores.evaluate("instance", task="instances")
    assert {row.class_ for row in rows} == {"instances"}
    found = values(rows)
    assert (found["n_true"], found["n_pred"]) == (2, 3)
    assert found["ap_0.50"] == pytest.approx(2 / 3)
    assert found["ap_0.75"] == pytest.approx(2 / 3)
    assert found["ap_0.80"] == pytest.approx(1 / 4)
    assert found["seg"] == pytest.approx((3 / 4 + 1) / 2)
    assert found["pq"] == pytest.approx((3 / 4 + 1) / 2.5)


def test_seam_scores_of_the_stitch_stage_are_rows(stores: Stores) -> None:
    for image in "abc":
        stores.truth(image, [[0, 1]])
        stores.prediction(image, [[0, 1]], part="val" if image == "c" else "test")
    assert "seam_score" not in values(stores.evaluate("pixel"))
    seam = {"score": 1.25, "borders": 4}
    entries = {"a": {"seam": seam}, "b": {"seam": None}, "c": {"seam": seam}}
    done = stores.segmentation(0).with_suffix(".json")
    done.write_text(json.dumps({"images": entries}), encoding="utf-8")
    rows = [row for row in stores.evaluate("pixel") if row.metric == "seam_score"]
    assert [(row.image, row.class_, row.value) for row in rows] == [("a", "", 1.25)]
    assert math.isnan(rows[0].weight)


def test_no_objects_in_semantic_tasks(stores: Stores) -> None:
    stores.truth("a", cells())
    stores.prediction("a", cells())
    rows = stores.evaluate("instance", "pixel")
    assert [row.metric for row in rows] == list(PIXEL)


MAP = hnp.arrays(np.uint8, (7, 9), elements=st.sampled_from([0, 1, 2, 255]))
IDS = hnp.arrays(np.uint32, (7, 9), elements=st.integers(0, 4))


@pytest.mark.parametrize("fails", [False, True])
def test_files_of_a_pass_are_removed(tmp_path: Path, fails: bool) -> None:
    labels = in_memory(np.zeros((20, 20), np.uint8))
    pair = ScoredPair("a", labels, labels, labels, labels, labels, NAMES)
    seen: list[list[Path]] = []
    with suppress(ZeroDivisionError), scanned(pair, (outlines(2),), 1, 8, tmp_path):
        seen.append(list(tmp_path.iterdir()))
        if fails:
            raise ZeroDivisionError
    assert len(seen[0]) == 1
    assert not list(tmp_path.iterdir())


@settings(max_examples=20, deadline=None)
@given(truth=MAP, pred=MAP, ids=st.tuples(IDS, IDS), block=st.integers(2, 9), threads=st.just(2))
def test_blocks_change_nothing(
    truth: Any, pred: Any, ids: tuple[Any, Any], block: int, threads: int
) -> None:
    pred = np.where(pred == 255, 0, pred).astype(np.uint8)
    arrays = [in_memory(array) for array in (truth, pred, *ids)]
    pair = ScoredPair("a", *arrays, arrays[0], NAMES)
    matrix = confusion_matrix(3)
    with scanned(pair, (matrix, TABLE), threads, block) as totals:
        np.testing.assert_array_equal(totals[matrix], confusion(truth, pred, 3), strict=True)
        found = totals[TABLE]
    expected = contingency(*ids, truth != 255)
    for name in ("truth_ids", "pred_ids", "counts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), strict=True)


def in_memory(array: Any) -> Any:
    result = zarr.create_array(
        {}, shape=array.shape, dtype=array.dtype, chunks=(2, 2), shards=(4, 4)
    )
    result[:] = array
    return result


@pytest.mark.parametrize("shape", [(9, 13), (3, 7, 6)])
def test_blocks_and_threads_change_no_row(stores: Stores, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    for name in "abc":
        ids = [rng.integers(0, 4, shape) for _ in range(2)]
        p = rng.random((2, *shape))
        stores.truth(name, ids[0] > 0, ids[0])
        stores.prediction(name, ids[1] > 0, ids[1], p, part="val" if name == "b" else "test")
    run = [
        stores.evaluate(*FAMILIES, task="instances", threads=threads, block=block)
        for threads, block in ((1, None), (2, 5), (5, 3))
    ]
    assert [row.image for row in run[0]] == sorted(row.image for row in run[0])
    assert {row.image for row in run[0]} == {"a", "c"}
    assert {row.class_ for row in run[0]} >= {"all", "background", "foreground", "instances"}
    for other in run[1:]:
        assert [row[:7] for row in other] == [row[:7] for row in run[0]]
        for column in ("value", "weight"):
            # Sums of probabilities in another order differ in the last digits.
            expected = [getattr(row, column) for row in run[0]]
            assert [getattr(row, column) for row in other] == pytest.approx(
                expected, rel=1e-12, nan_ok=True
            )


# Metrics of which a higher value is better; the report's patterns name the others.
HIGHER = re.compile(
    r"iou|dice|(boundary_)?(f1|precision|recall)(_0\.\d\d)?|ap_.*|pq|rq|sq|seg|det"
    r"|(v_rand|v_info|adapted_rand)(_split|_merge)?"
)


def test_the_report_knows_whether_a_metric_is_better_when_higher(stores: Stores) -> None:
    ids = np.zeros((9, 13), int)
    ids[2:5, 2:5], ids[6:8, 7:11] = 1, 2
    for name, part in (("a", "test"), ("b", "val")):
        stores.truth(name, ids > 0, ids)
        stores.prediction(name, ids > 0, ids, np.stack([ids == 0, ids > 0]) * 1.0, part=part)
    metrics = {row.metric for row in stores.evaluate(*FAMILIES, task="instances")}
    unknown = {name for name in metrics if better(name) == 1 and not HIGHER.fullmatch(name)}
    assert not unknown, (
        f"{sorted(unknown)}: lower is better, or neither? Then write them into LOWER_IS_BETTER or "
        "NEITHER of unet/report/score_tables.py (and into OPEN_ENDED if they can be above 1); else "
        "into HIGHER here"
    )


# --- topology


def test_threshold_is_chosen_on_validation_images(stores: Stores) -> None:
    # The validation image is right only at 0.35 and 0.4, the test image from 0.6 to 0.85.
    add_cells(stores, "v", 0.32, 0.42, part="val")
    add_cells(stores, "a", 0.58, 0.88)
    rows = stores.evaluate("topology")
    assert {(row.image, row.class_) for row in rows} == {("a", "foreground")}
    assert values(rows) == {
        # Both cells are one: p^2 sums to 2 x 25^2, s^2 to 50^2, t^2 to 2 x 25^2.
        "v_rand": pytest.approx(2 / 3),
        "v_rand_split": 1,
        "v_rand_merge": pytest.approx(1 / 2),
        "v_info": 0,
        "v_info_split": 1,
        "v_info_merge": 0,
        "topology_threshold": 0.4,
    }


def test_each_fold_has_its_own_threshold(stores: Stores) -> None:
    for fold, image, membrane in ((1, "a", 0.32), (0, "b", 0.67)):
        add_cells(stores, f"v{image}", membrane, membrane + 0.1, part="val", fold=fold)
        add_cells(stores, image, membrane, 1, fold=fold)
    rows = stores.evaluate("topology")
    found = [(r.fold, r.image, r.value) for r in rows if r.metric == "topology_threshold"]
    assert found == [(0, "b", 0.7), (1, "a", 0.4)]
    assert values(rows, "a")["v_rand"] == values(rows, "b")["v_rand"] == 1


def test_without_validation_images_the_threshold_is_one_half(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    add_cells(stores, "a", 0.48, 0.52)
    with caplog.at_level(logging.WARNING):
        found = values(stores.evaluate("topology"))
    assert (found["topology_threshold"], found["v_rand"]) == (0.5, 1)
    assert "no validation image" in caplog.text


def test_validation_image_without_cells_is_not_asked(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    stores.truth("v", np.zeros((5, 11)))
    stores.prediction("v", cells(), probabilities=probability(0, 1), part="val")
    add_cells(stores, "a", 0.48, 0.52)
    with caplog.at_level(logging.WARNING):
        assert values(stores.evaluate("topology"))["topology_threshold"] == 0.5
    assert "no validation image" in caplog.text


def test_boundaries_as_they_are(stores: Stores) -> None:
    # A membrane of three columns: five pixels of each cell are predicted membrane.
    stores.truth("a", cells())
    stores.prediction("a", cells(), probabilities=probability(0, 1, slice(4, 7)))
    assert values(stores.evaluate("topology"))["v_rand"] == 1
    found = values(stores.evaluate("topology", boundary="as-is"))
    assert found["v_rand_split"] == pytest.approx(810 / 1250)
    assert found["v_rand_merge"] == 1
    assert found["v_rand"] == pytest.approx(2 * 810 / (810 + 1250))


def test_foreground_of_a_head_with_border_is_all_but_background(stores: Stores) -> None:
    # 1 - background is 0.9 in the cells, although neither class is above one half.
    p = probability(0.1, 0.9)
    stores.truth("a", cells(), cells())
    stores.prediction("a", cells(), cells(), np.stack([p[0], p[1] / 2, p[1] / 2]), head=BORDER)
    assert values(stores.evaluate("topology", task="instances"))["v_rand"] == 1


def test_first_class_and_ignored_pixels(stores: Stores) -> None:
    # The cells are the first class; the prediction splits the right one where it is ignored.
    truth = 1 - cells(slice(2, 3))
    truth[:, 5:] = 255
    first = cells(slice(2, 6, 3))
    stores.truth("a", truth)
    stores.prediction("a", 1 - first, probabilities=np.stack([first, 1 - first]))
    found = stores.evaluate("topology", topology_class="background")
    assert {row.class_ for row in found} == {"background"}
    assert values(found)["v_rand"] == values(found)["v_info"] == 1


def test_slices_of_a_volume_are_averaged(stores: Stores) -> None:
    # The first is right, in the second the cells are one (2/3), the third has no cell.
    truth = np.stack([cells(), cells(), 0 * cells()])
    p = np.stack([probability(0, 1), probability(1, 1), probability(0, 1)], axis=1)
    stores.truth("a", truth)
    stores.prediction("a", truth, probabilities=p)
    assert values(stores.evaluate("topology"))["v_rand"] == pytest.approx((1 + 2 / 3) / 2)


# --- the first ISBI leader board


def test_each_isbi_error_has_its_own_threshold_from_validation(stores: Stores) -> None:
    # In the validation image a pixel of the membrane is a gap up to 0.7, but from there on the
    # left cell is gone: better for Rand and warping error, far worse for the pixels.
    p = np.array(probability(0.05, 0.95))
    p[:, :, :5] = np.array([0.35, 0.65])[:, None, None]
    p[:, 2, 5] = 0.28, 0.72
    stores.truth("v", cells())
    stores.prediction("v", cells(), probabilities=p, part="val")
    add_cells(stores, "a", 0.3, 0.9)
    assert values(stores.evaluate("isbi2012")) == {
        "isbi_rand_error": 0,
        "isbi_rand_threshold": 0.7,
        "isbi_pixel_error": 0,
        "isbi_pixel_threshold": 0.5,
        "isbi_warping_error": 0,
        "isbi_warping_threshold": 0.7,
        "warping_error": 0,
    }


def test_isbi_errors_of_a_volume_are_pooled_over_its_slices(stores: Stores) -> None:
    # One slice is right; in the other one the membrane is missing except for one pixel.
    p = np.stack([probability(0, 1), probability(1, 1)], axis=1)
    p[:, 1, 2, 5] = 1, 0
    stores.truth("a", np.stack([cells(), cells()]))
    stores.prediction("a", np.stack([cells(), cells()]), probabilities=p)
    rows = {row.metric: row for row in stores.evaluate("isbi2012")}
    pairs, joined = 2 * 25 * 24, 50 * 49
    expected = 1 - 2 * (2 * pairs) / (2 * pairs + pairs + joined)
    assert rows["isbi_rand_error"].value == pytest.approx(expected)
    assert rows["isbi_pixel_error"].value == pytest.approx(4 / (50 + 50 + 50 + 54))
    assert rows["isbi_warping_error"][7:] == (pytest.approx(4 / 110), 110)
    assert rows["isbi_warping_threshold"].value == 0.5


# --- outlines and probabilities


def test_boundaries_of_classes_and_of_objects(stores: Stores) -> None:
    # Two objects that touch: the class has the outline of both alone.
    ids = np.zeros((6, 9), np.uint32)
    ids[1:5, 1:4], ids[1:5, 4:8] = 1, 2
    stores.truth("a", ids > 0, ids)
    stores.prediction("a", ids > 0, 3 * (ids > 0), size=(0.5, 0.5))
    rows = stores.evaluate("boundary", task="instances", boundary_tolerance="0.4 um")
    assert values(rows, class_="foreground") == {
        "boundary_precision": 1, "boundary_recall": 1, "boundary_f1": 1, "hd95_um": 0, "asd_um": 0,
    }  # fmt: skip
    assert values(rows, class_="foreground-mean") == {"boundary_f1": 1, "hd95_um": 0}
    # True outlines: 18 pixels around both and 4 inside, half a micrometre or one from them.
    found = values(rows, class_="instances")
    assert found["boundary_precision"] == 1
    assert found["boundary_recall"] == pytest.approx(18 / 22)
    assert found["asd_um"] == pytest.approx(4 * 0.5 / (22 + 18))


def test_tolerance_in_micrometres_needs_the_pixel_size(stores: Stores) -> None:
    add_cells(stores, "a", 0, 1)
    assert values(stores.evaluate("boundary"))["hd95_px"] == 0
    with pytest.raises(UserError, match=r"boundary_tolerance: 1 um, but the pixel size of image a"):
        stores.evaluate("boundary", boundary_tolerance="1 um")


def test_tolerance_that_is_no_distance() -> None:
    for text in ("2", "0 px", "px", "1 mm", "-1 px"):
        with pytest.raises(ValueError, match="write a distance above 0"):
            EvaluateSection(boundary_tolerance=text)
    assert EvaluateSection(boundary_tolerance=" .50um ").boundary_tolerance == "0.5 um"


def test_calibration_of_a_head_with_border(stores: Stores) -> None:
    p = probability(0.25, 0.75)
    stores.truth("a", cells(), cells())
    stores.prediction("a", cells(), cells(), np.stack([p[0], p[1] / 2, p[1] / 2]), head=BORDER)
    rows = stores.evaluate("calibration", task="instances")
    assert {row.class_ for row in rows} == {"foreground"}
    found = values(rows)
    assert found["brier"] == pytest.approx(0.25**2)
    assert found["ece"] == pytest.approx(0.25)
    assert (found["reliability_04"], found["reliability_12"]) == (0, 1)
