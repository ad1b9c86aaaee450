"""Many small images: few files and folders for each, and the same results."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from benchmarks.many import entries_of
from tests.workflow.test_3d import stage, written
from unet.data.store import Prepared
from unet.files import read_json
from unet.paths import Paths
from unet.prediction.stitch.segmentation import Segmentation

IMAGES = 12
FOLD = ("--dataset", "nuclei", "--model", "unet", "--fold", "0")


def config(folder: Path, **stitch: str) -> Path:
    return written(
        folder,
        datasets={
            "nuclei": {
                "synthetic": {"kind": "nuclei", "images": IMAGES, "size": 128},
                "task": "instances",
                "split": {"test": 0.7, "val": 0.5},
            }
        },
        models={"unet": {"preset": "unet-bn", "width": 4, "depth": 2, "train": {"patch": 64}}},
        train={"batch": 2, "epochs": 1, "steps_per_epoch": 10, "lr": 0.01},
        stitch=stitch,
        report={"bootstrap": 100},
    )


def after_prediction(paths: Paths, where: Path) -> dict[str, bytes]:
    """Runs the last stages; returns the results that people read."""
    run = FOLD[:4]
    stage("stitch", paths, where, *FOLD)
    stage("evaluate", paths, where, *run, "--folds", "0")
    stage("details", paths, where, *run, "--folds", "0")
    stage("audit", paths, where, *run, "--folds", "0")
    stage("report", paths, where, "--dataset", "nuclei")
    fold = paths.fold("nuclei", "unet", 0)
    files = [*sorted((fold / "masks").iterdir()), fold / "objects.csv"]
    files += [paths.metrics("nuclei", "unet"), paths.audit("nuclei", "unet")]
    return {path.name: path.read_bytes() for path in files}


def test_small_images_of_many_are_few_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unet.data.prepare.MANY", IMAGES - 1)
    monkeypatch.setattr("unet.prediction.stitch.stitch.MANY", 5)
    paths, where = Paths(tmp_path / "results"), config(tmp_path)
    of = ("--dataset", "nuclei")
    stage("synthesize", paths, where, *of)
    stage("manifest", paths, where, *of, "--root", str(paths.raw("nuclei")), "--images", "images",
          "--labels", "labels")  # fmt: skip
    for name in ("splits", "prepare"):
        stage(name, paths, where, *of)
    stage("train", paths, where, *FOLD, "--threads", "1")
    stage("predict", paths, where, *FOLD, "--threads", "1")
    zipped = after_prediction(paths, where)

    done = read_json(paths.segmentation_done("nuclei", "unet", 0))["images"]
    assert len(done) > 5
    count = {place: sum(found.values()) - found["bytes"] for place, found in
             entries_of(paths).items()}  # fmt: skip
    assert count["prepared.zarr"] <= IMAGES + 1
    assert count["unet/fold-0/tiles.zarr"] <= 3 * len(done) + 1
    assert count["unet/fold-0/segmentation.zarr"] <= len(done) + 4
    assert count["unet/fold-0/masks"] == len(done)
    image = next(iter(done))
    file = paths.segmentation("nuclei", "unet", 0) / f"{image}.ozx"
    group = zarr.open_group(zarr.storage.ZipStore(file, mode="r"), mode="r")
    store = Segmentation(file.parent)
    np.testing.assert_array_equal(
        group["labels/instances/0"][...],  # type: ignore[index]
        store.instances(image)[...],  # type: ignore[index]
    )
    assert len(store.levels(image)) == 1
    assert store.attrs(image)["made_by"]["stage"] == "stitch"

    # As folders: the same results, for which no image is prepared or predicted again.
    other = tmp_path / "other"
    shutil.copytree(paths.output, other / "results")
    folders = after_prediction(Paths(other / "results"), config(other, zip_images="never"))
    assert folders.keys() == zipped.keys()
    changed = {name for name in zipped if folders[name] != zipped[name]}
    assert {name for name in changed if not name.endswith(".tif")} == set()
    segmentation = Paths(other / "results").segmentation("nuclei", "unet", 0)
    assert (segmentation / image / "0" / "zarr.json").is_file()
    assert not list(segmentation.glob("*.ozx"))
    assert Segmentation(segmentation).ids() == store.ids()

    # A run that was killed while it prepared continues with the images that are there.
    prepared = paths.prepared("nuclei")
    before = {p.name: p.stat().st_mtime_ns for p in prepared.glob("*.zip")}
    (prepared / ".x.zip.abc.tmp").write_bytes(b"half")
    lost = next(iter(before))
    (prepared / lost).unlink()
    stage("prepare", paths, where, *of)
    after = {p.name: p.stat().st_mtime_ns for p in prepared.glob("*.zip")}
    assert {name for name in after if after[name] != before[name]} == {lost}
    assert not list(prepared.glob(".*"))
    assert len(Prepared(prepared).ids()) == IMAGES
