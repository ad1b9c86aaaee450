"""Volumes in every stage: from files to the report, in tiles along Z, Y and X."""

from __future__ import annotations

import csv
import importlib
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from scipy import ndimage

from tests.architectures import see
from unet.config.geometry import footprint
from unet.config.presets import architecture_of
from unet.data.records import read_manifest
from unet.data.store import Prepared
from unet.data.tiling import cheapest_tile, plan
from unet.io.images import open_label
from unet.models.model_file import load_model, save_model
from unet.models.unet import UNet
from unet.paths import Paths
from unet.prediction.stitch.segmentation import Segmentation
from unet.prediction.tiles.tile_store import Tiles
from unet.report.cuts import cuts_of

Rows = list[dict[str, str]]


def stage(name: str, paths: Paths, config: Path, *words: str, expected: int = 0) -> None:
    """Runs a stage's script in this process, without changing the tests' logging."""
    handlers, level = logging.root.handlers[:], logging.root.level
    argv = ["--output", str(paths.output), "--config", str(config), *words]
    try:
        assert importlib.import_module(f"scripts.{name}").main(argv) == expected
    finally:
        logging.captureWarnings(False)
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)


def written(folder: Path, **sections: Any) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"output": str(folder / "results"), **sections}))
    return path


def rows_of(path: Path) -> Rows:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def everything(paths: Paths, config: Path, raw: Path, dataset: str, model: str) -> None:
    """Runs all stages on the files in ``raw``."""
    of, run = ("--dataset", dataset), ("--dataset", dataset, "--model", model)
    fold = (*run, "--fold", "0")
    where = ("--root", str(raw), "--images", "images", "--labels", "labels")
    stage("manifest", paths, config, *of, *where)
    stage("splits", paths, config, *of)
    stage("prepare", paths, config, *of)
    stage("train", paths, config, *fold, "--threads", "1")
    # The result of a few training steps depends on the processor, so the weights are replaced.
    trained = load_model(paths.model(dataset, model, 0))
    network = trained.network()
    assert isinstance(network, UNet)
    see(network, channel=0, level=0.5)
    weights = network.state_dict()
    save_model(paths.model(dataset, model, 0), replace(trained, weights=weights))
    stage("predict", paths, config, *fold, "--threads", "1")
    stage("stitch", paths, config, *fold)
    stage("evaluate", paths, config, *run, "--folds", "0")
    stage("details", paths, config, *run, "--folds", "0")
    stage("report", paths, config, *of)


@pytest.fixture(scope="module")
def nuclei(tmp_path_factory: pytest.TempPathFactory) -> tuple[Paths, Path]:
    """Generated volumes whose sections are three times as far apart as pixels."""
    folder = tmp_path_factory.mktemp("nuclei3d")
    paths = Paths(folder / "results")
    config = written(
        folder,
        datasets={
            "n": {
                "synthetic": {
                    "kind": "nuclei3d", "images": 3, "size": 64, "pixel_size_um": 0.2,
                },
                "task": "instances",
                "split": {"test": 0.3, "val": 0.3},
            }
        },
        models={
            "m": {
                "preset": "unet-res", "dims": 3, "width": 4, "depth": 2, "head": "border",
                "border_width": 1, "stitch": {"method": "grow", "grow_px": 2},
            }
        },
        train={"patch": [8, 32, 32], "batch": 2, "epochs": 2, "steps_per_epoch": 4, "lr": 0.01},
        predict={"tile": [18, 52, 52]},
        stitch={"threshold": "auto"},
        report={"bootstrap": 100},
    )  # fmt: skip
    stage("synthesize", paths, config, "--dataset", "n")
    everything(paths, config, paths.raw("n"), "n", "m")
    return paths, config


