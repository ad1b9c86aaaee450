"""The page and the sheet of `unet predict`."""

from __future__ import annotations

import re
import tracemalloc
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from PIL import Image

from tests.data.test_appearance import store_at, stored
from tests.report.page_policy import assert_scripts_allowed
from unet.data.records import ImageRecord
from unet.data.store import OwnGrid
from unet.export import ome_zarr_writer
from unet.export.mark_colours import OUTLINES
from unet.export.ome_zarr_collection import create_collection
from unet.prediction.apply.result_folder import Output
from unet.prediction.object_counts import Counted
from unet.prediction.stitch.segmentation import Segmentation
from unet.report import predicted_page, predicted_pictures
from unet.report.overlays import OverlayView, mark_colour, marked
from unet.report.predicted_page import PredictedImages, write_predicted
from unet.report.predicted_pictures import picture

Made = tuple[Output, OwnGrid]


def segmented(out: Output, name: str, labels: NDArray[Any], task: str) -> None:
    """Adds an image to the segmentation, with masks for the link."""
    pyramid = ome_zarr_writer.pyramid_of(labels.shape, 1, None)
    path = out.segmentation / name
    kinds: dict[str, Any] = {"classes": np.uint8, "instances": np.uint32}
    names = ("background", "cell", "edge")
    about = {"unet": {"head": list(names), "part": "test", "axes": "CYX", "pixel_size_um": None}}
    ome_zarr_writer.create_image(path, pyramid, "float16", names, about, "0.5")
    made = ome_zarr_writer.create_labels(path, pyramid, kinds, names, 3, "0.5", "mode")
    made["instances"][0][...] = labels
    made["classes"][0][...] = labels if task == "semantic" else labels > 0
    out.masks.mkdir(exist_ok=True)
    (out.masks / f"{name}.tif").write_bytes(b"mask")


def squares(shape: tuple[int, ...]) -> NDArray[np.uint32]:
    """Two objects that touch, and a third one."""
    labels = np.zeros(shape, np.uint32)
    labels[..., 10:20, 10:20] = 1
    labels[..., 10:20, 20:30] = 2
    labels[..., 40:44, 5:15] = 3
    return labels


def made(
    folder: Path, names: list[str], task: str = "instances", shape: tuple[int, ...] = (1, 60, 80)
) -> Made:
    out = Output(folder)
    create_collection(out.segmentation)
    store, rng = store_at(out.store), np.random.default_rng(0)
    for name in names:
        labels = squares(shape[1:])
        image = rng.random(shape).astype(np.float32) + (labels > 0)
        stored(store, name, image.astype(np.float32))
        segmented(out, name, np.minimum(labels, 2) if task == "semantic" else labels, task)
    return out, OwnGrid(store)


def record(name: str, **values: Any) -> ImageRecord:
    return ImageRecord(**{"id": name, "image": f"{name}.tif", "shape": (1, 60, 80), **values})


def objects(um: float | None = None) -> Counted:
    found = np.array([100, 100, 40], np.float32)
    return Counted(found, np.sqrt(found * 4 / np.pi), um)


def text_of(out: Output) -> str:
    return out.pages[0].read_text(encoding="utf-8")


