"""Labels from COCO, LabelMe, CVAT and napari files, and which image they belong to."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.data.test_dataset_warnings import run_manifest
from unet.data.manifest import RawSource
from unet.data.records import read_manifest
from unet.errors import UserError
from unet.io.drawn_labels import open_outlines
from unet.io.json_outlines import entry_of
from unet.io.mask_files import open_label_of
from unet.paths import Paths

SHAPE = (12, 16)
SQUARE = [2, 1, 6, 1, 6, 5, 2, 5]  # pixels [1:5, 2:6]


def drawn(path: Path, image: str = "a.tif", classes: dict[str, int] | None = None) -> Any:
    array, drawing = open_outlines(path, SHAPE, classes, image=Path(image))
    return np.asarray(array), drawing


def expected(*boxes: tuple[slice, slice]) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint32)
    for number, box in enumerate(boxes, start=1):
        labels[box] = number
    return labels


ONE, TWO = np.s_[1:5, 2:6], np.s_[6:10, 8:12]


def coco(path: Path, *annotations: dict[str, Any], names: tuple[str, ...] = ("a.tif",)) -> Path:
    """As Microsoft's documentation of the format shows it (cocodataset.org/#format-data)."""
    found = {
        "info": {},
        "images": [
            {"id": 10 + k, "file_name": name, "width": 16, "height": 12}
            for k, name in enumerate(names)
        ],
        "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "debris"}],
        "annotations": [
            {"id": k, "image_id": 10, "category_id": 1, "iscrowd": 0, **entry}
            for k, entry in enumerate(annotations)
        ],
    }
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


def test_coco_polygons(tmp_path: Path) -> None:
    pieces = [SQUARE, [8, 6, 12, 6, 12, 10, 8, 10]]
    path = coco(
        tmp_path / "c.json",
        {"segmentation": pieces},  # one object in two pieces
        {"segmentation": [SQUARE], "image_id": 11, "category_id": 2},
        {"bbox": [1, 1, 4, 4]},
        names=("a.tif", "b.tif"),
    )
    labels, drawing = drawn(path)
    assert np.array_equal(labels, expected(ONE) + expected(TWO))
    assert drawing.warnings() == ["1 of 3 entries are no outlines of objects and left out"]
    assert np.array_equal(drawn(path, "b.tif")[0], expected(ONE))
    classes = {"ground": 0, "cell": 5, "debris": 9}
    assert np.array_equal(drawn(path, "b.tif", classes)[0], 9 * expected(ONE))
    with pytest.raises(UserError, match="an outline has the class 'debris'; the dataset's"):
        drawn(path, "b.tif", {"ground": 0, "cell": 5})


def test_coco_masks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    speckled = rng.random(SHAPE) < 0.3
    speckled[:, 5:12], speckled[3, 7] = True, False
    # Written by pycocotools 2.0.11.
    strings = {
        "i04800000g3": expected(ONE) > 0,
        "231N002031M0OO20N000701j0Gm04[NONN010N12040N2M": speckled,
    }
    for number, (text, wanted) in enumerate(strings.items()):
        shape = {"size": list(SHAPE), "counts": text}
        path = coco(tmp_path / f"{number}.json", {"segmentation": shape, "iscrowd": 1})
        assert np.array_equal(drawn(path)[0] > 0, wanted)
    plain = {"size": list(SHAPE), "counts": [25, 4, 8, 4, 8, 4, 8, 4, 127]}
    labels = drawn(coco(tmp_path / "plain.json", {"segmentation": plain}))[0]
    assert np.array_equal(labels, expected(ONE))
    for counts in ([3, 4], "i0480"):
        wrong = {"size": list(SHAPE), "counts": counts}
        with pytest.raises(UserError, match="a mask whose runs are not 12 x 16 pixels"):
            drawn(coco(tmp_path / f"{len(counts)}.json", {"segmentation": wrong}))


def test_coco_without_annotations_is_an_empty_label(tmp_path: Path) -> None:
    assert not drawn(coco(tmp_path / "c.json"))[0].any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[1, 2]", "neither COCO"),
        ('{"images": [{"id": 1, "file_name": "a.tif"}], "annotations": [{}]}', "no key 'image_id'"),
        ('{"shapes": [{"label": "x", "points": [[0, 0], [1, 1]]}]}', "fewer than three corners"),
        ('{"shapes": [{"points": [[0, 0], [1e99, 1], [2, 2]]}]}', "are not in pixels"),
    ],
)
def test_damaged_json(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message) as raised:
        drawn(path)
    assert "\n" not in str(raised.value)


def test_which_entry_is_the_image(tmp_path: Path) -> None:
    names = ["x/a.jpg", "x\\b.tif", "y/b.tif"]
    assert entry_of(tmp_path, names, Path("a.tif")) == 0  # converted since
    assert entry_of(tmp_path, names, Path("/data/y/b.tif")) == 2
    assert entry_of(tmp_path, names, Path("/data/x/b.tif")) == 1
    with pytest.raises(UserError, match=r"2 entries are named like b\.tif"):
        entry_of(tmp_path, names, Path("/data/b.tif"))
    with pytest.raises(UserError, match=r"no image named like c.tif \(there are: x/a.jpg"):
        entry_of(tmp_path, names, Path("c.tif"))


