"""The compare stage: masks of other tools, on stores written by the code of the earlier stages."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.evaluated import Stores, values
from unet.config.choices import FAMILY_TABLE
from unet.config.compare_settings import CompareSettings
from unet.config.sections import EvaluateSection
from unet.data.compared_masks import find_compared, masks_fingerprint
from unet.data.mask_claims import Named
from unet.data.raw_changes import Hashes, stamp, write_inputs
from unet.data.records import SplitRecord
from unet.data.store import Prepared
from unet.errors import UserError
from unet.evaluation.compared import Comparison, compare_tool, images_of_folds
from unet.evaluation.families import MASK_FAMILIES
from unet.paths import ENSEMBLE, Paths, compared_model
from unet.prediction.stitch.segmentation import Segmentation

TRUTH = np.array([[1, 1, 0, 0, 2, 2], [1, 1, 0, 0, 2, 2], [0, 0, 0, 0, 0, 0]], np.uint32)
# Object 1 as it is, half of object 2.
PREDICTED = np.array([[7, 7, 0, 0, 9, 0], [7, 7, 0, 0, 9, 0], [0, 0, 0, 0, 0, 0]], np.uint16)
FAMILIES = ("pixel", "instance", "objects", "rand", "boundary")


class Place:
    """A dataset whose images a, b, c are tested in fold 0 and d in fold 1, and a tool's folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.stores, self.paths = root, Stores(root / "out"), Paths(root / "out")
        self.masks = root / "masks"
        self.masks.mkdir()
        (root / "images").mkdir()
        for image in "abcd":
            self.truth(image, TRUTH)

    def truth(self, image: str, ids: np.ndarray[Any, Any]) -> None:
        classes = (ids > 0).astype(np.uint8)
        self.stores.truth(image, classes, ids, group=f"plate {image}")

    def write(self, name: str, mask: Any = PREDICTED) -> Path:
        path = self.masks / name
        tifffile.imwrite(path, np.asarray(mask), photometric="minisblack")
        return path

    def compare(
        self,
        tested: dict[int, list[str]] | None = None,
        where: str = "",
        **settings: Any,
    ) -> tuple[list[Any], list[str]]:
        given: dict[str, Any] = {
            "task": "instances", "class_names": ("background", "foreground"), "axes": None,
            "class_values": None, "evaluate": EvaluateSection(metrics=("pixel", "instance")),
            "fingerprint": "", **settings,
        }  # fmt: skip
        tested = {0: ["a", "b", "c"], 1: ["d"]} if tested is None else tested
        stores = {
            fold: self.paths.segmentation("cells", compared_model("tool"), fold) for fold in tested
        }
        key = "datasets.cells.compare.tool"
        job = Comparison(
            "cells", "tool", key, find_compared(where or str(self.masks), Path(), key),
            [Named(i, self.root / "images" / f"{i}.tif", f"images/{i}") for i in "abcd"], tested,
            stores, Prepared(self.stores.prepared), CompareSettings.made(**given),
        )  # fmt: skip
        return compare_tool(job)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# --- scores


def test_scores_by_hand_are_rows_like_those_of_a_model(place: Place) -> None:
    for name in "abcd":
        place.write(f"{name}_cp_masks.tif")
    rows, warnings = place.compare()
    assert {row[:5] for row in rows} == {
        ("cells", "tool", fold, image, f"plate {image}")
        for fold, image in ((0, "a"), (0, "b"), (0, "c"), (1, "d"))
    }
    found = values(rows, class_="instances")
    assert (found["n_true"], found["n_pred"]) == (2, 2)
    assert found["ap_0.50"] == 1
    assert found["ap_0.55"] == pytest.approx(1 / 3)
    assert found["seg"] == pytest.approx((1 + 0) / 2)  # half an object is not more than half
    assert values(rows, class_="foreground")["iou"] == pytest.approx(6 / 8)
    # The masks are the same by construction.
    assert warnings == ["tool: 4 images have exactly the same mask (a, b, c, d)"]


def test_the_same_numbers_as_the_evaluate_stage(place: Place) -> None:
    place.write("a.tif")
    rows, _ = place.compare({0: ["a"]}, evaluate=EvaluateSection(metrics=FAMILIES))
    place.stores.prediction("a", PREDICTED > 0, PREDICTED)
    expected = place.stores.evaluate(*FAMILIES, task="instances", groups={"a": "plate a"})
    assert [row[2:7] for row in rows] == [row[2:7] for row in expected]
    for found, same in zip(rows, expected, strict=True):
        assert found[7:] == pytest.approx(same[7:], nan_ok=True)


