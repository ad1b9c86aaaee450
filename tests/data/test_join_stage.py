"""The stage join: one dataset of several stores, of which nothing is copied."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.test_store import put
from unet.config.join_settings import JoinSettings
from unet.data.dataset_warnings import read_warnings
from unet.data.join_stage import join_stage
from unet.data.records import (
    ImageRecord,
    SplitRecord,
    read_manifest,
    read_splits,
    write_manifest,
    write_splits,
)
from unet.data.store import OwnGrid, Prepared, clean, update_attrs
from unet.errors import UserError
from unet.files import read_json, write_sentinel
from unet.paths import Paths

SETTINGS = JoinSettings.made(members=("b", "a"), task="semantic", classes=(("bg", 0), ("fg", 9)))
NORMALIZE = {"method": "percentile", "low": 1.0, "high": 99.8, "scope": "image"}


def member(paths: Paths, name: str, images: dict[str, str], **facts: Any) -> None:
    """A prepared dataset: image -> sha256; each image tests in its own fold of two."""
    facts = {
        "size": (0.5, 0.5), "normalize": NORMALIZE, "channels": 1, "folds": 2, "shape": (5, 7),
        **facts,
    }  # fmt: skip
    clean(paths.prepared(name), {})
    entries = {}
    for image in images:
        put(paths.prepared(name), image, f"key of {name} {image}", facts["shape"])
        update_attrs(paths.prepared(name), image, {"group": "g1"})
        entries[image] = {
            "key": f"key of {name} {image}", "shape": [1, *facts["shape"]], "axes": "CYX",
            "pixel_size_um": facts["size"], "labelled": True, "group": "g1", "statistics": [],
        }  # fmt: skip
    records = [
        ImageRecord(image, f"{image}.tif", sha256=sha, group="g1", shape=(1, 5, 7))
        for image, sha in images.items()
    ]
    write_manifest(paths.manifest(name), records)
    rows = [
        SplitRecord(image, fold, "test" if k % facts["folds"] == fold else "train")
        for k, image in enumerate(images)
        for fold in range(facts["folds"])
    ]
    write_splits(paths.splits(name), rows)
    more = {key: facts[key] for key in ("normalize", "channels")}
    write_sentinel(paths.prepared_done(name), 1, entries, **more)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths(tmp_path / "out")
    member(found, "a", {"x": "1", "y.v2": "2", "z": "3"})
    member(found, "b", {"x": "4", "w": "5"})
    return found


def joined(paths: Paths) -> dict[str, Any]:
    join_stage(paths, "ab", SETTINGS, None)
    found: dict[str, Any] = read_json(paths.prepared_done("ab"))
    return found


def test_the_images_of_all_members(paths: Paths) -> None:
    sentinel = joined(paths)
    names = ["b.x", "b.w", "a.x", "a.y.v2", "a.z"]
    assert sorted(sentinel["images"]) == Prepared(paths.prepared("ab")).ids() == sorted(names)
    assert sentinel["images"]["a.y.v2"]["dataset"] == "a"
    assert sentinel["images"]["a.y.v2"]["key"] == "key of a y.v2"
    assert (sentinel["class_names"], sentinel["class_values"]) == (["bg", "fg"], [0, 9])
    assert [record.id for record in read_manifest(paths.manifest("ab"))] == names
    # Groups of two datasets with the same name stay apart.
    groups = {record.id: record.group for record in read_manifest(paths.manifest("ab"))}
    assert groups == {name: f"{name[0]}.g1" for name in names}
    store = Prepared(paths.prepared("ab"))
    assert all(store.attrs(name)["group"] == groups[name] for name in names)


def test_an_image_keeps_the_parts_it_has_in_its_dataset(paths: Paths) -> None:
    joined(paths)
    found = {(row.image, row.fold): row.part for row in read_splits(paths.splits("ab"))}
    for name in "ab":
        for row in read_splits(paths.splits(name)):
            assert found.pop((f"{name}.{row.image}", row.fold)) == row.part
    assert not found


def test_nothing_is_copied(paths: Paths) -> None:
    before = {p: p.stat() for name in "ab" for p in paths.dataset(name).rglob("*") if p.is_file()}
    joined(paths)
    after = {p: p.stat() for name in "ab" for p in paths.dataset(name).rglob("*") if p.is_file()}
    assert {p: (s.st_ino, s.st_mtime_ns) for p, s in before.items()} == {
        p: (s.st_ino, s.st_mtime_ns) for p, s in after.items()
    }
    files = [p for p in paths.prepared("ab").rglob("*") if p.is_file()]
    assert [p.name for p in files] == ["zarr.json"]
    store = Prepared(paths.prepared("ab"))
    np.testing.assert_array_equal(store.image("a.x")[...], np.full((1, 5, 7), 1.5))
    # It reads what the member has now, not a copy.
    put(paths.prepared("a"), "x", "other", (4, 4))
    assert store.image("a.x").shape == (1, 4, 4)
    assert OwnGrid(store.path).image("a.x").shape == (1, 4, 4)


def test_a_moved_folder_stays_joined(paths: Paths, tmp_path: Path) -> None:
    joined(paths)
    shutil.move(paths.output, tmp_path / "moved")
    store = Prepared(tmp_path / "moved" / "ab" / "prepared.zarr")
    assert store.image("b.w").shape == (1, 5, 7)
    os.chdir(tmp_path / "moved")
    assert Prepared(Path("ab/prepared.zarr")).image("b.w").shape == (1, 5, 7)


def test_errors_name_the_member(paths: Paths) -> None:
    joined(paths)
    store = Prepared(paths.prepared("ab"))
    with pytest.raises(UserError, match=r"out/a/prepared\.zarr: has no image 'q' among its 3"):
        store.image("a.q")
    with pytest.raises(UserError, match=r"out/ab/prepared\.zarr: has no image 'q'"):
        store.image("q")


def test_a_dataset_that_no_longer_joins_has_its_own_images(paths: Paths) -> None:
    joined(paths)
    clean(paths.prepared("ab"), {"own": "key"})
    put(paths.prepared("ab"), "own", "key")
    assert Prepared(paths.prepared("ab")).ids() == ["own"]


def test_the_content_follows_the_members(paths: Paths) -> None:
    first = joined(paths)["content"]
    assert joined(paths)["content"] == first
    sentinel = json.loads(paths.prepared_done("a").read_text())
    sentinel["images"]["x"]["key"] = "new"
    write_sentinel(paths.prepared_done("a"), 1, sentinel["images"], normalize=NORMALIZE, channels=1)
    assert joined(paths)["content"] != first


REFUSED = [
    ({"channels": 2}, "datasets.ab.join: the images of b have 2 channels, those of a 1"),
    ({"folds": 1}, "datasets.ab.join: b has 1 folds, a 2"),
    ({"shape": (2, 5, 7)}, "the images of b have 3 spatial axes, those of a 2"),
]


@pytest.mark.parametrize(("facts", "text"), REFUSED)
def test_what_cannot_be_joined(paths: Paths, facts: dict[str, Any], text: str) -> None:
    member(paths, "b", {"x": "4", "w": "5"}, **facts)
    with pytest.raises(UserError, match=text) as error:
        joined(paths)
    assert len(str(error.value).splitlines()) == 1
    assert not paths.prepared_done("ab").exists()


def test_an_image_of_two_datasets_is_in_one_part(paths: Paths) -> None:
    # `x` of a tests in fold 0, and so does its copy.
    member(paths, "b", {"copy": "1", "w": "5"})
    assert joined(paths)
    # In fold 1 it would train a network that is tested on `x`.
    member(paths, "b", {"w": "5", "copy": "1"})
    with pytest.raises(UserError, match=r"datasets\.ab.join: b\.copy and a\.x are the same file"):
        joined(paths)


def warnings(paths: Paths) -> list[str]:
    sentinel = joined(paths)
    assert sentinel["normalize"]["scope"] == "image"
    return read_warnings(paths.dataset("ab"))


def test_warnings(paths: Paths) -> None:
    assert warnings(paths) == []
    member(paths, "a", {"x": "1", "y": "2"}, size=(0.52, 0.52))
    assert warnings(paths) == []
    member(paths, "a", {"x": "1", "y": "2"}, size=(1.0, 1.0))
    (line,) = warnings(paths)
    assert "the pixel sizes differ (b 0.5 x 0.5 um, a 1 x 1 um)" in line
    assert "resampled to the pixel size of b" in line
    member(paths, "a", {"x": "1", "y": "2"}, size=None)
    (line,) = warnings(paths)
    assert "a unknown" in line
    other = {**NORMALIZE, "method": "zscore"}
    member(paths, "a", {"x": "1", "y": "2"}, normalize=other)
    (line,) = warnings(paths)
    assert "new images are normalised with method percentile, as b" in line
    for name in "ab":
        images = {f"{name}1": f"{name}1", f"{name}2": f"{name}2"}
        member(paths, name, images, normalize={**NORMALIZE, "scope": "dataset"})
    assert "and their own statistics" in warnings(paths)[0]
