"""The audit stage: planted errors of labels are found at the top, right labels raise no doubt."""

from __future__ import annotations

import json
import math
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roifile import ImagejRoi

from tests.evaluated import NAMES, Stores
from unet.config.audit_settings import AuditSettings
from unet.data.store import Prepared
from unet.errors import UserError
from unet.evaluation.audit import exchanged_labels
from unet.evaluation.audit.audit_model import Audit, audit_model
from unet.evaluation.audit.audit_summary import AuditSummary
from unet.evaluation.audit.doubt_outlines import write_outlines
from unet.evaluation.audit.doubts import LEVEL, Doubt, ranked, read_doubts, write_doubts
from unet.evaluation.audit.exchanged_labels import Thumbnails, cells_per_side, exchanged
from unet.evaluation.audit.exchanged_warnings import exchanged_warnings
from unet.evaluation.audit.object_overlaps import object_overlaps
from unet.evaluation.audit.object_trust import ObjectTrust, trusted
from unet.evaluation.audit.region_doubts import ClassTrust
from unet.evaluation.audit.unlabelled_parts import unlabelled_parts
from unet.evaluation.blockwise import open_pair
from unet.files import remove
from unet.prediction.stitch.segmentation import Segmentation
from unet.tables import csv_rows

SIDE = 96
CELLS = ("cell", "membrane")
# Sure of the objects, and sure of the background.
YES, NO = 0.95, 0.02


def discs(seed: int, number: int = 12, radius: int = 6) -> Any:
    """Discs on a grid with random offsets, so that none touches another: ids [Y, X]."""
    rng = np.random.default_rng(seed)
    ids, (y, x) = np.zeros((SIDE, SIDE), np.uint32), np.mgrid[:SIDE, :SIDE]
    for k, place in enumerate(rng.permutation(25)[:number], start=1):
        middle = np.array(divmod(int(place), 5)) * 18 + 11 + rng.integers(-2, 3, 2)
        ids[(y - middle[0]) ** 2 + (x - middle[1]) ** 2 <= radius**2] = k
    return ids


def both(p: Any) -> Any:
    return np.stack([1 - p, p])


class Images:
    """Images with right labels and a perfect model; tests break one or the other."""

    def __init__(self, root: Path, number: int = 6) -> None:
        self.stores = Stores(root, tile=64)
        self.labels = {f"im{k}": discs(k) for k in range(number)}
        self.preds = {name: ids.copy() for name, ids in self.labels.items()}
        self.p = {name: np.where(ids > 0, YES, NO) for name, ids in self.labels.items()}
        self.ignored: dict[str, Any] = {}

    def write(self) -> None:
        remove(self.stores.root / self.stores.dataset)
        self.stores.made.clear()
        for k, (name, ids) in enumerate(self.labels.items()):
            classes = np.where(self.ignored.get(name, False), 255, ids > 0)
            self.stores.truth(name, classes, ids)
            pred = self.preds[name]
            self.stores.prediction(name, pred > 0, pred, both(self.p[name]), fold=k % 2)

    def audit(self, **more: Any) -> Audit:
        self.write()
        given = {"task": "instances", "class_names": NAMES, **more}
        return audit_model(self.folds, self.stores.prepared, AuditSettings.made(**given))

    @property
    def folds(self) -> dict[int, Path]:
        return {fold: self.stores.segmentation(fold) for fold in sorted(self.stores.made)}


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(tmp_path)


def standing_out(audit: Audit) -> list[Doubt]:
    return [doubt for doubt in audit.doubts if doubt.confidence >= LEVEL]


def test_right_labels_raise_no_doubt(images: Images) -> None:
    audit = images.audit()
    assert audit.doubts == ()
    assert (audit.labelled, audit.images, audit.validation, audit.objects) == (6, 6, 0, 72)
    assert audit.agreement == 1
    assert audit.usual > 0.95


# Each plants one error in the labels of im2 and returns the kind and the ids of the labels.


def drop(images: Images) -> tuple[str, tuple[int, ...]]:
    images.labels["im2"][images.labels["im2"] == 3] = 0
    return "missing", ()


