"""Plates through the workflow: OME-Zarr of both versions and plain files, from files to the report,
with results written back into the stores."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.data.test_places import attributes, image
from tests.workflow.test_workflow import Workplace
from unet.config.run import merge
from unet.data.synthetic import write_dataset
from unet.io.images import open_label
from unet.io.own_labels import is_own
from unet.io.zarr_metadata import zarr_attributes
from unet.paths import Paths
from unet.prediction.stitch.segmentation import Segmentation

pytestmark = pytest.mark.workflow

WELLS = ("A1", "A2", "B1", "B2", "C3")
WRITTEN = {"stitch": {"write_back": "labels/cells"}}
CONFIG: dict[str, Any] = {
    "output": "out",
    "data_root": "raw",
    "device": "cpu",
    "datasets": {
        "old": {"images": "old.zarr", "layout": "plate", "labels": "nuclei", "task": "instances",
                "split": {"test": 0.4, "val": 0.34}, **WRITTEN},
        "new": {"images": "new.zarr", "layout": "plate", "labels": "nuclei",
                "predict_with": ["old/a"], **WRITTEN},
        "files": {"images": "files/{row}{col}_c{channel}.tif", "layout": "plate",
                  "channels": [0], "predict_with": ["old/a"]},
    },
    "models": {"a": {"preset": "unet-bn", "width": 4, "depth": 1, "train": {"patch": 48}}},
    "prepare": {"tile": 64},
    "train": {"batch": 2, "epochs": 1, "steps_per_epoch": 3, "warmup_steps": 1, "lr": 0.01},
    "evaluate": {"metrics": ["pixel", "instance"]},
    "stitch": {"min_size": 4},
    "report": {"bootstrap": 100},
}  # fmt: skip


def make(raw: Path) -> None:
    """Two plates, and a folder with the same images and a second channel; one lacks a file."""
    write_dataset(raw / "plain", "nuclei", 3, len(WELLS), (64, 80), 0.5)
    pairs = zip(*(sorted((raw / "plain" / kind).iterdir()) for kind in ("images", "labels")),
                strict=True)  # fmt: skip
    (raw / "files").mkdir()
    for well, (picture, label) in zip(WELLS, pairs, strict=True):
        pixels, ids = tifffile.imread(picture), tifffile.imread(label)
        for name, version in (("old.zarr", "0.4"), ("new.zarr", "0.5")):
            place = raw / name / well[0] / well[1]
            attributes(place, {"well": {"images": [{"path": "0"}]}}, version)
            image(place / "0", pixels, version)
            image(place / "0" / "labels" / "nuclei", ids, version)
            attributes(place / "0" / "labels", {"labels": ["nuclei"]}, version)
        for channel, part in ((1, pixels), (2, pixels // 2)):
            tifffile.imwrite(raw / "files" / f"{well[0]}0{well[1]}_c{channel}.tif", part)
    (raw / "files" / "C03_c1.tif").rename(raw / "files" / "notes_c1.tif")
    for name, version in (("old.zarr", "0.4"), ("new.zarr", "0.5")):
        wells = [{"path": f"{well[0]}/{well[1]}"} for well in WELLS]
        attributes(raw / name, {"plate": {"wells": wells}}, version)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("plates"))
    make(place.folder / "raw")
    done = place.snakemake("--cores", "2", "--quiet", "rules", config=CONFIG)
    assert done.returncode == 0, done.stdout + done.stderr
    return place


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_results_are_labels_of_the_plates(place: Workplace) -> None:
    paths, raw = Paths(place.folder / "out"), place.folder / "raw"
    # Of the plate that is trained on, only what was tested: two of the five wells.
    tested = {row["image"]: int(row["fold"]) for row in table(paths.metrics("old", "a"))}
    assert len(tested) == 2
    for well in WELLS:
        for name, version in (("old", "0.4"), ("new", "0.5")):
            group = raw / f"{name}.zarr" / well[0] / well[1] / "0"
            written = name == "new" or f"{well}-f0" in tested
            listed = ["nuclei", "cells"] if written else ["nuclei"]
            assert zarr_attributes(group / "labels")["labels"] == listed
            assert (group / "labels/cells").exists() == is_own(group / "labels/cells") == written
            if written:
                fold = tested[f"{well}-f0"] if name == "old" else "ensemble"
                where = (name, "a" if name == "old" else "a@old", fold)
                ids = Segmentation(paths.segmentation(*where)).instances(f"{well}-f0")
                assert ids is not None
                found = np.asarray(open_label(group / "labels/cells").array)
                np.testing.assert_array_equal(found, ids[:])
                file = group / "labels/cells/0" / (".zarray" if version == "0.4" else "zarr.json")
                assert file.is_file()


def test_labels_that_were_written_rerun_nothing(place: Workplace) -> None:
    assert place.wanted(CONFIG) == set()
    # They are not found as labels, either.
    without = merge(CONFIG, {"datasets": {"new": {"labels": None}}})
    assert "manifest new" not in place.wanted(without)


def test_tables_and_maps_of_wells(place: Workplace) -> None:
    paths = Paths(place.folder / "out")
    for name, wells in (("new", list(WELLS)), ("files", list(WELLS[:4]))):
        objects = table(paths.objects(name, "a@old", "ensemble"))
        assert list(objects[0])[:7] == ["image", "label", "class", "well", "row", "column", "field"]
        assert {row["well"] for row in objects} <= set(wells)
        rows = table(paths.wells(name))
        assert [(row["model"], row["well"]) for row in rows] == [("a@old", w) for w in wells]
        assert sum(int(row["objects"]) for row in rows) == len(objects)
        assert ("AP@0.5" in rows[0]) == (name == "new")
        page = paths.dataset_report_html(name).read_text(encoding="utf-8")
        assert '<section id="plate">' in page
        assert "Heat map of a plate with 8 rows and 12 columns: objects. a@old: objects in" in page
        assert ("AP@0.5 of each well" in page) == (name == "new")
    tested = {row["well"] for row in table(paths.wells("old"))}
    assert len(tested) == 2
    assert "no file C03_c1.tif; an image needs the files of all its channels" in page
    assert "the name does not fit {row}{col}_c{channel}.tif, such as notes_c1.tif" in page


def test_only_ome_zarr_can_have_labels_inside(place: Workplace) -> None:
    config = merge(CONFIG, {"datasets": {"files": WRITTEN}})
    done = place.snakemake("--dry-run", config=config)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "datasets.files: stitch.write_back: A01_c{1,2}.tif is no OME-Zarr image" in said
    config = merge(CONFIG, {"datasets": {"new": {"stitch": {"write_back": "labels/nuclei"}}}})
    done = place.snakemake("--dry-run", config=config)
    assert "labels/nuclei exists, and this pipeline did not write it" in done.stdout + done.stderr
