"""The manifest: properties of each image, what is wrong with bad ones, fingerprints."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
import zarr

import unet.data.inspection
from unet.config.data_settings import ManifestSettings
from unet.data.manifest import RawSource, build_manifest, fingerprint, list_files, manifest_stage
from unet.data.raw_changes import stamp
from unet.data.records import ImageRecord, read_manifest
from unet.errors import UserError
from unet.files import file_sha256, read_json

RNG = np.random.default_rng(0)
SEMANTIC = {"task": "semantic", "classes": {"background": 0, "cell": 255}}
INSTANCES = {"task": "instances", "classes": None}
NONE = ("classes", "ignore", "axes", "pixel_size_um", "channels", "group", "column")


def manifest_settings(**values: Any) -> ManifestSettings:
    fixed = {"layout": "folders", "strict": False, "labelled": True, "fingerprint": ""}
    return ManifestSettings.made(**{**dict.fromkeys(NONE), **fixed, **values})


def write(path: Path, data: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, data, **{"photometric": "minisblack", **options})
    return path


def image(**options: Any) -> np.ndarray:
    return RNG.integers(1, 200, options.get("shape", (20, 30)), dtype=np.uint8)


def label(value: int = 255, dtype: Any = np.uint8) -> np.ndarray:
    result = np.zeros((20, 30), dtype)
    result[5:9, 5:9] = value
    return result


def dataset(root: Path, count: int = 3, value: int = 255) -> RawSource:
    for i in range(count):
        write(root / "i" / f"{i}.tif", image())
        write(root / "l" / f"{i}.tif", label(value))
    return RawSource(root, "i", "l")


def build(
    source: RawSource, strict: bool = False, task: dict = SEMANTIC, **settings: Any
) -> dict[str, ImageRecord]:
    wanted = manifest_settings(**task, **settings, strict=strict)
    records = build_manifest(source, wanted, threads=2)
    assert [r.id for r in records] == sorted(r.id for r in records)
    assert len({r.id for r in records}) == len(records)
    return {r.id: r for r in records}


def reason(source: RawSource, name: str = "1", **settings: Any) -> str:
    """Why one image is left out, the others being good; and that strict stops at it."""
    records = build(source, **settings)
    bad = {key: r for key, r in records.items() if r.status != "ok"}
    assert list(bad) == [name]
    with pytest.raises(UserError) as error:
        build(source, strict=True, **settings)
    assert bad[name].reason in str(error.value)
    assert "\n" not in bad[name].reason
    return bad[name].reason


def test_good_images(tmp_path: Path) -> None:
    source = dataset(tmp_path)
    meta = {"axes": "YX", "PhysicalSizeX": 0.3, "PhysicalSizeY": 0.2}
    write(tmp_path / "i" / "1.tif", image(), ome=True, metadata=meta)
    records = build(source)
    expected = ImageRecord(
        id="1",
        image="i/1.tif",
        label="l/1.tif",
        axes="CYX",
        shape=(1, 20, 30),
        dtype="uint8",
        pixel_size_um=(0.2, 0.3),
        channels=("",),
        objects=2,
        class_shares={"background": 0.973333, "cell": 0.0266667},
        sha256=file_sha256(tmp_path / "i/1.tif"),
        label_sha256=file_sha256(tmp_path / "l/1.tif"),
    )
    assert records["1"] == expected
    assert records["0"].pixel_size_um is None
    assert build(source, pixel_size_um=0.5)["1"].pixel_size_um == (0.5, 0.5)
    assert build(source, pixel_size_um=[0.5, 1])["0"].pixel_size_um == (0.5, 1)


def test_objects_of_instances(tmp_path: Path) -> None:
    source = dataset(tmp_path)
    data = label(7, np.int32)
    data[0, :2] = -1, 300
    write(tmp_path / "l" / "0.tif", data)
    records = build(source, task=INSTANCES, ignore=-1)
    assert [records[k].objects for k in "012"] == [2, 1, 1]
    empty = write(tmp_path / "l" / "1.tif", np.zeros((20, 30), np.uint8))
    assert build(source, task=INSTANCES, ignore=-1)["1"].objects == 0
    assert empty.exists()


def test_float_labels_with_whole_numbers_are_good(tmp_path: Path) -> None:
    source = dataset(tmp_path)
    write(tmp_path / "l" / "1.tif", label(255, np.float32))
    assert build(source)["1"].objects == 2


def test_cut_short(tmp_path: Path) -> None:
    source = dataset(tmp_path)
    path = tmp_path / "i" / "1.tif"
    path.write_bytes(path.read_bytes()[:-100])
    assert reason(source).startswith("cut short")
    path.write_bytes(b"")
    assert reason(source) == "the file is empty"
    path.write_bytes(b"no image")
    assert reason(source).startswith("cannot be read")


def test_pixels_that_cannot_be_decoded(tmp_path: Path) -> None:
    source = dataset(tmp_path)
    path = write(tmp_path / "l" / "1.tif", label(), compression="zlib", metadata=None)
    with tifffile.TiffFile(path) as file:
        start, count = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    raw = bytearray(path.read_bytes())
    raw[start + 2 : start + count] = b"\xff" * (count - 2)
    path.write_bytes(raw)
    assert reason(source).startswith("label: cannot be decoded")


def test_no_label(tmp_path: Path) -> None:
    source = dataset(tmp_path)
    (tmp_path / "l" / "1.tif").unlink()
    assert reason(source) == "no label"
    records = build(replace(source, labelled=False))
    assert {r.status for r in records.values()} == {"ok"}
    assert {(r.label, r.label_sha256, r.objects) for r in records.values()} == {("", "", None)}


def test_other_shape(tmp_path: Path) -> None:
    source = dataset(tmp_path)
    write(tmp_path / "l" / "1.tif", label()[1:])
    assert reason(source) == "label: has 19 x 30 pixels, but its image has 20 x 30"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_numbers(tmp_path: Path, bad: float) -> None:
    source = dataset(tmp_path)
    data = image().astype(np.float32)
    data[3, 4] = bad
    write(tmp_path / "i" / "1.tif", data)
    assert reason(source) == "NaN or infinite pixels"


def test_all_one_value(tmp_path: Path) -> None:
    source = dataset(tmp_path)
    write(tmp_path / "i" / "1.tif", np.full((20, 30), 7, np.uint16))
    assert reason(source) == "all pixels have the value 7"


def test_mixed_channels(tmp_path: Path) -> None:
    source = dataset(tmp_path)
    write(tmp_path / "i" / "1.tif", image(shape=(20, 30, 3)), photometric="rgb")
    assert reason(source).startswith("3 channels, but 2 images have 1 (mixed channels)")
    assert {r.status for r in build(source, channels=[0]).values()} == {"ok"}
    (tmp_path / "i" / "2.tif").unlink()
    assert reason(source).startswith("3 channels, but 1 images have 1")  # as many: the first


def test_missing_channel(tmp_path: Path) -> None:
    source = dataset(tmp_path)
    with pytest.raises(UserError, match=r"none of 3 images.*there is no channel 'DAPI'"):
        build(source, channels=["DAPI"])


def test_values_without_a_class(tmp_path: Path) -> None:
    source = dataset(tmp_path)
    data = label()
    data[0, :8] = range(1, 9)
    write(tmp_path / "l" / "1.tif", data)
    assert reason(source) == (
        "label: values 1, 2, 3, 4, 5 and 3 more belong to no class (classes have 0, 255); "
        "add them to classes, or name one as ignore"
    )
    data[0, :8] = 9
    write(tmp_path / "l" / "1.tif", data)
    assert {r.status for r in build(source, ignore=9).values()} == {"ok"}


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (-3, np.int16, "label: a negative instance id (-3)"),
        (1.5, np.float32, "label: values that are not integers"),
        (np.nan, np.float32, "label: values that are not integers"),
        (2**40, np.uint64, "label: instance id 1099511627776 does not fit into 32 bits"),
        (2**63, np.uint64, "label: values beyond 2^62"),
    ],
)
def test_bad_instance_labels(tmp_path: Path, value: float, dtype: Any, expected: str) -> None:
    source = dataset(tmp_path)
    write(tmp_path / "l" / "1.tif", label(value, dtype))
    assert reason(source, task=INSTANCES).startswith(expected)


def test_a_volume_among_planes_is_quarantined(tmp_path: Path) -> None:
    source = dataset(tmp_path)
    write(tmp_path / "i" / "1.tif", image(shape=(4, 20, 30)), metadata={"axes": "ZYX"})
    assert reason(source) == "label: has 20 x 30 pixels, but its image has 4 x 20 x 30"
    volume = np.repeat(label()[None], 4, axis=0)
    write(tmp_path / "l" / "1.tif", volume, metadata={"axes": "ZYX"})
    expected = "3 spatial axes, but 2 images have 2 (mixed planes and volumes)"
    assert reason(source).startswith(expected)
    for name in "02":
        (tmp_path / "i" / f"{name}.tif").unlink()
    (record,) = build(source, pixel_size_um=[0.5, 0.25, 0.25]).values()
    assert (record.status, record.axes, record.shape) == ("ok", "CZYX", (1, 4, 20, 30))
    assert record.pixel_size_um == (0.5, 0.25, 0.25)


def test_absurd_header_is_never_allocated(tmp_path: Path) -> None:
    source = dataset(tmp_path)
    path = write(tmp_path / "i" / "1.tif", image(), metadata=None, compression="zlib")
    with tifffile.TiffFile(path) as file:
        places = [file.pages[0].tags[n].valueoffset for n in ("ImageWidth", "ImageLength")]
    raw = bytearray(path.read_bytes())
    for place in places:
        raw[place : place + 4] = (2**20).to_bytes(4, "little")
    path.write_bytes(raw)
    assert reason(source).startswith("the header claims 1048576 x 1048576 pixels")


def test_all_bad(tmp_path: Path) -> None:
    source = dataset(tmp_path, count=2, value=3)
    with pytest.raises(UserError, match=r"i: none of 2 images is usable; the first: i/0\.tif"):
        build(source)


def test_duplicate_ids(tmp_path: Path) -> None:
    dataset(tmp_path)
    rows = ["image,label,id", *(f"i/{i}.tif,l/{i}.tif,{n}" for i, n in enumerate(["a", "b", "A"]))]
    (tmp_path / "s.csv").write_text("\n".join(rows))
    records = build(RawSource(tmp_path, "s.csv"))
    bad = [r for r in records.values() if r.status != "ok"]
    assert len(records) == 3
    assert [r.reason for r in bad] == ["its id a is also the id of 2.tif; give each its own id"]


def test_copies_are_noted(tmp_path: Path) -> None:
    source = dataset(tmp_path)
    (tmp_path / "i" / "2.tif").write_bytes((tmp_path / "i" / "0.tif").read_bytes())
    records = build(source)
    assert [(r.status, r.reason) for r in records.values()] == [
        ("ok", ""),
        ("ok", ""),
        ("ok", "same content as 0"),
    ]


def test_missing_file_of_a_sheet(tmp_path: Path) -> None:
    dataset(tmp_path, 1)
    (tmp_path / "s.csv").write_text("image,label\ni/0.tif,l/0.tif\ni/1.tif,l/0.tif\n")
    assert reason(RawSource(tmp_path, "s.csv")) == "no such file"


def test_groups_and_parts_of_a_sheet(tmp_path: Path) -> None:
    dataset(tmp_path)
    rows = ["i/0.tif,l/0.tif,P1,train", "i/1.tif,l/1.tif,P1,VAL", "i/2.tif,l/2.tif,P2,test"]
    (tmp_path / "s.csv").write_text("\n".join(["image,label,plate,part", *rows]))
    source = RawSource(tmp_path, "s.csv")
    records = build(source, group="plate").values()
    assert [(r.group, r.part) for r in records] == [("P1", "train"), ("P1", "val"), ("P2", "test")]
    with pytest.raises(UserError, match=r"split\.group: 'well'.*image, label, plate, part"):
        build(source, group="well")
    (tmp_path / "s.csv").write_text("image,label,part\ni/0.tif,l/0.tif,training\n")
    with pytest.raises(UserError, match="part 'training' in the sheet"):
        build(source)


def test_groups_by_regular_expression(tmp_path: Path) -> None:
    source = dataset(tmp_path, 0)
    for name in ("p1_a", "p1_b", "p2_a"):
        write(tmp_path / "i" / f"{name}.tif", image())
        write(tmp_path / "l" / f"{name}.tif", label())
    records = build(source, group="^(p\\d)_").values()
    assert [r.group for r in records] == ["p1", "p1", "p2"]
    for group, message in (
        ("^(p1)_", "not found in the image id p2_a"),
        ("plate", "must have one group"),
        ("(", "is not a regular expression"),
    ):
        with pytest.raises(UserError, match=message):
            build(source, group=group)


def test_stack(tmp_path: Path) -> None:
    write(tmp_path / "v.tif", image(shape=(3, 20, 30)))
    write(tmp_path / "l.tif", np.stack([label(), label(3), label()]))
    source = RawSource(tmp_path, "v.tif", "l.tif", "stack")
    records = build(source)
    assert [(r.page, r.status, r.shape) for r in records.values() if r.page != 1] == [
        (0, "ok", (1, 20, 30)),
        (2, "ok", (1, 20, 30)),
    ]
    assert reason(source, "v-p001").startswith("label: values 3")
    write(tmp_path / "l.tif", np.stack([label(), label()]))
    with pytest.raises(UserError, match="3 pages, but its label has 2"):
        build(source)


def test_nnunet_channels_in_files(tmp_path: Path) -> None:
    for case in "ab":
        for channel in range(2):
            write(tmp_path / "imagesTr" / f"{case}_000{channel}.tif", image())
        write(tmp_path / "labelsTr" / f"{case}.tif", label())
    source = RawSource(tmp_path, ".", layout="nnunet")
    before = build(source)
    assert [(r.image, r.shape) for r in before.values()] == [
        ("imagesTr/a_????.tif", (2, 20, 30)),
        ("imagesTr/b_????.tif", (2, 20, 30)),
    ]
    write(tmp_path / "imagesTr" / "a_0001.tif", image())
    after = build(source)
    assert after["a"].sha256 != before["a"].sha256
    assert after["b"].sha256 == before["b"].sha256


@pytest.mark.parametrize("version", [2, 3])
def test_ome_zarr_with_its_label(tmp_path: Path, version: Literal[2, 3]) -> None:
    def group(path: Path, axes: str, data: np.ndarray) -> None:
        made = zarr.open_group(path, mode="a", zarr_format=version)
        made.create_array("0", data=data, chunks=data.shape)
        scale = {"type": "scale", "scale": [0.5] * data.ndim}
        named = [
            {"name": a, "type": "space", "unit": "micrometer"} if a in "yx" else {"name": a}
            for a in axes
        ]
        datasets = [{"path": "0", "coordinateTransformations": [scale]}]
        scales = {"multiscales": [{"axes": named, "datasets": datasets}]}
        made.attrs.update({"ome": scales} if version == 3 else scales)

    group(tmp_path / "a.ome.zarr", "cyx", image(shape=(2, 20, 30)))
    group(tmp_path / "a.ome.zarr" / "labels" / "cells", "yx", label(9, np.uint32))
    (record,) = build(RawSource(tmp_path, ".", layout="ome-zarr"), task=INSTANCES).values()
    assert (record.status, record.shape, record.objects) == ("ok", (2, 20, 30), 1)
    assert (record.id, record.label) == ("a", "a.ome.zarr/labels/cells")
    assert record.pixel_size_um == (0.5, 0.5)


def test_statistics_are_taken_block_by_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.arange(256 * 256, dtype=np.float32).reshape(256, 256)
    write(tmp_path / "i" / "0.tif", data, tile=(64, 64))
    write(tmp_path / "l" / "0.tif", (data > 100).astype(np.uint8) * 255, tile=(64, 64))
    monkeypatch.setattr("unet.io.axes.BLOCK_PIXELS", 64 * 64)
    sizes = []
    monkeypatch.setattr(
        unet.data.inspection,
        "_distinct",
        lambda b: (sizes.append(b.size), np.unique(b, return_counts=True))[1],
    )
    assert build(RawSource(tmp_path, "i", "l"))["0"].objects == 2
    assert sizes == [64 * 64] * 16


# Fingerprints


def stage(source: RawSource, folder: Path, value: str) -> tuple[Path, Path]:
    settings = manifest_settings(**SEMANTIC, fingerprint=value)
    manifest, inputs, warnings = (folder / n for n in ("manifest.csv", "inputs.json", "w.json"))
    manifest_stage(source, settings, manifest, inputs, threads=2, warnings=warnings)
    return manifest, inputs


def taken(source: RawSource, stored: dict | None = None, seen: Path | None = None) -> str:
    return fingerprint(list_files(source), source.root, stored, seen)


def test_fingerprint_through_the_stage(tmp_path: Path) -> None:
    source = dataset(tmp_path / "raw")
    first = taken(source)
    assert first == taken(source)
    manifest, inputs = stage(source, tmp_path, first)
    assert [r.id for r in read_manifest(manifest)] == ["0", "1", "2"]
    stored = read_json(inputs)
    path = tmp_path / "raw" / "i" / "1.tif"
    assert stored["fingerprint"] == first
    assert stored["root"] == str(tmp_path / "raw")
    assert stored["files"]["i/1.tif"] == [*stamp(path), file_sha256(path)]
    assert len(stored["files"]) == 6

    os.utime(path, ns=(1, 1))  # touched: other time, same content
    assert taken(source) != first
    assert taken(source, stored) == first
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))  # edited: same size, other content
    edited = taken(source, stored)
    assert edited != first
    path.write_bytes(raw)  # and back
    assert taken(source, stored) == first
    extra = write(tmp_path / "raw" / "i" / "9.tif", image())
    assert taken(source, stored) != first
    extra.unlink()
    assert taken(source, stored) == first
    (tmp_path / "raw" / "l" / "0.tif").unlink()
    assert taken(source, stored) != first


def test_fingerprint_does_not_depend_on_where_the_data_is(tmp_path: Path) -> None:
    source = dataset(tmp_path / "a")
    first = taken(source)
    _, inputs = stage(source, tmp_path, first)
    (tmp_path / "a").rename(tmp_path / "b")
    assert taken(RawSource(tmp_path / "b", "i", "l")) == first
    assert taken(RawSource(tmp_path / "b", "i", "l"), read_json(inputs)) == first


def test_touched_files_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = dataset(tmp_path / "raw")
    first = taken(source)
    stored = read_json(stage(source, tmp_path, first)[1])
    for path in list_files(source):
        os.utime(path, ns=(5, 5))
    seen = tmp_path / ".seen.json"
    assert taken(source, stored, seen) == first
    assert len(json.loads(seen.read_text())) == 6

    def never(path: Path) -> str:
        raise AssertionError(path)

    monkeypatch.setattr("unet.data.raw_changes.image_sha256", never)
    assert taken(source, stored, seen) == first
    monkeypatch.undo()
    seen.write_text("{")  # damaged: made again
    assert taken(source, stored, seen) == first


def test_fingerprint_of_folders(tmp_path: Path) -> None:
    chunk = tmp_path / "a.zarr" / "0" / "c"
    chunk.parent.mkdir(parents=True)
    chunk.write_bytes(b"123")
    (tmp_path / "a.zarr" / "zarr.json").write_text("{}")
    source = RawSource(tmp_path, "a.zarr", layout="ome-zarr")
    before = taken(source)
    assert taken(source) == before
    chunk.write_bytes(b"1234")
    assert taken(source) != before


def test_missing_files_have_a_stamp(tmp_path: Path) -> None:
    assert stamp(tmp_path / "none") == (-1, 0)