def add(images: Images) -> tuple[str, tuple[int, ...]]:
    free = np.argwhere(images.labels["im2"] == 0)
    ids, (y, x) = images.labels["im2"], np.mgrid[:SIDE, :SIDE]
    for at in free[np.random.default_rng(1).permutation(len(free))]:
        disc = (y - at[0]) ** 2 + (x - at[1]) ** 2 <= 36
        if disc.sum() == 113 and not ids[disc].any():
            ids[disc] = 99
            return "denied", (99,)
    raise AssertionError("no room")


def merge(images: Images) -> tuple[str, tuple[int, ...]]:
    images.labels["im2"][images.labels["im2"] == 5] = 4
    return "merged", (4,)


def cut(images: Images) -> tuple[str, tuple[int, ...]]:
    ids = images.labels["im2"]
    rows = np.argwhere(ids == 6)
    half = rows[rows[:, 0] > rows[:, 0].mean()]
    ids[half[:, 0], half[:, 1]] = 77
    return "split", (6, 77)


def shift(images: Images) -> tuple[str, tuple[int, ...]]:
    ids = images.labels["im2"]
    disc = ids == 7
    ids[disc] = 0
    moved = np.roll(disc, (3, 0), (0, 1))
    ids[moved & (ids == 0)] = 7
    return "shifted", (7,)


@pytest.mark.parametrize("plant", [drop, add, merge, cut, shift])
def test_a_planted_error_is_at_rank_1(
    images: Images, plant: Callable[[Images], tuple[str, tuple[int, ...]]]
) -> None:
    kind, labels = plant(images)
    first, *others = images.audit().doubts
    assert (first.image, first.kind, first.fold) == ("im2", kind, 0)
    assert set(first.labels) == set(labels)
    assert first.confidence >= LEVEL
    assert all(doubt.confidence < LEVEL for doubt in others)


def test_place_and_words_by_hand(images: Images) -> None:
    _, labels = shift(images)
    (first, *_) = images.audit().doubts
    y, x = np.nonzero(images.labels["im2"] == labels[0])
    assert first.low == (y.min(), x.min())
    assert first.high == (y.max() + 1, x.max() + 1)
    assert first.centroid == pytest.approx((y.mean(), x.mean()))
    assert first.size == len(y)
    assert first.what == "the object lies y -3.0, x +0.0 px from its label"


def test_exchanged_labels_of_two_images(images: Images) -> None:
    labels = images.labels
    labels["im1"], labels["im4"] = labels["im4"], labels["im1"]
    audit = images.audit()
    found = {doubt.image: doubt for doubt in standing_out(audit)}
    # Nothing else is said about these two, and their labels do not count against the model.
    assert set(found) == {"im1", "im4"} == {doubt.image for doubt in audit.doubts}
    assert {doubt.kind for doubt in found.values()} == {"exchanged"}
    assert (found["im1"].match, found["im4"].match) == ("im4", "im1")
    assert min(doubt.confidence for doubt in found.values()) > 0.8
    assert found["im1"].high == (SIDE, SIDE)
    # All labelled objects of all audited images, as anywhere else in the report.
    assert audit.objects == 72


def test_exchanged_labels_are_a_warning(images: Images) -> None:
    labels = images.labels
    labels["im1"], labels["im4"] = labels["im4"], labels["im1"]
    audit = images.audit()
    summary = AuditSummary("m", **audit.summary())
    said = exchanged_warnings([(summary, audit.doubts)])
    assert said == [
        "check the labels of im1 and im4: probably exchanged; they count in all scores until "
        "corrected"
    ]
    # A model that joins most objects still sees where they are.
    poor = AuditSummary("m", **audit.summary() | {"agreement": 0.21})
    assert exchanged_warnings([(poor, audit.doubts)]) == said
    blind = AuditSummary("m", **audit.summary() | {"usual": 0.49})
    assert exchanged_warnings([(blind, audit.doubts)]) == []
    assert exchanged_warnings([(summary, [])]) == exchanged_warnings([]) == []


def test_objects_that_are_half_seen_count_too(images: Images) -> None:
    half = images.labels["im2"] == 4
    half[: int(np.nonzero(half)[0].mean())] = False
    images.preds["im2"][half] = 0
    assert images.audit().objects == 72


