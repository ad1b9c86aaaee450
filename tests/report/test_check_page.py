"""The page and the console of the check, from surveys made by hand."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from rich.console import Console

from tests.report.page_policy import assert_scripts_allowed
from unet.config.load import load
from unet.config.run import Config, merge
from unet.data.survey.facts import (
    Alike,
    DatasetSurvey,
    SurveyedClass,
    SurveyedImage,
    SurveyedMasks,
    SurveyedObjects,
)
from unet.data.survey.findings import Finding
from unet.errors import UserError
from unet.files import write_json
from unet.planning.estimates import Estimate
from unet.report import check_page
from unet.report.check_console import print_checked, stop_lines
from unet.report.check_page import byte_size, percentage
from unet.report.check_thumbnails import chosen, thumbnails
from unet.report.checked import Checked, configured, read_checked, suggestions

CONFIG: dict[str, Any] = {
    "datasets": {"d": {"images": "images", "labels": "labels", "task": "instances"}},
    "models": {
        "a": {"preset": "unet-bn", "width": 8, "train": {"patch": 64}},
        "b": {"preset": "unet2015", "train": {"patch": 188}},
        "c": {"preset": "auto"},
    },
    "stitch": {"min_size": 4},
}
FINDINGS = (
    Finding("stop", "no_objects", "no label has an object", "labels"),
    Finding("warn", "odd_pixel_size", "352.8 um <b>&", "images/i05.tif"),
    Finding("note", "no_pixel_size", "no image says its pixel size"),
)


def config() -> Config:
    return load(CONFIG)


def image(number: int, **more: Any) -> SurveyedImage:
    name = f"i{number:02d}"
    values: dict[str, Any] = {
        "label": f"labels/{name}.tif", "axes": "CYX", "shape": (1, 40, 60), "dtype": "uint16",
        "low": (10.0,), "median": (50.0,), "high": (100.0,), "saturated": 0.0, "objects": 1,
    }  # fmt: skip
    return SurveyedImage(name, f"images/{name}.tif", **{**values, **more})


def survey(count: int = 3, **more: Any) -> DatasetSurvey:
    images = tuple(image(n) for n in range(count))
    values: dict[str, Any] = {"images": images, "labelled": count, "measured": count}
    return DatasetSurvey("d", "instances", "instances", "folders", **{**values, **more})


def write_files(root: Path, count: int) -> None:
    """Images [Y, X] with one square object each."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for n in range(count):
        label = np.zeros((40, 60), np.uint16)
        label[10:20, 20:40] = 7
        tifffile.imwrite(root / f"images/i{n:02d}.tif", label * 10 + 1)
        tifffile.imwrite(root / f"labels/i{n:02d}.tif", label)


def page(checked: Checked, root: Path) -> str:
    return check_page.check_page(checked, config().datasets["d"], root)


def test_everything_is_on_the_page(tmp_path: Path) -> None:
    write_files(tmp_path, 3)
    full = survey(
        bits=12,
        images_alone=("x.tif",),
        labels_alone=("y.tif",),
        unread={".czi": 3},
        classes=(SurveyedClass("background", 0, 0.9, 12.5, 3),
                 SurveyedClass("foreground", None, 0.1, 80.0, 3)),
        objects=SurveyedObjects(3, (1, 1.0, 1), (100, 200, 300), (11, 16, 20), 0.25, 0.5, 2, 1,
                                ("i02",)),
        splits={0: {"train": 1, "val": 1, "test": 1}},
        groups=2,
        alike=(Alike("i00", "i01", "near", leak=True),),
        findings=FINDINGS,
    )  # fmt: skip
    estimates = (
        Estimate("train", "a", 1, 3600.0, 2e9, 5e6), Estimate("train", "c", 1, None, 4e9, None)
    )  # fmt: skip
    proposed = suggestions(config(), "d", [("stitch.min_size", 4, "r1"), ("train.patch", 96, "r2")])
    text = page(Checked(full, proposed, estimates), tmp_path)
    for said in (
        "1 stop · 1 warning · 1 note", "no label has an object", "12 bits", "x.tif", "y.tif",
        "3 .czi", "foreground", "25 %", "i02", "different: one is trained on", "r1", "(the same)",
        "a: 64, b: 188", "1 h 00 min", "2.0 GB", "preset auto", "352.8 um &lt;b&gt;&amp;",
    ):  # fmt: skip
        assert said in text, said
    # The level is a word, not only a colour.
    assert re.findall(r'class="level (\w+)">(\w+)<', text) == [
        ("stop", "stop"), ("warn", "warning"), ("note", "note")
    ]  # fmt: skip
    # Self-contained, and all its anchors exist.
    assert not re.search(r'(src|href)="(?!data:|#|check\.json)', text)
    assert set(re.findall(r'href="#([\w-]+)"', text)) <= set(re.findall(r'id="([\w-]+)"', text))
    assert text.count('<img src="data:image/jpeg') == 3
    assert_scripts_allowed(text)


