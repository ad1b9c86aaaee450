"""Where files are: labels next to images, plates, files without a reader, names that look alike."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from tests.data.test_layouts import found, touch
from tests.data.test_manifest import manifest_settings
from tests.workflow.test_bad_inputs import good
from tests.workflow.test_bad_inputs import manifest as manifest_stage
from unet.cli.predict_request import image_files
from unet.data.layouts import find_pairs, list_files, plain_folders
from unet.data.manifest import build_manifest
from unet.data.raw_changes import listing, stamp
from unet.data.raw_files import RawSource
from unet.errors import UserError

SETTINGS = manifest_settings(task="instances")
STRICT = manifest_settings(task="instances", strict=True)


def told(source: RawSource) -> list[str]:
    lines: list[str] = []
    find_pairs(RawSource(source.root, source.images, source.labels, source.layout, source.labelled,
                      warn=lines.append))  # fmt: skip
    return lines


# Labels beside images


@pytest.fixture
def one_folder(tmp_path: Path) -> Path:
    touch(tmp_path, *(f"t/img_{n}{end}.tif" for n in range(3) for end in ("", "_masks")))
    return tmp_path


@pytest.mark.parametrize(
    ("images", "labels"),
    [("t/*.tif", "t/*_masks.tif"), ("t", "t/*_masks.tif"), ("**/*.tif", "**/*_masks.tif")],
)
@pytest.mark.parametrize("layout", ["folders", "stack"])
def test_a_label_is_not_an_image(one_folder: Path, images: str, labels: str, layout: str) -> None:
    source = RawSource(one_folder, images, labels, layout)
    pairs = found(source)
    assert {key.removeprefix("t-").partition("-")[0]: value for key, value in pairs.items()} == {
        f"img_{n}": (f"t/img_{n}.tif", f"t/img_{n}_masks.tif") for n in range(3)
    }
    expected = [] if "?" in images else [
        "images: 3 files are labels, such as img_0_masks.tif, not images"
    ]  # fmt: skip
    assert told(source) == expected


def test_images_within_the_labels_are_not_labels(one_folder: Path) -> None:
    touch(one_folder, "l/img_0.tif")
    source = RawSource(one_folder, "t/img_?.tif", "*/img_?.tif")
    assert found(source)["img_0"] == ("t/img_0.tif", "l/img_0.tif")
    assert "labels: 3 files are images, such as img_0.tif, not labels" in told(source)


def test_a_file_that_is_both_is_an_error(one_folder: Path) -> None:
    with pytest.raises(UserError, match=r"labels: 6 files are both .* labels: t/\*_masks.tif$"):
        find_pairs(RawSource(one_folder, "t", "t"))
    with pytest.raises(UserError, match=r"labels: 1 files are both .* such as img_0.tif"):
        find_pairs(RawSource(one_folder, "t/img_0.tif", "t/img_0.tif", "stack"))
    with pytest.raises(UserError, match=r"labels: 1 files are both"):
        find_pairs(RawSource(one_folder, "t/img_[01].tif", "t/img_[12].tif"))


def test_images_named_like_labels_are_reported(one_folder: Path) -> None:
    assert told(RawSource(one_folder, "t", labelled=False)) == [
        "images: 3 of 6 images are named like the labels of others, such as img_0_masks.tif next "
        "to img_0; if they are labels, write a glob that excludes them"
    ]
    touch(one_folder, "u/a_mask.tif", "u/b.tif")
    assert told(RawSource(one_folder, "u", labelled=False)) == []


def test_a_label_with_the_content_of_the_image(tmp_path: Path) -> None:
    for number in range(2):
        image = np.random.default_rng(number).integers(0, 9, (20, 20), dtype=np.uint8)
        for kind in ("i", "l"):
            (tmp_path / kind).mkdir(exist_ok=True)
            labels = (image > 4).astype(np.uint8) if kind == "l" and number else image
            tifffile.imwrite(tmp_path / kind / f"a{number}.tif", labels)
    first, second = build_manifest(RawSource(tmp_path, "i", "l"), SETTINGS, threads=1)
    assert first.reason == "the label is a copy of the image; a file cannot be both"
    assert second.status == "ok"


# Other kinds


def test_files_of_other_kinds_are_reported(tmp_path: Path) -> None:
    touch(tmp_path, "i/a.tif", "i/b.BMP", "i/c.vsi", "i/d.vsi", "i/notes.txt", "i/.hidden.vsi")
    touch(tmp_path, "i/sub.vsi/x", "i/Thumbs.db", "i/README")
    line = "images: 3 files of other kinds (.bmp, .vsi) are not read; convert to TIFF or OME-Zarr "
    for images in ("i", "i/*", "**/*"):
        (only,) = [text for text in told(RawSource(tmp_path, images)) if "kind" in text]
        assert only.startswith(line)
    assert told(RawSource(tmp_path, "i/*.tif")) == []
    touch(tmp_path, "n/imagesTr/a_0000.tif", "n/imagesTr/b_0000.mha")
    assert "1 file of another kind (.mha) is" in told(RawSource(tmp_path, "n", layout="nnunet"))[0]


# Names


def test_accents_stored_in_two_ways_are_one_name(tmp_path: Path) -> None:
    apart = unicodedata.normalize("NFD", "é")
    touch(tmp_path, f"i/{apart}.tif", "l/é.tif", f"i/img_{apart}.png", "l/seg_é.png")
    assert {label for _, label in found(RawSource(tmp_path, "i/*.tif", "l/*.tif")).values()} == {
        "l/é.tif"
    }
    assert {label for _, label in found(RawSource(tmp_path, "i/img_*", "l/seg_*")).values()} == {
        "l/seg_é.png"
    }
    (tmp_path / "s.csv").write_text("image\ni/é.tif\n", encoding="utf-8")
    assert [p.image.name for p in find_pairs(RawSource(tmp_path, "s.csv"))] == [f"{apart}.tif"]
    touch(tmp_path, "i/é.tif")
    if len(list((tmp_path / "i").glob("*.tif"))) == 2:  # no Mac
        with pytest.raises(UserError, match=r"have the same name .their accents are stored in two"):
            find_pairs(RawSource(tmp_path, "i"))


def test_a_name_that_is_not_text_does_not_stop_the_others(tmp_path: Path) -> None:
    touch(tmp_path, "i/a.tif", "i/b\udcff.tif")
    source = RawSource(tmp_path, "i")
    assert list(found(source)) == ["a"]
    assert told(source) == [
        r"images: 1 of 2 files are not read; 'b\udcff.tif': a file name that is not UTF-8; "
        "rename it"
    ]


# Plates and collections

SCALE = {"type": "scale", "scale": [0.5, 0.5]}


def image(group: Path, array: np.ndarray, version: str = "0.4") -> None:
    group.mkdir(parents=True, exist_ok=True)
    stored = zarr.create_array(group / "0", shape=array.shape, dtype=array.dtype, chunks=(16, 16),
                               zarr_format=2 if version == "0.4" else 3)  # fmt: skip
    stored[:] = array
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    datasets = [{"path": "0", "coordinateTransformations": [SCALE]}]
    attributes(group, {"multiscales": [{"axes": axes, "datasets": datasets}]}, version)


def attributes(group: Path, values: dict[str, Any], version: str) -> None:
    group.mkdir(parents=True, exist_ok=True)
    if version == "0.4":
        (group / ".zattrs").write_text(json.dumps(values))
        return
    inner = {"ome": {"version": "0.5", **values}}
    whole = {"zarr_format": 3, "node_type": "group", "attributes": inner}
    (group / "zarr.json").write_text(json.dumps(whole))


def plate(path: Path, version: str = "0.4") -> Path:
    """Wells A1 and B2 with two fields each, and labels in all of them."""
    rng = np.random.default_rng(0)
    wells = ("A/1", "B/2")
    attributes(path, {"plate": {"wells": [{"path": well} for well in wells]}}, version)
    for well in wells:
        attributes(path / well, {"well": {"images": [{"path": "0"}, {"path": "1"}]}}, version)
        for number in "01":
            field = path / well / number
            image(field, rng.integers(1, 99, (20, 30), dtype=np.uint16), version)
            image(field / "labels" / "nuclei", np.eye(20, 30, dtype=np.uint16), version)
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("layout", ["plate", "ome-zarr"])
def test_a_plate(tmp_path: Path, version: str, layout: str) -> None:
    plate(tmp_path / "p.zarr", version)
    source = RawSource(tmp_path, "p.zarr", layout=layout)
    records = build_manifest(source, STRICT, threads=1)
    assert [(r.id, r.group, r.image) for r in records] == [
        ("A1-f0", "A1", "p.zarr/A/1/0"), ("A1-f1", "A1", "p.zarr/A/1/1"),
        ("B2-f0", "B2", "p.zarr/B/2/0"), ("B2-f1", "B2", "p.zarr/B/2/1"),
    ]  # fmt: skip
    assert {(r.label.removeprefix(r.image), r.objects) for r in records} == {("/labels/nuclei", 1)}
    assert records[0].pixel_size_um == (0.5, 0.5)
    by_row = build_manifest(source, STRICT.model_copy(update={"group": "row"}), threads=1)
    assert [r.group for r in by_row] == ["A", "A", "B", "B"]


def test_plates_in_a_folder_and_without_labels(tmp_path: Path) -> None:
    plate(tmp_path / "d" / "p.zarr")
    plate(tmp_path / "d" / "q.zarr")
    pairs = find_pairs(RawSource(tmp_path, "d", labelled=False))
    assert [p.id for p in pairs][3:5] == ["p-B2-f1", "q-A1-f0"]
    assert [p.group for p in pairs][3:5] == ["p-B2", "q-A1"]
    assert all(p.label is None for p in pairs)
    plates = [str(tmp_path / "d" / name) for name in ("p.zarr", "q.zarr")]
    named = image_files(plates, tmp_path / "out")
    assert len({name for name, _ in named}) == 8
    assert image_files(plates[:1], tmp_path / "out")[0][0] == "A1-f0"


def test_a_change_in_a_plate_is_seen(tmp_path: Path) -> None:
    source = RawSource(tmp_path, str(plate(tmp_path / "p.zarr")))
    assert plain_folders(source) is None  # a look at the top says nothing of what is below
    before = [stamp(path) for path in list_files(source)]
    chunk = tmp_path / "p.zarr/B/2/1/0/0.0"
    chunk.write_bytes(chunk.read_bytes() + b"x")
    assert [stamp(path) for path in list_files(source)] != before
    assert listing([tmp_path]) is None


def test_damaged_plates(tmp_path: Path) -> None:
    path = plate(tmp_path / "p.zarr")
    (path / "A/1/.zattrs").write_text("{")
    source = RawSource(tmp_path, "p.zarr", labelled=False)
    records = build_manifest(source, SETTINGS, threads=1)
    assert [(r.id, r.status) for r in records if r.group == "A1"] == [("A1", "quarantined")]
    attributes(path, {"plate": {"wells": [{"path": "../../etc"}]}}, "0.4")
    with pytest.raises(UserError, match=r"p.zarr: refused, its metadata refer to a place outside"):
        find_pairs(RawSource(tmp_path, "p.zarr"))
    attributes(path, {"plate": {"wells": 3}}, "0.4")
    with pytest.raises(UserError, match=r"p.zarr: the metadata of this plate .* damaged"):
        find_pairs(RawSource(tmp_path, "p.zarr"))
    image(tmp_path / "i.zarr", np.eye(20, dtype=np.uint8))
    with pytest.raises(UserError, match="contains no OME-Zarr plate"):
        find_pairs(RawSource(tmp_path, "i.zarr", layout="plate"))


@pytest.mark.parametrize("listed", [True, False])
def test_a_collection(tmp_path: Path, listed: bool) -> None:
    """As bioformats2raw writes it: numbered images below one root."""
    path = tmp_path / "c.zarr"
    attributes(path, {"bioformats2raw.layout": 3}, "0.4")
    for number in range(2):
        image(path / str(number), np.random.default_rng(number).integers(0, 9, (20, 20), "u1"))
    if listed:
        attributes(path / "OME", {"series": ["1", "0"]}, "0.4")
    source = RawSource(tmp_path, "c.zarr", labelled=False)
    records = build_manifest(source, STRICT, threads=1)
    assert [(r.id, r.image) for r in records] == [("c-s0", "c.zarr/0"), ("c-s1", "c.zarr/1")]
    attributes(path / "OME", {"series": ["1"]}, "0.4")
    assert found(RawSource(tmp_path, "c.zarr")) == {"c": ("c.zarr/1", None)}


# Special files in a folder, through the stage


def test_special_files_do_not_stop_the_others(tmp_path: Path) -> None:
    good(tmp_path)
    os.mkfifo(tmp_path / "i" / "pipe.tif")
    (tmp_path / "l" / "pipe.tif").symlink_to("/dev/zero")
    (tmp_path / "i" / "zero.tif").symlink_to("/dev/zero")
    tifffile.imwrite(tmp_path / "l" / "zero.tif", np.eye(9, dtype=np.uint8))
    records = manifest_stage(tmp_path).records
    assert records["pipe"].reason == "not a regular file (a named pipe)"
    assert records["zero"].reason == "not a regular file (a device)"
    assert sum(record.status == "ok" for record in records.values()) == 3