def test_a_poor_models_denial_means_little(images: Images) -> None:
    kind, _ = drop(images)
    good = images.audit().doubts[0].confidence
    # The model also sees objects where there are none, in all images, and misses as many.
    rng = np.random.default_rng(3)
    for name in images.labels:
        pred, p = images.preds[name], images.p[name]
        for at in rng.permutation(np.arange(1, 13))[:6]:
            p[pred == at] = NO
            pred[pred == at] = 0
        other = np.roll(discs(50 + int(name[2:])), 9, 0)
        other[(images.labels[name] > 0) | (pred > 0)] = 0
        pred[other > 0] = other[other > 0] + 100
        p[other > 0] = YES
    poor = images.audit()
    assert kind == "missing"
    assert good > 0.8
    assert standing_out(poor) == []
    assert poor.agreement < 0.7


def joined(images: Images, radius: int = 8) -> tuple[Any, Any]:
    """Puts two discs side by side into im2, which the model joins; returns their masks."""
    ids, (y, x) = np.zeros((SIDE, SIDE), np.uint32), np.mgrid[:SIDE, :SIDE]
    one, other = ((y - 40) ** 2 + (x - at) ** 2 <= radius**2 for at in (40 - radius, 40 + radius))
    ids[one], ids[other & ~one] = 1, 2
    images.labels["im2"], images.preds["im2"] = ids, (ids > 0).astype(np.uint32)
    images.p["im2"] = np.where(ids > 0, YES, NO)
    return ids == 1, ids == 2


def test_a_label_that_lacks_beside_another_one(images: Images) -> None:
    one, other = joined(images)
    images.labels["im2"][other] = 0
    first, *others = images.audit().doubts
    assert (first.image, first.kind, first.labels, first.predicted) == ("im2", "missing", (), (1,))
    assert first.what == "a part of a predicted object that no label covers; mean probability 0.95"
    assert first.confidence >= LEVEL
    assert all(doubt.confidence < LEVEL for doubt in others)
    # The pixels next to the other label are within the tolerance of outlines.
    near = np.zeros_like(one)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            near |= np.roll(one, (dy, dx), (0, 1))
    y, x = np.nonzero(other & ~near)
    assert (first.low, first.high) == ((y.min(), x.min()), (y.max() + 1, x.max() + 1))
    assert first.size == len(y)


def test_predictions_a_little_larger_than_labels_raise_no_doubt(images: Images) -> None:
    for name, ids in images.preds.items():
        grown = np.zeros_like(ids)
        for step in ((2, 0), (-2, 0), (0, 2), (0, -2), (0, 0)):
            grown = np.maximum(grown, np.roll(ids, step, (0, 1)))
        images.preds[name], images.p[name] = grown, np.where(grown > 0, YES, NO)
    assert images.audit().doubts == ()


def test_a_split_means_little_where_the_model_is_unsure_between_the_pieces(images: Images) -> None:
    one, other = joined(images, 4)

    def split() -> float:
        return next(d.confidence for d in images.audit().doubts if d.kind == "split")

    sure = split()
    between = np.zeros_like(one)
    between[:, 38:43] = True
    images.p["im2"][between & (one | other)] = 0.4
    assert 0.2 < split() / sure < 0.6


def test_ignored_pixels_are_not_judged(images: Images) -> None:
    disc = images.labels["im2"] == 3
    images.ignored["im2"] = disc
    images.labels["im2"] = np.where(disc, 0, images.labels["im2"])
    assert images.audit().doubts == ()


def test_objects_at_the_border_are_doubted_less(images: Images, tmp_path: Path) -> None:
    drop(images)
    inside = images.audit().doubts[0].confidence
    other = Images(tmp_path / "other")
    edge = np.zeros((SIDE, SIDE), bool)
    edge[:11, :11] = True
    other.labels["im2"][edge] = 0
    other.preds["im2"][edge] = 50
    other.p["im2"] = np.where(other.preds["im2"] > 0, YES, NO)
    (at_border, *_) = other.audit().doubts
    assert at_border.kind == "missing"
    assert at_border.confidence < 0.75 * inside


def test_empty_masks(tmp_path: Path) -> None:
    images = Images(tmp_path, 2)
    for name in images.labels:
        for maps in (images.labels, images.preds):
            maps[name] = np.zeros((SIDE, SIDE), np.uint32)
        images.p[name] = np.full((SIDE, SIDE), NO)
    audit = images.audit()
    assert audit.doubts == ()
    assert (audit.objects, audit.agreement) == (0, 1.0)
    assert math.isnan(audit.usual)
    assert audit.summary()["usual"] is None


