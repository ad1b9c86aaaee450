"""What a folder holds, found out by looking at its files and labels."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import folder_forms as forms
from unet.data.survey import label_meaning
from unet.data.survey.file_meaning import meaning_of_files
from unet.data.survey.label_meaning import Meaning, meaning_of
from unet.data.survey.recognise import dataset_name, recognise
from unet.errors import UserError


def only(folder: Path) -> Any:
    (place,) = recognise(folder).values()
    return place


def meaning(folder: Path) -> Meaning:
    return meaning_of(only(folder).pairs())


# The layout


@pytest.mark.parametrize(
    ("form", "layout", "images", "labels", "pairs"),
    [
        ("two folders", "folders", "images", "labels", 6),
        ("one folder", "folders", ".", "*_masks.tif", 6),
        ("words", "folders", "img_*.tif", "mask_*.tif", 6),
        ("nnunet", "nnunet", ".", None, 6),
        ("ctc", "ctc", ".", None, 9),
        ("dsb2018", "dsb2018", ".", None, 6),
        ("sheet", "folders", "sheet.csv", None, 6),
        ("stack", "stack", "train-volume.tif", "train-labels.tif", 1),
        ("volumes", "folders", "images", "labels", 4),
        ("zarr", "ome-zarr", ".", None, 6),
    ],
)
def test_every_form(
    tmp_path: Path, form: str, layout: str, images: str, labels: str | None, pairs: int
) -> None:
    place = only(forms.FORMS[form](tmp_path / "mine"))
    assert (place.layout, place.images, place.labels) == (layout, images, labels)
    found = place.pairs()
    assert len(found) == pairs
    assert all(pair.label is not None for pair in found)
    assert place.seen
    # The same one folder up: as a subfolder.
    above = only(tmp_path)
    assert len(above.pairs()) == pairs


@pytest.mark.parametrize(
    ("images", "labels"),
    [("image", "masks"), ("IMG", "GT"), ("raw", "annotations"), ("cells", "mask"), ("x", "y")],
)
def test_usual_names_of_folders(tmp_path: Path, images: str, labels: str) -> None:
    place = only(forms.two_folders(tmp_path / "d", images, labels))
    assert (place.images, place.labels) == (images, labels)


@pytest.mark.parametrize("ending", ["_masks", "_mask", "_label", "_cp_masks", "_seg"])
def test_endings_in_one_folder(tmp_path: Path, ending: str) -> None:
    place = only(forms.one_folder(tmp_path / "d", ending))
    assert place.labels == f"*{ending}.tif"
    assert len(place.pairs()) == 6


def test_labels_beside_a_folder_of_other_files(tmp_path: Path) -> None:
    forms.two_folders(tmp_path, ".", "labels")
    place = only(tmp_path)
    assert (place.images, place.labels) == (".", "labels")


def test_the_better_of_two_label_folders_and_the_other_as_a_comment(tmp_path: Path) -> None:
    forms.two_folders(tmp_path, labels="masks")
    forms.two_folders(tmp_path, labels="labels", number=2)
    place = only(tmp_path)
    assert place.labels == "masks"
    assert place.others == (("labels: labels", "2 pairs by name"),)


def test_training_folder_before_test_folder(tmp_path: Path) -> None:
    forms.two_folders(tmp_path / "d" / "train")
    forms.two_folders(tmp_path / "d" / "test", number=2)
    (name,) = found = recognise(tmp_path / "d")
    assert name == "d"
    assert (found[name].images, found[name].labels) == ("train/images", "train/labels")
    assert "left out: test" in found[name].seen[-1]
    assert len(found[name].pairs()) == 6


def test_several_datasets(tmp_path: Path) -> None:
    forms.two_folders(tmp_path / "nuclei")
    forms.one_folder(tmp_path / "my cells")
    found = recognise(tmp_path)
    assert sorted(found) == ["my-cells", "nuclei"]
    assert {place.root for place in found.values()} == {tmp_path.resolve()}
    assert [len(place.pairs()) for place in found.values()] == [6, 6]


def test_a_table_of_something_else_is_not_a_sheet(tmp_path: Path) -> None:
    forms.two_folders(tmp_path)
    (tmp_path / "ids.csv").write_text("name,count\na,3\n")
    (tmp_path / "broken.csv").write_bytes(b"PK\x03\x04")
    assert only(tmp_path).images == "images"


def test_part_column_of_a_sheet(tmp_path: Path) -> None:
    assert only(forms.sheet(tmp_path)).keys == {"split": {"column": "part"}}


def test_images_without_labels(tmp_path: Path) -> None:
    forms.two_folders(tmp_path)
    shutil.rmtree(tmp_path / "labels")
    with pytest.raises(UserError, match=r"6 images .* nothing to train on.* unet predict MODEL"):
        recognise(tmp_path)


def test_nothing_at_all(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="no images"):
        recognise(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        recognise(tmp_path / "missing")


def test_names_for_the_config() -> None:
    assert dataset_name("My cells (2)") == "My-cells-2"
    assert dataset_name("--") == "mine"
    assert dataset_name("raw") == "my-raw"
    assert len(dataset_name("a" * 99)) == 64


# The meaning of labels


def test_numbered_objects(tmp_path: Path) -> None:
    found = meaning(forms.two_folders(tmp_path))
    assert (found.kind, found.ignore) == ("instances", None)
    assert "numbers 1 to 8" in found.seen[0]


def test_a_binary_mask_of_separate_objects(tmp_path: Path) -> None:
    folder = forms.two_folders(tmp_path, change=lambda a: ((a > 0) * 255).astype(np.uint8))
    found = meaning(folder)
    assert (found.kind, found.alternative) == ("binary", "semantic")
    assert found.classes == {"background": 0, "foreground": 255}
    assert "separate pieces" in found.checks[0]


def test_an_inverted_mask_gets_no_names(tmp_path: Path) -> None:
    folder = forms.two_folders(tmp_path, change=lambda a: ((a == 0) * 255).astype(np.uint8))
    found = meaning(folder)
    assert (found.kind, found.classes) == ("semantic", {"value_0": 0, "value_255": 255})
    # The bright squares have value 0: share and intensity of each value say so.
    assert "value 0: " in found.seen[1]
    assert "mean intensity 35" in found.seen[1]
    assert "which one is the background" in found.checks[0]


def test_classes(tmp_path: Path) -> None:
    def classes(a: Any) -> Any:
        return np.where(a == 0, 0, 1 + a % 2).astype(np.uint8)

    found = meaning(forms.two_folders(tmp_path, change=classes))
    assert found.kind == "semantic"
    assert found.classes == {"background": 0, "value_1": 1, "value_2": 2}
    assert found.alternative == "instances"
    assert len(found.seen) == 4


def test_pieces_of_all_values_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0).integers(0, 4, (3, 12, 20))
    got = label_meaning._pieces_of_each(random, 5)
    assert got.tolist() == [label_meaning._pieces(random == value) for value in range(5)]
    calls: list[int] = []
    label_of = label_meaning.ndimage.label

    def counted(*args: Any) -> Any:
        calls.append(1)
        return label_of(*args)

    monkeypatch.setattr(label_meaning.ndimage, "label", counted)
    assert meaning(forms.two_folders(tmp_path)).kind == "instances"
    # Not one for each object of each of the six labels.
    assert len(calls) == 6


def test_ignored_values(tmp_path: Path) -> None:
    def unknown(a: Any) -> Any:
        made = np.where(a == 0, 0, 1 + a % 2).astype(np.uint8)
        made[:3] = 255
        return made

    found = meaning(forms.two_folders(tmp_path, change=unknown))
    assert (found.kind, found.ignore) == ("semantic", 255)
    assert 255 not in found.classes.values()
    assert "255" in found.checks[0]


def test_negative_values_are_ignored(tmp_path: Path) -> None:
    def unknown(a: Any) -> Any:
        made = a.astype(np.int16)
        made[:3] = -1
        return made

    found = meaning(forms.two_folders(tmp_path, change=unknown))
    assert (found.kind, found.ignore) == ("instances", -1)


def test_empty_labels(tmp_path: Path) -> None:
    found = meaning(forms.two_folders(tmp_path, change=np.zeros_like))
    assert "hold no object" in found.checks[0]


def test_few_objects_are_pointed_out(tmp_path: Path) -> None:
    def few(a: Any) -> Any:
        made = np.zeros_like(a)
        made[0, :3], made[5, :3] = 1, 2
        return made

    assert "cover only" in meaning(forms.two_folders(tmp_path, change=few)).checks[-1]


def test_mask_files(tmp_path: Path) -> None:
    assert meaning(forms.dsb2018(tmp_path)).kind == "instances"


def test_an_unreadable_label_among_good_ones(tmp_path: Path) -> None:
    forms.two_folders(tmp_path)
    (tmp_path / "labels" / "a3.tif").write_bytes(b"II*\0")
    assert meaning(tmp_path).kind == "instances"
    for path in (tmp_path / "labels").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="empty"):
        meaning(tmp_path)


# The meaning of axes


def test_planes(tmp_path: Path) -> None:
    found = meaning_of_files(only(forms.two_folders(tmp_path)).pairs())
    assert (found.dims, found.stack, found.axes, found.images) == (2, False, None, 6)


@pytest.mark.parametrize("declared", [True, False])
def test_volumes(tmp_path: Path, declared: bool) -> None:
    found = meaning_of_files(only(forms.volumes(tmp_path, declared=declared)).pairs())
    assert (found.dims, found.stack, found.images) == (3, False, 4)
    assert found.axes == (None if declared else "ZYX")


@pytest.mark.parametrize("declared", [True, False])
def test_one_volume_cannot_be_split(tmp_path: Path, declared: bool) -> None:
    found = meaning_of_files(only(forms.volumes(tmp_path, 1, declared)).pairs())
    assert (found.dims, found.stack, found.images) == (2, True, 12)
    assert "planes are read as separate images" in found.checks[0]


def test_pages_with_other_numbers_are_images(tmp_path: Path) -> None:
    forms.stacks(tmp_path / "d")
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    (tmp_path / "d" / "train-volume.tif").rename(tmp_path / "images" / "a.tif")
    (tmp_path / "d" / "train-labels.tif").rename(tmp_path / "labels" / "a.tif")
    found = meaning_of_files(only(tmp_path).pairs())
    assert (found.stack, found.images, found.alternative) == (True, 6, "axes: ZYX")


def test_pages_with_a_label_of_one_plane_are_channels(tmp_path: Path) -> None:
    for i in range(3):
        image, label = forms.scene(i)
        many = np.stack([image] * 5)
        forms.write(tmp_path / "images" / f"a{i}.tif", many, metadata=None)
        forms.write(tmp_path / "labels" / f"a{i}.tif", label)
    found = meaning_of_files(only(tmp_path).pairs())
    assert (found.dims, found.axes) == (2, "CYX")
