"""Plates of plain files: images named by a pattern, with a file per channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.data.test_layouts import found, touch
from tests.data.test_manifest import manifest_settings
from tests.data.test_places import plate, told
from unet.cli.predict_request import image_files
from unet.data.file_patterns import row_letters
from unet.data.layouts import find_pairs, list_files, plain_folders
from unet.data.manifest import build_manifest
from unet.data.raw_files import RawSource
from unet.data.records import read_manifest, wells_in, write_manifest
from unet.errors import UserError
from unet.io.images import open_image

SETTINGS = manifest_settings(task="instances")
PATTERN = "p/{row}{col}_f{field}_c{channel}.tif"


def source(root: Path, images: str = PATTERN, labels: str | None = None) -> RawSource:
    return RawSource(root, images, labels, "plate", labelled=labels is not None)


def picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(value).integers(value, value + 50, (20, 30), dtype=np.uint16)
    tifffile.imwrite(path, data)


def test_files_of_a_field_are_channels_of_one_image(tmp_path: Path) -> None:
    for well in ("A01", "B12"):
        for field in ("00", "01"):
            for channel in (1, 2):
                picture(tmp_path / f"p/{well}_f{field}_c{channel}.tif", 100 * channel)
    pairs = find_pairs(source(tmp_path))
    assert [(p.id, p.group) for p in pairs] == [
        ("A1-f0", "A1"), ("A1-f1", "A1"), ("B12-f0", "B12"), ("B12-f1", "B12"),
    ]  # fmt: skip
    columns = {"well": "B12", "row": "B", "column": "12", "field": "1"}
    assert pairs[3].columns == columns
    opened = open_image(pairs[3].image)
    parts = [tifffile.imread(tmp_path / f"p/B12_f01_c{k}.tif") for k in (1, 2)]
    np.testing.assert_array_equal(np.asarray(opened.array), np.stack(parts))
    assert len(list_files(source(tmp_path))) == 8
    assert plain_folders(RawSource(tmp_path, PATTERN)) == [tmp_path / "p"]
    records = build_manifest(source(tmp_path), SETTINGS, threads=1)
    assert {(r.status, r.axes, r.shape) for r in records} == {("ok", "CYX", (2, 20, 30))}
    # A change of one channel's file is seen.
    sha = {r.id: r.sha256 for r in records}
    picture(tmp_path / "p/A01_f00_c2.tif", 7)
    again = {r.id: r.sha256 for r in build_manifest(source(tmp_path), SETTINGS, threads=1)}
    assert [name for name in sha if sha[name] != again[name]] == ["A1-f0"]


def test_an_image_without_one_of_its_channels_is_set_aside(tmp_path: Path) -> None:
    for name in ("A1_f0_c1", "A1_f0_c2", "A2_f0_c1", "A2_f0_c2", "A3_f0_c2"):
        picture(tmp_path / f"p/{name}.tif", 5)
    records = build_manifest(source(tmp_path), SETTINGS, threads=1)
    assert [r.id for r in records if r.status == "ok"] == ["A1-f0", "A2-f0"]
    assert records[2].reason == "no file A3_f0_c1.tif; an image needs the files of all its channels"


def test_names_of_real_microscopes(tmp_path: Path) -> None:
    # Opera Phenix: rows are numbers; planes are images of their own.
    touch(tmp_path, *(f"o/r02c03f0{f}p0{z}-ch{c}sk1fk1fl1.tiff" for f in (1, 2) for z in (1, 2)
                      for c in (1, 2)))  # fmt: skip
    images = "o/r{row}c{col}f{field}p{z}-ch{channel}sk1fk1fl1.tiff"
    assert list(found(source(tmp_path, images))) == [
        "B3-f1-z1", "B3-f1-z2", "B3-f2-z1", "B3-f2-z2",
    ]  # fmt: skip
    # ImageXpress: a random part at the end of each file.
    for channel in (1, 2):
        picture(tmp_path / f"x/P7_D04_s2_w{channel}1F{channel}A-9.tif", 9 * channel)
    pairs = find_pairs(source(tmp_path, "x/{plate}_{well}_s{field}_w{channel}1F*.tif"))
    (pair,) = pairs
    assert (pair.id, pair.group, pair.columns["plate"]) == ("P7-D4-f2", "P7-D4", "P7")
    assert pair.image.name == "P7_D04_s2_w{1,2}1F{1A-9,2A-9}.tif"
    assert open_image(pair.image).shape == (2, 20, 30)
    # A folder per channel; times and other properties are columns.
    touch(tmp_path, *(f"c/{c}/wt_A1_t{t:03d}.png" for c in ("DAPI", "GFP") for t in (0, 7)))
    pairs = find_pairs(source(tmp_path, "c/{channel}/{strain}_{row}{col}_t{time}.png"))
    assert [p.id for p in pairs] == ["A1-strainwt-t0", "A1-strainwt-t7"]
    assert pairs[1].columns["strain"] == "wt"
    assert pairs[1].image == tmp_path / "c/{DAPI,GFP}/wt_A1_t007.png"


def test_channels_by_name(tmp_path: Path) -> None:
    for channel, value in (("DAPI", 3), ("GFP", 70)):
        picture(tmp_path / f"{channel}/A1.tif", value)
    (pair,) = find_pairs(source(tmp_path, "{channel}/{row}{col}.tif"))
    opened = open_image(pair.image, channels=("GFP",))
    assert opened.channel_names == ("GFP",)
    np.testing.assert_array_equal(
        np.asarray(opened.array)[0], tifffile.imread(tmp_path / "GFP/A1.tif")
    )


@pytest.mark.parametrize("labels", ["l/{well}-{field}.png", "ids"])
def test_labels_of_plain_files(tmp_path: Path, labels: str) -> None:
    touch(tmp_path, "p/A01_f0_c1.tif", "p/A01_f0_c2.tif", "p/H12_f3_c1.tif", "p/H12_f3_c2.tif")
    touch(tmp_path, "l/A1-0.png", "l/H12-03.png", "ids/A1-f0.tif", "ids/H12-f3.tif")
    names = {"A1-f0": "l/A1-0.png", "H12-f3": "l/H12-03.png"}
    expected = names if labels != "ids" else {name: f"ids/{name}.tif" for name in names}
    assert {
        k: label for k, (_, label) in found(source(tmp_path, PATTERN, labels)).items()
    } == expected
    below = RawSource.below(tmp_path, PATTERN, labels, "plate")
    assert (below.root, below.labels) == (tmp_path, labels)


def test_mistakes_in_a_pattern_are_one_line(tmp_path: Path) -> None:
    touch(tmp_path, "p/A1_f0_c1.tif", "p/A01_f0_c1.tif", "p/A1_f0_cx.tif", "p/notes_f1_c1.tif")
    with pytest.raises(UserError, match=r"no \{col\}; write \{row\} and \{col\}, or \{well\}$"):
        find_pairs(source(tmp_path, "p/{row}_{channel}.tif"))
    with pytest.raises(
        UserError, match=r"A01_f0_c1.tif and A1_f0_c1.tif are both channel 1 of A1-f0"
    ):
        find_pairs(source(tmp_path))
    with pytest.raises(UserError, match="matches no image"):
        find_pairs(source(tmp_path, "p/{row}{col}.png"))
    (tmp_path / "p/A01_f0_c1.tif").unlink()
    assert told(source(tmp_path)) == [
        "images: 1 file beside the images not read, since the name does not fit "
        "{row}{col}_f{field}_c{channel}.tif, such as notes_f1_c1.tif"
    ]


def test_braces_of_folders_are_not_placeholders(tmp_path: Path) -> None:
    touch(tmp_path, "{row}/{a,b}/A1_c1.tif", "{row}/{a,b}/A1_c2.tif")
    pairs = find_pairs(source(tmp_path, "{row}/{a,b}/{row}{col}_c{channel}.tif"))
    assert [p.id for p in pairs] == ["A1"]
    assert find_pairs(source(tmp_path, "{row}/{a,b}/*.tif"[:-5] + "A1_c1.tif"))[0].id == "A1_c1"


def test_rows_as_numbers_are_letters() -> None:
    assert [row_letters(n) for n in (1, 26, 27, 32)] == ["A", "Z", "AA", "AF"]


def test_the_manifest_says_where_an_image_is(tmp_path: Path) -> None:
    plate(tmp_path / "d/p.zarr")
    records = build_manifest(RawSource(tmp_path, "d", layout="plate"), SETTINGS, threads=1)
    assert records[1].well == {
        "plate": "p", "well": "A1", "row": "A", "column": "1", "field": "1"
    }  # fmt: skip
    path = tmp_path / "manifest.csv"
    write_manifest(path, records)
    assert read_manifest(path) == records
    assert wells_in(path)["p-A1-f1"] == records[1].well
    # Other images have no such column, as before.
    picture(tmp_path / "i/a.tif", 3)
    write_manifest(
        path, build_manifest(RawSource(tmp_path, "i", labelled=False), SETTINGS, threads=1)
    )
    assert path.read_text().splitlines()[0].endswith(",warnings,inverted")
    assert wells_in(path) == {}


def test_images_of_the_command_line(tmp_path: Path) -> None:
    touch(tmp_path, "p/A01_f0_c1.tif", "p/A01_f0_c2.tif", "p/B1_f0_c1.tif", "p/B1_f0_c2.tif")
    named = image_files([str(tmp_path / PATTERN)], tmp_path / "out")
    assert [(name, path.name) for name, path in named] == [
        ("A1-f0", "A01_f0_c{1,2}.tif"), ("B1-f0", "B1_f0_c{1,2}.tif"),
    ]  # fmt: skip
