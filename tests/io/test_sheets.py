"""Sheets as spreadsheets export them, and messages for those that cannot be read."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet.config.load import load
from unet.data.layouts import find_pairs
from unet.data.raw_files import RawPair, RawSource
from unet.data.records import ImageRecord, read_manifest, write_manifest
from unet.data.sheets import read_rows
from unet.errors import UserError
from unet.tables import csv_writer

PLAIN = "image,label,plate,part\nä.tif,l.tif,P1,train\n"


def sheet(path: Path, data: bytes) -> list[RawPair]:
    path.write_bytes(data)
    return find_pairs(RawSource(path.parent, path.name))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("s.csv", PLAIN.encode()),
        ("s.csv", PLAIN.encode("utf-8-sig")),
        ("s.csv", PLAIN.encode("utf-16")),
        ("s.csv", b"\xfe\xff" + PLAIN.encode("utf-16-be")),
        ("s.csv", PLAIN.encode("cp1252")),
        ("s.csv", PLAIN.replace(",", ";").encode()),
        ("s.csv", ("sep=;\r\n" + PLAIN.replace(",", ";")).encode("cp1252")),
        ("s.csv", PLAIN.replace("\n", "\r\n").encode()),
        ("s.tsv", PLAIN.replace(",", "\t").encode()),
        ("S.CSV", PLAIN.replace(",", "\t").encode("utf-16")),
        ("s.csv", PLAIN.replace("image,label", " Image , LABEL").encode()),
        ("s.csv", PLAIN.replace(",", " , ").encode() + b"\n , , ,\n,,,\n"),
    ],
)
def test_plain_sheets_are_read(tmp_path: Path, name: str, data: bytes) -> None:
    (pair,) = sheet(tmp_path / name, data)
    assert (pair.image, pair.label) == (tmp_path / "ä.tif", tmp_path / "l.tif")
    assert (pair.columns["plate"], pair.columns["part"]) == ("P1", "train")


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("s.xlsx", b"PK\x03\x04rest", "a spreadsheet file; save it as CSV"),
        ("s.csv", b"PK\x03\x04rest", "a spreadsheet file, not text; save it as CSV"),
        ("s.csv", b"\xd0\xcf\x11\xe0", "a spreadsheet file, not text; save it as CSV"),
        ("s.csv", b"image\na\0.tif\n", "contains NUL characters; save it as CSV"),
        ("s.csv", PLAIN.encode("utf-16-le"), "NUL characters; save it as CSV|neither UTF-8"),
        ("s.csv", b"image\n\x81\xff.tif\n", "neither UTF-8 nor Windows-1252; save it as CSV"),
        ("s.csv", b"\xff\xfei\0m\0a", "not valid UTF-16 .*; save it as CSV"),
        ("s.csv", b"image,Image\na,b\n", "two columns are called 'image'"),
        ("s.csv", b"file|label\na|b\n", "a column 'image' is needed .found: file.label.;"),
        ("s.csv", b"image\n", "no rows below the column names"),
        ("s.csv", b"image\n" + b"x" * 200_000, "cannot be read as CSV .field larger"),
        ("s.csv", b"image,label\na.tif,b.tif\nb.tif,c.tif\n", "b.tif is both image and label"),
    ],
)
def test_unreadable_sheets_say_what_to_save(
    tmp_path: Path, name: str, data: bytes, told: str
) -> None:
    with pytest.raises(UserError, match=told) as error:
        sheet(tmp_path / name, data)
    assert "\n" not in str(error.value)


def test_a_pipe_is_not_a_sheet(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s.csv")
    with pytest.raises(UserError, match=r"s.csv: not a regular file"):
        find_pairs(RawSource(tmp_path, "s.csv"))


def test_another_encoding_and_surplus_cells_are_reported(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "s.csv"
    path.write_bytes(PLAIN.encode("cp1252") + b"comma,name.tif,,P2,test\n")
    assert [number for number, _ in read_rows(path, told.append)] == [2, 3]
    assert told[0].startswith("s.csv: not UTF-8; read as Windows-1252")
    assert "line 3 has more cells than the first line; put names that contain" in told[1]


def test_columns_of_ones_own_keep_their_case(tmp_path: Path) -> None:
    (pair,) = sheet(tmp_path / "s.csv", b"Image,Group,Plate\na.tif,G,P\n")
    assert pair.columns["Group"] == pair.columns["group"] == "G"
    assert pair.columns["Plate"] == "P"


@pytest.mark.parametrize("name", ["s.tsv", "s.xlsx"])
def test_the_config_takes_it_for_a_sheet(name: str) -> None:
    config = load({"datasets": {"d": {"images": name, "task": "instances"}},
                   "models": {"m": {"preset": "unet-bn"}}})  # fmt: skip
    assert config.datasets["d"].sheet
    assert config.datasets["d"].labelled


# Tables of our own

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=20)
ODD = [
    "a\rb",
    "a\nb",
    "\r\n",
    'quo"te',
    "comma,name",
    "=cmd()",
    "-1",
    "@x",
    "+1",
    " pad ",
    "é",
    "'",
]


@given(st.lists(NAMES, min_size=1, max_size=8))
def test_any_name_goes_through_a_table(
    tmp_path_factory: pytest.TempPathFactory, more: list
) -> None:
    path = tmp_path_factory.mktemp("odd") / "manifest.csv"
    names = ODD + more
    records = [ImageRecord(id=f"i{n}", image=name, reason=name) for n, name in enumerate(names)]
    write_manifest(path, records)
    assert read_manifest(path) == records
    with path.open(newline="", encoding="utf-8") as handle:
        assert sum(1 for _ in csv.reader(handle)) == len(names) + 1


def test_a_sheet_of_our_own_names_any_file(tmp_path: Path) -> None:
    path = tmp_path / "images.csv"
    names = [name for name in ODD if name.strip() == name and name.strip("\r\n")]
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv_writer(handle).writerows([["id", "image"], *([f"i{n}", name] for n, name in
                                                        enumerate(names))])  # fmt: skip
    pairs = find_pairs(RawSource(tmp_path, "images.csv"))
    assert sorted(p.image.name for p in pairs) == sorted(names)
