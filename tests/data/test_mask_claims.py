"""Which image a tool's mask belongs to."""

from __future__ import annotations

from pathlib import Path

import pytest

from unet.data.compared_masks import find_compared, match_masks, names_of
from unet.data.file_names import safe_id
from unet.data.mask_claims import Named
from unet.data.records import ImageRecord
from unet.errors import UserError


def matched(
    folder: Path, names: list[str], images: list[Named] | None = None
) -> tuple[dict[str, str], list[str]]:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    images = images or [
        Named(i, folder / "raw" / f"{i}.tif", f"raw/{i}") for i in ("a", "a_1", "b")
    ]
    warnings: list[str] = []
    wanted = {image.id for image in images}
    found = find_compared(str(folder), Path(), "key")
    pairs = match_masks(found, images, wanted, "key", warnings.append)
    return {image: path.name for image, path in pairs.items()}, warnings


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "_cp_masks",
        "_seg",
        "_masks",
        ".ome",
        "_pred",
        ".stardist",
        "_rois",
        "_labels",
        "_label_map",
    ],
)
@pytest.mark.parametrize("suffix", [".tif", ".png", ".npy", ".geojson", ".zip"])
def test_names_that_tools_write(tmp_path: Path, ending: str, suffix: str) -> None:
    if ending == ".ome" and suffix != ".tif":
        return  # only OME-TIFF has two suffixes
    names = [f"{image}{ending}{suffix}" for image in ("a", "a_1", "b")]
    assert matched(tmp_path, names) == (dict(zip(("a", "a_1", "b"), names, strict=True)), [])


def test_the_longest_name_at_the_beginning_counts(tmp_path: Path) -> None:
    pairs, warnings = matched(tmp_path, ["a_1_Object Identities.tiff", "b.cells v2.tiff"])
    assert pairs == {"a_1": "a_1_Object Identities.tiff", "b": "b.cells v2.tiff"}
    assert warnings == [
        "2 masks matched by the beginning of the name, such as a_1_Object Identities.tiff with a_1"
    ]


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["a.tif", "a_seg.npy"], "a_seg.npy"),  # Cellpose's window, next to the images
        (["a.png", "a_cp_masks.png", "a_seg.npy", "a_rois.zip"], "a_cp_masks.png"),
        (["a_cp_masks.tif", "a_cp_masks.png"], "a_cp_masks.tif"),
        (["a.tif", "a.geojson"], "a.geojson"),
    ],
)
def test_one_kind_of_files_is_taken_and_said(tmp_path: Path, names: list[str], taken: str) -> None:
    pairs, warnings = matched(tmp_path, names)
    assert pairs == {"a": taken}
    assert [line for line in warnings if f"{Path(taken).suffix} is used" in line] == warnings


def test_images_of_the_dataset_are_no_masks(tmp_path: Path) -> None:
    images = [Named("a", tmp_path / "a.tif", "a")]
    with pytest.raises(UserError, match=r"key: all 1 file in .* are images of the dataset"):
        matched(tmp_path, ["a.tif"], images)


def test_several_masks_of_one_image_are_left_out_and_said(tmp_path: Path) -> None:
    pairs, warnings = matched(tmp_path, ["a_cells.tif", "a_nuclei.tif", "b.tif"])
    assert pairs == {"b": "b.tif"}
    assert warnings == [
        "1 image left out because several masks could be theirs (a: a_cells.tif, a_nuclei.tif); "
        "narrow the glob"
    ]


def test_several_masks_of_all_images_are_an_error(tmp_path: Path) -> None:
    names = [f"{image}{end}.tif" for image in "abc" for end in ("_cells", "_nuclei")]
    with pytest.raises(UserError, match=r"2 images left out .*a_cells\.tif, a_nuclei\.tif; b: "):
        matched(tmp_path, names)


def test_no_name_in_common_shows_both(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"none of 1 mask .* 3 test images \(such as x\.tif and raw/"
    ):
        matched(tmp_path, ["x.tif"])


def test_a_stack_of_masks_for_a_stack_of_images(tmp_path: Path) -> None:
    pages = [Named(f"s-{k}", tmp_path / "raw" / "s.tif", "raw/s", k) for k in range(2)]
    assert matched(tmp_path, ["any.tif"], pages)[0] == {"s-0": "any.tif", "s-1": "any.tif"}
    assert matched(tmp_path / "own", ["s-1.tif", "s-0.tif"], pages)[0] == {
        "s-0": "s-0.tif", "s-1": "s-1.tif",
    }  # fmt: skip


