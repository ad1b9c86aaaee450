"""Trained models on other images: what the config may say, how images are prepared for a network,
results in the user's pixels, and `unet predict`."""

from __future__ import annotations

import argparse
import csv
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from tests.architectures import settle
from tests.test_evaluate import Stores, add_cells, cells, probability
from unet import cli, slices
from unet.config import Config, load, load_file, merge
from unet.data.manifest import build_manifest
from unet.data.prepare import prepare_dataset
from unet.data.prepare_image import Target
from unet.data.records import ImageRecord, read_manifest
from unet.data.resample import Axis, Resampling
from unet.data.source import Source
from unet.data.store import OwnGrid, Prepared
from unet.data.tiling import plan
from unet.errors import UserError
from unet.evaluation.evaluate import chosen_thresholds, evaluate_model
from unet.files import canonical, read_json, write_json
from unet.models.build import build
from unet.models.inference import Predictor
from unet.models.modelfile import ModelFile, load_model, save_model
from unet.models.presets import architecture_of
from unet.paths import ENSEMBLE, Origin, Paths, origin_of
from unet.plan import Run
from unet.predict_request import Trained, image_files, stitch_settings, trained
from unet.prediction import stitch
from unet.prediction.apply import target_of
from unet.prediction.resampled import ResampledTiles
from unet.prediction.segmentation import Segmentation
from unet.prediction.threshold import carried_threshold
from unet.prediction.tiles import create_tiles
from unet.report import html
from unet.report.applied import Applied
from unet.sections import EvaluateSection, ReportSection

GB = 10**9

# The config

RAW: dict[str, Any] = {
    "datasets": {
        "cells": {
            "synthetic": {"kind": "membranes"}, "classes": {"membrane": 0, "cell": 255},
            "split": {"folds": 3}, "models": ["plain"], "stitch": {"min_size": 3, "pyramid": 2},
        },
        "nuclei": {
            "synthetic": {"kind": "nuclei", "images": 8}, "task": "instances",
            "split": {"folds": 4, "test": 0.25, "run": [0, 2]},
        },
        "new": {"images": "new/*.tif", "predict_with": ["nuclei/plain", "nuclei/border"]},
    },
    "models": {
        "plain": {"preset": "unet-bn", "depth": 2, "predict": {"tta": True}},
        "border": {"preset": "unet-bn", "depth": 2, "head": "border", "stitch": {"method": "grow"}},
    },
    "train": {"patch": 64},
}  # fmt: skip
# `border` needs instances, so that `cells` must not have it.


def new(**keys: Any) -> dict[str, Any]:
    return {"datasets": {"new": keys}}


def test_names() -> None:
    assert origin_of("plain") is None
    assert origin_of("plain@nuclei") == Origin("plain", "nuclei")
    assert Origin("plain", "nuclei").name == "plain@nuclei"
    paths = Paths(Path("out"))
    assert paths.model("new", "plain@nuclei", 2) == paths.model("nuclei", "plain", 2)
    assert paths.prepared("new", "plain") == Path("out/new/prepared.zarr")
    assert paths.prepared_done("new", "plain@nuclei") == Path("out/new/plain@nuclei/prepared.json")
    assert paths.tiles("new", "plain@nuclei", ENSEMBLE).parent.name == "fold-ensemble"