def test_what_was_measured_in_the_middle_is_said(tmp_path: Path) -> None:
    objects = SurveyedObjects(3, None, (100, 200, 300), (11, 16, 20), 0.25, None, 2, 1)
    large = Checked(survey(2, middles=1, middle=(4096, 4096), objects=objects))
    said = "measured in the middle 4096 × 4096 px of 1 of 2 images"
    text = page(large, tmp_path)
    assert f"3, {said}" in text
    assert "Per image" not in text
    assert "Cut by the image" not in text
    assert f"3, {said}" in printed(large, terminal=False)
    assert "in the middle" not in page(Checked(survey(2)), tmp_path)


def test_parts_have_one_order_whatever_a_file_has(tmp_path: Path) -> None:
    for splits in ({0: {"test": 3, "train": 1, "val": 2}}, {0: {"val": 2, "train": 1, "test": 3}}):
        assert "train 1, val 2, test 3" in printed(Checked(survey(splits=splits)), terminal=False)
    no_validation = Checked(survey(splits={0: {"test": 3, "train": 1}, 1: {}}))
    assert "train 1, test 3 (fold 0 of 2)" in printed(no_validation, terminal=False)


def test_whether_all_images_are_shown(tmp_path: Path) -> None:
    write_files(tmp_path, 3)
    text = page(Checked(survey(3)), tmp_path)
    assert "All usable images. Contrast" in text
    assert "evenly spread" not in text
    assert "Some of the images, evenly spread" in page(Checked(survey(45)), tmp_path)


def test_an_empty_survey(tmp_path: Path) -> None:
    text = page(Checked(survey(0)), tmp_path)
    assert "No images were found." in text
    assert "nothing found that looks wrong" in text
    assert "Cost" not in text


def test_a_long_table_is_cut(tmp_path: Path) -> None:
    many = survey(200)
    text = page(Checked(many), tmp_path)
    assert f"and {200 - check_page.LISTED_IMAGES} more" in text
    assert text.count('scope="row"') == check_page.LISTED_IMAGES
    left_out = survey(1, images=(image(0, status="quarantined", reason="cut short"),))
    assert "left out: cut short" in page(Checked(left_out), tmp_path)


# Pictures.


def test_which_images_are_shown() -> None:
    assert [one.id for one, _ in chosen(survey(3))] == ["i00", "i01", "i02"]
    spread = [one.id for one, _ in chosen(survey(45), most=3)]
    assert spread == ["i00", "i22", "i44"]
    named = survey(45, findings=(Finding("warn", "k", "t", "images/i05.tif and 2 more images"),))
    assert [(one.id, why) for one, why in chosen(named, most=3)] == [
        ("i00", False), ("i05", True), ("i22", False), ("i44", False)
    ]  # fmt: skip
    bad = survey(2, images=(image(0, status="quarantined"), image(1)))
    assert [one.id for one, _ in chosen(bad)] == ["i01"]