def test_the_store_is_read_like_that_of_a_model(place: Place) -> None:
    place.write("a.tif")
    place.compare({0: ["a"], 1: ["d"]})
    store = Segmentation(place.paths.segmentation("cells", "compared/tool", 0))
    assert store.ids() == ["a"]
    assert store.attrs("a") == {
        "head": ["background", "foreground"], "part": "test", "axes": "CYX", "pixel_size_um": None,
    }  # fmt: skip
    ids = store.instances("a")
    assert ids is not None
    assert np.array_equal(ids[:], PREDICTED)
    assert np.array_equal(store.classes("a")[:], PREDICTED > 0)
    assert not store.has_probabilities("a")
    # A fold without masks has an empty store.
    assert Segmentation(place.paths.segmentation("cells", "compared/tool", 1)).ids() == []


def test_classes_have_the_values_of_the_config(place: Place) -> None:
    place.write("a.tif", np.where(PREDICTED > 0, 255, 10).astype(np.uint8))
    place.write("b.tif", PREDICTED)
    names = {"class_names": ("ground", "cell"), "class_values": (10, 255), "task": "semantic"}
    section = EvaluateSection(metrics=("pixel", "instance"))
    rows, warnings = place.compare({0: ["a", "b"]}, evaluate=section, **names)
    assert values(rows, class_="cell")["iou"] == pytest.approx(6 / 8)
    assert {row.image for row in rows} == {"a"}
    assert {row.class_ for row in rows} == {"ground", "cell", "foreground-mean", "all"}
    assert len(warnings) == 1
    assert "not scored: b: label value 7 is not declared (classes: ground: 10" in warnings[0]


def test_volumes(place: Place) -> None:
    truth, mask = np.stack([TRUTH, TRUTH, TRUTH * 0]), np.stack([PREDICTED] * 3)
    place.truth("a", truth)
    np.save(place.masks / "a_seg.npy", np.array({"masks": mask}, dtype=object))
    rows, _ = place.compare({0: ["a"]})
    assert values(rows, class_="foreground")["iou"] == pytest.approx(12 / 22)
    attrs = Segmentation(place.paths.segmentation("cells", "compared/tool", 0)).attrs("a")
    assert attrs["axes"] == "CZYX"


def test_ensembles_and_datasets_without_splits(place: Place) -> None:
    rows = [SplitRecord(i, f, "test") for f in (0, 2) for i in "ab"]
    rows += [SplitRecord("c", 0, "val"), SplitRecord("c", 2, "train")]
    prepared = Prepared(place.stores.prepared)
    assert images_of_folds(rows, [ENSEMBLE], prepared) == {ENSEMBLE: ["a", "b"]}
    assert images_of_folds(rows, [0, 2], prepared) == {0: ["a", "b"], 2: ["a", "b"]}
    place.stores.truth("e", None, shape=(4, 4))
    assert images_of_folds([], [ENSEMBLE], prepared) == {ENSEMBLE: ["a", "b", "c", "d"]}


def test_families_that_need_probabilities_are_those_without_masks_in_the_table() -> None:
    assert {name for name, family in FAMILY_TABLE.items() if family.masks} == set(MASK_FAMILIES)


# --- what is said


def test_missing_images_are_said_and_have_no_rows(place: Place) -> None:
    place.write("a.tif")
    place.write("b.tif", PREDICTED[:, ::-1])
    rows, warnings = place.compare()
    assert {row.image for row in rows} == {"a", "b"}
    assert not any(row.value == 0 and row.image in "cd" for row in rows)
    missing = "tool: no mask for 2 of 4 test images, not scored (c, d)"
    assert warnings == [missing]
    place.write("other.tif")
    place.write("renamed.tif")
    _, warnings = place.compare()
    assert warnings == [
        "tool: 2 files belong to no image, such as other.tif; name the mask of a test image like "
        "the image",
        missing,
    ]


def test_unusable_masks_are_said(place: Place) -> None:
    place.write("a.tif")
    place.write("b.tif", PREDICTED[:2])
    (place.masks / "c.tif").write_bytes(b"no image")
    place.write("d.tif", PREDICTED.astype(np.float32) / 2)
    rows, warnings = place.compare()
    assert {row.image for row in rows} == {"a"}
    assert [line.split(": ")[1:3] for line in warnings] == [["not scored", i] for i in "bcd"]
    assert "b: 2 x 6 pixels, but the image has 3 x 6" in warnings[0]
    assert "label value 3.5 is not an instance id" in warnings[2]


