"""Files that are not read because a better one lies beside them: previews, JPEG labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.data.test_layouts import found, touch
from tests.format_files import manifest_of
from unet.data.layouts import find_pairs, list_files
from unet.data.mask_pairs import find_masks
from unet.data.raw_files import RawSource
from unet.io.images import open_label


def told(root: Path, images: str, labels: str | None = None, layout: str = "folders") -> list[str]:
    lines: list[str] = []
    find_pairs(RawSource(root, images, labels, layout, warn=lines.append))
    return lines


@pytest.mark.parametrize("images", ["i", "i/*", "**/*"])
def test_a_preview_beside_its_image(tmp_path: Path, images: str) -> None:
    touch(tmp_path, "i/a.tif", "i/a.jpg", "i/b.ome.tif", "i/b.JPEG", "i/c.jpg")
    source = RawSource(tmp_path, images)
    names = {path.name for path in list_files(source)}
    assert names == {"a.tif", "b.ome.tif", "c.jpg"}
    (line,) = told(tmp_path, images)
    assert line == (
        "images: 2 files are not read, such as a.jpg, because a.tif beside it has the same name; "
        "for another choice write a glob such as *.jpg"
    )
    # The glob that it names.
    assert {path.name for path in list_files(RawSource(tmp_path, "i/*.jpg"))} == {"a.jpg", "c.jpg"}


def test_an_export_beside_the_microscope_s_file(tmp_path: Path) -> None:
    touch(tmp_path, "i/a.czi", "i/a.tif", "i/b.czi", "i/b.jpg", "i/c.nd2")
    assert {p.name for p in list_files(RawSource(tmp_path, "i"))} == {"a.tif", "b.czi", "c.nd2"}
    (line,) = told(tmp_path, "i")
    assert line.startswith("images: 2 files are not read, such as a.czi, because a.tif beside it")


def test_the_same_name_in_other_folders(tmp_path: Path) -> None:
    touch(tmp_path, "i/x/a.tif", "i/y/a.jpg")
    assert len(list_files(RawSource(tmp_path, "i/**/*"))) == 2
    assert told(tmp_path, "i/**/*") == []


def test_a_jpeg_among_labels(tmp_path: Path) -> None:
    touch(tmp_path, "i/a.tif", "i/b.tif", "l/a.png", "l/a.jpg", "l/b.jpg", "l/overview.jpg")
    assert found(RawSource(tmp_path, "i", "l")) == {
        "a": ("i/a.tif", "l/a.png"),
        "b": ("i/b.tif", None),
    }
    lines = told(tmp_path, "i", "l")
    assert lines[0].startswith("labels: 1 file is not read, such as a.jpg, because a.png beside")
    assert lines[1] == (
        "labels: 2 JPEG files are not read, such as b.jpg: JPEG changes values, so it cannot hold "
        "a label"
    )


def test_labels_that_are_all_jpeg_are_errors(tmp_path: Path) -> None:
    (tmp_path / "l").mkdir()
    touch(tmp_path, "i/a.tif")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "l" / "a.jpg")
    (pair,) = find_pairs(RawSource(tmp_path, "i", "l"))
    assert pair.label == tmp_path / "l" / "a.jpg"
    assert told(tmp_path, "i", "l") == []


def test_masks_to_compare(tmp_path: Path) -> None:
    touch(tmp_path, "m/a.png", "m/a.jpg", "m/b.jpg")
    lines: list[str] = []
    assert [f.path.name for f in find_masks(str(tmp_path / "m"), "TRUTH", lines.append)] == [
        "a.png"
    ]
    assert len(lines) == 2


def test_layouts_with_a_preview(tmp_path: Path) -> None:
    touch(tmp_path, "d/x/images/x.png", "d/x/images/x.jpg", "d/x/masks/1.png", "d/x/masks/1.jpg")
    (pair,) = find_pairs(RawSource(tmp_path, "d", layout="dsb2018"))
    assert pair.image.name == "x.png"
    assert "1 file is not read" in told(tmp_path, "d", layout="dsb2018")[0]
    touch(tmp_path, "n/imagesTr/c_0000.tif", "n/imagesTr/c_0000.jpg", "n/labelsTr/c.tif")
    (pair,) = find_pairs(RawSource(tmp_path, "n", layout="nnunet"))
    assert (pair.image.name, pair.label) == ("c_0000.tif", tmp_path / "n/labelsTr/c.tif")
    assert "1 file is not read" in told(tmp_path, "n", layout="nnunet")[0]


def test_a_folder_of_masks_with_previews(tmp_path: Path) -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4, 2:4] = 255
    tifffile.imwrite(tmp_path / "1.tif", mask)
    Image.fromarray(mask.T.copy()).save(tmp_path / "1.jpg")
    label = open_label(tmp_path)
    assert label.warnings == ("1 JPEG files in its folder of masks are not read",)
    np.testing.assert_array_equal(label.array.compute() > 0, mask > 0)


def test_the_manifest_of_images_with_previews(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    folder.mkdir()
    data = np.arange(64, dtype=np.uint8).reshape(8, 8)
    tifffile.imwrite(folder / "a.tif", data)
    Image.fromarray(data).save(folder / "a.jpg")
    records = manifest_of(folder)
    assert {key: record.image for key, record in records.items()} == {"a": "i/a.tif"}
