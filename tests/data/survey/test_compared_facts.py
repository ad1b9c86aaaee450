"""What the check says about the masks of other tools, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from tests.data.survey.surveyed import kinds, scene, survey, write
from unet.data.survey import compared_facts
from unet.data.survey.facts import DatasetSurvey, SurveyedMasks

ABOUT = {
    "no_masks", "masks_unfit", "masks_missing", "masks_unclear", "masks_are_labels", "masks_same",
    "masks_binary",
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Eight images with labels, and an empty folder for masks."""
    for number in range(8):
        write(tmp_path, f"a{number}", *scene(number))
    (tmp_path / "masks").mkdir()
    return tmp_path


def put(
    place: Path, number: int, shape: tuple[int, ...] = (96, 96), end: str = "_cp_masks"
) -> Path:
    path = place / "masks" / f"a{number}{end}.tif"
    tifffile.imwrite(path, np.ones(shape, np.uint16), photometric="minisblack")
    return path


def looked(place: Path, masks: str = "masks", **data: Any) -> DatasetSurvey:
    return survey(place, compare={"tool": masks}, **{"split": {"folds": 4}, **data})


def about(found: DatasetSurvey) -> list[tuple[str, str, str]]:
    return [(f.level, f.kind, f.text) for f in found.findings if f.kind in ABOUT]


def test_masks_of_all_images(place: Path) -> None:
    for number in range(8):
        put(place, number)
    put(place, 9)  # of no image
    found = looked(place)
    assert found.compared == (SurveyedMasks("tool", 9, (".tif",), 8, 8, (), 8, ()),)
    assert about(found) == []


def test_nothing_is_said_without_other_tools(place: Path) -> None:
    found = survey(place)
    assert found.compared == ()
    assert about(found) == []


def test_images_without_a_mask_are_named(place: Path) -> None:
    for number in (0, 1, 2):
        put(place, number)
    found = looked(place)
    assert found.compared[0].missing == ("a3", "a4", "a5", "a6", "a7")
    text = "no mask for 5 of 8 test images, which will not be scored (a3, a4, a5, a6, a7)"
    assert about(found) == [("warn", "masks_missing", text)]
    assert [f.where for f in found.findings if f.kind in ABOUT] == ["datasets.d.compare.tool"]


def test_a_renamed_mask_is_named(place: Path) -> None:
    for number in range(7):
        put(place, number)
    put(place, 7).rename(place / "masks" / "renamed_image_4.tif")
    assert {kind: text for _, kind, text in about(looked(place))} == {
        "masks_missing": "no mask for 1 of 8 test images, which will not be scored (a7)",
        "masks_unclear": "1 file belongs to no image, such as renamed_image_4.tif; name the mask "
        "of a test image like the image",
    }
    put(place, 7)
    assert about(looked(place)) == []


def test_masks_of_images_that_are_not_tested_are_no_doubt(place: Path) -> None:
    for number in range(3):
        put(place, number)
    found = looked(place, split={"folds": 4, "run": [1, 2]})
    assert found.compared[0].tested == 4
    assert 0 < found.compared[0].found < 3
    assert [kind for _, kind, _ in about(found)] == ["masks_missing"]


def test_only_tested_images_need_a_mask(place: Path) -> None:
    tested = looked(place, split={"test": 0.25}, masks=str(put(place, 0).parent)).compared[0]
    assert tested.tested == 2
    run = looked(place, split={"folds": 4, "run": [1, 2]}, masks=str(place / "masks")).compared[0]
    assert run.tested == 4
    for number in range(8):
        put(place, number)
    assert looked(place, split={"test": 0.25}).compared[0].missing == ()


def test_masks_of_another_size_and_damaged_ones(place: Path) -> None:
    for number in range(8):
        put(place, number)
    put(place, 2, (96, 95))
    (place / "masks" / "a5_cp_masks.tif").write_bytes(b"no image")
    found = looked(place)
    assert found.compared[0].unfit == ("a2", "a5")
    ((level, kind, text),) = about(found)
    assert (level, kind) == ("warn", "masks_unfit")
    assert text.startswith("2 masks cannot be scored; the first: ")
    assert text.endswith("a2_cp_masks.tif: 96 x 95 pixels, but the image has 96 x 96")


def test_masks_whose_pixels_cannot_be_decoded(place: Path) -> None:
    for number in range(8):
        path = place / "masks" / f"a{number}.tif"
        tifffile.imwrite(path, np.ones((96, 96), np.uint16), compression="zlib")
        if number not in (0, 2):
            continue
        with tifffile.TiffFile(path) as file:
            start = file.pages.first.dataoffsets[0]
        with path.open("r+b") as handle:
            handle.seek(start)
            handle.write(b"\xff" * 8)  # no zlib stream
    found = looked(place)
    # The headers of all are fine; those of a0, a1, a3, a4 and a6 are read as a whole.
    assert found.compared[0].opened == 8
    assert found.compared[0].unfit == ("a0",)
    ((level, kind, text),) = about(found)
    assert (level, kind) == ("warn", "masks_unfit")
    assert text.startswith("1 mask cannot be scored; the first: ")
    assert "a0.tif" in text


def test_masks_with_values_that_are_no_ids(place: Path) -> None:
    for number in range(8):
        mask = np.full((96, 96), 0.5 if number == 0 else 1, np.float32)
        tifffile.imwrite(place / "masks" / f"a{number}.tif", mask)
    ((_, kind, text),) = about(looked(place))
    assert kind == "masks_unfit"
    assert text.endswith(
        "a0.tif: label value 0.5 is not an instance id (whole numbers from 0 to 4294967295); write "
        "a whole number for each object, 0 for the background"
    )


