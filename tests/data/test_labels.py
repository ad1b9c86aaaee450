"""Labels whose values do not mean what the config says: warnings, and binary masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from tests.data.test_dataset_warnings import run_manifest
from unet.config.data_settings import ManifestSettings, PrepareSettings
from unet.config.load import load
from unet.config.sections import PrepareSection
from unet.data.blocks import Grid
from unet.data.connected_components import ConnectedComponents
from unet.data.dataset_warnings import read_facts
from unet.data.label_statistics import LabelScan, LabelStatistics, Subsampled
from unet.data.label_warnings import class_table, label_warnings, table_line
from unet.data.manifest import RawSource
from unet.data.prepare import prepare_dataset
from unet.data.records import ImageRecord, read_manifest
from unet.data.store import Prepared
from unet.errors import UserError
from unet.paths import Paths

INSTANCES: dict[str, Any] = {"task": "instances", "classes": None}
CLASSES = {"task": "semantic", "classes": {"background": 0, "cell": 255}}


def cells(seed: int = 0, count: int = 6, side: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A uint16 image of bright squares at places of a grid, and the squares numbered from 1."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.uint16)
    places = rng.permutation([(y, x) for y in range(4, side, 24) for x in range(4, side, 24)])
    for number, (y, x) in enumerate(places[:count], start=1):
        labels[y : y + 12, x : x + 12] = number
    image = 500 + 3000 * (labels > 0) + rng.normal(0, 50, labels.shape)
    return image.astype(np.uint16), labels


def write(root: Path, labels: list[np.ndarray], **options: Any) -> RawSource:
    for name in ("i", "l"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for number, label in enumerate(labels):
        tifffile.imwrite(root / "i" / f"{number}.tif", cells(number, side=len(label))[0])
        tifffile.imwrite(root / "l" / f"{number}.tif", label, **options)
    return RawSource(root, "i", "l")


def warned(tmp_path: Path, labels: list[np.ndarray], **settings: Any) -> list[str]:
    return run_manifest(write(tmp_path / "raw", labels), tmp_path / "out", **settings)


def numbered(count: int = 6) -> list[np.ndarray]:
    return [cells(seed, count)[1] for seed in range(5)]


def records(tmp_path: Path) -> dict[str, ImageRecord]:
    return {r.id: r for r in read_manifest(Paths(tmp_path / "out").manifest("d"))}


# Warnings


def test_labels_that_mean_what_the_config_says_give_no_warnings(tmp_path: Path) -> None:
    assert warned(tmp_path, numbered(), **INSTANCES) == []
    masks = [np.where(label > 0, 255, 0).astype(np.uint8) for label in numbered()]
    assert warned(tmp_path / "masks", masks, **CLASSES) == []
    # One object per image is not a binary mask, and neither is one odd image among five.
    assert warned(tmp_path / "single", numbered(1), **INSTANCES) == []
    odd = [*numbered()[:4], (cells(9)[1] > 0).astype(np.uint8)]
    assert warned(tmp_path / "odd", odd, **INSTANCES) == []


def test_a_binary_mask_of_several_cells(tmp_path: Path) -> None:
    masks = [np.where(label > 0, 255, 0).astype(np.uint8) for label in numbered(14)]
    (line,) = warned(tmp_path, masks, **INSTANCES)
    assert line == (
        "i/0.tif and 4 more images: one number, 14 separate regions: a binary mask? write "
        "label_kind: binary"
    )
    assert all(len(r.warnings) == 1 for r in records(tmp_path).values())


def test_numbers_that_stand_for_classes(tmp_path: Path) -> None:
    kinds = [np.where(label > 0, label % 2 + 1, 0).astype(np.uint8) for label in numbered(8)]
    (line,) = warned(tmp_path, kinds, **INSTANCES)
    assert "2 of 2 numbers occur in several places" in line
    assert "task: semantic" in line


def test_swapped_values_are_reported_with_share_and_intensity(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    masks = [np.where(label > 0, 0, 255).astype(np.uint8) for label in numbered()]
    with caplog.at_level("INFO"):
        (line,) = warned(tmp_path, masks, **CLASSES)
    assert line.startswith("i/0.tif and 4 more images: all classes but the first cover 91%")
    assert records(tmp_path)["0"].class_shares == {"background": 0.09375, "cell": 0.90625}
    (printed,) = [m for m in caplog.messages if m.startswith("classes, ")]
    assert printed.startswith("classes, share of the pixels: background 9.38 % (mean intensity ")
    rows = read_facts(tmp_path / "out" / "d")["classes"]
    assert [row["name"] for row in rows] == ["background", "cell"]
    assert rows[0]["intensity"] == pytest.approx(3500, abs=10)
    assert rows[1]["intensity"] == pytest.approx(500, abs=10)
    assert "cell 90.6 % (" in table_line(rows)


def test_labels_without_objects_and_of_one_class(tmp_path: Path) -> None:
    empty = [*numbered()[:4], np.zeros((96, 96), np.uint16)]
    assert warned(tmp_path, empty, **INSTANCES) == ["i/4.tif: its label contains no object"]
    masks = [np.where(label > 0, 255, 0).astype(np.uint8) for label in empty]
    lines = warned(tmp_path / "masks", masks, **CLASSES)
    assert lines == ["i/4.tif: its label is background everywhere"]
    full = [*numbered()[:4], np.ones((96, 96), np.uint16)]
    lines = warned(tmp_path / "full", full, **INSTANCES)
    assert lines == ["i/4.tif: its label is one object that covers the whole image"]


def test_labels_of_floats_and_copies_of_the_image(tmp_path: Path) -> None:
    floats = [label.astype(np.float32) for label in numbered()]
    (line,) = warned(tmp_path, floats, **INSTANCES)
    assert line.startswith("i/0.tif and 4 more images: label: values of type float32")
    label = cells()[1]
    source = write(tmp_path / "same" / "raw", [label])
    # A file with the same bytes would be refused.
    tifffile.imwrite(tmp_path / "same" / "raw" / "i" / "0.tif", label, compression="zlib")
    lines = run_manifest(source, tmp_path / "same" / "out", **INSTANCES)
    assert lines == ["i/0.tif: the label is identical to the image"]


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_an_empty_well_is_not_a_copy(tmp_path: Path, compression: str | None) -> None:
    """Whether or not image and label have the same bytes."""
    source = write(tmp_path / "raw", [np.zeros((40, 40), np.uint8), *numbered()[1:]])
    empty = tmp_path / "raw" / "i" / "0.tif"
    tifffile.imwrite(empty, np.zeros((40, 40), np.uint8), compression=compression)
    # Such images are left out only for training.
    source = replace(source, required=False)
    lines = run_manifest(source, tmp_path / "out", **INSTANCES)
    assert lines == [
        "i/0.tif: all pixels have the value 0",
        "i/0.tif: its label contains no object",
    ]


def test_all_copies_are_named(tmp_path: Path) -> None:
    source = write(tmp_path / "raw", numbered())
    for a, b in ((0, 3), (0, 4), (1, 2)):
        raw = (tmp_path / "raw" / "i" / f"{a}.tif").read_bytes()
        (tmp_path / "raw" / "i" / f"{b}.tif").write_bytes(raw)
    lines = run_manifest(source, tmp_path / "out", **INSTANCES)
    assert lines == [f"same image under several names: {names}" for names in ("0, 3, 4", "1, 2")]


# Statistics


@given(st.data())
def test_subsampled_is_every_nth_pixel_for_any_blocks(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 12), min_size=2, max_size=3).map(tuple))
    step = data.draw(st.tuples(*(st.integers(1, 7) for _ in shape)))
    array = np.arange(int(np.prod(shape))).reshape(shape)
    sampled = Subsampled(shape, data.draw(st.integers(1, 200)))
    for region in Grid(shape, step).regions():
        sampled.add([s.start for s in region], array[region])
    every = slice(None, None, sampled.step)
    assert np.array_equal(sampled.pixels, array[(every,) * len(shape)])


def statistics_of(label: np.ndarray, **options: Any) -> LabelStatistics:
    scan = LabelScan(label.shape, options.pop("classes", {}), **options)
    scan.add_image((0, 0, 0), np.ones((1, *label.shape), np.uint8))
    values, counts = np.unique(label, return_counts=True)
    scan.add_label((0, 0), label, values, counts)
    return scan.statistics()


def test_a_large_label_is_subsampled() -> None:
    mask = np.kron(cells(count=14)[1] > 0, np.ones((12, 12), np.uint8))
    seen = statistics_of(mask)
    assert mask.size > 4 * 2**18
    assert (seen.numbering.numbers, seen.numbering.regions) == (1, 14)
    assert seen.shares["foreground"] == pytest.approx(14 * 144 / 96**2, rel=1e-5)


def test_ignored_pixels_are_not_counted() -> None:
    label = np.zeros((20, 20), np.int16)
    label[:10], label[:2, :2] = -1, 3
    seen = statistics_of(label, ignore=-1)
    assert seen.shares["foreground"] == pytest.approx(4 / 204, rel=1e-5)
    assert (seen.numbering.numbers, seen.intensity["foreground"][1]) == (1, 4)
    everywhere = statistics_of(np.full((4, 4), 9, np.uint8), ignore=9, classes={"a": 0, "b": 1})
    assert label_warnings({"x": everywhere}, instances=False) == {
        "x": ["its label is ignored everywhere"]
    }
    assert class_table({}) == []


def test_a_tiny_share_is_not_zero() -> None:
    label = np.zeros((3000, 3000), np.uint8)
    label[0, 0] = 1
    assert statistics_of(label).shares["foreground"] > 0


# label_kind: binary


@given(st.data())
def test_components_are_those_of_the_whole_mask_in_raster_order(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 9), min_size=2, max_size=3).map(tuple))
    step = data.draw(st.tuples(*(st.integers(1, 5) for _ in shape)))
    dice = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    mask = dice.random(shape) < data.draw(st.sampled_from((0.0, 0.1, 0.3, 0.6, 1.0)))
    components, stored = ConnectedComponents(shape), np.zeros(shape, np.uint32)
    for region in Grid(shape, step).regions():
        stored[region] = components.add(region, mask[region])
    expected, count = ndimage.label(mask, np.ones((3,) * len(shape)))
    assert components.settle(stored) == count
    assert np.array_equal(stored > 0, mask)
    # The same partition, numbered by the first pixel of each component.
    ids, first = np.unique(expected[mask], return_index=True)
    order = np.zeros(count + 1, np.uint32)
    order[ids[np.argsort(first)]] = np.arange(1, count + 1)
    assert np.array_equal(stored, order[expected])


@pytest.mark.parametrize("memory", [400_000, 10**9])
def test_binary_masks_are_prepared_as_numbered_objects(tmp_path: Path, memory: int) -> None:
    label = np.kron(cells(count=14)[1], np.ones((3, 3), np.uint16))
    label[0, 0], label[50:60, 60:70] = 7, 9  # ignored, over cells and background
    mask = np.where(label > 0, 255, 0).astype(np.uint8)
    mask[50:60, 60:70] = 100
    source = write(tmp_path / "raw", [mask], rowsperstrip=16)
    settings = {"task": "instances", "classes": None, "ignore": 100, "label_kind": "binary"}
    assert run_manifest(source, tmp_path / "out", **settings) == []
    (record,) = read_manifest(Paths(tmp_path / "out").manifest("d"))
    expected, count = ndimage.label(mask == 255, np.ones((3, 3)))
    assert record.objects == count == 15
    section = PrepareSection(tile=32, shard=1)
    prepare_dataset(
        [record],
        source.root,
        tmp_path / "s.zarr",
        PrepareSettings.made(prepare=section, axes=None, channels=None, **settings),
        threads=1,
        memory_bytes=memory,
    )
    found = Prepared(tmp_path / "s.zarr")
    instances, classes = found.instances("0"), found.classes("0")
    assert isinstance(instances, zarr.Array)
    assert isinstance(classes, zarr.Array)
    assert np.array_equal(np.asarray(instances[:]) > 0, mask == 255)
    pairs = np.unique(np.stack([np.asarray(instances[:]), expected]).reshape(2, -1), axis=1)
    assert pairs.shape[1] == count + 1
    assert (np.asarray(classes[:]) == 255).sum() == 100


def test_numbered_labels_are_not_binary_masks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="6 different values besides 0, but label_kind: binary"):
        warned(tmp_path, numbered(), **INSTANCES, label_kind="binary")


def test_label_kind_in_the_config() -> None:
    data: dict[str, Any] = {"images": "i", "labels": "l", "task": "instances"}
    models = {"m": {"preset": "unet-bn"}}
    config = load({"datasets": {"d": data}, "models": models})
    binary = load({"datasets": {"d": {**data, "label_kind": "binary"}}, "models": models})
    for kind in (ManifestSettings, PrepareSettings):
        # The default value leaves the settings as they were, so no stage runs again.
        plain = kind.of(config, "d").to_json()
        assert "label_kind" not in plain
        assert kind.of(binary, "d").to_json() == {**plain, "label_kind": "binary"}
    semantic = {**data, "task": "semantic", "classes": {"a": 0, "b": 1}, "label_kind": "binary"}
    with pytest.raises(UserError, match=r"datasets\.d\.label_kind: binary numbers the pieces"):
        load({"datasets": {"d": semantic}, "models": models})