def test_outlines_are_drawn_where_the_label_is(tmp_path: Path) -> None:
    import base64

    from PIL import Image

    write_files(tmp_path, 1)
    (found,) = thumbnails(survey(1), config().datasets["d"], tmp_path)
    marks = Image.open(io.BytesIO(base64.b64decode(found.marks.partition(",")[2])))
    opaque = np.array(marks.convert("RGBA"))[..., 3] > 0
    scale = opaque.shape[0] // 40
    rows, columns = np.nonzero(opaque)
    assert (rows.min() // scale, rows.max() // scale) == (10, 19)
    assert (columns.min() // scale, columns.max() // scale) == (20, 39)
    assert not opaque[15 * scale, 30 * scale]  # an outline, not the whole object


def test_a_volume_shows_its_fullest_section(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    label = np.zeros((9, 32, 32), np.uint8)
    label[2, :4, :4], label[6, :9, :9] = 1, 2
    for folder, pixels in (("images", label * 9), ("labels", label)):
        tifffile.imwrite(tmp_path / folder / "i00.tif", pixels, metadata={"axes": "ZYX"})
    data = load({**CONFIG, "datasets": {"d": {**CONFIG["datasets"]["d"], "axes": "ZYX"}}})
    volume = survey(1, images=(image(0, axes="CZYX", shape=(1, 9, 32, 32)),))
    (found,) = thumbnails(volume, data.datasets["d"], tmp_path)
    assert found.note == "section z = 6 of 9"


def test_a_picture_that_cannot_be_read(tmp_path: Path) -> None:
    write_files(tmp_path, 2)
    (tmp_path / "images" / "i00.tif").write_bytes(b"no")
    first, second = thumbnails(survey(2), config().datasets["d"], tmp_path)
    assert first.image == ""
    assert first.note
    assert str(tmp_path) not in first.note
    assert second.image


# The console.


def printed(checked: Checked, terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=80)
    print_checked({"d[b]": checked}, {"d[b]": Path("out/d/check.html")}, console)
    return out.getvalue()


def test_the_console_without_a_terminal() -> None:
    text = printed(Checked(survey(findings=FINDINGS)), terminal=False)
    assert "\x1b" not in text
    lines = text.splitlines()
    assert lines[0] == "d[b]"
    assert "  stop: labels: no label has an object" in lines
    assert "  warning: images/i05.tif: 352.8 um <b>&" in lines
    assert "  page: out/d/check.html" in lines


def test_the_console_on_a_terminal() -> None:
    text = printed(Checked(survey(findings=FINDINGS)), terminal=True)
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert max(map(len, plain.splitlines())) <= 80
    assert "stop:" in plain


def test_what_stops() -> None:
    checked = Checked(survey(findings=FINDINGS))
    assert stop_lines({"d": checked}) == ["d: labels: no label has an object"]
    assert stop_lines({"d": Checked(survey())}) == []


# The file.


def test_json_and_back(tmp_path: Path) -> None:
    checked = Checked(
        survey(findings=FINDINGS),
        suggestions(config(), "d", [("train.patch", 96, "why")]),
        (Estimate("train", "a", 1, None, 4e9, None),),
    )
    path = tmp_path / "check.json"
    write_json(path, {**checked.to_json(), "made_by": {}})
    assert read_checked(path) == checked
    path.write_text('{"survey": {}}')
    with pytest.raises(UserError, match="damaged"):
        read_checked(path)
    with pytest.raises(UserError, match="missing; run"):
        read_checked(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stitch.min_size", "4"),
        ("train.patch", "a: 64, b: 188, c: 256"),
        ("models.<name>.width", "a: 8, b: 64, c: auto"),
        ("models.<name>.head", "classes"),
        ("datasets.d.label_kind", "instances"),
        ("prepare.normalize.method", "percentile"),
        ("evaluate.boundary_tolerance", "2 px"),
        ("datasets.d.ignore", ""),
    ],
)
def test_what_the_config_has(key: str, value: str) -> None:
    assert configured(config(), "d", key) == value


def test_suggestions_name_the_models() -> None:
    proposed = [("models.<name>.width", 16, "why"), ("train.lr", 0.01, "so")]
    found = suggestions(config(), "d", proposed)
    assert [(each.key, each.now, each.value) for each in found[:3]] == [
        ("models.a.width", "8", "16"),
        ("models.b.width", "64", "16"),
        ("train.lr", "0.001", "0.01"),  # preset auto chooses the width of c
    ]
    raw = config().model_dump(mode="json", exclude_unset=True)
    raw["models"]["a"] |= {"sweep": {"width": [4, 8], "train.lr": [0.1, 0.01]}}
    raw["models"]["a"].pop("width")
    raw["models"]["b"]["learning_curve"] = [0.25, 0.5]
    raw["datasets"]["d"]["models"] = ["a", "b"]
    found = suggestions(load(raw), "d", proposed)
    # Models of a sweep or a curve are not in the file that the user edits.
    assert [(each.key, each.now) for each in found] == [
        ("models.a.width", "4 or 8 (sweep)"),
        ("models.b.width", "64"),
        ("train.lr", "a: 0.1 or 0.01 (sweep), b: 0.001"),
    ]


def test_suggestions_are_keys_that_can_be_written() -> None:
    raw = config().model_dump(mode="json", exclude_unset=True)
    raw["models"] |= {
        "a": {"preset": "unet-bn", "width": 8, "train": {"from": "file.pt", "lr": 0.001}},
        "r": {"preset": "unet-resnet34"},
    }
    proposed = [
        ("models.<name>.width", 16, "why"), ("models.<name>.dims", 3, "volumes"),
        ("models.<name>.head", "border", "apart"), ("train.lr", 0.01, "so"),
    ]  # fmt: skip
    read = load(raw)
    assert "a-start" in read.models
    found = suggestions(read, "d", proposed)
    keys = {each.key: each.now for each in found}
    # The network of a is that of its start, and a ResNet has no width.
    assert [key for key in keys if key.endswith("width")] == ["models.b.width"]
    assert "models.a.dims" not in keys
    assert [key for key in keys if key.endswith("head")] == [
        f"models.{name}.head" for name in "abcr"
    ]
    assert keys["train.lr"] == "0.001"
    # Each can be written.
    for each in found:
        part, _, name = each.key.removeprefix("models.").partition(".")
        if each.key.startswith("models.") and name != "dims":
            load(merge(raw, {"models": {part: {name: each.value}}}))


def test_formats() -> None:
    assert [byte_size(n) for n in (10, 5_300, 4.2e6, 1.25e9, 83e9, 2e12, None)] == [
        "1 kB", "5 kB", "4 MB", "1.2 GB", "83 GB", "2.0 TB", "–"
    ]  # fmt: skip
    assert [percentage(n) for n in (0.0, 0.004, 0.25, 1.0, None)] == [
        "0 %", "0.4 %", "25 %", "100 %", "–"
    ]  # fmt: skip


def test_masks_that_cannot_be_scored_do_not_count() -> None:
    found = SurveyedMasks("tool", 13, (".tif",), tested=12, found=12, opened=12, unfit=("a",))
    assert check_page._masks(found) == "11 of 12 test images (.tif); 1 mask cannot be scored"
    some = SurveyedMasks("tool", 300, (".tif",), 250, 240, ("x",), opened=100, unfit=("a", "b"))
    assert check_page._masks(some) == (
        "238 of 250 test images (.tif); 2 masks of 100 looked at cannot be scored"
    )
    none = SurveyedMasks("tool", 2, (".tif",), tested=2, found=2, opened=2, unfit=("a", "b"))
    assert check_page._masks(none).startswith("0 of 2 test images")
