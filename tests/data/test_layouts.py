"""Layouts: which image has which label, and the messages if that is not clear."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet.data.file_names import safe_id
from unet.data.layouts import LAYOUTS, RawSource, find_pairs, list_files
from unet.errors import UserError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(source: RawSource) -> dict[str, tuple[str, str | None]]:
    """id -> image and label relative to the root."""
    return {
        p.id: (
            p.image.relative_to(source.root).as_posix(),
            p.label.relative_to(source.root).as_posix() if p.label else None,
        )
        for p in find_pairs(source)
    }


def test_folders_match_by_stem(tmp_path: Path) -> None:
    touch(tmp_path, "i/b.tif", "i/a.ome.tif", "i/c.png", "i/README.md", "i/.d.tif", "i/Thumbs.db")
    touch(tmp_path, "l/a.png", "l/b.tif", "l/z.tif")
    source = RawSource(tmp_path, "i", "l")
    assert found(source) == {
        "a": ("i/a.ome.tif", "l/a.png"),
        "b": ("i/b.tif", "l/b.tif"),
        "c": ("i/c.png", None),
    }
    names = [p.relative_to(tmp_path).as_posix() for p in list_files(source)]
    assert names == ["i/a.ome.tif", "i/b.tif", "i/c.png", "l/a.png", "l/b.tif"]


def test_labels_without_an_image_are_reported(tmp_path: Path) -> None:
    touch(tmp_path, "i/a.tif", "l/a.tif", "l/z.tif")
    said: list[str] = []
    find_pairs(RawSource(tmp_path, "i", "l", warn=said.append))
    assert said == ["1 labels match no image and are left out: z.tif"]


def test_globs_match_by_their_wildcards(tmp_path: Path) -> None:
    touch(tmp_path, "p1/img_1.tif", "p1/img_2.tif", "p2/img_1.tif")
    touch(tmp_path, "p1/seg_1.tif", "p1/seg_2.tif", "p2/seg_1.tif")
    assert found(RawSource(tmp_path, "p*/img_*.tif", "p*/seg_*.tif")) == {
        "p1-img_1": ("p1/img_1.tif", "p1/seg_1.tif"),
        "p1-img_2": ("p1/img_2.tif", "p1/seg_2.tif"),
        "p2-img_1": ("p2/img_1.tif", "p2/seg_1.tif"),
    }


def test_label_suffix_in_the_glob(tmp_path: Path) -> None:
    touch(tmp_path, "i/a.tif", "i/b.tif", "l/a_mask.png", "l/b_mask.png")
    expected = {"a": ("i/a.tif", "l/a_mask.png"), "b": ("i/b.tif", "l/b_mask.png")}
    assert found(RawSource(tmp_path, "i", "l/*_mask.png")) == expected
    assert found(RawSource(tmp_path, "i/*.tif", "l/*_mask.png")) == expected
    with pytest.raises(
        UserError, match=r"labels: none of 2 labels is named like an image .*a_mask"
    ):
        find_pairs(RawSource(tmp_path, "i", "l"))


def test_recursive_glob_and_parallel_trees(tmp_path: Path) -> None:
    touch(tmp_path, "i/x/a.tif", "i/y/z/a.tif", "l/x/a.tif", "l/y/z/a.tif")
    assert found(RawSource(tmp_path, "i/**/*.tif", "l/**/*.tif")) == {
        "x-a": ("i/x/a.tif", "l/x/a.tif"),
        "y-z-a": ("i/y/z/a.tif", "l/y/z/a.tif"),
    }


def test_absolute_paths_and_folders_with_brackets(tmp_path: Path) -> None:
    root = tmp_path / "run [1]"
    touch(root, "i/a.tif", "l/a.tif")
    elsewhere = RawSource(tmp_path / "other", str(root / "i" / "*.tif"), str(root / "l"))
    assert [(p.image, p.label) for p in find_pairs(elsewhere)] == [
        (root / "i/a.tif", root / "l/a.tif")
    ]


def test_root_below(tmp_path: Path) -> None:
    touch(tmp_path, "d/i/a.tif", "d/l/a.tif", "d/sheet.csv", "d/c/01/t000.tif")
    below = RawSource.below(tmp_path, "d/i/*.tif", "d/l")
    assert (below.root, below.images, below.labels) == (tmp_path / "d", "i/*.tif", "l")
    assert found(below) == {"a": ("i/a.tif", "l/a.tif")}
    assert RawSource.below(tmp_path, "d/i/*.tif").root == tmp_path / "d" / "i"
    sheet = RawSource.below(tmp_path, str(tmp_path / "d/sheet.csv"))
    assert (sheet.root, sheet.images) == (tmp_path / "d", "sheet.csv")
    ctc = RawSource.below(tmp_path, "d/c", "GT", "ctc")
    assert (ctc.root, ctc.labels) == (tmp_path / "d" / "c", "GT")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("none", "images: no folder or file"),
        ("i/*.png", "images: .* matches no image"),
        ("empty", "images: .* matches no image"),
    ],
)
def test_missing_images(tmp_path: Path, images: str, message: str) -> None:
    touch(tmp_path, "i/a.tif", "empty/x.txt")
    with pytest.raises(UserError, match=message):
        list_files(RawSource(tmp_path, images))


def test_two_images_with_one_name(tmp_path: Path) -> None:
    touch(tmp_path, "i/a.tif", "i/a.png")
    with pytest.raises(UserError, match=r"a\.png and .*a\.tif have the same name"):
        find_pairs(RawSource(tmp_path, "i"))


def test_file_name_that_is_not_text(tmp_path: Path) -> None:
    touch(tmp_path, "i/a\udcff.tif")
    with pytest.raises(UserError, match="not UTF-8; rename it"):
        find_pairs(RawSource(tmp_path, "i"))


def test_unlabelled_drops_labels(tmp_path: Path) -> None:
    touch(tmp_path, "i/a.tif", "l/b.tif")
    assert found(RawSource(tmp_path, "i", "l", labelled=False)) == {"a": ("i/a.tif", None)}


def test_unknown_layout(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are: " + ", ".join(LAYOUTS)):
        find_pairs(RawSource(tmp_path, "i", layout="x"))


def test_sheet(tmp_path: Path) -> None:
    touch(tmp_path, "d/i/a.tif", "d/i/b.tif", "d/l/1.tif")
    sheet = tmp_path / "d" / "sheet.csv"
    sheet.write_text("image,label,id,plate,part\ni/a.tif,l/1.tif,one,P1,train\ni/b.tif,,,P2,test\n")
    source = RawSource(tmp_path, "d/sheet.csv")
    assert found(source) == {"b": ("d/i/b.tif", None), "one": ("d/i/a.tif", "d/l/1.tif")}
    assert find_pairs(source)[1].columns["plate"] == "P1"
    assert sheet in list_files(source)
    with pytest.raises(UserError, match="drop this key"):
        find_pairs(RawSource(tmp_path, "d/sheet.csv", "d/l"))
    with pytest.raises(UserError, match="a sheet needs layout"):
        find_pairs(RawSource(tmp_path, "d/sheet.csv", layout="ctc"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.tif,b.tif\n", "a column 'image' is needed .*file, label"),
        ("", "a column 'image' is needed"),
        ("image,label\n,b.tif\n", "line 2 has no image"),
    ],
)
def test_bad_sheets(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        find_pairs(RawSource(tmp_path, "s.csv"))


def test_sheet_without_label_column_takes_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "i/a.tif", "l/a.tif")
    (tmp_path / "s.csv").write_text("image\ni/a.tif\n")
    assert found(RawSource(tmp_path, "s.csv", "l")) == {"a": ("i/a.tif", "l/a.tif")}


def test_stack(tmp_path: Path) -> None:
    touch(tmp_path, "volume.tif", "labels.tif", "i/a.tif", "i/b.tif", "l/a.tif", "l/b.tif")
    (pair,) = find_pairs(RawSource(tmp_path, "volume.tif", "labels.tif", "stack"))
    assert (pair.id, pair.stack, pair.label) == ("volume", True, tmp_path / "labels.tif")
    pairs = find_pairs(RawSource(tmp_path, "i", "l", "stack"))
    assert [(p.id, p.label, p.stack) for p in pairs] == [
        ("a", tmp_path / "l/a.tif", True),
        ("b", tmp_path / "l/b.tif", True),
    ]


def test_dsb2018(tmp_path: Path) -> None:
    touch(tmp_path, "d/x/images/x.png", "d/x/masks/1.png", "d/x/masks/2.png")
    touch(tmp_path, "d/y/images/y.png", "d/z/masks/1.png", "d/list.csv")
    source = RawSource(tmp_path, "d", layout="dsb2018")
    assert found(source) == {
        "x": ("d/x/images/x.png", "d/x/masks"),
        "y": ("d/y/images/y.png", None),
    }
    assert tmp_path / "d/x/masks" in list_files(source)
    touch(tmp_path, "d/x/images/x2.png")
    with pytest.raises(UserError, match="2 images; layout dsb2018 needs one"):
        find_pairs(source)


def test_ctc(tmp_path: Path) -> None:
    touch(tmp_path, *(f"d/{s}/t00{i}.tif" for s in ("01", "02") for i in range(3)))
    touch(tmp_path, "d/01_GT/SEG/man_seg001.tif", "d/01_ST/SEG/man_seg000.tif")
    touch(tmp_path, "d/02_ST/SEG/man_seg002.tif", "d/01_GT/TRA/man_track000.tif")
    source = RawSource(tmp_path, "d", layout="ctc")
    gold, silver = ("d/01/t001.tif", "d/01_GT/SEG/man_seg001.tif"), "d/02_ST/SEG/man_seg002.tif"
    assert found(source) == {"01-t001": gold, "02-t002": ("d/02/t002.tif", silver)}
    assert [p.group for p in find_pairs(source)] == ["01", "02"]
    only = found(RawSource(tmp_path, "d/0*", "ST", "ctc"))
    assert only["01-t000"] == ("d/01/t000.tif", "d/01_ST/SEG/man_seg000.tif")
    assert len(only) == 2
    assert len(find_pairs(RawSource(tmp_path, "d", layout="ctc", labelled=False))) == 6
    assert set(found(RawSource(tmp_path, "d/01", layout="ctc"))) == {"01-t001"}
    with pytest.raises(UserError, match="takes GT, ST or nothing"):
        find_pairs(RawSource(tmp_path, "d", "gold", "ctc"))


def test_nnunet(tmp_path: Path) -> None:
    touch(tmp_path, *(f"d/imagesTr/c_{c}_000{i}.tif" for c in "ab" for i in range(2)))
    touch(tmp_path, "d/labelsTr/c_a.tif", "d/dataset.json", "d/imagesTr/c_a_0000.json")
    source = RawSource(tmp_path, "d", layout="nnunet")
    assert found(source) == {
        "c_a": ("d/imagesTr/c_a_????.tif", "d/labelsTr/c_a.tif"),
        "c_b": ("d/imagesTr/c_b_????.tif", None),
    }
    assert len(list_files(source)) == 5
    touch(tmp_path, "d/imagesTr/c_a_0003.tif")
    with pytest.raises(UserError, match=r"channels must be _0000, _0001"):
        find_pairs(source)


def test_nnunet_single_channel(tmp_path: Path) -> None:
    touch(tmp_path, "d/imagesTr/a_0000.png", "d/labelsTr/a.png")
    expected = {"a": ("d/imagesTr/a_0000.png", "d/labelsTr/a.png")}
    assert found(RawSource(tmp_path, "d/imagesTr", layout="nnunet")) == expected


def test_ome_zarr(tmp_path: Path) -> None:
    touch(tmp_path, "d/a.ome.zarr/labels/nuclei/zarr.json", "d/b.zarr/zarr.json")
    source = RawSource(tmp_path, "d", layout="ome-zarr")
    nuclei = "d/a.ome.zarr/labels/nuclei"
    assert found(source) == {"a": ("d/a.ome.zarr", nuclei), "b": ("d/b.zarr", None)}
    touch(tmp_path, "d/a.ome.zarr/labels/cells/zarr.json")
    with pytest.raises(UserError, match="has labels cells, nuclei"):
        find_pairs(source)
    assert found(RawSource(tmp_path, "d", "nuclei", "ome-zarr"))["a"][1] == nuclei


@pytest.mark.parametrize("layout", ["dsb2018", "ctc", "nnunet", "ome-zarr"])
def test_folders_without_images_of_the_layout(tmp_path: Path, layout: str) -> None:
    touch(tmp_path, "d/sub/a.tif", "d/a.tif")
    with pytest.raises(UserError, match="images: "):
        find_pairs(RawSource(tmp_path, "d", layout=layout))


# Ids


def test_safe_ids() -> None:
    assert safe_id("cell_01.b-2") == "cell_01.b-2"
    assert safe_id("p1/a") == "p1-a"
    assert safe_id("a b").startswith("a_b-")
    assert safe_id("Zellkörper").startswith("Zellkorper-")
    assert safe_id("../x") not in ("../x", "x")
    assert safe_id("...").startswith("image-")


# Of names with folders, p1/a and p1-a would meet; the manifest tells of two images with one id.
NAMES = st.text(st.characters(exclude_characters="/"), min_size=1, max_size=120)


@given(st.sets(NAMES, min_size=2, max_size=20))
def test_ids_are_distinct_and_safe(names: set[str]) -> None:
    ids = [safe_id(name) for name in names]
    assert len(set(ids)) == len(names)
    for one in ids:
        assert one
        assert len(one) <= 110
        assert one.isascii()
        assert "/" not in one
        assert one[0] not in ".-_"


def test_listing_imports_nothing_heavy() -> None:
    heavy = ("torch", "dask", "numpy", "zarr", "tifffile", "PIL")
    code = (
        "import json, sys, unet.data.manifest\n"
        f"print(json.dumps([m for m in {heavy!r} if m in sys.modules]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert json.loads(result.stdout) == []