def balls(seed: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Two channels [2, Z, Y, X], one bright inside and one at the rims of balls, and their ids."""
    rng = np.random.default_rng(seed)
    places = np.indices(shape)
    ids = np.zeros(shape, np.uint16)
    for number in range(1, 25):
        middle, radius = rng.uniform(0, shape), rng.uniform(4, 9)
        away = np.sqrt(((places - middle[:, None, None, None]) ** 2).sum(0))
        ids[(away < radius) & (ids == 0)] = number
    rim = (ids > 0) & (ndimage.minimum_filter(ids, 3) != ids)
    # No value lies between 120 and 140, so the inside of a ball does not depend on rounding.
    noise = rng.normal(0, 15, (2, *shape)).clip(-20, 20)
    return (100 + 60 * np.stack([ids > 0, rim]) + noise).astype(np.uint8), ids


@pytest.fixture(scope="module")
def two_channels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Paths, Path]:
    """Volumes of two channels with cubic voxels, in files of axes ZCYX."""
    folder = tmp_path_factory.mktemp("channels")
    raw = folder / "raw"
    for number, shape in enumerate([(56, 53, 55), (30, 33, 40), (29, 40, 44)]):
        image, ids = balls(number, shape)
        size = dict.fromkeys(("PhysicalSizeZ", "PhysicalSizeY", "PhysicalSizeX"), 0.5)
        (raw / "images").mkdir(parents=True, exist_ok=True)
        (raw / "labels").mkdir(exist_ok=True)
        name, pixels = f"{number}.ome.tif", np.moveaxis(image, 0, 1)
        tifffile.imwrite(raw / "images" / name, pixels, metadata={"axes": "ZCYX", **size})
        tifffile.imwrite(raw / "labels" / name, ids, metadata={"axes": "ZYX"})
    paths = Paths(folder / "results")
    config = written(
        folder,
        datasets={
            "c": {
                "images": "images", "labels": "labels", "task": "instances",
                "split": {"test": 0.3, "val": 0.3}, "prepare": {"tile": 64},
            }
        },
        models={"m": {"preset": "unet-bn", "dims": 3, "width": 3, "depth": 2}},
        train={"patch": 24, "batch": 2, "epochs": 1, "steps_per_epoch": 6, "lr": 0.01},
        predict={"tile": 52, "dtype": "float32", "precision": "float32"},
        report={"bootstrap": 100},
    )  # fmt: skip
    everything(paths, config, raw, "c", "m")
    return paths, config


def test_manifest_and_store_know_depth_and_pixel_size(nuclei: tuple[Paths, Path]) -> None:
    paths, _ = nuclei
    records = read_manifest(paths.manifest("n"))
    assert {(r.status, r.axes, r.shape) for r in records} == {("ok", "CZYX", (1, 21, 64, 64))}
    assert records[0].pixel_size_um == pytest.approx((0.6, 0.2, 0.2))
    store = Prepared(paths.prepared("n"))
    image = store.image(records[0].id)
    assert image.shape == (1, 21, 64, 64)
    assert image.chunks == (1, 8, 64, 64)
    truth = tifffile.imread(paths.raw("n") / "labels" / f"{records[0].id}.tif")
    np.testing.assert_array_equal(store.instances(records[0].id), truth)


def test_network_is_fitted_to_the_voxels(nuclei: tuple[Paths, Path]) -> None:
    model = load_model(nuclei[0].model("n", "m", 0))
    assert model.architecture.dims == 3
    assert model.architecture.to_json()["pools"] == ((1, 2, 2), (2, 2, 2))
    assert model.pixel_size_um == pytest.approx((0.6, 0.2, 0.2))


def test_there_are_tiles_along_all_axes(nuclei: tuple[Paths, Path]) -> None:
    tiles = Tiles(nuclei[0].tiles("n", "m", 0))
    for image in tiles.ids():
        starts = [{core[axis].start for core in tiles.cores(image)} for axis in range(3)]
        assert min(len(found) for found in starts) > 1


def test_objects_and_scores_of_volumes(nuclei: tuple[Paths, Path]) -> None:
    paths, _ = nuclei
    (test,) = [r["image"] for r in rows_of(paths.splits("n")) if r["part"] == "test"]
    found = np.asarray(Segmentation(paths.segmentation("n", "m", 0)).instances(test))
    rows = [r for r in rows_of(paths.objects("n", "m", 0)) if r["image"] == test]
    assert len(rows) == found.max() > 3
    voxel = 0.6 * 0.2 * 0.2
    for row in rows:
        places = np.argwhere(found == int(row["label"]))
        assert int(row["volume_px"]) == len(places)
        assert float(row["volume_um3"]) == pytest.approx(len(places) * voxel, rel=1e-5)
        assert float(row["centroid_z_px"]) == pytest.approx(places[:, 0].mean(), abs=1e-3)
        assert float(row["centroid_z_um"]) == pytest.approx(places[:, 0].mean() * 0.6, abs=1e-3)
        assert [int(row[f"bbox_{a}0"]) for a in "zyx"] == places.min(0).tolist()
    metrics = {(r["class"], r["metric"]): r["value"] for r in rows_of(paths.metrics("n", "m"))}
    truth = np.asarray(Prepared(paths.prepared("n")).classes(test)) > 0
    iou = (truth & (found > 0)).sum() / (truth | (found > 0)).sum()
    assert float(metrics["foreground", "iou"]) == pytest.approx(iou)
    assert 0 <= float(metrics["instances", "ap_0.50"]) <= 1


def test_masks_open_as_stacks_with_their_size(nuclei: tuple[Paths, Path]) -> None:
    paths, _ = nuclei
    segmentation = Segmentation(paths.segmentation("n", "m", 0))
    (image, *_) = segmentation.ids()
    path = paths.masks("n", "m", 0) / f"{image}.tif"
    with tifffile.TiffFile(path) as file:
        assert file.is_imagej
        assert (file.series[0].axes, file.series[0].shape) == ("ZYX", (21, 64, 64))
        assert len(file.pages) == 21  # ImageJ reads compressed stacks page by page
        metadata = file.imagej_metadata or {}
        assert metadata["slices"] == metadata["images"] == 21
        assert metadata["spacing"] == pytest.approx(0.6)
        assert metadata["unit"] == "um"
    label = open_label(path)
    assert label.pixel_size_um == pytest.approx((0.6, 0.2, 0.2))
    np.testing.assert_array_equal(label.array.compute(), segmentation.instances(image))


def test_ome_zarr_has_depth_and_its_scale(nuclei: tuple[Paths, Path]) -> None:
    paths, _ = nuclei
    store = paths.segmentation("n", "m", 0)
    image = Segmentation(store).ids()[0]
    for group, lead in (("", [1.0]), ("labels/instances", [])):
        attributes = json.loads((store / image / group / "zarr.json").read_text())["attributes"]
        (scales,) = attributes["ome"]["multiscales"]
        assert [a["name"] for a in scales["axes"]][-3:] == ["z", "y", "x"]
        assert scales["axes"][-3]["unit"] == "micrometer"
        (move, *_) = scales["datasets"][0]["coordinateTransformations"]
        assert move["scale"] == pytest.approx([*lead, 0.6, 0.2, 0.2])


def test_report_says_which_planes_it_shows(nuclei: tuple[Paths, Path]) -> None:
    paths, _ = nuclei
    page = paths.dataset_report_html("n").read_text()
    (test,) = [r["image"] for r in rows_of(paths.splits("n")) if r["part"] == "test"]
    truth = tifffile.imread(paths.raw("n") / "labels" / f"{test}.tif") > 0
    z, y = truth.sum((1, 2)).argmax(), truth.sum((0, 2)).argmax()
    assert f"section z = {z} of 21, the one with the most foreground" in page
    assert f"cut at y = {y} of 64, Z downwards" in page


def test_cuts_show_square_pixels() -> None:
    class Stored(np.ndarray):  # what a zarr array has beside a NumPy array
        chunks = (2, 3, 4)

    classes = np.zeros((5, 6, 8), np.uint8)
    classes[1, :4], classes[3, 2] = 1, 255
    classes[4, 3] = 2
    section, across = cuts_of(classes.view(Stored), (2.5, 1.0, 1.0))
    assert section is not None
    assert across is not None
    assert (section.axis, section.index, section.aspect) == (0, 1, 1.0)
    assert (across.axis, across.index, across.aspect) == (1, 3, 2.5)
    all_of = (slice(None), slice(None))
    np.testing.assert_array_equal(section.of(classes, (), all_of), classes[1])
    shown = across.of(classes[None], (slice(0, 1),), all_of)
    assert shown.shape == (1, 12, 8)
    # Sections of 2.5 pixels: 2, 3, 2, 3, 2 rows of the 12.
    assert shown[0, :, 0].tolist() == [0] * 2 + [1] * 3 + [0] * 5 + [2] * 2
    assert cuts_of(classes[0], None) == [None]


def test_tiles_of_two_channels_give_the_labels_of_the_whole(
    two_channels: tuple[Paths, Path], tmp_path: Path
) -> None:
    paths, config = two_channels
    settings = yaml.safe_load(config.read_text())
    copy = Paths(tmp_path / "results")
    shutil.copytree(paths.output, copy.output)
    shutil.rmtree(copy.tiles("c", "m", 0))
    fold = ("--dataset", "c", "--model", "m", "--fold", "0")
    predict = settings["predict"] | {"tile": 256}
    untiled = written(tmp_path, **(settings | {"predict": predict}))
    stage("predict", copy, untiled, *fold, "--threads", "1")
    tiled, whole = Tiles(paths.tiles("c", "m", 0)), Tiles(copy.tiles("c", "m", 0))
    several = 0
    for image in tiled.ids():
        region = tuple(slice(0, n) for n in tiled.attrs(image)["shape"])
        assert len(whole.cores(image)) == 1
        several = max(several, len(tiled.cores(image)))
        p = whole.read(image, region)
        np.testing.assert_allclose(tiled.read(image, region), p, atol=1e-5)
        assert np.abs(p[1] - 0.5).min() > 0.1  # far from the threshold, compared with rounding
    assert several == 8
    stitch = {"threshold": 0.5, "min_size": 5}
    whole_images = {"predict": predict}
    for at, folder, more in ((paths, tmp_path / "a", {}), (copy, tmp_path / "b", whole_images)):
        folder.mkdir()
        stage("stitch", at, written(folder, **(settings | more | {"stitch": stitch})), *fold)
    labels = [Segmentation(p.segmentation("c", "m", 0)) for p in (paths, copy)]
    for image in tiled.ids():
        first, second = (np.asarray(found.instances(image)) for found in labels)
        np.testing.assert_array_equal(first, second)
        # Balls that touch are one object; objects below min_size are dropped.
        balls = np.asarray(Prepared(paths.prepared("c")).instances(image)) > 0
        assert ((first > 0) <= balls).all()
        assert (balls & (first == 0)).sum() < 5
        assert first.max() > 3
    tables = [rows_of(p.objects("c", "m", 0)) for p in (paths, copy)]
    assert tables[0] == tables[1]
    assert {"mean_intensity_c0", "mean_intensity_c1", "volume_um3"} <= set(tables[0][0])


def test_two_channels_are_kept(two_channels: tuple[Paths, Path]) -> None:
    paths, _ = two_channels
    records = {r.id: r for r in read_manifest(paths.manifest("c"))}
    assert records["0"].shape == (2, 56, 53, 55)
    assert records["0"].pixel_size_um == (0.5, 0.5, 0.5)
    image, ids = balls(0, (56, 53, 55))
    stored = np.asarray(Prepared(paths.prepared("c")).image("0"))
    for before, after in zip(image, stored, strict=True):
        assert np.corrcoef(before.ravel(), after.ravel())[0, 1] == pytest.approx(1)
    np.testing.assert_array_equal(Prepared(paths.prepared("c")).instances("0"), ids)
    assert load_model(paths.model("c", "m", 0)).architecture.to_json()["pools"] is None


def test_a_network_of_other_axes_is_refused(
    two_channels: tuple[Paths, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, config = two_channels
    flat = {"m": {"preset": "unet-bn", "width": 2, "depth": 2}}
    settings = yaml.safe_load(config.read_text()) | {"models": flat, "predict": {}}
    fold = ("--dataset", "c", "--model", "m", "--fold", "0")
    stage("train", paths, written(tmp_path, **settings), *fold, expected=2)
    assert "write dims: 3 under the model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shape", "depth", "largest"),
    [
        ((100, 512, 512), 3, 2**21), ((60, 600, 500), 2, 2**20), ((31, 61, 57), 3, 2**22),
        ((200, 200, 200), 3, 100), ((700, 900), 4, 2**18), ((40, 5000), 3, 2**18),
    ],
)  # fmt: skip
def test_the_cheapest_tile_computes_no_more_than_any_other(
    shape: tuple[int, ...], depth: int, largest: int
) -> None:
    footprints = footprint(architecture_of("unet-bn", dims=len(shape), depth=depth))
    tile = cheapest_tile(shape, footprints, largest)
    found = plan(shape, tile, footprints)
    assert found.window == tile
    least = np.prod(
        [min(fp.least_tile, fp.fit(n)) for n, fp in zip(shape, footprints, strict=True)]
    )
    assert np.prod(tile) <= max(largest, least)
    # Cubes and squares of the same size, and tiles that do not divide one axis.
    side = int(max(largest, least) ** (1 / len(shape)))
    for other in (side, [min(n, 10**9) if a == 0 else side // 2 for a, n in enumerate(shape)]):
        rival = plan(shape, other, footprints)
        if np.prod(rival.window) <= max(largest, least):
            assert found.overhead <= rival.overhead * 1.1
