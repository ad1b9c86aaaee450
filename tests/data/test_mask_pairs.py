"""Pairs of masks by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from unet.data.file_names import Found
from unet.data.mask_pairs import MaskPairs, bare_name, find_masks, pair_images, pair_masks
from unet.errors import UserError


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("a", "a"), ("a_mask", "a"), ("a_cp_masks", "a"), ("a-Pred", "a"), ("x/a_seg", "x/a"),
        ("a_seg_pred", "a"), ("a.labels", "a"), ("a_label_image", "a"), ("mask", "mask"),
        ("unmasked", "unmasked"), ("a_mask2", "a_mask2"), ("_mask", "_mask"),
    ],
)  # fmt: skip
def test_endings_say_nothing(name: str, bare: str) -> None:
    assert bare_name(name) == bare


def paired(
    truth: list[str], predicted: list[str], warn: Callable[[str], None] = lambda text: None
) -> MaskPairs:
    return pair_masks(
        [Found(Path("t", name), name) for name in truth],
        [Found(Path("p", name), name) for name in predicted],
        "PREDICTED",
        warn=warn,
    )


def names(pairs: MaskPairs) -> dict[str, str | None]:
    return {p.image: None if p.predicted is None else p.predicted.name for p in pairs.pairs}


def test_by_name_then_without_endings() -> None:
    found = paired(["a_mask", "b_mask", "c", "d"], ["a_cp_masks", "b_mask", "c_pred", "e_pred"])
    assert names(found) == {"a": "a_cp_masks", "b": "b_mask", "c": "c_pred", "d": None}
    assert [path.name for path in found.extra] == ["e_pred"]


def test_an_ending_that_tells_files_apart_is_kept() -> None:
    found = paired(["a_mask", "a_seg"], ["a_mask", "a_seg"])
    assert names(found) == {"a_mask": "a_mask", "a_seg": "a_seg"}
    # Two masks of one image: nothing says which one is meant.
    with pytest.raises(UserError, match="none of the 2 predicted masks is named like"):
        paired(["a"], ["a_mask", "a_seg"])


def test_ids_of_unet_predict_are_known() -> None:
    from unet.data.file_names import safe_id

    found = paired(["well 1_mask", "well 2", "ä"], [safe_id(n) for n in ("well 1", "well 2", "ä")])
    assert None not in names(found).values()
    assert len(set(names(found).values())) == 3


def test_a_missing_mask_does_not_take_that_of_another_folder() -> None:
    true, predicted = ["mouse1/s1", "mouse1/s2", "mouse2/s3"], ["mouse1/s2", "mouse2/s3"]
    found = paired(true, [*predicted, "mouse2/s1"])
    assert [p.predicted for p in found.pairs] == [None, Path("p/mouse1/s2"), Path("p/mouse2/s3")]
    assert found.extra == (Path("p/mouse2/s1"),)
    images = [Found(Path("i", name), name) for name in (*predicted, "mouse2/s1")]
    assert set(pair_images(found, images)) == {"mouse1/s2", "mouse2/s3"}


def test_the_text_of_a_star_does_not_fill_a_gap(tmp_path: Path) -> None:
    for name in ("t/a_1", "t/b_2", "p/a_1", "p/c_2"):
        write(tmp_path / f"{name}.tif")
    truth = find_masks(str(tmp_path / "t" / "?_*.tif"), "T")
    predicted = [
        Found(p.path, p.name, p.wild[1:]) for p in find_masks(str(tmp_path / "p/?_*"), "P")
    ]
    truth = [Found(item.path, item.name, item.wild[1:]) for item in truth]
    assert [p.predicted and p.predicted.name for p in pair_masks(truth, predicted, "P").pairs] == [
        "a_1.tif", None,
    ]  # fmt: skip


def test_names_alone_pair_only_if_no_folder_does_and_this_is_said() -> None:
    said: list[str] = []
    found = paired(["a/s1", "b/s2"], ["s1", "s2"], said.append)
    assert names(found) == {"a/s1": "s1", "b/s2": "s2"}
    assert not said
    found = paired(["a/s1", "b/s2"], ["x/s1", "y/s2"], said.append)
    assert names(found) == {"a/s1": "s1", "b/s2": "s2"}
    (line,) = said
    assert "2 files are paired without, such as t/a/s1 with p/x/s1" in line


def test_one_unclear_name_leaves_the_others_paired() -> None:
    said: list[str] = []
    found = paired(["a_mask", "b_mask", "b_label", "x"], ["a_pred", "b_pred", "x"], said.append)
    assert [p.predicted and p.predicted.name for p in found.pairs] == ["a_pred", None, None, "x"]
    (line,) = said
    assert "PREDICTED: 1 name could stand for several files (b: b_mask, b_label, b_pred)" in line


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.ones((4, 5), np.uint8))


def test_a_result_of_unet_predict_stands_for_its_masks(tmp_path: Path) -> None:
    write(tmp_path / "out" / "masks" / "a.tif")
    (tmp_path / "out" / "predict.json").write_text("{}")
    for where in ("out", "out/masks"):
        found = find_masks(str(tmp_path / where), "PREDICTED")
        assert [item.name for item in found] == ["a"]


def test_masks_beside_images_are_told_apart(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / f"{name}.tif")
        write(tmp_path / f"{name}_cp_masks.tif")
    said: list[str] = []
    found = find_masks(str(tmp_path), "PREDICTED", said.append)
    assert [item.name for item in found] == ["a_cp_masks", "b_cp_masks"]
    assert "2 of 4 files end in _cp_masks" in said[0]


def test_two_globs_by_the_text_of_their_star(tmp_path: Path) -> None:
    for k in range(3):
        write(tmp_path / "res" / f"mask{k}.tif")
        write(tmp_path / "gt" / f"man_seg{k}.tif")
    truth = find_masks(str(tmp_path / "gt" / "man_seg*.tif"), "TRUTH")
    found = pair_masks(truth, find_masks(str(tmp_path / "res" / "mask*.tif"), "P"), "P")
    assert [p.predicted and p.predicted.name for p in found.pairs] == [
        f"mask{k}.tif" for k in range(3)
    ]


def test_one_file_each_needs_no_common_name() -> None:
    truth, predicted = [Found(Path("x.tif"), "x")], [Found(Path("y.tif"), "y")]
    assert pair_masks(truth, predicted, "P", one_file=True).pairs[0].predicted == Path("y.tif")
    with pytest.raises(UserError, match="none of the 1 predicted masks"):
        pair_masks(truth, predicted, "P")


def test_images_by_the_same_rules() -> None:
    pairs = paired(["a_mask", "b_mask"], ["a", "b"])
    images = [Found(Path("i", name), name) for name in ("a", "c")]
    assert pair_images(pairs, images) == {"a": Path("i/a")}


def test_pickles_of_cellpose_are_not_read(tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> object:
            return os.mkdir, (str(tmp_path / "run"),)

    np.save(tmp_path / "a_seg.npy", np.array({"masks": Bad()}, dtype=object))
    for where in (tmp_path, tmp_path / "a_seg.npy"):
        with pytest.raises(UserError, match=r"a_seg.npy: a .npy file .*cellpose --save_tif"):
            find_masks(str(where), "PREDICTED")
    assert not (tmp_path / "run").exists()
