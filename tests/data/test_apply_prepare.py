"""Images for a network trained on other images: resampled to its pixel size, normalised like its
training images, and back in the user's pixels."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.architectures import settle
from tests.data.test_manifest import manifest_settings
from unet.config.data_settings import PrepareAppliedSettings
from unet.config.presets import architecture_of
from unet.config.sections import PrepareSection
from unet.data.blocks import Budget
from unet.data.manifest import build_manifest
from unet.data.prepare import prepare_dataset, prepare_stage, stored_bytes
from unet.data.prepare_image import Stage, Target
from unet.data.raw_files import RawSource
from unet.data.records import ImageRecord, write_manifest
from unet.data.resample import Axis, Resampling
from unet.data.scale_check import quarantine_far
from unet.data.store import OwnGrid, Prepared
from unet.data.tiling import plan
from unet.errors import UserError
from unet.files import read_json, write_json
from unet.models.build import build
from unet.models.model_file import ModelFile
from unet.prediction.stitch.source_scale import ResampledTiles
from unet.prediction.tiles.applied_models import target_of
from unet.prediction.tiles.tile_store import create_tiles

GB = 10**9


def model(
    channels: int = 1,
    task: str = "instances",
    head: tuple[str, ...] = ("background", "foreground"),
    seed: int = 0,
    **values: Any,
) -> ModelFile:
    arch = architecture_of("unet-bn", width=2, depth=1, dims=values.pop("dims", 2))
    network = build(channels, len(head), arch, seed)
    settle(network, seed)
    return ModelFile(
        architecture=arch,
        in_channels=channels,
        head=head,
        class_names=values.pop("class_names", ("background", "foreground")),
        class_values=values.pop("class_values", None),
        task=task,
        normalize=values.pop("normalize", {"method": "minmax", "scope": "image"}),
        pixel_size_um=values.pop("pixel_size_um", (0.5, 0.5)),
        settings={"border_width": 3},
        versions={},
        score=0.5,
        step=1,
        weights=network.state_dict(),
    )


STATISTICS = {"method": "zscore", "shift": [10.0], "scale": [2.0], "low": [0.0], "high": [20.0]}


def test_what_networks_require_of_images() -> None:
    one = model()
    section, target = target_of({Path("a"): one, Path("b"): model(seed=1)})
    assert section.model_dump() == {"method": "minmax", "low": 1.0, "high": 99.8, "scope": "image"}
    assert target == Target(1, 2, (0.5, 0.5), None)
    whole = {"method": "zscore", "scope": "dataset"}
    section, target = target_of({Path("a"): model(normalize={**whole, "statistics": STATISTICS})})
    assert (section.scope, target.statistics) == ("dataset", STATISTICS)
    with pytest.raises(UserError, match=r"a: its images .* run its training again"):
        target_of({Path("a"): model(normalize=whole)})
    for other, what in (
        (model(channels=2), r"channels differ \(1, 2\)"),
        (model(normalize=whole), "normalisations differ"),
        (model(class_names=("x", "y")), "classes differ"),
        (model(task="semantic"), "tasks differ"),
    ):
        with pytest.raises(UserError, match=f"a and b: their {what}"):
            target_of({Path("a"): one, Path("b"): other})


def test_networks_with_other_pixel_sizes_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    _, target = target_of({Path("a"): model(), Path("b"): model(pixel_size_um=(0.6, 0.6))})
    assert target.pixel_size_um == (0.5, 0.5)
    assert "the first is used" in caplog.text


# Preparing


def blobs(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Smooth bright spots, uint8."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.arange(n, dtype=float) for n in shape), indexing="ij")
    found = np.zeros(shape)
    for _ in range(6):
        middle, width = rng.uniform(0, shape), 0.06 * max(shape)
        distance = sum((a - m) ** 2 for a, m in zip(axes, middle, strict=True))
        found += np.exp(-distance / (2 * width**2))
    return np.asarray(20 + 200 * found / found.max(), np.uint8)


def write(path: Path, data: np.ndarray, pixel_size_um: float | None = None, axes: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = axes or "CZYX"[-data.ndim :]
    metadata: dict[str, Any] = {"axes": axes}
    if pixel_size_um is not None:
        for axis in axes[-2:]:
            metadata |= {f"PhysicalSize{axis}": pixel_size_um, f"PhysicalSize{axis}Unit": "µm"}
        if "Z" in axes:
            metadata |= {"PhysicalSizeZ": 2 * pixel_size_um, "PhysicalSizeZUnit": "µm"}
    tifffile.imwrite(path, data, ome=True, metadata=metadata, photometric="minisblack")
    return path


def listed(folder: Path, labels: str | None = None, **keys: Any) -> list[ImageRecord]:
    settings = manifest_settings(task="instances", **keys)
    source = RawSource(folder, "images", labels, "folders", labels is not None, required=False)
    return build_manifest(source, settings, threads=2)


PREPARE: dict[str, Any] = {
    "version": 1,
    "prepare": {
        "normalize": {"method": "minmax", "low": 1.0, "high": 99.8, "scope": "image"},
        "tile": 32, "shard": 2,
    },
    "task": "instances", "classes": None, "ignore": None, "axes": None, "channels": None,
}  # fmt: skip
TARGET = Target(1, 2, (0.5, 0.5), None)


def prepare(
    folder: Path, records: list[ImageRecord], target: Target = TARGET, memory: int = GB, **more: Any
) -> tuple[dict[str, dict[str, Any]], Path]:
    store = folder / more.pop("store", "prepared.zarr")
    settings = PrepareAppliedSettings.from_json({**PREPARE, **more})
    return prepare_dataset(records, folder, store, settings, 2, memory, target), store


def test_images_come_to_the_models_pixel_size(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = blobs((90, 121))
    write(tmp_path / "images" / "fine.ome.tif", data, 0.2)
    write(tmp_path / "images" / "same.ome.tif", blobs((60, 61), 1), 0.503)
    write(tmp_path / "images" / "untold.ome.tif", blobs((60, 61), 2))
    labels = (data > 100).astype(np.uint16)
    write(tmp_path / "labels" / "fine.ome.tif", labels)
    caplog.set_level(logging.INFO)
    records = listed(tmp_path, "labels")
    assert [record.status for record in records] == ["ok"] * 3
    entries, store = prepare(tmp_path, records)
    assert "1 of 3 images, such as images/untold.ome.tif, have no pixel size" in caplog.text
    assert "1 of 3 images are resampled to the model's 0.5 x 0.5 um" in caplog.text
    prepared, own = Prepared(store), OwnGrid(store)

    normal = ((data - data.min()) / np.float32(data.max() - data.min())).astype(np.float32)[None]
    fine = Resampling((Axis(90, 36), Axis(121, 48)))
    expected = fine.read(lambda r: normal[(slice(None), *r)], (slice(0, 36), slice(0, 48)))
    np.testing.assert_allclose(prepared.image("fine")[...], expected, atol=1e-6)
    np.testing.assert_allclose(own.image("fine")[...], normal, atol=1e-6)
    classes = prepared.classes("fine")
    assert classes is not None
    assert np.array_equal(classes[...], labels)
    size = [0.2 * 90 / 36, 0.2 * 121 / 48]
    assert entries["fine"]["shape"] == [1, 36, 48]
    assert entries["fine"]["pixel_size_um"] == pytest.approx(size)
    assert prepared.attrs("fine")["pixel_size_um"] == [0.2, 0.2]

    assert entries["same"]["shape"] == [1, 60, 61]
    assert entries["same"]["pixel_size_um"] == [0.503, 0.503]
    assert np.array_equal(prepared.image("same")[...], own.image("same")[...])
    assert entries["untold"]["pixel_size_um"] is None
    # Labels are allowed but not required.
    assert [entries[name]["labelled"] for name in ("fine", "same")] == [True, False]


def test_a_pixel_size_that_is_impossible_quarantines_one_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, size in (("a", 0.5), ("far", 2.0), ("mm", 352.8), ("nm", 0.0005)):
        write(tmp_path / "images" / f"{name}.ome.tif", blobs((60, 61)), size)
    records = listed(tmp_path)
    assert [record.status for record in records] == ["ok"] * 4
    found = {record.id: record for record in quarantine_far(records, TARGET)}
    assert {n for n, r in found.items() if r.status == "ok"} == {"a", "far"}
    assert "0.0005 x 0.0005 um" in found["nm"].reason
    assert "a factor of 1000 (1 x 1 px of 60 x 61); write the correct one" in found["nm"].reason
    entries, store = prepare(tmp_path, records)
    assert list(entries) == ["a", "far"] == sorted(Prepared(store).ids())
    write_json(tmp_path / "inputs.json", {"root": str(tmp_path)})
    write_manifest(tmp_path / "manifest.csv", records)
    notes = tmp_path / "warnings.prepare.json"
    with caplog.at_level(logging.WARNING):
        prepare_stage(
            tmp_path / "manifest.csv", tmp_path / "inputs.json", store, tmp_path / "p.json",
            PrepareAppliedSettings.from_json(PREPARE), 1, GB, target=TARGET, warnings=notes,
        )  # fmt: skip
    lines = read_json(notes)["warnings"]
    assert len(lines) == 2
    assert lines[0] == (
        "images/far.ome.tif: pixel size 2 x 2 um, the model's 0.5 x 0.5 um: a factor of 4; is that "
        "correct?"
    )
    assert lines[1].startswith("images/mm.ome.tif and 1 more image: left out: pixel size 352.8")
    assert list(read_json(tmp_path / "p.json")["images"]) == ["a", "far"]
    with pytest.raises(UserError, match=r"no usable image; the first: .*: pixel size 352.8"):
        prepare(tmp_path, [record for record in records if record.id == "mm"], store="none.zarr")


def test_the_estimate_of_disk_counts_both_grids(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.ome.tif", blobs((60, 61)), 5.0)
    record = listed(tmp_path)[0]
    section = PrepareSection.model_validate(PREPARE["prepare"])
    stage = Stage(
        tmp_path, tmp_path / "s", section, "instances", {}, None, None, None, Budget(GB), 1, 1,
        TARGET,
    )  # fmt: skip
    assert stored_bytes(stage, record) == 4 * (60 * 61 + 600 * 610)
    assert stored_bytes(replace(stage, target=None), record) == 4 * 60 * 61


def test_an_image_of_one_value_is_predicted_but_not_learned_from(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.tif", np.full((60, 61), 7, np.uint8))
    write(tmp_path / "images" / "b.tif", blobs((60, 61)))
    records = {record.id: record for record in listed(tmp_path)}
    assert records["a"].status == "ok"
    assert records["a"].warnings == ("all pixels have the value 7",)
    _, store = prepare(tmp_path, list(records.values()))
    assert not Prepared(store).image("a")[...].any()
    for name in "ab":
        write(tmp_path / "labels" / f"{name}.tif", np.ones((60, 61), np.uint8))
    source = RawSource(tmp_path, "images", "labels", "folders")
    learned = build_manifest(source, manifest_settings(task="instances"), threads=1)
    assert [(r.status, r.reason) for r in learned] == [
        ("quarantined", "all pixels have the value 7"), ("ok", ""),
    ]  # fmt: skip


def test_same_store_for_any_memory_and_when_repeated(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.ome.tif", blobs((150, 170)), 0.3)
    records = listed(tmp_path)
    entries, store = prepare(tmp_path, records)
    small, other = prepare(tmp_path, records, memory=1_500_000, store="small.zarr")
    assert small == entries
    assert np.array_equal(Prepared(store).image("a")[...], Prepared(other).image("a")[...])
    files = {p: p.stat().st_mtime_ns for p in store.rglob("*") if p.is_file()}
    assert prepare(tmp_path, records)[0] == entries
    assert {p: p.stat().st_mtime_ns for p in store.rglob("*") if p.is_file()} == files
    # Another pixel size, of the model or the image, gives another array.
    key = entries["a"]["key"]
    assert (
        prepare(tmp_path, records, replace(TARGET, pixel_size_um=(0.6, 0.6)))[0]["a"]["key"] != key
    )
    moved = [replace(record, pixel_size_um=(0.2, 0.2)) for record in records]
    assert prepare(tmp_path, moved)[0]["a"]["key"] != key


def test_the_models_own_statistics(tmp_path: Path) -> None:
    data = blobs((60, 61))
    write(tmp_path / "images" / "a.ome.tif", data)
    section = {**PREPARE["prepare"], "normalize": {"method": "zscore", "scope": "dataset"}}
    target = replace(TARGET, statistics=STATISTICS)
    records = listed(tmp_path)
    entries, store = prepare(tmp_path, records, target, prepare=section)
    np.testing.assert_allclose(Prepared(store).image("a")[0], (data - 10.0) / 2.0, atol=1e-5)
    assert entries["a"]["statistics"] == STATISTICS
    # A new image changes nothing for the others.
    write(tmp_path / "images" / "b.ome.tif", blobs((60, 61), 3))
    more, _ = prepare(tmp_path, listed(tmp_path), target, prepare=section)
    assert more["a"] == entries["a"]


def test_volumes(tmp_path: Path) -> None:
    data = blobs((9, 40, 44))
    write(tmp_path / "images" / "v.ome.tif", data, 0.25)
    records = listed(tmp_path)
    assert records[0].pixel_size_um == (0.5, 0.25, 0.25)
    target = Target(1, 3, (1.0, 0.25, 0.125), None)
    entries, store = prepare(tmp_path, records, target)
    assert entries["v"]["shape"] == [1, 4, 40, 88]
    assert Prepared(store).image("v").shape == (1, 4, 40, 88)
    assert OwnGrid(store).image("v").shape == (1, 9, 40, 44)


@pytest.mark.parametrize(
    ("shape", "target", "message"),
    [
        ((3, 40, 44), TARGET, r"images/a.ome.tif: the images have 3 channels, the model wants 1; "
         r"choose with channels: \[0\]$"),
        ((3, 40, 44), replace(TARGET, channels=2), r"wants 2; choose with channels: \[0, 1\]$"),
        ((40, 44), replace(TARGET, channels=3), "have 1 channel, the model wants 3; give images "
         "with 3, or use another model"),
        ((40, 44), replace(TARGET, dims=3), "have 2 spatial axes, the model wants 3; write axes: "),
    ],
)  # fmt: skip
def test_images_that_do_not_fit_are_refused(
    tmp_path: Path, shape: tuple[int, ...], target: Target, message: str
) -> None:
    axes = "CYX"[-len(shape) :]
    data = np.stack([blobs(shape[-2:], k) for k in range(3)]) if len(shape) == 3 else blobs(shape)
    write(tmp_path / "images" / "a.ome.tif", data, axes=axes)
    with pytest.raises(UserError, match=message):
        prepare(tmp_path, listed(tmp_path), target)


# Tiles


def test_tiles_are_read_in_the_users_pixels(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.ome.tif", blobs((61, 90)), 0.2)
    write(tmp_path / "images" / "b.ome.tif", blobs((50, 40)), 0.5)
    _, store = prepare(tmp_path, listed(tmp_path))
    arch = architecture_of("unet-bn", width=2, depth=1)
    from unet.config.geometry import footprint

    cores = {}
    for name in ("a", "b"):
        shape = Prepared(store).image(name).shape[1:]
        grid = plan(shape, 32, footprint(arch))
        p = np.random.default_rng(1).random(shape).astype(np.float32)
        attrs = {"part": "test", "head": ["x", "y"], "axes": "CYX", "pixel_size_um": [0.5, 0.5]}
        array = create_tiles(tmp_path / "tiles.zarr" / name, grid, 2, "float32", attrs)
        for tile in grid.tiles:
            part = np.stack([p[tile.core], 1 - p[tile.core]])
            array[(tile.index, slice(None), *(slice(0, n) for n in part.shape[1:]))] = part
        cores[name] = p
    tiles = ResampledTiles(tmp_path / "tiles.zarr", OwnGrid(store))
    assert tiles.ids() == ["a", "b"]
    attrs = tiles.attrs("a")
    assert (attrs["shape"], attrs["pixel_size_um"]) == ([61, 90], [0.2, 0.2])
    whole = tiles.read("a", (slice(0, 61), slice(0, 90)))
    back = Resampling((Axis(24, 61, False), Axis(36, 90, False)))
    both = np.stack([cores["a"], 1 - cores["a"]])
    expected = back.read(lambda r: both[(slice(None), *r)], (slice(0, 61), slice(0, 90)))
    np.testing.assert_allclose(whole, expected, atol=1e-6)
    np.testing.assert_allclose(whole.sum(axis=0), 1, atol=1e-5)
    part = tiles.read("a", (slice(7, 40), slice(33, 34)))
    assert np.array_equal(part, whole[:, 7:40, 33:34])
    covered = np.zeros((61, 90), int)
    for core in tiles.cores("a"):
        covered[core] += 1
    assert (covered == 1).all()
    # On the same grid nothing is changed.
    assert tiles.attrs("b")["shape"] == [50, 40]
    assert np.array_equal(tiles.read("b", (slice(0, 50), slice(0, 40)))[0], cores["b"])