def test_no_images_at_all(tmp_path: Path) -> None:
    images = Images(tmp_path, 1)
    images.write()
    given = AuditSettings.made(task="instances", class_names=NAMES)
    assert audit_model({}, images.stores.prepared, given).summary() == {
        "labelled": 1, "images": 0, "validation": 0, "objects": 0, "agreement": 1.0, "usual": None,
        "doubts": 0,
    }  # fmt: skip


def test_a_tested_image_comes_before_a_validation_image(images: Images) -> None:
    images.write()
    stores, ids = images.stores, images.preds["im1"]
    # Fold 0 validates im1 (fold 1 tests it) and im9, which no fold tests.
    stores.prediction("im1", ids * 0, ids * 0, both(np.full(ids.shape, NO)), part="val")
    stores.truth("im9", ids > 0, ids)
    stores.prediction("im9", ids > 0, ids, both(images.p["im1"]), part="val")
    audit = audit_model(
        images.folds, stores.prepared, AuditSettings.made(task="instances", class_names=NAMES)
    )
    assert audit.doubts == ()
    assert (audit.labelled, audit.images, audit.validation) == (7, 7, 1)


@settings(max_examples=3)
@given(order=st.permutations(range(6)), block=st.integers(50, 120), threads=st.integers(1, 3))
def test_order_of_images_blocks_and_threads_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], block: int, threads: int
) -> None:
    def made(names: list[int]) -> Audit:
        images = Images(tmp_path_factory.mktemp("audit"))
        for plant in (drop, add, merge, cut, shift):
            plant(images)
        images.labels = {f"im{k}": images.labels[f"im{k}"] for k in names}
        images.write()
        # All in the folds in which the first order puts them.
        given = AuditSettings.made(task="instances", class_names=NAMES, most=20)
        return audit_model(images.folds, images.stores.prepared, given, threads, block)

    expected = made(list(range(6)))
    found = made(order)
    assert len(expected.doubts) >= 5
    plain = [replace(doubt, fold=0) for doubt in found.doubts]
    for one, other in zip(plain, expected.doubts, strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=1e-6)
        assert replace(one, confidence=0) == replace(other, fold=0, confidence=0)


@settings(max_examples=4)
@given(seed=st.integers(0, 1000), number=st.integers(0, 20))
def test_labels_equal_to_predictions_raise_no_doubt(
    tmp_path_factory: pytest.TempPathFactory, seed: int, number: int
) -> None:
    images = Images(tmp_path_factory.mktemp("equal"), 3)
    for k, name in enumerate(images.labels):
        ids = discs(seed + k, number)
        images.labels[name], images.preds[name] = ids, ids.copy()
        images.p[name] = np.where(ids > 0, YES, NO)
    assert images.audit().doubts == ()


def test_neighbours_and_background_by_hand(tmp_path: Path) -> None:
    ids = np.zeros((12, 40), np.uint32)
    # 1 and 2 touch, 3 is three pixels away from 2, and 4 four from 3.
    ids[2:8, 2:8], ids[2:8, 8:14], ids[2:8, 16:20], ids[2:8, 23:30] = 1, 2, 3, 4
    stores = Stores(tmp_path, tile=64)
    stores.truth("a", ids > 0, ids)
    stores.prediction("a", ids > 0, ids, both(np.where(ids > 0, YES, 0.125)))
    pair = open_pair(Prepared(stores.prepared), Segmentation(stores.segmentation(0)), "a",
                     "instances")  # fmt: skip
    for block in (7, 9, 64):
        found = object_overlaps(pair, block=block)
        assert found.neighbours.tolist() == [[0, 1], [1, 2]]
        empty = int((ids == 0).sum())
        assert found.background == (empty, pytest.approx(0.125 * empty))