def test_foreground_labels_as_masks_are_foreground_not_the_labels(place: Path) -> None:
    for number in range(8):
        write(place, f"a{number}", scene(number)[0], (scene(number)[1] > 0) * np.uint8(255))
    ((level, kind, _),) = about(looked(place, "labels", label_kind="binary"))
    assert (level, kind) == ("warn", "masks_binary")
    # With the pieces numbered as the prepare stage does, they are the labels.
    for number in range(8):
        ids, _ = ndimage.label(scene(number)[1] > 0, np.ones((3, 3)))
        tifffile.imwrite(place / "masks" / f"a{number}.tif", ids.astype(np.uint16))
    ((level, kind, _),) = about(looked(place, label_kind="binary"))
    assert (level, kind) == ("warn", "masks_are_labels")


def test_of_many_masks_some_are_opened(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(8):
        put(place, number, (9, 9))
    monkeypatch.setattr(compared_facts, "spread", lambda records, most: list(records)[:3])
    found = looked(place)
    assert (found.compared[0].found, found.compared[0].opened) == (8, 3)
    assert about(found)[0][:2] == ("warn", "masks_unfit")
    assert about(found)[0][2].startswith("3 masks of 3 looked at cannot be scored; ")


@pytest.mark.parametrize(
    ("masks", "text"),
    [
        ("nowhere", "no folder or file"),
        ("empty", "holds no mask"),
        ("masks", "none of 1 mask in"),
        ("images", "are images of the dataset, not masks"),
    ],
)
def test_what_would_stop_the_run(place: Path, masks: str, text: str) -> None:
    (place / "empty").mkdir()
    put(place, 9, end="other")
    found = looked(place, masks)
    assert found.compared == (SurveyedMasks("tool", tested=8),)
    ((level, kind, said),) = about(found)
    assert (level, kind) == ("stop", "no_masks")
    assert text in said
    assert not said.startswith("datasets.")


def test_no_mask_that_can_be_scored_would_stop_the_run(place: Path) -> None:
    put(place, 0, (5, 5))
    put(place, 1, (5, 6))
    found = looked(place)
    assert ("stop", "no_masks") in kinds(found)
    assert ("warn", "masks_missing") in kinds(found)


def test_several_kinds_of_files(place: Path) -> None:
    for number in range(8):
        np.save(place / "masks" / f"a{number}_seg.npy", np.ones((96, 96), np.uint16))
        put(place, number)
    found = looked(place)
    assert found.compared[0].kinds == (".tif",)
    ((level, kind, text),) = about(found)
    assert (level, kind) == ("warn", "masks_unclear")
    assert "tif is used, 8 .npy not" in text


def test_a_dataset_that_is_only_predicted(place: Path) -> None:
    put(place, 0)
    found = looked(place, split=None, labels="labels", predict_with=["other/m"])
    assert found.compared[0].tested == 8
    assert found.compared[0].missing == tuple(f"a{n}" for n in range(1, 8))


def test_the_folder_of_the_labels_is_noticed(place: Path) -> None:
    ((level, kind, text),) = about(looked(place, "labels"))
    assert (level, kind) == ("warn", "masks_are_labels")
    assert text.startswith("the masks are exactly the labels (5 masks looked at), so a perfect")
    # Copies of them as another type, but one that differs: no longer.
    for number in range(8):
        _, labels = scene(number)
        labels[0, 0] += number == 0
        tifffile.imwrite(place / "masks" / f"a{number}.tif", labels.astype(np.int32))
    assert about(looked(place)) == []


def test_masks_of_foreground_are_noticed(place: Path) -> None:
    for number in range(8):
        mask = (scene(number)[1] > 0) * np.uint8(255)
        tifffile.imwrite(place / "masks" / f"a{number}.tif", mask)
    ((level, kind, text),) = about(looked(place))
    assert (level, kind) == ("warn", "masks_binary")
    assert text.startswith("the masks hold only the value 255 besides 0 in many separate pieces")
    assert "skimage.measure.label" in text
    classes = {"ground": 0, "cell": 255}
    for number in range(8):
        write(place, f"a{number}", scene(number)[0], (scene(number)[1] > 3) * np.uint8(255))
    assert about(looked(place, task="semantic", classes=classes)) == []


def test_two_tools_with_the_same_masks(place: Path) -> None:
    for number in range(8):
        put(place, number)
        other = place / "other" / f"a{number}.tif"
        other.parent.mkdir(exist_ok=True)
        tifffile.imwrite(other, np.ones((96, 96), np.uint8))
    data: dict[str, Any] = {"split": {"folds": 4}}
    found = survey(place, compare={"one": "masks", "two": "other"}, **data)
    assert about(found) == [
        ("warn", "masks_same", "the masks are exactly those of datasets.d.compare.one (5 masks "
         "looked at): is it the right folder?"),
    ]  # fmt: skip
    assert [f.where for f in found.findings if f.kind in ABOUT] == ["datasets.d.compare.two"]
    # Empty masks say nothing, and one that differs is another tool.
    tifffile.imwrite(place / "other" / "a0.tif", np.zeros((96, 96), np.uint8))
    assert about(survey(place, compare={"one": "masks", "two": "other"}, **data)) == []
