"""Arrays in HDF5 and Zarr that a path names, written by h5py and zarr."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from tests.data.test_layouts import found
from tests.data.test_manifest import manifest_settings
from tests.format_files import check_random_damage, pixels
from unet.data.compared_masks import find_compared, masks_fingerprint
from unet.data.layouts import list_files, plain_folders
from unet.data.manifest import build_manifest
from unet.data.raw_changes import Hashes
from unet.data.raw_files import RawSource
from unet.errors import UserError
from unet.io.array_paths import split_inside, with_inside
from unet.io.images import open_image, open_label, pages_in

# [Z, Y, X]
VOLUME = np.random.default_rng(0).integers(1, 200, (6, 30, 40), dtype=np.uint16)
LABEL = np.kron(np.eye(3, dtype=np.uint8), np.ones((10, 13), np.uint8))[:30, :39]
LABEL = np.pad(LABEL, ((0, 0), (0, 1)))


def tags(keys: str) -> str:
    """As ilastik and vigra write them."""
    axes = [{"key": k, "typeFlags": 2, "resolution": 0, "description": ""} for k in keys]
    return json.dumps({"axes": axes})


def write(path: Path, number: int = 0, **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        raw = file.create_dataset("t0/raw", data=np.roll(VOLUME, number, 2), **options)
        raw.attrs["axistags"] = tags("zyx")
        raw.attrs["element_size_um"] = [2.0, 0.5, 0.25]
        file["plane"], file["label"] = VOLUME[number], LABEL
        file["text"] = "abc"
    return path


@pytest.mark.parametrize(
    "options",
    [{}, {"chunks": (1, 16, 16), "compression": "gzip", "shuffle": True}, {"compression": "lzf"}],
)
@pytest.mark.parametrize("inside", ["/t0/raw", "t0/raw", "t0::raw"])
def test_hdf5(tmp_path: Path, inside: str, options: dict[str, Any]) -> None:
    write(tmp_path / "a.h5", **options)
    opened = open_image(Path(f"{tmp_path}/a.h5::{inside}"))
    assert (opened.axes, opened.pixel_size_um) == ("CZYX", (2.0, 0.5, 0.25))
    np.testing.assert_array_equal(pixels(opened)[0], VOLUME)
    again = pickle.loads(pickle.dumps(opened.array))
    np.testing.assert_array_equal(again[0, 2, 3:9].compute(), VOLUME[2, 3:9])
    np.testing.assert_array_equal(pixels(open_label(Path(f"{tmp_path}/a.h5::label"))), LABEL)


def test_a_path_inside_a_file() -> None:
    path = Path("/d/a.h5::/t0/raw")
    assert split_inside(path) == (Path("/d/a.h5"), "t0/raw")
    flat = with_inside(*split_inside(path))
    assert (flat.name, flat.parent) == ("a.h5::t0::raw", Path("/d"))
    assert split_inside(flat) == split_inside(path)
    for plain in ("/d/a.h5", "/d/a::b.tif", "/d/x.tif::y"):
        assert split_inside(Path(plain)) == (Path(plain), "")


@pytest.mark.parametrize("labels", [["z", "y", "x"], ["depth", "height", "width"]])
def test_labels_of_the_axes(tmp_path: Path, labels: list[str]) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        array = file.create_dataset("raw", data=VOLUME)
        for axis, label in enumerate(labels):
            array.dims[axis].label = label
    assert open_image(tmp_path / "a.h5::raw").axes == "CZYX"


def test_axes_that_nobody_declares(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = VOLUME
        file.create_dataset("bad", data=VOLUME).attrs["axistags"] = tags("yx")
    path = tmp_path / "a.h5::raw"
    with pytest.raises(UserError, match=r"6 x 30 x 40 values without declared axes; write axes"):
        open_image(path)
    assert len(pages_in(path).names) == 1
    np.testing.assert_array_equal(pixels(open_image(path, axes="ZYX"))[0], VOLUME)
    np.testing.assert_array_equal(pixels(open_image(path, axes="CYX")), VOLUME)
    assert len(pages_in(path, axes="SYX").names) == 6
    np.testing.assert_array_equal(pixels(open_image(path, axes="SYX", page=4))[0], VOLUME[4])
    with pytest.raises(UserError, match="2 axes declared for an array of 3; write axes"):
        open_image(tmp_path / "a.h5::bad")


def test_times_of_ilastik(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        array = file.create_dataset("exported_data", data=VOLUME[:, None, :, :, None])
        array.attrs["axistags"] = tags("tzyxc")
    path = tmp_path / "a.h5::exported_data"
    assert (len(pages_in(path).names), pages_in(path).together) == (6, True)
    np.testing.assert_array_equal(pixels(open_image(path, page=3))[0], VOLUME[3])
    np.testing.assert_array_equal(pixels(open_label(path, page=3)), VOLUME[3])


# Datasets


def source_of(root: Path, images: str = "d/*.h5::/plane", **more: Any) -> RawSource:
    (root / "d").mkdir(exist_ok=True)
    for number in range(3):
        write(root / "d" / f"a{number}.h5", number)
    return RawSource(root, images, "d/*.h5::/label", **more)


def test_a_dataset(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    assert found(source) == {f"a{n}": (f"d/a{n}.h5::plane", f"d/a{n}.h5::label") for n in range(3)}
    assert list_files(source) == [tmp_path / "d" / f"a{n}.h5" for n in range(3)]
    assert plain_folders(source) == [tmp_path / "d"] * 2
    records = build_manifest(source, manifest_settings(task="instances"), threads=1)
    assert [record.status for record in records] == ["ok"] * 3, records
    assert [record.image for record in records] == [f"d/a{n}.h5::plane" for n in range(3)]
    assert {record.objects for record in records} == {1}
    # The same file holds both, but they are not the same.
    assert len({r.sha256 for r in records} | {r.label_sha256 for r in records}) == 6
    below = RawSource.below(tmp_path, "d/*.h5::/plane", "d/*.h5::/label")
    assert below.root == tmp_path / "d"
    assert found(below) == {f"a{n}": (f"a{n}.h5::plane", f"a{n}.h5::label") for n in range(3)}


def test_a_sheet(tmp_path: Path) -> None:
    source_of(tmp_path)
    rows = "image,label\nd/a0.h5::/plane,d/a0.h5::/label\nd/a1.h5::/t0/raw,\n"
    (tmp_path / "sheet.csv").write_text(rows)
    assert found(RawSource(tmp_path, "sheet.csv")) == {
        "a0": ("d/a0.h5::plane", "d/a0.h5::label"),
        "a1": ("d/a1.h5::t0::raw", None),
    }


def test_a_change_of_the_file_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    before = Hashes().of(with_inside(path, "plane"))
    write(path, 1)
    assert Hashes().of(with_inside(path, "plane")) != before


def test_masks_to_compare(tmp_path: Path) -> None:
    source_of(tmp_path)
    masks = find_compared("d/*.h5::/label", tmp_path, "compare")
    assert [item.name for item in masks.files] == ["a0", "a1", "a2"]
    before = masks_fingerprint(masks, tmp_path / "noted.json")
    write(tmp_path / "d" / "a1.h5", 5, compression="gzip")
    assert masks_fingerprint(masks, tmp_path / "noted.json") != before


# Errors


@pytest.mark.parametrize("images", ["d/*.h5", "d"])
def test_a_path_that_names_no_array(tmp_path: Path, images: str) -> None:
    wanted = r"a0\.h5: an HDF5 file, so write which array of it, such as dir/\*\.h5::/raw; it has "
    wanted += r"/label \(30 x 40 uint8\), /plane \(30 x 40 uint16\), /t0/raw \(6 x 30 x 40 uint16\)"
    with pytest.raises(UserError, match=wanted):
        found(source_of(tmp_path, images))
    with pytest.raises(UserError, match=wanted):
        open_image(tmp_path / "d" / "a0.h5")


def test_hdf5_files_among_images_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    (tmp_path / "a.tif").touch()
    lines: list[str] = []
    assert len(found(RawSource(tmp_path, ".", warn=lines.append))) == 1
    assert lines[0].startswith("images: 1 file of another kind (.h5) is not read")


@pytest.mark.parametrize(
    ("inside", "told"),
    [
        ("none", r"a\.h5::none: no array 'none' in the file; it has /.*/label \(30 x 40 uint8\)"),
        ("t0", r"a\.h5::t0: no array 't0' in the file"),
        ("text", r"a\.h5::text: 0 axes of type object; an image has 2 or more, of numbers"),
        ("empty", r"no value of this array is stored"),
        ("huge", r"the header claims 100000 x 100000 pixels, more than the file can hold"),
        ("outside", r"its values are in another file"),
        ("virtual", r"its values are in another file"),
        ("block", r"chunks of 8 x 20000 x 20000 values"),
    ],
)
def test_arrays_that_cannot_be_read(tmp_path: Path, inside: str, told: str) -> None:
    write(tmp_path / "b.h5")
    with h5py.File(write(tmp_path / "a.h5"), "a") as file:
        file.create_dataset("empty", (30, 40), "u2", chunks=(10, 10))
        file.create_dataset("huge", (100_000, 100_000), "u2", chunks=(10, 10))[0, 0] = 1
        file["outside"] = h5py.ExternalLink("b.h5", "/plane")
        layout = h5py.VirtualLayout((30, 40), "u2")
        layout[:] = h5py.VirtualSource("b.h5", "plane", (30, 40))
        file.create_virtual_dataset("virtual", layout)
        block = {"chunks": (8, 20_000, 20_000), "compression": "gzip"}
        file.create_dataset("block", (8, 20_000, 20_000), "u1", **block)
        file["block"].id.write_direct_chunk((0, 0, 0), bytes(1 << 20))
    with pytest.raises(UserError, match=told) as error:
        open_image(tmp_path / f"a.h5::{inside}")
    assert "\n" not in str(error.value)


def test_an_empty_label(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("label", (30, 40), "u1", chunks=(10, 10))
    assert open_label(tmp_path / "a.h5::label").warnings == (
        "the array has no stored values, so all are 0",
    )


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.99])
def test_cut_short(tmp_path: Path, keep: float) -> None:
    path = write(tmp_path / "a.h5")
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(UserError, match=r"a\.h5::t0::raw: ") as error:
        pixels(open_image(tmp_path / "a.h5::t0/raw"))
    assert "\n" not in str(error.value)


def test_random_damage(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", chunks=(1, 16, 16), compression="gzip")
    check_random_damage(path, lambda p: pixels(open_image(with_inside(p, "t0/raw"))))


def test_no_file_and_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"a\.h5: no such file"):
        open_image(tmp_path / "a.h5::raw")
    write(tmp_path / "a.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"h5py.*pip install 'unet-pipeline\[formats\]'$"):
        open_image(tmp_path / "a.h5::raw")


# Zarr


@pytest.mark.parametrize("version", [2, 3])
def test_an_array_in_a_zarr_store(tmp_path: Path, version: Any) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=version)
    names = {"dimension_names": ["z", "y", "x"]} if version == 3 else {}
    array = group.create_array("v/raw", shape=VOLUME.shape, dtype="u2", chunks=(1, 16, 16), **names)
    array[:] = VOLUME
    if version == 2:
        array.attrs["_ARRAY_DIMENSIONS"] = ["z", "y", "x"]
    array.attrs["element_size_um"] = [2.0, 0.5, 0.25]
    opened = open_image(tmp_path / "a.zarr::/v/raw")
    assert (opened.axes, opened.pixel_size_um) == ("CZYX", (2.0, 0.5, 0.25))
    np.testing.assert_array_equal(pixels(opened)[0], VOLUME)
    source = RawSource(tmp_path, "*.zarr::/v/raw")
    assert found(source) == {"a": ("a.zarr::v::raw", None)}
    assert list_files(source) == [tmp_path / "a.zarr"]
    with pytest.raises(UserError, match=r"a\.zarr::w: no array 'w' in the store; it has /v"):
        open_image(tmp_path / "a.zarr::/w")
    with pytest.raises(UserError, match=r"no array '\.\./b'"):
        open_image(tmp_path / "a.zarr::/../b")
