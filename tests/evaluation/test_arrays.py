"""Scores of label arrays of any origin: the numbers of the evaluate stage, without its stores."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import label as numbered

from tests.evaluated import NAMES, Stores
from unet.errors import UserError
from unet.evaluation import arrays
from unet.evaluation.arrays import evaluate
from unet.evaluation.evaluate import write_metrics
from unet.evaluation.families import FAMILIES, MASK_FAMILIES
from unet.evaluation.mask_scoring import MaskScoring
from unet.tables import read_table


def blobs(shape: tuple[int, ...], seed: int) -> Any:
    """Touching objects of several pixels: int64, 0 = background."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 6, tuple(-(-n // 3) for n in shape))
    for axis in range(len(shape)):
        coarse = np.repeat(coarse, 3, axis)
    return coarse[tuple(slice(n) for n in shape)]


def value(frame: pd.DataFrame, metric: str, class_: str = "instances") -> float:
    found = frame[(frame["metric"] == metric) & (frame["class"] == class_)]["value"]
    return float(found.item())


# --- the same numbers as the stage


def same_as_the_stage(
    stores: Stores, frames: list[pd.DataFrame], task: str, names: tuple[str, ...]
) -> None:
    """Compares text cells of metrics.csv, and the values that the stage returned, bit by bit."""
    rows = stores.evaluate(*FAMILIES, task=task, names=names)
    write_metrics(stores.metrics, rows)
    written = read_table(stores.metrics, "evaluate")
    common = [k for k, row in enumerate(rows) if not of_probabilities(row.metric)]
    found = pd.concat(frames, ignore_index=True)
    assert list(found.columns) == ["image", "class", "metric", "value"]
    assert len(found) == len(common) > 10
    for column in ("image", "class", "metric"):
        assert list(found[column]) == list(written[column].iloc[common])
    expected = np.array([rows[k].value for k in common])
    np.testing.assert_array_equal(found["value"].to_numpy(), expected)
    cells = ["" if math.isnan(v) else f"{v:.8g}" for v in found["value"]]
    assert cells == list(written["value"].iloc[common])


def of_probabilities(metric: str) -> bool:
    starts = ("ece", "brier", "reliability", "confidence", "v_", "topology", "isbi", "warping")
    return metric.startswith((*starts, "seam"))


@pytest.mark.parametrize("size", [None, (0.5, 0.25), (2.0, 0.5, 0.5)])
def test_objects_as_in_metrics_csv(tmp_path: Path, size: tuple[float, ...] | None) -> None:
    shape = (5, 14, 17) if size and len(size) == 3 else (21, 26)
    stores, frames = Stores(tmp_path), []
    for k, name in enumerate("ab"):
        truth, pred = blobs(shape, k), blobs(shape, k + 10)
        file = np.where(blobs(shape, k + 20) == 1, 99, truth)  # 99 = ignore
        truth = np.where(file == 99, 0, truth)
        classes = np.where(file == 99, 255, truth > 0)
        stores.truth(name, classes, truth)
        p = np.stack([pred == 0, pred > 0]) * 0.8 + 0.1
        stores.prediction(name, pred > 0, pred, p, size=size)
        frames.append(evaluate(pred, file, ignore=99, pixel_size_um=size, image=name))
    same_as_the_stage(stores, frames, "instances", NAMES)


def test_classes_as_in_metrics_csv(tmp_path: Path) -> None:
    stores, frames, names = Stores(tmp_path), [], ("sky", "cell", "edge")
    values = np.array([7, 255, 3])
    for k, name in enumerate("ab"):
        truth, pred = blobs((21, 26), k) % 3, blobs((21, 26), k + 10) % 3
        hidden = blobs((21, 26), k + 20) == 1
        stores.truth(name, np.where(hidden, 255, truth))
        p = np.stack([pred == c for c in range(3)]) * 0.8 + 0.1
        stores.prediction(name, pred, probabilities=p, head=names)
        frames.append(
            evaluate(
                values[pred], np.where(hidden, 11, values[truth]), task="semantic", ignore=11,
                classes=dict(zip(names, values.tolist(), strict=True)), image=name,
            )
        )  # fmt: skip
    same_as_the_stage(stores, frames, "semantic", names)


# --- by hand