def test_objects_of_a_few_images(tmp_path: Path) -> None:
    names = ["a <b>", "c"]
    out, prepared = made(tmp_path, names)
    bad = record("bad", status="quarantined", reason="no image in the file")
    records = [record("a <b>", pixel_size_um=(0.5, 0.5)), record("c", warnings=("odd axes",)), bad]
    found = PredictedImages(
        task="instances", class_names=("background", "cell"), records=records,
        counted={"a <b>": objects(0.5), "c": Counted()}, unlike={"c": ["too dark"]},
        odd={"c": "all specks"}, warnings=["of a stage"], new_warnings=["of the result"],
        threshold=0.4, models={"m/fold-0/model.pt": "abcdef" * 8}, settings={"min_size": 16},
    )  # fmt: skip
    write_predicted(out, prepared, found)
    page = text_of(out)
    assert page.index("of the result") < page.index("of a stage") < page.index("<h2>Images</h2>")
    assert "2 warnings: check these first" in page
    assert page.count('class="card"') == 2
    assert page.count('class="marks"') == 2
    assert "a &lt;b&gt;" in page
    assert "a <b>" not in page
    assert 'href="masks/a%20%3Cb%3E.tif"' in page
    plain = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page.split("</style>")[1])))
    for text in (
        "2 images segmented", "3 objects, 1.5 per image (median), median diameter 5.64 µm",
        "1 image left out", "60 × 80 px, 0.5 µm/px", "3 5.64 µm", "0 –",
        "unlike the training images: too dark; all specks; odd axes", "no image in the file",
        "m/fold-0/model.pt", "abcdefabcdefabcd", "Threshold 0.400", "min_size 16", "unet-pipeline",
    ):  # fmt: skip
        assert text in plain, text
    # Self-contained.
    assert_scripts_allowed(page)
    assert not re.search(r"https?://|src=\"(?!data:)", page)
    assert len(re.findall(r"<img[^>]* alt=\"[^\"]+\"", page)) == page.count("<img")
    with Image.open(out.pages[1]) as sheet:
        assert sheet.width <= 2000


def test_one_image_and_no_warning(tmp_path: Path) -> None:
    out, prepared = made(tmp_path, ["a"])
    found = PredictedImages("instances", ("background", "cell"), [record("a")], {"a": objects()})
    write_predicted(out, prepared, found)
    page = text_of(out)
    assert "<h1>1 image segmented</h1>" in page
    assert 'id="warnings"' not in page
    assert 'id="left-out"' not in page
    assert "median diameter 11.3 px" in page


def test_classes(tmp_path: Path) -> None:
    out, prepared = made(tmp_path, ["a"], "semantic", (3, 60, 80))
    counted = {"a": Counted(classes={"background": 750, "cell": 250, "edge": 0})}
    found = PredictedImages(
        "semantic", ("background", "cell", "edge"), [record("a", shape=(3, 60, 80))], counted
    )
    write_predicted(out, prepared, found)
    page = text_of(out)
    assert "60 × 80 px, 3 channels" in page
    assert "<td>75.0&nbsp;%</td><td>25.0&nbsp;%</td><td>0.0&nbsp;%</td>" in page
    assert "Median diameter" not in page
    assert 'id="sizes"' not in page
    for mark in (1, 2):
        assert "rgb({}, {}, {})".format(*mark_colour("semantic", mark)[0]) in page


def test_a_volume_shows_its_fullest_section(tmp_path: Path) -> None:
    out, prepared = made(tmp_path, ["v"], shape=(1, 5, 60, 80))
    segmentation = Segmentation(out.segmentation)
    ids = zarr.open_array(str(out.segmentation / "v/labels/classes/0"), mode="r+")
    ids[3, 50:60] = 1
    one = picture(prepared, segmentation, "v", "instances", 200)
    assert one.note.startswith("section z = 3 of 5")
    write_predicted(
        out,
        prepared,
        PredictedImages(
            "instances", ("background", "cell"), [record("v", shape=(1, 5, 60, 80))],
            {"v": objects()},
        ),
    )  # fmt: skip
    assert "section z = 3 of 5" in text_of(out)
    assert "of a ball of" in text_of(out)


def test_outlines_are_closed_thin_and_part_touching_objects() -> None:
    labels = squares((60, 80))
    view = OverlayView(np.zeros((1, 60, 80), np.float32), labels, labels, np.zeros((60, 80), bool))
    one = marked(view, "instances", 80)
    marks = one.marks
    assert marks.shape == (60, 80)
    assert set(np.unique(marks)) == {0, 1}
    assert not marks[labels == 0].any()
    ring = np.zeros((60, 80), bool)
    ring[10:20, 10:30] = True
    ring[11:19, 11:29] = False
    assert marks[ring].all()
    # One line between the objects that touch, none inside of them.
    assert marks[12:18, 19].all()
    assert marks[12:18, 11:19].sum() == marks[12:18, 20:29].sum() == 0
    shown = one.together("instances")
    assert (shown[marks > 0] == OUTLINES["prediction"][0]).all()
    assert (shown[marks == 0] == one.image[marks == 0]).all()


