"""All that the stitch stage writes, as other programs read it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import roifile
import shapely
import tifffile
import zarr
from ome_zarr_models import v04, v05
from skimage.measure import regionprops

from tests.prediction.test_stitch import (
    FakePrepared,
    FakeTiles,
    blobs,
    grey,
    outputs_in,
    settings_of,
    table_of,
)
from unet.export import ome_zarr_writer, outlines, tiff_writer
from unet.prediction.stitch.segmentation import Segmentation
from unet.prediction.stitch.stitch import stitch_dataset


class Normalised(FakePrepared):
    """With the statistics that a prepared image has."""

    def attrs(self, image):
        return {"statistics": {"method": "percentile", "shift": [100.0], "scale": [2000.0]}}


@pytest.fixture
def small_shards(monkeypatch):
    """Several chunks, shards and blocks in images of some hundred pixels."""
    monkeypatch.setattr(ome_zarr_writer, "_CHUNK", {2: 32, 3: 8})
    monkeypatch.setattr(ome_zarr_writer, "_SHARD", {2: 64, 3: 16})
    monkeypatch.setattr(outlines, "OUTLINE_BLOCK", 50)


def collection(path, images):
    """Checks the store as a whole by the models of its layout."""
    root = zarr.open_group(str(path), mode="r")
    old = root.metadata.zarr_format == 2
    about, listing = (g.attrs if old else g.attrs["ome"] for g in (root, root["OME"]))
    models = (v04 if old else v05).bioformats2raw
    assert models.BioFormats2RawAttrs.model_validate(dict(about)).bioformats2raw_layout == 3
    assert listing["series"] == images
    xml = ElementTree.parse(path / "OME" / "METADATA.ome.xml").getroot()
    for element, name in zip(xml, images, strict=True):
        assert element.get("ID") == f"Image:{name}"  # napari-ome-zarr finds them by it
        sizes = element[0].attrib
        shape = tuple(int(sizes[f"Size{axis}"]) for axis in "CYX")
        assert shape == root[name]["0"].shape


ALL = {"geojson": True, "rois": True, "label_pyramid": "mode"}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_every_output_says_the_same(tmp_path, small_shards, version):
    images = {"a": blobs(0), "b": blobs(1, (70, 140))}
    tiles, prepared, out = FakeTiles(images), Normalised(grey(images)), outputs_in(tmp_path)
    settings = settings_of(ome_zarr=version, connectivity="full", **ALL)
    stitch_dataset(tiles, prepared, out, settings, threads=2, block=40)
    store = Segmentation(out.segmentation)
    assert store.ids() == ["a", "b"]
    models = {"0.4": v04, "0.5": v05}[version]
    collection(out.segmentation, ["a", "b"])
    rows = table_of(out.objects)
    for image in images:
        group = zarr.open_group(str(out.segmentation / image), mode="r")
        assert group.metadata.zarr_format == {"0.4": 2, "0.5": 3}[version]
        models.Image.from_zarr(group)
        assert store.attrs(image)["part"] == "test"
        ids = store.instances(image)[:]
        np.testing.assert_array_equal(store.classes(image)[:], ids > 0)
        np.testing.assert_array_equal(
            store.probabilities(image)[:], images[image].astype(np.float16)
        )
        np.testing.assert_array_equal(tifffile.imread(out.masks / f"{image}.tif"), ids)
        features = json.loads((out.geojson / f"{image}.geojson").read_text())["features"]
        shapes = {
            int(f["properties"]["name"]): (shapely.from_geojson(json.dumps(f["geometry"])), f)
            for f in features
        }
        roi_names = [int(roi.name) for roi in roifile.roiread(out.rois / f"{image}.zip")]
        mine = {int(row["label"]): row for row in rows if row["image"] == image}
        assert sorted(roi_names) == sorted(shapes) == sorted(mine) == list(range(1, ids.max() + 1))
        y, x = np.indices(ids.shape) + 0.5
        intensity = prepared.image(image)[0] * 2000 + 100
        for props in regionprops(ids, intensity):
            row, (polygon, feature) = mine[props.label], shapes[props.label]
            assert polygon.is_valid
            np.testing.assert_array_equal(shapely.contains_xy(polygon, x, y), ids == props.label)
            assert polygon.area == int(row["area_px"]) == props.area
            assert feature["properties"]["measurements"]["area_px"] == props.area
            assert feature["properties"]["classification"]["name"] == row["class"] == "foreground"
            low, high = np.array(props.bbox[:2]), np.array(props.bbox[2:])
            touches = (low == 0).any() or (high == ids.shape).any()
            assert row["touches_border"] == str(int(touches))
            for name, value in {
                "mean_intensity_c0": props.intensity_mean,
                "std_intensity_c0": props.intensity_std,
                "min_intensity_c0": props.intensity_min,
                "max_intensity_c0": props.intensity_max,
                "major_axis_px": props.axis_major_length,
                "minor_axis_um": props.axis_minor_length / 2,
                "eccentricity": props.eccentricity,
                "equivalent_diameter_um": props.equivalent_diameter_area / 2,
            }.items():
                assert float(row[name]) == pytest.approx(value, rel=1e-5, abs=1e-9)


def test_both_versions_hold_the_same(tmp_path, small_shards):
    images = {"a": blobs(3, (130, 150))}
    prepared, found = FakePrepared(grey(images)), {}
    for version in ("0.4", "0.5"):
        out = outputs_in(tmp_path / version)
        settings = settings_of(ome_zarr=version)
        entry = stitch_dataset(FakeTiles(images), prepared, out, settings, threads=2, block=64)
        # The hash is of the content, so it does not tell them apart either.
        found[version] = (entry, out.objects.read_text(), (out.masks / "a.tif").read_bytes())
        levels = zarr.open_group(str(out.segmentation / "a"), mode="r")
        assert levels["1"].shape == (2, 65, 75)
    assert found["0.4"] == found["0.5"]
    old, new = (
        zarr.open_group(str(tmp_path / v / "segmentation.zarr" / "a"), mode="r")
        for v in ("0.4", "0.5")
    )
    for name in ("0", "1", "labels/instances/0", "labels/instances/1", "labels/classes/1"):
        np.testing.assert_array_equal(old[name][:], new[name][:])
    assert not list((tmp_path / "0.4").rglob("zarr.json"))


def test_a_version_replaces_the_other(tmp_path):
    images = {"a": blobs(0)}
    out = outputs_in(tmp_path)
    for version in ("0.5", "0.4", "0.5"):
        settings = settings_of(ome_zarr=version)
        stitch_dataset(FakeTiles(images), FakePrepared(grey(images)), out, settings)
        marks = {p.name for p in out.segmentation.iterdir()} - {"a", "OME"}
        assert marks == ({"zarr.json"} if version == "0.5" else {".zgroup", ".zattrs"})


def test_outlines_that_are_no_longer_wanted_go(tmp_path):
    images = {"a": blobs(0)}
    tiles, prepared, out = FakeTiles(images), FakePrepared(grey(images)), outputs_in(tmp_path)
    stitch_dataset(tiles, prepared, out, settings_of(geojson=True, rois=True))
    assert [p.name for p in out.geojson.iterdir()] == ["a.geojson"]
    assert [p.name for p in out.rois.iterdir()] == ["a.zip"]
    (tmp_path / ".rois.killed.tmp").mkdir()
    stitch_dataset(tiles, prepared, out, settings_of(rois=True))
    assert not out.geojson.exists()
    assert out.rois.exists()
    stitch_dataset(tiles, prepared, out, settings_of())
    assert not out.rois.exists()
    assert list(tmp_path.rglob(".*")) == []


def test_a_failure_leaves_no_outlines(tmp_path, monkeypatch):
    images = {"a": blobs(0)}
    out = outputs_in(tmp_path)

    def broken(*args, **more):
        raise OSError("disk full")

    monkeypatch.setattr(tiff_writer, "write_mask", broken)
    with pytest.raises(OSError, match="disk full"):
        stitch_dataset(FakeTiles(images), FakePrepared(grey(images)), out, settings_of(**ALL))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["segmentation.zarr"]
    assert list(tmp_path.rglob(".*")) == []


def test_outlines_do_not_depend_on_threads_and_blocks(tmp_path):
    images = {"a": blobs(5), "b": blobs(6)}
    seen = []
    for number, (threads, block) in enumerate([(1, 1024), (2, 33)]):
        out = outputs_in(tmp_path / str(number))
        tiles, prepared = FakeTiles(images), FakePrepared(grey(images))
        stitch_dataset(tiles, prepared, out, settings_of(**ALL), threads, block)
        files = [*sorted(out.geojson.iterdir()), *sorted(out.rois.iterdir()), out.objects]
        seen.append([path.read_bytes() for path in files])
    assert len(seen[0]) == 5
    assert seen[0] == seen[1]


def test_volumes_and_classes_have_no_outlines(tmp_path, caplog):
    caplog.set_level("INFO")
    volume = np.zeros((2, 6, 20, 20), np.float32)
    volume[1, 1:5, 4:12, 5:15] = 1
    volume[0] = 1 - volume[1]
    flat = {"a": blobs(0)}
    for images, settings, what in (
        ({"a": volume}, settings_of(geojson=True), "volumes"),
        (flat, settings_of("semantic", rois=True), "task semantic"),
    ):
        out = outputs_in(tmp_path / what)
        pixel = (2.0, 0.5, 0.5)[-images["a"].ndim + 1 :]
        tiles = FakeTiles(images, pixel=pixel)
        stitch_dataset(tiles, FakePrepared(grey(images)), out, settings)
        said = [m for m in caplog.messages if m.startswith("stitch.geojson")]
        assert len(said) == 1
        assert said[0].endswith(f"none for {what}")
        assert not out.geojson.exists()
        assert not out.rois.exists()
        caplog.clear()
    (row,) = table_of(tmp_path / "volumes" / "objects.csv")
    assert row["volume_px"] == str(4 * 8 * 10)
    assert row["surface_um2"] == f"{2 * (8 * 4 + 8 * 5 + 4 * 5):g}"
    assert float(row["equivalent_diameter_um"]) == pytest.approx((6 * 160 / np.pi) ** (1 / 3))


def test_classes_are_measured_as_well(tmp_path, small_shards):
    images = {"a": blobs(2)}
    out = outputs_in(tmp_path)
    settings = settings_of("semantic", label_pyramid="mode")
    stitch_dataset(FakeTiles(images, pixel=None), Normalised(grey(images)), out, settings, 2, 40)
    classes = Segmentation(out.segmentation).classes("a")[:].astype(int)
    with out.objects.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    for row, props in zip(rows, regionprops(classes + 1), strict=True):
        assert row["area_px"] == str(int(props.area))
        assert float(row["major_axis_px"]) == pytest.approx(props.axis_major_length, rel=1e-5)
        assert (row["touches_border"], row["area_um2"]) == ("1", "")


def test_the_documentation_names_every_column():
    from unet.export.object_table import columns

    text = (Path(__file__).parents[2] / "docs" / "pipeline.md").read_text(encoding="utf-8")
    for name in {*columns(2, 1), *columns(3, 1)}:
        assert f"`{name}`" in text, f"docs/pipeline.md: objects.csv has a column {name}"
