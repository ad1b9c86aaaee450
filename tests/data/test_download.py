"""Public datasets: the whole way from an address to a folder, its hashes, its record, its sheet."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from imagecodecs import png_encode

from tests.web_server import Web, web_server
from unet.config import public_datasets
from unet.config.public_datasets import PublicSet, WrittenSheet
from unet.data import download
from unet.data.download import download_set, first_channel, is_there
from unet.data.written_sheet import write_sheet
from unet.errors import UserError
from unet.files import read_json, remove


def zipped(**files: bytes | str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


FIRST = zipped(images__a="image", images__b="image")
SECOND = zipped(labels__a="label")


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A server with two archives, and the sets `one` and `two` that are made of them."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with web_server() as found:
        found.files |= {"one.zip": FIRST, "two.zip": SECOND, "notes.json": b"{}"}
        about = {
            "shows": "cells", "dims": 2, "licence": "CC0", "cite": "A 2026", "page": "p",
            "published_split": "none", "dataset": {"images": "images"},
        }  # fmt: skip
        one = {"url": f"{found.url}one.zip"}
        two = [
            one,
            {"url": f"{found.url}two.zip", "into": "more"},
            {"url": f"{found.url}notes.json"},
        ]
        table = {
            "one": {**about, "files": [one]}, "two": {**about, "files": two},
            "hand": {**about, "files": [{"name": "one.zip"}], "by_hand": "log in and save it"},
        }  # fmt: skip
        monkeypatch.setattr(public_datasets, "_table", lambda: table)
        public_datasets.public_set.cache_clear()
        yield found
    public_datasets.public_set.cache_clear()


def known(web: Web, name: str, **hashes: str | bool) -> None:
    """From now on, the hash of the first file of a set is published."""
    entry = public_datasets._table()[name]
    entry["files"][0] |= hashes
    public_datasets.public_set.cache_clear()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def listed(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_set_of_one_archive(web: Web, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    found = download_set("one", tmp_path)
    assert found.fetched
    assert found.hashes == {"one.zip": sha256(FIRST)}
    assert listed(tmp_path) == ["one.download.json", "one/images/a", "one/images/b"]
    assert f"sha256 {sha256(FIRST)} (noted; the next download is compared with it)" in caplog.text
    record = read_json(tmp_path / "one.download.json")
    source = {"sha256": sha256(FIRST), "source": f"{web.url}one.zip"}
    assert record["files"] == {"one.zip": source}
    # Once more: nothing is asked.
    before = len(web.asked)
    assert not download_set("one", tmp_path).fetched
    assert len(web.asked) == before


def test_a_set_of_several_files(web: Web, tmp_path: Path) -> None:
    download_set("two", tmp_path)
    files = ["images/a", "images/b", "more/labels/a", "notes.json"]
    assert listed(tmp_path / "two") == files


def test_a_cut_download_is_not_taken_for_done(web: Web, tmp_path: Path) -> None:
    web.cut["one.zip"] = 100
    with pytest.raises(UserError, match="run it again to continue"):
        download_set("one", tmp_path)
    assert not is_there("one", tmp_path)
    assert not (tmp_path / "one").exists()
    assert download_set("one", tmp_path).hashes == {"one.zip": sha256(FIRST)}
    assert web.asked[-1] == ("one.zip", "bytes=100-")


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_published_hash(web: Web, tmp_path: Path, kind: str) -> None:
    right = hashlib.new(kind, FIRST).hexdigest()
    known(web, "one", **{kind: right})
    web.files["one.zip"] = SECOND
    with pytest.raises(UserError) as error:
        download_set("one", tmp_path)
    assert f"one.zip: its {kind} is " in str(error.value)
    assert f", not {right} as its publisher or its users say; it was removed" in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert listed(tmp_path) == []
    web.files["one.zip"] = FIRST
    assert download_set("one", tmp_path).fetched


def test_the_first_download_is_what_the_next_is_compared_with(web: Web, tmp_path: Path) -> None:
    download_set("one", tmp_path)
    remove(tmp_path / "one")
    web.files["one.zip"] = SECOND
    with pytest.raises(
        UserError, match=r"as .*one\.download\.json says; it was removed; .*new ver"
    ):
        download_set("one", tmp_path)
    assert listed(tmp_path) == ["one.download.json"]
    known(web, "one", changing=True)
    assert download_set("one", tmp_path).hashes == {"one.zip": sha256(SECOND)}


def test_a_folder_of_somebody_else(web: Web, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "mine").write_text("x")
    with pytest.raises(UserError, match=r"exists, but no one\.download\.json beside it says"):
        download_set("one", tmp_path)
    assert listed(tmp_path) == ["one/mine"]


def test_a_folder_of_another_archive(web: Web, tmp_path: Path) -> None:
    download_set("one", tmp_path)
    known(web, "one", sha256=sha256(SECOND))
    with pytest.raises(UserError, match=r"made from another one\.zip than the one with sha256"):
        download_set("one", tmp_path)


def test_files_that_are_gone(web: Web, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    download_set("one", tmp_path)
    (tmp_path / "one" / "images" / "a").unlink()
    assert not download_set("one", tmp_path).fetched
    assert "has 1 file, 1 more or fewer than were unpacked; remove the folder" in caplog.text


def test_a_bad_archive_leaves_nothing(web: Web, tmp_path: Path) -> None:
    web.files["one.zip"] = zipped(images__a="x", **{"../out": "x"})
    with pytest.raises(UserError, match=r"^one\.zip: '\.\./out' is a path that leads out"):
        download_set("one", tmp_path)
    assert not (tmp_path / "one").exists()
    assert not is_there("one", tmp_path)


def test_a_killed_download_leaves_nothing_that_counts(web: Web, tmp_path: Path) -> None:
    (tmp_path / ".one.unpacking" / "images").mkdir(parents=True)
    (tmp_path / ".one.unpacking" / "images" / "half").write_text("x")
    download_set("one", tmp_path)
    assert listed(tmp_path) == ["one.download.json", "one/images/a", "one/images/b"]


# Other sources.


def test_a_mirror_and_an_archive_that_is_here(web: Web, tmp_path: Path) -> None:
    web.files["mirror/x.zip"] = FIRST
    download_set("one", tmp_path / "a", f"{web.url}mirror/x.zip")
    local = tmp_path / "mine.zip"
    local.write_bytes(FIRST)
    before = len(web.asked)
    download_set("one", tmp_path / "b", str(local))
    assert len(web.asked) == before
    assert listed(tmp_path / "a" / "one") == listed(tmp_path / "b" / "one")
    assert local.exists()


def test_sources_of_several_files(web: Web, tmp_path: Path) -> None:
    for name in ("one.zip", "two.zip", "notes.json"):
        web.files[f"mirror/{name}"] = web.files[name]
        (tmp_path / name).write_bytes(web.files[name])
    download_set("two", tmp_path / "a", f"{web.url}mirror/")
    download_set("two", tmp_path / "b", str(tmp_path))
    assert listed(tmp_path / "a" / "two") == listed(tmp_path / "b" / "two")
    with pytest.raises(UserError, match=r"the set has 3 files; .*one\.zip, two\.zip, notes\.json"):
        download_set("two", tmp_path / "c", str(tmp_path / "one.zip"))
    with pytest.raises(UserError, match=r"the set has 3 files; .*; end it with /"):
        download_set("two", tmp_path / "c", f"{web.url}one.zip")


def test_a_wrong_file_that_is_here_stays(web: Web, tmp_path: Path) -> None:
    known(web, "one", sha256=sha256(SECOND))
    local = tmp_path / "mine.zip"
    local.write_bytes(FIRST)
    with pytest.raises(UserError, match=r"one\.zip: its sha256 is .*; give another file$"):
        download_set("one", tmp_path / "a", str(local))
    assert local.exists()
    with pytest.raises(UserError, match=r"--from: no such file: .*none\.zip"):
        download_set("one", tmp_path / "a", str(tmp_path / "none.zip"))


def test_what_must_be_fetched_by_hand(web: Web, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"log in and save it \(p\), and give it with KEY$"):
        download_set("hand", tmp_path, key="KEY")
    local = tmp_path / "mine.zip"
    local.write_bytes(FIRST)
    assert download_set("hand", tmp_path / "a", str(local)).fetched


def test_two_at_once(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_WAIT", 0.01)
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda: found.append(download_set("one", tmp_path).fetched))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False, False, True]
    assert [path for path, _ in web.asked] == ["one.zip"]


# Sheets and labels.


def test_a_sheet(tmp_path: Path) -> None:
    for name in ("train/images/a", "train/masks/a", "test/images/a", "test/masks/a",
                 "train/images/alone", "__MACOSX/train/images/a", "__MACOSX/train/masks/a",
                 "train/images/._b", "train/masks/._b"):  # fmt: skip
        path = tmp_path / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    image = r"(?:.*/)?(train|test)/images/([^/]+\.tif)"
    write_sheet(tmp_path, WrittenSheet(image=image, label=r"../masks/\2", part=r"\1", group=r"\2"))
    assert (tmp_path / "sheet.csv").read_text().splitlines() == [
        "image,label,id,part,group",
        "test/images/a.tif,test/masks/a.tif,test-images-a,test,a.tif",
        "train/images/a.tif,train/masks/a.tif,train-images-a,train,a.tif",
    ]
    with pytest.raises(UserError, match=r"none of 6 files is an image with a label.*has changed"):
        write_sheet(tmp_path, WrittenSheet(image=r"nothing", label="x"))


def test_a_sheet_of_listed_parts_and_of_objects(tmp_path: Path) -> None:
    for name in ("images/a", "images/b", "images/c", "one/a_1", "one/a_2", "one/b_1"):
        path = tmp_path / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "training.txt").write_text("a.png\n\n")
    (tmp_path / "test.txt").write_text("b.png")
    sheet = WrittenSheet(
        image=r"images/([^/]+)\.tif",
        label=r"../objects/\1",
        objects=r"one/([a-z])_\d\.tif",
        lists={"train": "**/training.txt", "test": "test.txt"},
    )
    write_sheet(tmp_path, sheet)
    assert (tmp_path / "sheet.csv").read_text().splitlines() == [
        "image,label,id,part",
        "images/a.tif,objects/a,a,train",
        "images/b.tif,objects/b,b,test",
    ]
    assert listed(tmp_path / "objects") == ["a/a_1.tif", "a/a_2.tif", "b/b_1.tif"]


def test_the_first_channel_of_colour_labels(tmp_path: Path) -> None:
    from tifffile import imread

    (tmp_path / "masks").mkdir()
    mask = np.zeros((8, 8, 4), np.uint8)
    mask[:3, :3, 0] = 1
    mask[3:6, :3, 0] = 2  # touches the first, with another value
    mask[:2, 6:, 0] = 1  # the same value, another piece
    mask[..., 3] = 255
    (tmp_path / "masks" / "a.png").write_bytes(png_encode(mask))
    first_channel(tmp_path)
    labels = imread(tmp_path / "labels" / "a.tif")
    assert labels.dtype == np.uint16
    assert len({labels[0, 0], labels[4, 0], labels[0, 7]}) == 3
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    assert (labels > 0).sum() == 9 + 9 + 4


def test_a_set_needs_an_address_or_words() -> None:
    about = dict.fromkeys(("shows", "licence", "cite", "page", "published_split"), "x")
    with pytest.raises(ValueError, match="a file without url needs by_hand"):
        PublicSet.model_validate({**about, "dims": 2, "dataset": {}, "files": [{"name": "a"}]})
