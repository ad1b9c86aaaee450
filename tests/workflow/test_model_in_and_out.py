"""A model's whole way: trained, fine-tuned on other images, exported, tested by the zoo's own
program, read back, and applied."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.workflow.test_workflow import Workplace
from tests.zoo import TESTS
from unet.cli import main
from unet.data.records import ids_of, read_splits
from unet.paths import Paths

pytestmark = pytest.mark.workflow

ONE: dict[str, Any] = {
    "synthetic": {"kind": "nuclei", "images": 8, "size": 96},
    "task": "instances",
    "split": {"test": 0.25, "val": 0.25},
}
CONFIG: dict[str, Any] = {
    "output": "out",
    "device": "cpu",
    "datasets": {
        "old": ONE,
        "new": {
            **ONE,
            "synthetic": {**ONE["synthetic"], "images": 6},
            "pixel_size_um": 0.5,
            "train": {"from": "old/a", "steps_per_epoch": 20},
        },
    },
    "models": {
        "a": {
            "preset": "unet-bn",
            "width": 8,
            "depth": 2,
            "head": "border",
            "stitch": {"method": "grow", "grow_px": 4, "threshold": "auto", "min_size": 10},
        }
    },
    "train": {"epochs": 2, "steps_per_epoch": 60, "patch": 64, "batch": 4, "lr": 3e-3,
              "show_start": False},
    "export": {"write": True, "license": "CC-BY-4.0", "authors": {"Ada Example": {}},
               "weights": ["onnx", "torchscript"]},
    "evaluate": {"metrics": ["instance"]},
    "report": {"bootstrap": 100},
}  # fmt: skip


def masks_in(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: tifffile.imread(path) for path in sorted(folder.glob("*.tif"))}


@TESTS
def test_trained_tuned_exported_tested_imported_applied(tmp_path: Path) -> None:
    place, paths = Workplace(tmp_path), Paths(tmp_path / "out")
    done = place.snakemake("--cores", "2", "--quiet", "rules", config=CONFIG)
    assert done.returncode == 0, done.stdout + done.stderr
    package = paths.package("new", "a")

    zoo = [sys.executable, "-m", "bioimageio.core", "test", str(package)]
    tested = subprocess.run(zoo, cwd=tmp_path, capture_output=True, text=True)
    assert tested.returncode == 0, tested.stdout[-3000:] + tested.stderr[-3000:]

    # Elsewhere, without the run: the package alone knows the threshold that the run chose.
    away = tmp_path / "away" / "model.zip"
    away.parent.mkdir()
    package.rename(away)
    images, model = paths.output / "new" / "raw" / "images", paths.model("new", "a", 0)
    found = {}
    for name, source in {"package": away, "model": model}.items():
        out = tmp_path / name
        words = ["predict", str(source), str(images), "-o", str(out), "--device", "cpu"]
        assert main.main(words) == 0
        found[name] = masks_in(out / "masks")
    assert len(found["package"]) == 6
    for name, mask in found["model"].items():
        np.testing.assert_array_equal(found["package"][name], mask, err_msg=name)

    # So are those of the run, which segments the images that the network did not see.
    own = masks_in(paths.masks("new", "a", 0))
    tested = ids_of(read_splits(paths.splits("new")), 0, "test")
    assert {f"{image}.tif" for image in tested} <= own.keys()
    for name, mask in own.items():
        np.testing.assert_array_equal(found["package"][name], mask, err_msg=name)
    # The equality says something only if there are objects.
    assert sum(int(mask.max()) for mask in own.values()) >= 5