def test_objects_by_hand() -> None:
    truth = np.array([[1, 1, 1, 1, 0, 0], [2, 2, 0, 0, 9, 9]])
    pred = np.array([[7, 7, 7, 0, 0, 8], [5, 5, 0, 0, 9, 9]])
    found = evaluate(pred, truth, ignore=9)
    assert (value(found, "n_true"), value(found, "n_pred")) == (2, 3)
    assert value(found, "ap_0.50") == pytest.approx(2 / 3)
    assert value(found, "ap_0.80") == pytest.approx(1 / 4)
    assert value(found, "pq") == pytest.approx((3 / 4 + 1) / 2.5)
    assert value(found, "pixel_error", "all") == pytest.approx(2 / 10)
    # Without ignore, 9 is an object that was found.
    assert value(evaluate(pred, truth), "ap_0.50") == pytest.approx(3 / 4)


@pytest.mark.parametrize("shape", [(9, 11), (3, 6, 7)])
def test_empty_masks(shape: tuple[int, ...]) -> None:
    empty, full = np.zeros(shape, np.uint16), np.ones(shape, np.uint16)
    both = evaluate(empty, empty)
    assert math.isnan(value(both, "ap_0.50"))
    assert math.isnan(value(both, "iou", "foreground"))
    assert value(both, "pixel_error", "all") == 0
    assert value(evaluate(empty, full), "ap_0.50") == value(evaluate(full, empty), "ap_0.50") == 0
    assert value(evaluate(empty, full), "n_missed") == 1
    # A missing prediction counts as an empty one.
    with arrays.opened(MaskScoring(), None, full) as pair:
        rows = [score[:3] for score in arrays.scores(MaskScoring(), pair)]
    expected = evaluate(empty, full).drop(columns="image")
    pd.testing.assert_frame_equal(pd.DataFrame(rows, columns=expected.columns), expected)


def test_binary_masks_are_split_into_pieces() -> None:
    mask = np.zeros((8, 20), np.uint8)
    mask[1:4, 1:5], mask[1:4, 9:14] = 255, 255
    ids = numbered(mask > 0)
    assert value(evaluate(mask, ids), "n_pred") == 1
    assert value(evaluate(mask, ids, binary="predicted"), "ap_0.50") == 1
    assert value(evaluate(ids, mask > 0, binary="truth"), "ap_0.50") == 1
    assert value(evaluate(mask, mask > 0, binary="both"), "n_true") == 2


# --- any array, any size


LABELS = hnp.arrays(np.int32, (7, 10), elements=st.integers(0, 5))


@settings(max_examples=25, deadline=None)
@given(LABELS, LABELS, st.sampled_from([None, "both"]), st.sampled_from(["dask", "zarr"]))
def test_large_arrays_of_any_kind_have_the_same_scores(
    truth: Any, pred: Any, binary: str | None, kind: str
) -> None:
    expected = evaluate(pred, truth, ignore=4, binary=binary, pixel_size_um=0.5)

    def as_kind(array: Any) -> Any:
        if kind == "dask":
            make: Any = da.from_array
            return make(array, chunks=(3, 4))
        stored = zarr.create_array({}, shape=array.shape, dtype=array.dtype, chunks=(2, 3))
        stored[:] = array
        return stored

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "IN_MEMORY", 10)
        patch.setattr(arrays, "BLOCK", 4)
        patch.setattr(arrays, "ALLOWED", 1)
        found = evaluate(as_kind(pred), as_kind(truth), ignore=4, binary=binary,
                         pixel_size_um=(0.5, 0.5), threads=2)  # fmt: skip
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


@settings(max_examples=25, deadline=None)
@given(LABELS)
def test_a_mask_agrees_with_itself_whatever_its_ids(labels: Any) -> None:
    found = evaluate(labels * 7, labels)
    for metric in ("ap_mean", "pq", "seg", "adapted_rand_error", "voi"):
        perfect = 0 if metric in ("adapted_rand_error", "voi") else 1
        assert math.isnan(value(found, metric)) or value(found, metric) == pytest.approx(perfect)
    assert value(found, "n_split") == value(found, "n_merged") == value(found, "n_added") == 0


