"""A large image by two workers of which one is killed half-way: the labels of one piece.

Nine real frames side by side, through the whole workflow (`predict_with`). `UNET_REAL_DATA` names
the folder that holds t98g_phase (tests/workflow/test_realdata.py).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml

from tests.workflow.test_realdata import DATA, ROOT
from unet.files import read_json
from unet.paths import ENSEMBLE, Paths

pytest.importorskip("distributed", reason="distributed is not installed (extra cluster)")
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not DATA.is_dir(), reason="UNET_REAL_DATA names no folder of real images"),
]
WHERE = ("mosaic", "small@cells", ENSEMBLE)


def mosaic(folder: Path) -> Path:
    """3 x 3 frames as one image; the folder that it is in."""
    frames = sorted((DATA / "t98g_phase" / "images").glob("*.tif"))[:9]
    pixels = [tifffile.imread(path) for path in frames]
    folder.mkdir()
    whole = np.block([pixels[row : row + 3] for row in (0, 3, 6)])
    tifffile.imwrite(folder / "nine.tif", whole, compression="zlib")
    return folder


def start(folder: Path, images: Path, predict: dict[str, Any]) -> subprocess.Popen[str]:
    """The workflow with this section predict for the mosaic."""
    config = {
        "output": str(folder / "results"),
        "data_root": str(DATA / "t98g_phase"),
        "device": "cpu",
        "datasets": {
            "cells": {
                "images": "images", "labels": "labels", "task": "instances",
                "split": {"test": 0.1, "val": 0.1},
            },
            "mosaic": {
                "images": str(images), "predict_with": ["cells/small"],
                "predict": {"precision": "float32", **predict},
            },
        },
        "models": {
            "small": {
                "preset": "unet-bn", "width": 8, "depth": 3, "head": "border",
                "stitch": {"method": "grow", "grow_px": 5},
            },
        },
        "train": {
            "patch": 256, "batch": 4, "epochs": 2, "steps_per_epoch": 40, "lr": 5e-3,
            "warmup_steps": 5, "foreground": 0.5,
        },
        "stitch": {"threshold": 0.4},
        "report": {"overlays": 1, "bootstrap": 100},
    }  # fmt: skip
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    words = ["--cores", "2", "--set-threads", "predict=1", "--directory", str(folder)]
    words += ["--configfile", str(path)]
    # Into a file: a pipe that nobody reads would fill up and block the workflow.
    with (folder / "log.txt").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", *words], cwd=ROOT, text=True, stdout=log,
            stderr=subprocess.STDOUT,
        )  # fmt: skip


def done_by_worker(tiles: Path) -> dict[int, int]:
    """Process -> number of tiles that it has finished in the current image."""
    found = {}
    for path in tiles.glob(".*.partial/.done/*"):
        found[int(path.name.rpartition("-")[2])] = path.read_text().count("\n")
    return found


def test_two_workers_one_killed_half_way(tmp_path: Path) -> None:
    images, paths = mosaic(tmp_path / "mosaic"), Paths(tmp_path / "results")
    whole = start(tmp_path, images, {"tile": 16384})
    log = tmp_path / "log.txt"
    assert whole.wait() == 0, log.read_text()
    entry = read_json(paths.tiles_done(*WHERE))["images"]["nine"]
    assert entry["tiles"] == 1
    mask = paths.masks(*WHERE) / "nine.tif"
    expected = tifffile.imread(mask)
    assert expected.shape == (3 * 1022, 3 * 1024)
    assert expected.max() > 100  # cells

    run = start(tmp_path, images, {"tile": 320, "cluster": {"workers": 2}})
    killed, most = None, 0
    while run.poll() is None and killed is None:
        time.sleep(0.02)
        done = done_by_worker(paths.tiles(*WHERE))
        most = max(most, sum(done.values()))
        if most >= 80 and len(done) == 2:
            killed = min(done)
            os.kill(killed, signal.SIGKILL)
    assert run.wait() == 0, log.read_text()
    assert killed is not None, log.read_text()
    entry = read_json(paths.tiles_done(*WHERE))["images"]["nine"]
    assert most < entry["tiles"] - 20  # it was not at its end
    np.testing.assert_array_equal(tifffile.imread(mask), expected)
