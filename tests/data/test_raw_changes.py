"""The look into the raw folders that spares a start the comparison of all files, and each change
that it must not miss."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unet.config.load import load
from unet.config.run import merge
from unet.data.layouts import list_files, plain_folders
from unet.data.raw_changes import FolderListing, stamp, write_inputs
from unet.data.raw_files import RawSource
from unet.planning.jobs import Run

FINGERPRINT = "f" * 64


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for kind in ("images", "labels"):
        folder = tmp_path / "raw" / kind
        folder.mkdir(parents=True)
        for name in "abc":
            (folder / f"{name}.tif").write_text(f"{kind} {name}")
    return tmp_path


def config(place: Path, **dataset: Any) -> dict[str, Any]:
    return {
        "output": str(place / "out"),
        "data_root": str(place / "raw"),
        "datasets": {
            "d": {"images": "images", "labels": "labels/*.tif", "task": "instances", **dataset}
        },
        "models": {"m": {"preset": "unet-bn", "width": 2, "depth": 1}},
    }


def manifest(place: Path) -> None:
    """As the stage notes what it has seen."""
    run = Run(load(config(place)))
    root = place / "raw"
    files = list_files(RawSource(root, "images", "labels/*.tif"))
    stamps = {path: stamp(path) for path in files}
    write_inputs(run.paths.inputs("d"), root, FINGERPRINT, stamps, lambda p: "0" * 64)


def planned(raw: dict[str, Any]) -> str:
    return Run(load(raw)).sources.fingerprint("d")


def test_nothing_is_matched_twice(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest(place)
    assert planned(config(place)) == FINGERPRINT

    def never(source: RawSource) -> list[Path]:
        raise AssertionError("all files were listed")

    monkeypatch.setattr("unet.data.layouts.list_files", never)
    assert planned(config(place)) == FINGERPRINT
    # Another pattern, another manifest: inspected again.
    with pytest.raises(AssertionError):
        planned(config(place, labels="labels"))
    path = Run(load(config(place))).paths.inputs("d")
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored))
    with pytest.raises(AssertionError):
        planned(config(place))


def add(raw: Path) -> None:
    (raw / "images" / "d.tif").write_text("x")


def remove(raw: Path) -> None:
    (raw / "labels" / "b.tif").unlink()


def rename(raw: Path) -> None:
    (raw / "labels" / "b.tif").rename(raw / "labels" / "z.tif")


def edit(raw: Path) -> None:
    (raw / "images" / "c.tif").write_text("another one")


def edit_at_once(raw: Path) -> None:
    """Of the same size; the time tells."""
    path = raw / "images" / "c.tif"
    then = path.stat().st_mtime_ns
    path.write_text("images x")
    os.utime(path, ns=(then + 1, then + 1))


def swap(raw: Path) -> None:
    first, second, spare = (raw / "images" / f"{name}.tif" for name in ("a", "b", "spare"))
    for path, target in ((first, spare), (second, first), (spare, second)):
        path.rename(target)


@pytest.mark.parametrize("change", [add, remove, rename, edit, edit_at_once, swap])
def test_a_change_is_seen(place: Path, change: Callable[[Path], None]) -> None:
    manifest(place)
    assert planned(config(place)) == planned(config(place)) == FINGERPRINT
    if change is swap:
        os.utime(place / "raw" / "images" / "a.tif", ns=(1, 1))
        manifest(place)
        assert planned(config(place)) == FINGERPRINT
    change(place / "raw")
    assert planned(config(place)) != FINGERPRINT


def test_what_is_no_image_changes_nothing(place: Path) -> None:
    manifest(place)
    assert planned(config(place)) == FINGERPRINT
    (place / "raw" / "images" / "notes.txt").write_text("x")
    assert planned(config(place)) == FINGERPRINT


def test_a_damaged_note_is_made_anew(place: Path) -> None:
    manifest(place)
    note = Run(load(config(place))).paths.inputs("d").with_name(".inputs-listed.json")
    for text in ("{", "[]", "{}", '{"listing": null, "fingerprint": "x"}'):
        assert planned(config(place)) == FINGERPRINT
        note.write_text(text)
        assert planned(config(place)) == FINGERPRINT


@pytest.mark.parametrize(
    "over",
    [
        {"layout": "dsb2018", "labels": None},
        {"layout": "ome-zarr", "labels": None},
        {"images": "sheet.csv", "labels": None},
        {"images": "*/a.tif"},
        {"images": "**/*.tif"},
        {"images": "ima*/a.tif"},
        {"labels": "nowhere/*.tif"},
    ],
)
def test_where_a_look_is_not_enough(place: Path, over: dict[str, Any]) -> None:
    keys = merge({"layout": "folders", "images": "images", "labels": "labels"}, over)
    source = RawSource(place / "raw", keys["images"], keys["labels"], keys["layout"])
    assert plain_folders(source) is None


def test_where_a_look_is_enough(place: Path) -> None:
    raw = place / "raw"
    folders = [raw / "images", raw / "labels"]
    for images, labels in (
        ("images", "labels"), ("images/*.tif", "labels/?.tif"), ("images/a.tif", "labels/a.tif"),
    ):  # fmt: skip
        for layout in ("folders", "stack"):
            assert plain_folders(RawSource(raw, images, labels, layout)) == folders
    unlabelled = RawSource(raw, "images", "labels", "folders", False)
    assert plain_folders(unlabelled) == folders[:1]


def test_an_image_that_is_a_folder_needs_more_than_a_look(place: Path) -> None:
    raw = place / "raw"
    source, inputs = RawSource(raw, "images", "labels"), place / "inputs.json"
    inputs.write_text("{}")
    note = place / "note.json"
    FolderListing(note, source, inputs).keep(FINGERPRINT)
    assert FolderListing(note, source, inputs).fingerprint() == FINGERPRINT
    (raw / "images" / "d.zarr").mkdir()
    note.unlink()
    FolderListing(note, source, inputs).keep(FINGERPRINT)
    assert not note.exists()
    assert FolderListing(note, source, inputs).fingerprint() is None