def test_parts_without_a_label_by_hand(tmp_path: Path) -> None:
    ids, pred = np.zeros((2, 30, 40), np.uint32)
    # A label in the left third of a predicted bar, and a predicted square that no label covers.
    ids[4:14, 2:12], pred[4:14, 2:30], pred[20:28, 30:38] = 1, 5, 6
    stores = Stores(tmp_path, tile=64)
    stores.truth("a", ids > 0, ids)
    stores.prediction("a", pred > 0, pred, both(np.where(pred > 0, 0.75, 0.25)))
    pair = open_pair(Prepared(stores.prepared), Segmentation(stores.segmentation(0)), "a",
                     "instances")  # fmt: skip
    for block in (7, 64):
        found = unlabelled_parts(pair, np.array([5]), tmp_path, block=block)
        assert found.of.tolist() == [5]
        # From 3 px beyond the label: columns 14 to 29.
        assert found.objects.low.tolist() == [[4, 14]]
        assert found.objects.high.tolist() == [[14, 30]]
        assert found.objects.size.tolist() == [10 * 16]
        assert found.objects.probability.tolist() == [0.75]
        # Surface of a square of 160 px over that of 10 x 16, squared: (4 sqrt(160) / 52) ** 2.
        assert found.compact == pytest.approx(np.array([16 * 160 / 52**2]))
    none = unlabelled_parts(pair, np.array([], np.int64), tmp_path)
    assert len(none.objects) == 0


# --- task semantic


def membranes(tmp_path: Path) -> tuple[dict[str, Any], Callable[[], Audit], Stores]:
    """Five images of cells (0) and membranes (1) three pixels wide, and a sure model."""
    truth = {f"m{k}": np.zeros((90, 95), np.uint8) for k in range(5)}
    for k, classes in enumerate(truth.values()):
        for at in (15 + 3 * k, 40 + 3 * k, 65 + 3 * k):
            classes[at : at + 3], classes[:, at : at + 3] = 1, 1
    right = {name: classes.copy() for name, classes in truth.items()}
    stores = Stores(tmp_path, tile=64)

    def audit() -> Audit:
        remove(stores.root / stores.dataset)
        stores.made.clear()
        for name, classes in right.items():
            stores.truth(name, truth[name])
            p = np.where(classes == 1, 0.96, 0.03)
            stores.prediction(name, classes, probabilities=both(p), head=CELLS)
        given = AuditSettings.made(task="semantic", class_names=CELLS)
        return audit_model({0: stores.segmentation(0)}, stores.prepared, given, block=37)

    return truth, audit, stores


def test_a_region_of_another_class(tmp_path: Path) -> None:
    truth, audit, _ = membranes(tmp_path)
    assert audit().doubts == ()
    truth["m1"][18:21, 24:39] = 0
    first, *others = audit().doubts
    assert (first.image, first.kind, first.labels, first.predicted) == ("m1", "class", (0,), (1,))
    assert first.confidence >= LEVEL
    # The pixels next to the other membranes are within the tolerance of outlines.
    assert (first.low, first.high) == ((18, 26), (21, 37))
    assert first.size == 3 * 11
    assert first.what == "labelled cell, predicted membrane; mean margin 0.92"
    assert others == []


def test_outlines_that_differ_by_two_pixels_raise_no_doubt(tmp_path: Path) -> None:
    truth, audit, _ = membranes(tmp_path)
    for name, classes in truth.items():
        truth[name] = np.maximum(classes, np.roll(classes, 2, 0))
    assert audit().doubts == ()


def test_ignored_pixels_of_classes(tmp_path: Path) -> None:
    truth, audit, _ = membranes(tmp_path)
    truth["m1"][18:21, 24:39] = 255
    assert audit().doubts == ()


def test_semantic_labels_of_another_image(tmp_path: Path) -> None:
    truth, audit, _ = membranes(tmp_path)
    truth["m0"], truth["m2"] = truth["m2"], truth["m0"]
    found = audit().doubts
    assert [(d.image, d.kind, d.match) for d in found] == [
        ("m0", "exchanged", "m2"),
        ("m2", "exchanged", "m0"),
    ]


def test_trust_in_classes_by_hand() -> None:
    trust = ClassTrust.empty(2)
    assert (trust.of(0, 1), trust.of(1, 0), trust.agreement) == (1, 1, 1)
    trust.agreed[:] = 900, 99
    trust.doubted[0, 1], trust.doubted[1, 0] = 20, 10
    # Both directions are compared with the rarer class.
    assert trust.of(0, 1) == pytest.approx(100 / (100 + 3 * 20))
    assert trust.of(1, 0) == pytest.approx(100 / (100 + 3 * 10))
    assert trust.agreement == pytest.approx(2 * 99 / (2 * 99 + 30))
    assert ((trust + trust) - trust).doubted.tolist() == trust.doubted.tolist()