def test_outlines_on_a_bright_image_have_another_colour() -> None:
    labels = squares((60, 80))
    image = np.where(labels > 0, 0, np.random.default_rng(0).uniform(0.8, 1, (60, 80)))
    view = OverlayView(image[None], labels, labels, np.zeros((60, 80), bool))
    one = marked(view, "instances", 80)
    assert set(np.unique(one.marks)) == {0, 2}
    assert (one.together("instances")[one.marks > 0] == OUTLINES["prediction"][1]).all()


def test_many_images_are_a_bounded_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All in the table, evenly spread ones as pictures."""
    names = [f"i{k:02d}" for k in range(30)]
    out, prepared = made(tmp_path, names)
    monkeypatch.setattr(predicted_page, "SHOWN", 7)
    monkeypatch.setattr(predicted_page, "SIDES", ((7, 120),))
    counted = {name: objects() for name in names}
    found = PredictedImages("instances", ("background", "cell"), list(map(record, names)), counted)
    write_predicted(out, prepared, found)
    page = text_of(out)
    assert page.count('class="card"') == 7
    assert "7 of 30 images, evenly spread" in page
    for name in names:
        assert f'scope="row">{name}</th>' in page
    shown = re.findall(r"<strong>(i\d\d)</strong>", page)
    assert (shown[0], shown[-1]) == ("i00", "i29")
    gaps = np.diff([int(name[1:]) for name in shown])
    assert gaps.max() - gaps.min() <= 1
    with Image.open(out.pages[1]) as sheet:
        assert 1500 < sheet.width <= 2000


def test_a_hundred_noisy_images_stay_below_15_mb(tmp_path: Path) -> None:
    """Noise with many small objects is the worst case for both formats."""
    out, rng = Output(tmp_path), np.random.default_rng(0)
    create_collection(out.segmentation)
    store = store_at(out.store)
    stored(store, "x", rng.random((3, 400, 400)).astype(np.float32))
    small = np.arange(1, 50 * 50 + 1, dtype=np.uint32).reshape(50, 50)
    labels = np.kron(small, np.pad(np.ones((6, 6), np.uint32), 1))
    segmented(out, "x", labels, "instances")
    one = picture(OwnGrid(store), Segmentation(out.segmentation), "x", "instances", 340)
    size = sum(map(len, one.marked.uris("instances")))
    assert 100 * size < 15e6
    assert predicted_page.SIDES[-1] == (100, 340) == (predicted_page.SHOWN, 340)


@pytest.mark.parametrize("stride", [1, 3, 7])
def test_blocks_give_every_nth_pixel(monkeypatch: pytest.MonkeyPatch, stride: int) -> None:
    monkeypatch.setattr(predicted_pictures, "BLOCK", 10)
    array = np.arange(2 * 3 * 37 * 51).reshape(2, 3, 37, 51)
    found = predicted_pictures.every_nth(array, (slice(0, 2), 1), stride)
    assert np.array_equal(found, array[:, 1, ::stride, ::stride])


def test_a_large_image_takes_bounded_memory(tmp_path: Path) -> None:
    side = 6000
    out = Output(tmp_path)
    create_collection(out.segmentation)
    store = store_at(out.store)
    stored(store, "x", np.zeros((1, side, side), np.float32))
    segmented(out, "x", squares((side, side)), "instances")
    segmentation, prepared = Segmentation(out.segmentation), OwnGrid(store)
    tracemalloc.start()
    try:
        picture(prepared, segmentation, "x", "instances", 340)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.5 * 4 * side * side