def test_no_usable_mask_is_an_error_and_leaves_nothing(place: Place) -> None:
    place.write("a.tif", PREDICTED[:2])
    with pytest.raises(UserError, match=r"compare\.tool: none of 1 mask can be scored, .*a\.tif"):
        place.compare()
    assert not list(place.root.glob("out/cells/compared/**/*segmentation*"))


def test_copies_of_the_labels_and_swapped_masks(place: Place) -> None:
    other = TRUTH[:, ::-1].copy()
    place.truth("b", other)
    place.write("a.tif", TRUTH.astype(np.uint16))
    assert place.compare({0: ["a"]})[1] == [
        "tool: all 1 mask is exactly the labels, so a perfect score says nothing: are these "
        "copies of the labels?"
    ]
    place.write("a.tif", other.astype(np.uint16))
    place.write("b.tif", TRUTH.astype(np.uint8))
    warnings = place.compare({0: ["a", "b"]})[1]
    assert warnings == [
        "tool: the mask of a is exactly the label of b: are files swapped?",
        "tool: the mask of b is exactly the label of a: are files swapped?",
    ]


def test_empty_masks_are_scored_and_said(place: Place) -> None:
    place.write("a.tif")
    place.write("b.tif", PREDICTED * 0)
    rows, warnings = place.compare({0: ["a", "b"]})
    assert values(rows, "b", "instances")["ap_0.50"] == 0
    assert warnings == ["tool: 1 mask without objects (b)"]


def test_foreground_instead_of_objects_is_doubted(place: Place) -> None:
    truth = np.zeros((20, 20), np.uint32)
    truth[1:5, 1:5], truth[8:12, 1:5], truth[1:5, 8:12] = 1, 2, 3
    place.truth("a", truth)
    place.write("a.tif", np.where(np.roll(truth, 1, 1) > 0, 255, 0).astype(np.uint8))
    warnings = place.compare({0: ["a"]})[1]
    assert len(warnings) == 1
    assert "hold only the value 255 besides 0, in many separate pieces" in warnings[0]


def test_images_instead_of_masks_are_an_error(place: Place) -> None:
    place.truth("a", np.ones((64, 64), np.uint32))
    noise = np.random.default_rng(0).integers(1, 60000, (64, 64)).astype(np.uint16)
    place.write("a.tif", noise)
    with pytest.raises(UserError, match=r"compare\.tool: the masks look like images"):
        place.compare({0: ["a"]})


# --- changes of the files


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    folder, noted = tmp_path / "masks", tmp_path / "masks.json"
    folder.mkdir()
    (folder / "a.tif").write_bytes(b"one")

    def now(where: Path = folder) -> str:
        return masks_fingerprint(find_compared(str(where), Path(), "key"), noted)

    first = now()
    found = find_compared(str(folder), Path(), "key")
    stamps = {item.path: stamp(item.path) for item in found.files}
    write_inputs(noted, found.root, first, stamps, Hashes().of)
    (folder / "a.tif").touch()
    assert now() == first
    moved = folder.rename(tmp_path / "moved")
    assert now(moved) == first
    (moved / "notes.txt").write_text("not a mask", "utf-8")
    assert now(moved) == first
    (moved / "a.tif").write_bytes(b"two")
    assert now(moved) != first
    (moved / "a.tif").write_bytes(b"one")
    (moved / "b.tif").write_bytes(b"one")
    assert now(moved) != first


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no folder or file"),
        (lambda path: path.mkdir(), "holds no mask .*geojson"),
    ],
)
def test_missing_folders(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    make(tmp_path / "masks")
    with pytest.raises(UserError, match=f"key: .*{message}"):
        find_compared("masks", tmp_path, "key")


def test_a_json_of_what_was_compared_is_readable(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"one")
    found = find_compared(str(tmp_path / "a.tif"), Path(), "key")
    stamps = {item.path: stamp(item.path) for item in found.files}
    write_inputs(tmp_path / "masks.json", found.root, "f", stamps, Hashes().of)
    files = json.loads((tmp_path / "masks.json").read_text("utf-8"))["files"]
    assert files["a.tif"][0] == 3
    assert math.isfinite(files["a.tif"][1])