def test_classes_of_another_config_are_an_error(tmp_path: Path) -> None:
    _, audit, stores = membranes(tmp_path)
    audit()
    given = AuditSettings.made(task="semantic", class_names=("cell", "wall"))
    with pytest.raises(UserError, match=r"cell, membrane, but they are now cell, wall"):
        audit_model({0: stores.segmentation(0)}, stores.prepared, given)


# --- volumes


def test_a_volume_is_audited_without_outlines(tmp_path: Path) -> None:
    stores = Stores(tmp_path, tile=64)
    ids = np.zeros((6, 40, 40), np.uint32)
    for k in range(9):
        y, x = 3 + 13 * (k // 3), 3 + 13 * (k % 3)
        ids[1:5, y : y + 8, x : x + 8] = k + 1
    label = np.where(ids == 5, 0, ids)
    stores.truth("v", label > 0, label)
    stores.prediction("v", ids > 0, ids, both(np.where(ids > 0, YES, NO)))
    given = AuditSettings.made(task="instances", class_names=NAMES)
    folds = {0: stores.segmentation(0)}
    (first, *_) = audit_model(folds, stores.prepared, given, block=20).doubts
    assert (first.kind, first.low, first.high) == ("missing", (1, 16, 16), (5, 24, 24))
    write_outlines(tmp_path / "audit", [first], folds, stores.prepared, "instances")
    assert not (tmp_path / "audit").exists()
    write_doubts(tmp_path / "audit.csv", [first])
    (row,) = csv_rows((tmp_path / "audit.csv").read_text(encoding="utf-8"))
    assert (row["centroid_z_px"], row["bbox_z0"], row["bbox_z1"]) == ("2.5", "1", "5")
    assert read_doubts(tmp_path / "audit.csv")[0].low == (1, 16, 16)


# --- files


def test_table_there_and_back(images: Images, tmp_path: Path) -> None:
    for plant in (drop, add, merge, cut, shift):
        plant(images)
    labels = images.labels
    labels["im0"], labels["im5"] = labels["im5"], labels["im0"]
    doubts = images.audit().doubts
    path = tmp_path / "audit.csv"
    write_doubts(path, doubts)
    found = read_doubts(path)
    assert {doubt.kind for doubt in doubts} >= {"exchanged", "missing", "denied", "merged"}
    for one, other in zip(found, doubts, strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=1e-3)
        assert one.centroid == pytest.approx(other.centroid, abs=0.051)
        plain = {"confidence": 0.0, "centroid": ()}
        assert replace(one, **plain) == replace(other, **plain)
    path.write_text(path.read_text(encoding="utf-8").replace("missing", "lost"), encoding="utf-8")
    with pytest.raises(UserError, match=r"audit\.csv: damaged .*'lost'"):
        read_doubts(path)


def test_outlines_for_qupath_and_fiji(images: Images, tmp_path: Path) -> None:
    drop(images)
    disc = images.preds["im2"] == 3
    doubts = images.audit().doubts
    folder = tmp_path / "audit"
    (folder / "old").mkdir(parents=True)
    write_outlines(folder, doubts, images.folds, images.stores.prepared, "instances")
    assert sorted(path.name for path in folder.iterdir()) == ["im2.geojson", "im2.zip"]
    (feature,) = json.loads((folder / "im2.geojson").read_text(encoding="utf-8"))["features"]
    about = feature["properties"]
    assert about["classification"]["name"] == "missing"
    assert about["objectType"] == "annotation"
    assert (about["measurements"]["rank"], about["measurements"]["size"]) == (1, disc.sum())
    assert about["measurements"]["confidence"] == round(doubts[0].confidence, 3)
    ((ring,),) = (feature["geometry"]["coordinates"],)
    y, x = np.nonzero(disc)
    assert np.min(ring, axis=0).tolist() == [x.min(), y.min()]
    assert np.max(ring, axis=0).tolist() == [x.max() + 1, y.max() + 1]
    with zipfile.ZipFile(folder / "im2.zip") as archive:
        (name,) = archive.namelist()
        read = ImagejRoi.frombytes(archive.read(name))
    assert read.name == f"1 missing {doubts[0].confidence:.2f} prediction"
    assert (read.left, read.top) == (x.min(), y.min())


def test_no_outlines_removes_those_of_before(images: Images, tmp_path: Path) -> None:
    images.write()
    (tmp_path / "audit").mkdir()
    write_outlines(tmp_path / "audit", [], images.folds, images.stores.prepared, "instances")
    assert not (tmp_path / "audit").exists()


# --- small parts by hand


def test_trust_by_hand() -> None:
    assert trusted(0, 0) == 1
    assert trusted(9, 0) == 1
    assert trusted(5, 2) == pytest.approx(6 / 12)
    assert trusted(0, 1) == pytest.approx(1 / 4)
    trust = ObjectTrust()
    assert (trust.agreement, trust.usual_shift(), trust.usual_size(5)) == (1, 0.5, 0)
    assert (trust.of_split(), trust.of_merged(), trust.of_parts(5)) == (1, 1, 1)
    trust.shifts[[2, 3, 12]] = 4, 5, 1
    assert trust.usual_shift() == 0.5
    trust.shifts[12] = 4
    assert trust.usual_shift() == pytest.approx(1.3)


def test_a_split_is_judged_by_the_neighbours_that_the_model_parts() -> None:
    trust = ObjectTrust()
    trust.pairs[0], trust.neighbours[:] = 990, (20, 10)
    # All 1000 objects count as ten: 20 + 9.9 agree, 10 + 0.1 do not.
    assert trust.of_split() == pytest.approx(30.9 / (30.9 + 3 * 10.1))
    trust.neighbours[0] = 0
    assert trust.of_split() == pytest.approx(10.9 / (10.9 + 3 * 10.1))


def test_probabilities_that_are_usual_by_hand() -> None:
    trust = ObjectTrust()
    assert (trust.as_object(0.75), trust.as_background(0.25)) == (0.5, 0.5)
    # Objects have 0.9, the background 0.1.
    trust.probabilities[[70, 90, 95]] = 1, 5, 2
    trust.background[:] = 1000, 100
    assert trust.as_object(0.9) == trust.as_object(0.99) == 1
    assert trust.as_object(0.7) == pytest.approx(0.5)
    assert trust.as_object(0.5) == trust.as_background(0.5) == trust.as_background(0.9) == 0
    assert trust.as_background(0.3) == pytest.approx(0.5)
    assert trust.as_background(0.1) == trust.as_background(0) == 1


def test_ranking_by_hand() -> None:
    doubt = Doubt("b", 0, "missing", 0.7, "", (0.0, 0.0), (0, 0), (1, 1), 1)
    found = [
        replace(doubt, confidence=0.1), doubt, replace(doubt, image="a"),
        replace(doubt, confidence=0.9),
    ]  # fmt: skip
    assert [(d.confidence, d.image) for d in ranked(found, 3)] == [
        (0.9, "b"), (0.7, "a"), (0.7, "b"),
    ]  # fmt: skip
    assert len(ranked(found, 1)) == 1


def test_cells_fit_into_memory() -> None:
    assert cells_per_side(10, 1) == 32
    assert cells_per_side(10**6, 1) == 8
    # A volume has eight times the cells.
    assert cells_per_side(5000, 1) == 32
    assert cells_per_side(5000, 1, volumes=True) == 16


def thumbnail(name: int, label: Any, pred: Any) -> Thumbnails:
    unit = [np.asarray(each / np.linalg.norm(each), np.float32) for each in (label, pred)]
    return Thumbnails(f"i{name}", 0, (8, 8), *unit, 0.0)


def test_exchanged_labels_are_found_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    preds = rng.normal(size=(300, 2048))
    labels = preds + 0.1 * rng.normal(size=preds.shape)
    labels[[3, 250]], labels[[4, 90]] = labels[[250, 3]], labels[[90, 4]]
    images = [thumbnail(k, *both) for k, both in enumerate(zip(labels, preds, strict=True))]
    whole = exchanged(images)
    pairs = {("i3", "i250"), ("i250", "i3"), ("i4", "i90"), ("i90", "i4")}
    assert {(d.image, d.match) for d in whole.doubts} == pairs
    monkeypatch.setattr(exchanged_labels, "ROWS", 16)
    tracemalloc.start()
    assert exchanged(images) == whole
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All of them would take 4.9 MB once more.
    assert peak < 1e6