def test_labelme(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.fromarray(np.full((4, 4), 255, np.uint8)).save(picture, "PNG")
    shapes = [
        {"label": "cell", "points": [[2, 1], [6, 5]], "group_id": 3, "shape_type": "rectangle"},
        {
            "label": "cell", "points": [[8, 6], [11, 9]], "group_id": None, "shape_type": "mask",
            "mask": base64.b64encode(picture.getvalue()).decode(),
        },
        {"label": "cell", "points": [[13, 1], [15, 1], [15, 3], [13, 3]], "group_id": 3,
         "shape_type": "polygon"},
        {"label": "x", "points": [[1, 1]], "shape_type": "point"},
    ]  # fmt: skip
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"version": "5.5.0", "shapes": shapes, "imagePath": "a.tif"}))
    labels, drawing = drawn(path)
    # The last polygon is a piece of the first object.
    assert np.array_equal(labels, expected(ONE, TWO) + expected(np.s_[1:3, 13:15]))
    assert len(drawing.warnings()) == 1
    circle = {"label": "c", "points": [[8, 6], [8, 2]], "shape_type": "circle"}
    path.with_name("b.json").write_text(json.dumps({"shapes": [circle]}))
    y, x = np.indices(SHAPE) + 0.5
    assert np.array_equal(drawn(path.with_name("b.json"))[0] > 0, (y - 6) ** 2 + (x - 8) ** 2 < 16)


# As in CVAT's documentation of the format (docs.cvat.ai, CVAT for images 1.1).
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <image id="0" name="plate/a.tif" width="16" height="12">
    <polygon label="cell" source="manual" points="2.00,1.00;6.00,1.00;6.00,5.00;2.00,5.00">
    </polygon>
    <box label="cell" xtl="8" ytl="6" xbr="12" ybr="10" z_order="1" rotation="90"></box>
    <mask label="debris" rle="1, 2, 1" left="13" top="1" width="2" height="2" z_order="0"></mask>
    <points label="cell" points="1,1" z_order="0"></points>
  </image>
  <image id="1" name="plate/b.tif" width="16" height="12"></image>
</annotations>
"""


def test_cvat(tmp_path: Path) -> None:
    path = tmp_path / "annotations.xml"
    path.write_text(CVAT, encoding="utf-8")
    labels, drawing = drawn(path)
    # Upper shapes come first.
    wanted = expected(TWO, ONE)
    wanted[1, 14] = wanted[2, 13] = 3
    assert np.array_equal(labels, wanted)
    assert drawing.warnings() == ["1 of 4 entries are no outlines of objects and left out"]
    assert not drawn(path, "b.tif")[0].any()
    path.write_text(CVAT.replace("<annotations>", "<!DOCTYPE x><annotations>"), encoding="utf-8")
    with pytest.raises(UserError, match="DOCTYPE"):
        drawn(path)


NAPARI = """index,shape-type,vertex-index,axis-0,axis-1
0,rectangle,0,0.5,1.5
0,rectangle,1,0.5,5.5
0,rectangle,2,4.5,5.5
0,rectangle,3,4.5,1.5
1,path,0,1.0,1.0
1,path,1,9.0,1.0
"""


def test_napari(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(NAPARI, encoding="utf-8")
    labels, drawing = drawn(path)
    assert np.array_equal(labels, expected(ONE))
    assert len(drawing.warnings()) == 1
    path.write_text("index,area\n1,2\n", encoding="utf-8")
    with pytest.raises(UserError, match="not the table of a napari shapes layer"):
        drawn(path)


def test_one_file_labels_a_dataset(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "i").mkdir()
    for name in "abc":
        tifffile.imwrite(tmp_path / "i" / f"{name}.tif", rng.integers(0, 99, SHAPE, np.uint8))
    coco(
        tmp_path / "labels.json",
        {"segmentation": [SQUARE]},
        {"segmentation": [SQUARE, [8, 6, 12, 6, 12, 10]], "image_id": 11},
        names=("a.tif", "b.tif"),
    )
    source = RawSource(tmp_path, "i", "labels.json")
    settings: dict[str, Any] = {"task": "instances", "classes": None}
    run_manifest(source, tmp_path / "out", **settings)
    records = read_manifest(Paths(tmp_path / "out").manifest("d"))
    assert [record.status for record in records] == ["ok", "ok", "quarantined"]
    assert records[0].objects == 1
    assert "no image named like c.tif" in records[2].reason


def test_a_folder_of_label_files(tmp_path: Path) -> None:
    for folder in "ij":
        (tmp_path / folder).mkdir()
    for name in "ab":
        pixels = np.random.default_rng(1).integers(0, 99, SHAPE, np.uint8)
        tifffile.imwrite(tmp_path / "i" / f"{name}.tif", pixels)
        (tmp_path / "j" / f"{name}.csv").write_text(NAPARI, encoding="utf-8")
    settings: dict[str, Any] = {"task": "instances", "classes": None}
    run_manifest(RawSource(tmp_path, "i", "j"), tmp_path / "out", **settings)
    records = read_manifest(Paths(tmp_path / "out").manifest("d"))
    assert [(r.status, r.objects, r.label) for r in records] == [
        ("ok", 1, "j/a.csv"), ("ok", 1, "j/b.csv"),
    ]  # fmt: skip
    # Beside label images, such files are tables.
    for name in "ab":
        tifffile.imwrite(tmp_path / "j" / f"{name}.tif", expected(ONE, TWO).astype(np.uint8))
    run_manifest(RawSource(tmp_path, "i", "j"), tmp_path / "two", **settings)
    records = read_manifest(Paths(tmp_path / "two").manifest("d"))
    assert [(r.objects, r.label) for r in records] == [(2, "j/a.tif"), (2, "j/b.tif")]


def test_outlines_do_not_label_stacks(tmp_path: Path) -> None:
    path = coco(tmp_path / "c.json")
    with pytest.raises(UserError, match="outlines cannot label a stack"):
        open_label_of(Path("a.tif"), path, SHAPE, page=0)