def test_a_large_image_is_never_in_memory_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are made when they are asked for, and none is larger than asked for."""
    monkeypatch.setattr(arrays, "BLOCK", 256)
    monkeypatch.setattr(arrays, "ALLOWED", 3 * 256 * 256 * 24)
    monkeypatch.setattr(arrays, "IN_MEMORY", 256 * 256)
    most = 0

    def block(block_info: Any = None) -> Any:
        nonlocal most
        (start, stop), (left, right) = block_info[None]["array-location"]
        most = max(most, (stop - start) * (right - left))
        y, x = np.mgrid[start:stop, left:right]
        return ((y // 32) * 64 + x // 32 + 1).astype(np.int32)

    make: Any = da.map_blocks
    labels = make(block, chunks=((256,) * 8, (256,) * 8), dtype=np.int32)
    found = evaluate(labels, labels, metrics=["instance"])
    assert value(found, "ap_0.50") == 1
    assert value(found, "n_true") == 64 * 64
    assert most == 256 * 256


# --- peers


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_stardist(seed: int) -> None:
    matching = pytest.importorskip("stardist.matching").matching
    truth, pred = numbered(blobs((40, 50), seed)), numbered(blobs((40, 50), seed + 50))
    pred = np.where(np.random.default_rng(seed).random(truth.shape) < 0.7, truth, pred)
    expected = matching(truth, pred, thresh=0.5)
    found = evaluate(pred, truth)
    for metric, name in (
        ("ap_0.50", "accuracy"), ("f1_0.50", "f1"), ("pq", "panoptic_quality"),
        ("precision_0.50", "precision"), ("recall_0.50", "recall"),
        ("n_true", "n_true"), ("n_pred", "n_pred"), ("sq", "mean_matched_score"),
    ):  # fmt: skip
        assert value(found, metric) == pytest.approx(getattr(expected, name)), metric
    assert expected.n_true > 20


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_scikit_image(seed: int) -> None:
    from skimage.metrics import adapted_rand_error, variation_of_information

    truth, pred = numbered(blobs((40, 50), seed)), numbered(blobs((40, 50), seed + 50))
    found = evaluate(pred, truth)
    error, _, _ = adapted_rand_error(truth, pred)
    assert value(found, "adapted_rand_error") == pytest.approx(error)
    # For scikit-image's variation of information the background is one more segment.
    whole = evaluate(pred + 1, truth + 1)
    both = variation_of_information(truth, pred)
    assert value(whole, "voi") == pytest.approx(sum(both))


def test_classes_agree_with_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    truth, pred = blobs((40, 50), 1) % 3, blobs((40, 50), 2) % 3
    found = evaluate(pred, truth, task="semantic", classes={"a": 0, "b": 1, "c": 2})
    iou = functional.multiclass_jaccard_index(
        torch.tensor(pred), torch.tensor(truth), 3, average="none"
    )
    dice = functional.multiclass_f1_score(
        torch.tensor(pred), torch.tensor(truth), 3, average="none"
    )
    for k, name in enumerate("abc"):
        assert value(found, "iou", name) == pytest.approx(float(iou[k]))
        assert value(found, "dice", name) == pytest.approx(float(dice[k]), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_seg_agrees_with_py_ctcmetrics(tmp_path: Path, seed: int) -> None:
    ctc_match = pytest.importorskip("ctc_metrics.utils.representations").match
    ctc_seg = pytest.importorskip("ctc_metrics.metrics").seg
    tifffile = pytest.importorskip("tifffile")
    truth, pred = numbered(blobs((30, 40), seed)), numbered(blobs((30, 40), seed + 50))
    pred = np.where(np.random.default_rng(seed).random(truth.shape) < 0.8, truth, pred)
    for name, labels in (("truth", truth), ("pred", pred)):
        tifffile.imwrite(tmp_path / f"{name}.tif", labels.astype(np.uint16))
    labels, _, _, _, ious = ctc_match(str(tmp_path / "truth.tif"), str(tmp_path / "pred.tif"))
    assert value(evaluate(pred, truth), "seg") == pytest.approx(ctc_seg([labels], [ious]))


# --- mistakes


SQUARE = np.zeros((4, 5), int)


@pytest.mark.parametrize(
    ("pred", "options", "line"),
    [
        (np.zeros((4, 6), int), {}, "predicted labels of shape (4, 6), true ones of (4, 5)"),
        (SQUARE - 1, {}, "image: predicted: label value -1 is not an instance id"),
        (SQUARE + 0.5, {}, "label value 0.5 is not an instance id"),
        (SQUARE > 0, {}, "True and False has no ids of objects; write binary: predicted"),
        ([[0]], {}, "predicted is list; give an array"),
        (np.zeros(4, int), {}, "of shape (4,); give one array [Y, X] or [Z, Y, X]"),
        (SQUARE.astype(complex), {}, "of type complex128; give whole numbers"),
        (SQUARE, {"metrics": ["calibration"]}, "calibration needs probabilities, which masks do"),
        (SQUARE, {"metrics": ["instanc"]}, "did you mean instance?"),
        (SQUARE, {"metrics": []}, "write at least one family"),
        (SQUARE, {"task": "objects"}, "task: got 'objects'; write instances or semantic"),
        (SQUARE, {"task": "semantic"}, "task semantic needs at least two"),
        (SQUARE, {"classes": {"a": 0, "b": 1}}, "classes: they need task semantic"),
        (SQUARE, {"binary": "yes"}, "binary: got 'yes'; write one of predicted, truth, both"),
        (SQUARE, {"boundary_tolerance": "wide"}, "a distance such as 2 px or 0.5 um"),
        (SQUARE, {"boundary_tolerance": "1 um"}, "but the pixel size is unknown"),
        (SQUARE, {"pixel_size_um": (1, 1, 1)}, "give one number above 0, or 2"),
        (SQUARE, {"pixel_size_um": 0}, "give one number above 0"),
        (SQUARE, {"pixel_size_um": "a"}, "pixel_size_um: got 'a' for image; give one number"),
        (SQUARE, {"pixel_size_um": "0.5"}, "pixel_size_um: got '0.5'"),
        (SQUARE, {"pixel_size_um": True}, "pixel_size_um: got True"),
        (SQUARE, {"pixel_size_um": [1, True]}, "pixel_size_um: got [1, True]"),
        (SQUARE, {"pixel_size_um": [[1], [1, 2]]}, "pixel_size_um: got [[1], [1, 2]]"),
        (SQUARE, {"pixel_size_um": {"y": 1}}, "pixel_size_um: got {'y': 1}"),
        (SQUARE, {"threads": -1}, "threads: got -1; write a whole number above 0"),
        (SQUARE, {"threads": 0}, "threads: got 0; write a whole number above 0"),
        (SQUARE, {"threads": 1.5}, "threads: got 1.5; write a whole number"),
        (SQUARE, {"ignore": "x"}, "ignore: got 'x'; write a whole number"),
        (SQUARE, {"ignore": True}, "ignore: got True; write a whole number"),
        (SQUARE, {"metrics": "pixl"}, "metrics: no family 'pixl'"),
        (SQUARE, {"metrics": 5}, "metrics: got 5; write a list of some of pixel"),
        (SQUARE, {"metrics": [5]}, "metrics: no family 5; there are: pixel"),
        (
            SQUARE,
            {"classes": ["a", "b"], "task": "semantic"},
            "classes: got ['a', 'b']; write",
        ),
        (SQUARE, {"classes": {"a": 0, "b": 0}, "task": "semantic"}, "one value twice"),
        (SQUARE, {"classes": {"a": 0, "b": "1"}, "task": "semantic"}, "classes: b: got '1'"),
        (SQUARE, {"classes": {1: 0, 2: 1}, "task": "semantic"}, "classes: got {1: 0, 2: 1}"),
        (SQUARE, {"classes": {str(k): k for k in range(201)}, "task": "semantic"}, "at most 200"),
    ],
)
def test_mistakes_are_one_line(pred: Any, options: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        evaluate(pred, SQUARE, **options)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mistakes_of_classes_are_one_line() -> None:
    names = {"a": 0, "b": 1}
    with pytest.raises(UserError, match="predicted: label value 9 is not declared"):
        evaluate(SQUARE + 9, SQUARE, task="semantic", classes=names)
    with pytest.raises(UserError, match="instance cannot score task semantic"):
        evaluate(SQUARE, SQUARE, task="semantic", classes=names, metrics=["instance"])
    with pytest.raises(UserError, match="leave it out with task semantic"):
        evaluate(SQUARE, SQUARE, task="semantic", classes=names, binary="both")


def test_numbers_of_numpy_and_one_family_are_taken() -> None:
    truth = blobs((9, 11), 1)
    expected = evaluate(truth, truth, metrics=["boundary"], ignore=1, pixel_size_um=0.5)
    for size in (np.array(0.5), np.float32(0.5), np.array([0.5, 0.5]), [0.5, np.float64(0.5)]):
        found = evaluate(
            truth, truth, metrics="boundary", ignore=np.uint8(1),  # type: ignore[arg-type]
            pixel_size_um=size, threads=np.int64(1),  # type: ignore[arg-type]
        )  # fmt: skip
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert "hd95_um" in set(expected["metric"])


def test_metrics_are_families() -> None:
    found = evaluate(SQUARE, SQUARE, metrics=["rand"])
    assert set(found["class"]) == {"instances"}
    assert "ap_0.50" not in set(found["metric"])
    assert set(MASK_FAMILIES) < set(FAMILIES)
