"""Images as zip files: written whole, read as folders are, damage is named."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from unet.errors import UserError
from unet.export.ome_zarr_writer import create_image, create_labels, pyramid_of
from unet.io.checksums import CHECKSUM, COMPLETE
from unet.io.zipped_images import (
    OME,
    PLAIN,
    StoredImage,
    image_names,
    new_hierarchy,
    store_of,
    update_attributes,
)

PIXELS = np.arange(2 * 40 * 30, dtype=np.float32).reshape(2, 40, 30)


def write(folder: Path, suffix: str | None) -> Path:
    """An OME-Zarr image with a label."""
    pyramid = pyramid_of((40, 30), 3, (0.5, 0.5))
    with new_hierarchy(folder, suffix) as place:
        (level,) = create_image(place, pyramid, "float32", ["a", "b"], {"unet": {"part": "val"}})
        level[...] = PIXELS
        labels = create_labels(place, pyramid, {"classes": np.uint8}, ["a", "b"], 2)
        labels["classes"][0][...] = PIXELS[0] > 7
    return StoredImage(folder).path


@pytest.mark.parametrize("suffix", [None, OME, PLAIN])
def test_both_layouts_are_read_alike(tmp_path: Path, suffix: str | None) -> None:
    path = write(tmp_path / "a.b", suffix)
    assert path.is_file() == (suffix is not None)
    found = StoredImage(tmp_path / "a.b")
    assert found.attributes()["unet"] == {"part": "val"}
    assert found.attributes()["ome"]["version"] == "0.5"
    assert (found.has("0"), found.has("labels/classes"), found.has("labels/x")) == (
        True,
        True,
        False,
    )
    assert sorted(found.folders("")) == ["0", "labels"]
    assert found.folders("labels/classes") == ["0"]
    np.testing.assert_array_equal(found.array("0")[...], PIXELS)
    np.testing.assert_array_equal(found.array("0")[1, 3:7], PIXELS[1, 3:7])
    np.testing.assert_array_equal(found.array("labels/classes/0")[...], PIXELS[0] > 7)
    update_attributes(tmp_path / "a.b", {"unet": {"part": "test"}})
    assert StoredImage(tmp_path / "a.b").attributes()["unet"] == {"part": "test"}
    np.testing.assert_array_equal(StoredImage(tmp_path / "a.b").array("0")[...], PIXELS)
    (tmp_path / ".c.zip").touch()
    (tmp_path / "other").mkdir()
    assert list(image_names(tmp_path, "0")) == ["a.b"]
    assert {p.name for p in tmp_path.iterdir()} == {path.name, ".c.zip", "other"}


def test_other_programs_read_the_file(tmp_path: Path) -> None:
    """By the rules of RFC-9: not compressed, metadata first, a comment with the version."""
    path = write(tmp_path / "a", OME)
    assert path == tmp_path / "a.ozx"
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        about = json.loads(archive.comment)["ome"]
    assert about == {"version": "0.5", "zipFile": {"centralDirectory": {"jsonFirst": True}}}
    assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}
    names = [info.filename for info in infos]
    assert names[0] == "zarr.json"
    is_json = [name.endswith("zarr.json") for name in names]
    assert is_json == sorted(is_json, reverse=True)
    group = zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")
    np.testing.assert_array_equal(group["0"][...], PIXELS)  # type: ignore[index]
    assert write(tmp_path / "b", OME).read_bytes() == path.read_bytes()


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fails() -> None:
        with new_hierarchy(tmp_path / "a", PLAIN) as place:
            zarr.open_group(store_of(place), mode="w")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert list(tmp_path.iterdir()) == []


def test_damage_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a", OME)
    good = path.read_bytes()
    remedy = "remove {path} and run again"

    def read() -> Any:
        image = StoredImage(tmp_path / "a", remedy)
        image.attributes(), image.has("labels/classes")
        return image.array("0")[...], image.array("labels/classes/0")[...]

    read()
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("0/c/0/0/0").header_offset + 200
    for data in (
        good[:-120],
        good[: len(good) // 2],
        b"",
        good[:start] + b"###" + good[start + 3 :],
    ):
        path.write_bytes(data)
        with pytest.raises(UserError) as error:
            read()
        assert str(error.value).startswith(f"{path}: damaged")
        assert str(error.value).endswith(f"remove {path} and run again")
        assert "\n" not in str(error.value)


def test_a_missing_chunk_is_reported(tmp_path: Path) -> None:
    with new_hierarchy(tmp_path / "a", PLAIN) as place:
        group: Any = zarr.open_group(store_of(place), mode="w", zarr_format=3)
        group.create_array(
            "x", shape=(4, 4), chunks=(2, 4), dtype="uint8", compressors=CHECKSUM, config=COMPLETE
        )[:2] = 1
    array = StoredImage(tmp_path / "a", "remove it").array("x")
    assert (array[:2] == 1).all()
    with pytest.raises(UserError, match=r"a\.zip: damaged, the chunk at \[2, 0\] .* is missing"):
        array[...]