def test_what_a_dataset_takes_from_the_models() -> None:
    config = load(RAW)
    data = config.datasets["new"]
    assert (data.task, data.classes, data.labelled) == ("instances", None, False)
    assert config.models_for("new") == ("plain@nuclei", "border@nuclei")
    assert config.head_for("new", "border@nuclei") == ("background", "inside", "border")
    assert (config.folds_for("new"), config.tested_for("new")) == ((), (ENSEMBLE,))
    # What holds where it was trained holds here, and what the dataset says over it.
    over = new(predict_with=["cells/plain"], stitch={"pyramid": 4}, predict={"tile": 200})
    config = load(merge(RAW, over))
    data = config.datasets["new"]
    assert (data.task, data.classes) == ("semantic", {"membrane": 0, "cell": 255})
    section = config.stitch_for("new", "plain@cells")
    assert (section.min_size, section.pyramid) == (3, 4)
    assert config.predict_for("new", "plain@cells").tta
    assert config.predict_for("new", "plain@cells").tile == 200
    # The values of the labels may be others than those of training.
    named = new(predict_with=["cells/plain"], labels="x", classes={"membrane": 7, "cell": 1})
    config = load(merge(RAW, named))
    assert config.datasets["new"].labelled
    assert slices.stitch(config, "new", "plain@cells")["class_values"] == [7, 1]
    assert slices.prepare_applied(config, "new", "plain@cells")["classes"] == [
        ["membrane", 7], ["cell", 1],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("over", "line"),
    [
        (new(predict_with=["nuclei"]), "predict_with: got 'nuclei'; write <dataset>/<model>"),
        (new(predict_with=["nuclei/plain", "nuclei/plain"]), "name each model once"),
        (new(predict_with=[]), "must name at least one"),
        (new(predict_with=["nucle/plain"]), "no dataset 'nucle'; there are: cells, nuclei"),
        (new(predict_with=["cells/border"]),
         "dataset cells trains no model 'border'; there are: plain"),
        (new(predict_with=["new/plain"]), "new/plain is of the dataset itself"),
        # A cycle, or a chain.
        (merge(new(), {"datasets": {"nuclei": {"predict_with": ["new/plain"]}}}),
         "nuclei.predict_with: dataset new has predict_with itself and trains no model; there are: "
         "cells"),
        (new(models=["plain"]), "datasets.new.models: has no say beside predict_with"),
        (new(split={"folds": 3}), "datasets.new.split: has no say"),
        (new(train={"lr": 0.1}), "datasets.new.train: has no say"),
        (new(prepare={"normalize": {"method": "minmax"}}),
         "prepare.normalize: has no say beside predict_with, the model's own normalisation is"),
        (new(task="semantic", classes={"a": 0, "b": 1}),
         "datasets.new.task: got semantic, but nuclei/plain was trained for task instances; write "
         "task: instances"),
        (new(predict_with=["cells/plain", "nuclei/plain"]),
         "cells/plain has task semantic, nuclei/plain has task instances; make a dataset for each"),
        (new(predict_with=["cells/plain"], classes={"cell": 255, "membrane": 0}),
         "datasets.new.classes: got cell, membrane, but cells/plain predicts membrane, cell"),
        (new(predict_with=["nuclei/plain"], stitch={"method": "grow"}),
         "stitch.method: grow needs a model with head: border (dataset new, model plain@nuclei)"),
        (new(predict_with=["nuclei/plain"], predict={"tile": 8}), "predict.tile: 8 is too small"),
        (merge(new(channels=[0, 1, 2]), {"datasets": {"nuclei": {"channels": [0]}}}),
         "datasets.new.channels: got 3 of them, but nuclei/plain was trained on 1; choose as many"),
        # What is needed elsewhere still is.
        ({"datasets": {"other": {"images": "x"}}}, "datasets.other: classes: needed"),
        ({"datasets": {"other": {"images": "x", "task": "instances"}}}, "datasets.other.labels"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_each(over: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        load(merge(RAW, over))
    lines = str(caught.value).splitlines()
    assert any(line in text for text in lines), lines
    assert len(lines) == len(set(lines)) <= 2
    assert all(text.startswith("config: ") for text in lines)


def all_slices(config: Config, *without: str) -> dict[str, str]:
    """Every slice of the datasets, less those named."""
    found = {}
    for dataset in config.datasets:
        if dataset in without:
            continue
        applied = bool(config.origins_for(dataset))
        for stage in (
            "manifest",
            "evaluate",
            "report",
            *(() if applied else ("splits", "prepare")),
        ):
            found[f"{stage}:{dataset}"] = canonical(getattr(slices, stage)(config, dataset))
        for model in config.models_for(dataset):
            own = ("prepare_applied",) if applied else ("train",)
            for stage in (*own, "predict", "stitch"):
                value = canonical(getattr(slices, stage)(config, dataset, model))
                found[f"{stage}:{dataset}:{model}"] = value
    return found


def test_a_dataset_more_changes_no_other_slice() -> None:
    alone = {key: RAW["datasets"][key] for key in ("cells", "nuclei")}
    before = all_slices(load({**RAW, "datasets": alone}))
    config = load(RAW)
    assert all_slices(config, "new") == before
    mine = {k: v for k, v in all_slices(config).items() if k not in before}
    assert {key.split(":")[0] for key in mine} == {
        "manifest", "evaluate", "report", "prepare_applied", "predict", "stitch",
    }  # fmt: skip
    assert json.loads(mine["manifest:new"])["labelled"] is False
    assert json.loads(mine["predict:new:plain@nuclei"])["members"] == [0, 2]
    assert json.loads(mine["report:new"])["applied"] == {
        "labelled": False, "networks": {"plain@nuclei": [0, 2], "border@nuclei": [0, 2]},
    }  # fmt: skip
    assert slices.report_all(config)["datasets"]["new"]["labelled"] is False
    assert "labelled" not in slices.report_all(config)["datasets"]["cells"]


def test_what_changes_the_slices_of_such_a_dataset() -> None:
    base = all_slices(load(RAW))

    def changed(over: dict[str, Any]) -> set[str]:
        now = all_slices(load(merge(RAW, over)))
        return {key for key in base if now.get(key) != base[key] and ":new" in key}

    # Trained anew, a network is another file: an input of the stages, and in no slice.
    assert changed({"train": {"lr": 0.5}}) == set()
    assert changed({"prepare": {"normalize": {"method": "minmax"}}}) == set()
    assert changed({"prepare": {"tile": 64}}) == {
        "prepare_applied:new:plain@nuclei", "prepare_applied:new:border@nuclei",
    }  # fmt: skip
    one = {"models": {"border": {"stitch": {"grow_px": 3}}}}
    assert changed(one) == {"stitch:new:border@nuclei"}
    auto = {"stitch": {"threshold": "auto"}}
    assert changed(auto) == {"stitch:new:plain@nuclei", "stitch:new:border@nuclei"}
    config = load(merge(RAW, auto))
    assert slices.stitch(config, "new", "plain@nuclei")["thresholds_of"] == ["ensemble"]
    config = load(merge(merge(RAW, auto), new(predict_with=["cells/plain"])))
    assert slices.stitch(config, "new", "plain@cells")["thresholds_of"] == ["0", "1", "2"]


def test_the_run(tmp_path: Path) -> None:
    run = Run(load({**RAW, "output": str(tmp_path / "out"), "stitch": {"threshold": "auto"}}))
    paths, where = run.paths, ("new", "plain@nuclei")
    assert run.networks(*where) == [paths.model("nuclei", "plain", fold) for fold in (0, 2)]
    assert run.networks("cells", "plain", "1") == [paths.model("cells", "plain", 1)]
    assert (run.splits("new"), run.splits("cells")) == ([], [paths.splits("cells")])
    assert run.thresholds(*where) == [paths.segmentation_done("nuclei", "plain", ENSEMBLE)]
    assert run.thresholds("nuclei", "plain") == []
    done = [
        paths.segmentation_done("new", model, ENSEMBLE) for model in run.config.models_for("new")
    ]
    assert run.reported("new") == done
    assert (run.scores("new", "plain@nuclei"), run.scores("cells", "plain")) == ([], [])
    over = new(evaluate={"metrics": ["topology"]}, predict_with=["cells/plain"])
    choosing = Run(load({**merge(RAW, over), "output": str(tmp_path / "out")}))
    assert choosing.scores("new", "plain@cells") == [paths.metrics("cells", "plain")]
    assert run.reported("cells") == [paths.metrics("cells", "plain")]
    run.write_config()
    assert load_file(paths.config) == run.config


def test_the_carried_threshold_is_the_mean_over_folds(tmp_path: Path) -> None:
    files = [tmp_path / f"{k}.json" for k in range(3)]
    for path, threshold in zip(files, (0.4, 0.5, 0.7), strict=True):
        write_json(path, {"threshold": threshold})
    assert carried_threshold(files[:1]) == 0.4
    assert carried_threshold(files) == pytest.approx(0.533333)


# Models


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


def test_what_networks_want_of_images() -> None:
    one = model()
    section, target = target_of({Path("a"): one, Path("b"): model(seed=1)})
    assert section == {"method": "minmax", "low": 1.0, "high": 99.8, "scope": "image"}
    assert target == Target(1, 2, (0.5, 0.5), None)
    whole = {"method": "zscore", "scope": "dataset"}
    section, target = target_of({Path("a"): model(normalize={**whole, "statistics": STATISTICS})})
    assert (section["scope"], target.statistics) == ("dataset", STATISTICS)
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


def test_networks_of_other_pixel_sizes_are_told(caplog: pytest.LogCaptureFixture) -> None:
    _, target = target_of({Path("a"): model(), Path("b"): model(pixel_size_um=(0.6, 0.6))})
    assert target.pixel_size_um == (0.5, 0.5)
    assert "the first holds" in caplog.text


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
    settings = {"task": "instances", "classes": None, "axes": None, "group": None, **keys}
    source = Source(folder, "images", labels, "folders", labels is not None, required=False)
    return build_manifest(source, settings, strict=False, threads=2)


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
    settings = {**PREPARE, **more}
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
    assert "1 of 3 images, such as images/untold.ome.tif, tell no pixel size" in caplog.text
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
    # Labels are welcome, not needed.
    assert [entries[name]["labelled"] for name in ("fine", "same")] == [True, False]


def test_same_store_whatever_the_memory_and_again(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.ome.tif", blobs((150, 170)), 0.3)
    records = listed(tmp_path)
    entries, store = prepare(tmp_path, records)
    small, other = prepare(tmp_path, records, memory=1_500_000, store="small.zarr")
    assert small == entries
    assert np.array_equal(Prepared(store).image("a")[...], Prepared(other).image("a")[...])
    files = {p: p.stat().st_mtime_ns for p in store.rglob("*") if p.is_file()}
    assert prepare(tmp_path, records)[0] == entries
    assert {p: p.stat().st_mtime_ns for p in store.rglob("*") if p.is_file()} == files
    # Another pixel size, of the model or the image, is another array.
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
        ((3, 40, 44), TARGET, r"images/a.ome.tif: the images have 3 channel\(s\), the model "
         "wants 1; choose with channels"),
        ((40, 44), replace(TARGET, dims=3), "have 2 spatial axes, the model wants 3"),
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
    from unet.models.geometry import footprint

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


# `unet predict`


@pytest.fixture
def quiet() -> Any:
    """The command sets up logging for a process of its own."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    logging.captureWarnings(False)


def predict(*words: object) -> int:
    common = ["--threads", "1", "--device", "cpu", "--float32"]
    return cli.main(["predict", *map(str, words), *common])


@pytest.fixture
def place(tmp_path: Path, quiet: Any) -> Path:
    """A results folder of two folds, and three images, one of them finer than the model."""
    for fold in (0, 1):
        save_model(tmp_path / "m" / f"fold-{fold}" / "model.pt", model(seed=fold))
    write(tmp_path / "images" / "a.ome.tif", blobs((70, 81)), 0.5)
    write(tmp_path / "images" / "b.ome.tif", blobs((90, 64), 1), 0.2)
    (tmp_path / "images" / "bad.tif").write_bytes(b"II*\0 no image")
    return tmp_path


def expected_probabilities(place: Path, name: str, grid: Resampling | None) -> np.ndarray:
    """Worked out without the pipeline: normalised, resampled, the networks on the whole image."""
    data = tifffile.imread(place / "images" / f"{name}.ome.tif").astype(np.float32)
    image = ((data - data.min()) / (data.max() - data.min()))[None]
    if grid is not None:
        whole = tuple(slice(0, n) for n in grid.shape)
        image = grid.read(lambda r: image[(slice(None), *r)], whole)
    files = [load_model(place / "m" / f"fold-{k}" / "model.pt") for k in (0, 1)]
    each = []
    for file in files:
        predictor = Predictor(
            [file.network()], torch.device("cpu"), "float32", False, tuple(file.head)
        )
        each.append(predictor.whole(image))
    p = np.mean(each, axis=0)
    if grid is not None:
        p = grid.back.read(lambda r: p[(slice(None), *r)], tuple(slice(0, n) for n in data.shape))
    return np.asarray(p)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_a_folder_of_images(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = place / "out"
    assert predict(place / "m", place / "images", "-o", out, "--threshold", "0.4") == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "manifest.csv", "masks", "objects.csv", "predict.json", "segmentation.zarr",
    ]  # fmt: skip
    assert sorted(path.name for path in (out / "masks").iterdir()) == ["a.tif", "b.tif"]
    found = Segmentation(out / "segmentation.zarr")
    for name, grid in (("a", None), ("b", Resampling((Axis(90, 36), Axis(64, 26))))):
        p = expected_probabilities(place, name, grid)
        np.testing.assert_allclose(found.probabilities(name)[...], p, atol=1e-5)
        mask = tifffile.imread(out / "masks" / f"{name}.tif")
        assert mask.shape == p.shape[1:]
        ids = found.instances(name)
        assert ids is not None
        assert np.array_equal(mask, ids[...])
        # Nothing that is dropped or filled is larger than the defaults say.
        assert abs((mask > 0).sum() - (p[1] > 0.4).sum()) < 0.1 * mask.size
    assert found.attrs("b")["pixel_size_um"] == pytest.approx([0.2, 0.2])
    assert {row["image"] for row in table(out / "objects.csv")} <= {"a", "b"}
    bad = [r for r in read_manifest(out / "manifest.csv") if r.status != "ok"]
    assert [record.id for record in bad] == ["bad"]
    told = read_json(out / "predict.json")
    assert (told["images"], told["left_out"], told["threshold"]) == (2, 1, 0.4)
    assert len(told["models"]) == 2
    assert "1 left out" in capsys.readouterr().err

    # The same again: nothing to do. With another threshold it is another result.
    before = (out / "masks" / "a.tif").stat().st_mtime_ns
    assert predict(place / "m", place / "images", "-o", out, "--threshold", "0.4") == 0
    assert (out / "masks" / "a.tif").stat().st_mtime_ns == before
    assert "nothing to do" in capsys.readouterr().err
    assert predict(place / "m", place / "images", "-o", out, "--threshold", "0.9") == 0
    assert read_json(out / "predict.json")["threshold"] == 0.9


def test_one_network_or_several_by_hand(place: Path) -> None:
    one, two = (place / "m" / f"fold-{k}" for k in (0, 1))
    image = place / "images" / "a.ome.tif"
    assert predict(one / "model.pt", image, "-o", place / "one") == 0
    assert predict(one, image, "--model", two / "model.pt", "-o", place / "both") == 0
    assert predict(place / "m", str(place / "images" / "a*.tif"), "-o", place / "all") == 0
    p = {n: Segmentation(place / n / "segmentation.zarr").probabilities("a")[...]
         for n in ("one", "both", "all")}  # fmt: skip
    assert np.array_equal(p["both"], p["all"])
    assert not np.allclose(p["one"], p["both"], atol=1e-3)
    assert len(read_json(place / "one" / "predict.json")["models"]) == 1


def test_a_stopped_run_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, out = place / "whole", place / "out"
    assert predict(place / "m", place / "images", "-o", whole) == 0

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stitch, "_stitch_all", stopped)
        assert predict(place / "m", place / "images", "-o", out) == 143
    assert not (out / "predict.json").exists()
    times = {p: p.stat().st_mtime_ns for p in (out / "work" / "tiles.zarr").rglob("c/*/*")}
    times |= {p: p.stat().st_mtime_ns for p in (out / "work" / "prepared.zarr").rglob("c/*/*")}
    assert times
    assert predict(place / "m", place / "images", "-o", out, "--keep") == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    for name in ("a.tif", "b.tif"):
        first, second = ((at / "masks" / name).read_bytes() for at in (whole, out))
        assert first == second
    # A new image with --keep: the others are not predicted again.
    write(place / "images" / "c.ome.tif", blobs((50, 50), 5), 0.5)
    assert predict(place / "m", place / "images", "-o", out, "--keep") == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert (out / "masks" / "c.tif").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nowhere", "images"], "no model here; name a model.pt"),
        (["m", "none/*.tif"], "IMAGES: "),
        (["m", "images/bad.tif"], "none of 1 images is usable; the first: bad.tif: "),
        (["m", "rgb.tif"], "rgb.tif: the images have 3 channel(s), the model wants 1; choose with"),
        (["m", "images", "--method", "grow"],
         "--method: grow needs a model with head: border, this one has head: classes; write "),
        (["m", "images", "--model", "other.pt"], "their channels differ (1, 3)"),
        (["m", "images", "--pixel-size", "1,1,1"], "3 numbers for the 2 spatial axes"),
    ],
)  # fmt: skip
def test_refusals_are_one_line(
    place: Path,
    words: list[str],
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(place)
    tifffile.imwrite("rgb.tif", np.stack([blobs((40, 44), k) for k in range(3)], -1))
    save_model(Path("other.pt"), model(channels=3))
    assert predict(*words, "-o", "out") == 2
    said = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(said) == 1
    assert line in said[0]


def test_foreign_results_are_not_overwritten(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = place / "out" / "masks" / "mine.tif"
    mine.parent.mkdir(parents=True)
    mine.write_text("drawn by hand")
    assert predict(place / "m", place / "images", "-o", place / "out") == 2
    assert "masks: is there already, and not from this command" in capsys.readouterr().err
    assert mine.read_text() == "drawn by hand"


@pytest.mark.parametrize("words", [["--threshold", "2"], ["--tile", "x"], ["--axes", "QQ"],
                                   ["--min-size", "-1"], ["--pixel-size", "0"]])  # fmt: skip
def test_options_are_checked(place: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        predict(place / "m", place / "images", "-o", place / "out", *words)
    assert caught.value.code == 2
    assert not (place / "out").exists()


def test_heads_and_classes(place: Path) -> None:
    """Semantic: the label values of training; border: objects grow by border_width + 1."""
    image = place / "images" / "a.ome.tif"
    names, values = ("sky", "cell", "edge"), (7, 1, 300)
    save_model(place / "s.pt", model(task="semantic", head=names, class_names=names,
                                     class_values=values))  # fmt: skip
    assert predict(place / "s.pt", image, "-o", place / "s") == 0
    mask = tifffile.imread(place / "s" / "masks" / "a.tif")
    assert mask.dtype == np.uint16
    assert set(np.unique(mask)) <= set(values)
    assert [row["class"] for row in table(place / "s" / "objects.csv")] == list(names)
    border = model(head=("background", "inside", "border"))
    args = argparse.Namespace(method=None, threshold=None, min_size=5, grow_px=None)
    told = stitch_settings(border, args, Trained())["stitch"]
    assert (told["method"], told["grow_px"], told["min_size"]) == ("grow", 4, 5)
    known = Trained(stitch={"method": "components", "grow_px": 9, "threshold": 0.3})
    told = stitch_settings(border, args, known)["stitch"]
    assert (told["method"], told["grow_px"], told["threshold"]) == ("components", 9, 0.3)
    args.grow_px, args.method = 7, "grow"
    told = stitch_settings(border, args, known)["stitch"]
    assert (told["method"], told["grow_px"]) == ("grow", 7)
    args.method = None
    distance = model(head=("background", "foreground", "distance"))
    assert stitch_settings(distance, args, Trained())["stitch"]["method"] == "watershed"


def test_a_model_in_results_brings_its_settings(place: Path) -> None:
    """What the run's config said, and the threshold that validation chose."""
    raw = {
        "output": str(place / "out"),
        "datasets": {"d": {"synthetic": {"kind": "nuclei"}, "task": "instances",
                           "split": {"folds": 2}}},
        "models": {"m": {"preset": "unet-bn", "depth": 1, "stitch": {"min_size": 2},
                         "predict": {"tta": True}}},
        "stitch": {"threshold": "auto", "tiff": False}, "train": {"patch": 64},
    }  # fmt: skip
    paths = Paths(place / "out")
    file = paths.model("d", "m", 0)
    assert trained(file) == Trained()
    Run(load(raw)).write_config()
    assert trained(file).stitch["threshold"] == 0.5
    for fold, threshold in ((0, 0.3), (1, 0.4)):
        write_json(paths.segmentation_done("d", "m", fold), {"threshold": threshold})
    found = trained(file)
    assert (found.stitch["threshold"], found.stitch["min_size"]) == (pytest.approx(0.35), 2)
    assert found.tta
    assert "tiff" not in found.stitch
    for other in (paths.model("other", "m", 0), Path("/model.pt")):
        assert trained(other) == Trained()


def test_files_of_one_name_in_different_folders(place: Path) -> None:
    write(place / "images" / "x" / "f.tif", blobs((40, 44)))
    write(place / "images" / "y" / "f.tif", blobs((40, 44), 1))
    found = image_files([str(place / "images" / k) for k in "xy"])
    names = [name for name, _ in found]
    assert len(set(names)) == 2
    assert all(name.startswith(("x", "y")) for name in names)
    assert image_files([str(place / "images" / "x"), str(place / "images/x/f.tif")]) == [
        ("f", place / "images" / "x" / "f.tif")
    ]


# Scores


def test_thresholds_of_metrics_come_from_where_the_model_was_trained(tmp_path: Path) -> None:
    """And images without labels are passed over."""
    source = Stores(tmp_path, "src")
    for fold, membrane in ((0, 0.32), (1, 0.52)):
        add_cells(source, f"v{fold}", membrane, membrane + 0.1, part="val", fold=fold)
        add_cells(source, f"t{fold}", membrane, 1, fold=fold)
    chosen = chosen_thresholds(source.evaluate("topology", "isbi2012"))
    assert chosen["foreground", "topology_threshold"] == pytest.approx((0.4 + 0.55) / 2)
    assert ("foreground", "isbi_rand_threshold") in chosen

    stores = Stores(tmp_path, "new", "net@src")
    add_cells(stores, "a", 0.45, 0.49, fold=ENSEMBLE)
    stores.truth("b", None, shape=(5, 11))
    stores.prediction("b", cells(), probabilities=probability(0, 1), fold=ENSEMBLE)
    section = EvaluateSection(metrics=("pixel", "topology"))
    folds = {ENSEMBLE: stores.segmentation(ENSEMBLE)}
    where = (stores.dataset, stores.model, folds, stores.prepared, {}, section, "semantic")

    def scores(**more: Any) -> dict[str, float]:
        rows = evaluate_model(*where, ("background", "foreground"), optional=True, **more)
        assert {row.image for row in rows} == {"a"}
        return {row.metric: row.value for row in rows if row.class_ == "foreground"}

    found = scores(thresholds={("foreground", "topology_threshold"): 0.47})
    assert (found["topology_threshold"], found["v_rand"]) == (0.47, 1)
    assert scores()["topology_threshold"] == 0.5
    with pytest.raises(UserError, match="has no labels"):
        evaluate_model(*where, ("background", "foreground"))


# The report


def test_report_without_labels(place: Path) -> None:
    """What there is: images, objects, overlays without a truth."""
    out = place / "made"
    assert predict(place / "m", place / "images", "-o", out, "--keep") == 0
    paths, name = Paths(place / "results"), "m@src"
    where = ("new", name, ENSEMBLE)
    paths.fold(*where).mkdir(parents=True)
    (out / "manifest.csv").rename(paths.manifest("new"))
    for source, goal in (
        ("segmentation.zarr", paths.segmentation(*where)),
        ("objects.csv", paths.objects(*where)),
        ("work/segmentation.json", paths.segmentation_done(*where)),
        ("work/prepared.zarr", paths.prepared("new", name)),
        ("work/prepared.json", paths.prepared_done("new", name)),
    ):
        (out / source).rename(goal)
    section = ReportSection(bootstrap=100)
    applied = Applied(False, {name: (0, 1)})
    rows = html.report_dataset(
        paths, "new", section, "instances", [name], [], ["background", "foreground"], 0,
        tested=[ENSEMBLE], applied=applied,
    )  # fmt: skip
    assert rows == []
    page = paths.dataset_report_html("new").read_text(encoding="utf-8")
    assert "What was predicted" in page
    # Two images of three panels each, and nothing of scores, training or split.
    assert page.count("<figure>") == 6
    for absent in ("Scores on the test images", 'id="training"', "<th>Train</th>", ">nan<"):
        assert absent not in page
    for shown in ("m@src", "<td>2</td><td>1</td>", "bad.tif", "Outlines of"):
        assert shown in page
    html.report_all(paths, {"new": html.DatasetTask("instances", (name,), False)})
    overall = paths.report_html.read_text(encoding="utf-8")
    assert "Images without labels" in overall
    assert 'href="new/report.html"' in overall