def folders(root: Path, *names: str) -> list[Named]:
    """Images in subfolders, with the ids that the manifest gives them."""
    return [Named(safe_id(n), root / "raw" / f"{n}.tif", f"cells/raw/{n}", None) for n in names]


def in_folders(
    root: Path, names: list[str], images: list[Named]
) -> tuple[dict[str, str], list[str]]:
    for name in names:
        path = root / "tool" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    warnings: list[str] = []
    found = find_compared(str(root / "tool" / "**" / "*.*"), Path(), "key")
    pairs = match_masks(found, images, {i.id for i in images}, "key", warnings.append)
    return {i: path.relative_to(root / "tool").as_posix() for i, path in pairs.items()}, warnings


@pytest.mark.parametrize("end", ["", "_pred", "_cells"])
def test_folders_decide_between_images_of_the_same_name(tmp_path: Path, end: str) -> None:
    images = folders(tmp_path, "A/img1", "B/img1")
    alone, _ = in_folders(tmp_path, [f"A/img1{end}.tif"], images)
    assert alone == {"A-img1": f"A/img1{end}.tif"}
    both, _ = in_folders(tmp_path, [f"A/img1{end}.tif", f"B/img1{end}.tif"], images)
    assert both == {"A-img1": f"A/img1{end}.tif", "B-img1": f"B/img1{end}.tif"}


def test_a_second_mask_of_an_image_is_not_that_of_its_namesake(tmp_path: Path) -> None:
    images = folders(tmp_path, "A/img1", "B/img1")
    pairs, _ = in_folders(tmp_path, ["A/img1.tif", "A/img1_pred.tif", "A/img1_x.tif"], images)
    assert pairs == {"A-img1": "A/img1_pred.tif"}


@pytest.mark.parametrize("end", ["", "_pred", "_cells"])
def test_a_name_of_several_images_without_a_folder_is_not_used(tmp_path: Path, end: str) -> None:
    images = folders(tmp_path, "A/img1", "B/img1", "A/img2")
    pairs, warnings = matched(tmp_path, [f"img1{end}.tif", "img2.tif"], images)
    assert pairs == {"A-img2": "img2.tif"}
    assert warnings == [
        f"1 file not used because several images have the name (such as img1{end}.tif); put the "
        "masks into folders named like those of the images"
    ]


def test_the_mask_of_an_image_that_is_left_out_is_not_that_of_another(tmp_path: Path) -> None:
    records = [
        ImageRecord("img", "raw/img.tif"),
        ImageRecord("img_3", "raw/img_3.tif", status="quarantined", reason="no label"),
        ImageRecord("b", "raw/b.tif"),
    ]
    images = names_of(records, tmp_path)
    pairs, _ = matched(tmp_path, ["img_3.tif", "b.tif"], images)
    assert pairs == {"img_3": "img_3.tif", "b": "b.tif"}


def test_an_image_that_is_named_like_a_mask_of_another(tmp_path: Path) -> None:
    images = [Named(i, tmp_path / "raw" / f"{i}.tif", f"raw/{i}") for i in ("cell", "cell_pred")]
    pairs, warnings = matched(tmp_path, ["cell.png", "cell_pred.png"], images)
    assert pairs == {"cell": "cell.png", "cell_pred": "cell_pred.png"}
    assert warnings == []


def test_the_image_beside_a_mask_is_said(tmp_path: Path) -> None:
    names = ["a.png", "a_pred.png", "b.png", "b_pred.png"]
    pairs, warnings = matched(tmp_path, names)
    assert pairs == {"a": "a_pred.png", "b": "b_pred.png"}
    assert warnings == ["a_pred.png is used for a, not a.png beside it (so for 2 images)"]


def test_kinds_of_files_of_other_images_are_said(tmp_path: Path) -> None:
    images = [Named(i, tmp_path / "raw" / f"{i}.tif", f"raw/{i}") for i in "abcd"]
    pairs, warnings = matched(tmp_path, ["a.tif", "b.tif", "c.png", "d.png"], images)
    assert pairs == {"a": "a.tif", "b": "b.tif"}
    assert warnings == [
        "2 images without a mask in .tif although there is one in .png (c): only one kind of files "
        "is used; write all masks in one"
    ]
