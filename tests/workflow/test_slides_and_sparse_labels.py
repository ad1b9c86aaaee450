"""Slides, and labels of only some objects, from the files to the report in one run."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.workflow.test_workflow import Workplace
from unet.data.store import Prepared
from unet.data.synthetic import write_dataset
from unet.paths import Paths

pytestmark = pytest.mark.workflow

SIDE, NUMBER = 96, 6
SPLIT = {"test": 0.34, "val": 0.5}
CONFIG: dict[str, Any] = {
    "output": "out",
    "data_root": "raw",
    "device": "cpu",
    "datasets": {
        "slides": {"images": "slides", "labels": "labels", "task": "instances", "split": SPLIT},
        "sparse": {"images": "images", "labels": "some", "task": "instances", "split": SPLIT,
                   "unlabelled": "ignore", "background_px": 3},
    },
    "models": {"a": {"preset": "unet-bn", "width": 4, "depth": 1, "train": {"patch": 48}}},
    "prepare": {"tile": 64},
    "train": {"batch": 2, "epochs": 1, "steps_per_epoch": 3, "warmup_steps": 1, "lr": 0.01},
    "evaluate": {"metrics": ["pixel", "instance"]},
    "report": {"bootstrap": 100},
}  # fmt: skip


def slide(path: Path, pixels: np.ndarray) -> None:
    """As an Aperio scanner does it: the slide, its thumbnail, a label with the patient's name."""
    size = f"{SIDE}x{SIDE}"
    about = f"Aperio Image Library v12.0.15\n{size} (32x32) JPEG/RGB Q=30|AppMag = 20|MPP = 0.5"
    rgb: dict[str, Any] = {"photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, description=about, tile=(32, 32), **rgb)
        writer.write(pixels[::4, ::4], description="Aperio thumbnail", **rgb)
        writer.write(np.full((40, 56, 3), 9, np.uint8), description="Aperio label", **rgb)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    found = Workplace(tmp_path_factory.mktemp("kinds"))
    raw = found.folder / "raw"
    write_dataset(raw, "nuclei", 3, NUMBER, (SIDE, SIDE), 0.5)
    (raw / "slides").mkdir()
    (raw / "some").mkdir()
    for path in sorted((raw / "images").iterdir()):
        grey = tifffile.imread(path)
        bright = (255.0 * grey / grey.max()).astype(np.uint8)
        slide(raw / "slides" / f"{path.stem}.svs", np.stack([bright, bright // 2, bright], -1))
        ids = tifffile.imread(raw / "labels" / path.name)
        tifffile.imwrite(raw / "some" / path.name, np.where(ids % 3 == 1, ids, 0))
    done = found.snakemake("--cores", "2", "--quiet", "rules", config=CONFIG)
    assert done.returncode == 0, done.stdout + done.stderr
    return found


def test_slides_are_scored_with_their_pixel_size(run: Workplace) -> None:
    paths = Paths(run.folder / "out")
    rows = table(paths.manifest("slides"))
    assert {(row["status"], row["pixel_size_um"]) for row in rows} == {("ok", "[0.5, 0.5]")}
    store = Prepared(paths.prepared("slides"))
    assert {store.image(name).shape for name in store.ids()} == {(3, SIDE, SIDE)}
    assert {row["metric"] for row in table(paths.metrics("slides", "a"))} >= {"ap_0.50", "dice"}
    assert '<section id="scores"' in paths.dataset_report_html("slides").read_text(encoding="utf-8")


def test_what_has_no_label_is_unknown_in_scores_and_named_in_the_report(run: Workplace) -> None:
    paths = Paths(run.folder / "out")
    store, scores = Prepared(paths.prepared("sparse")), table(paths.metrics("sparse", "a"))
    tested = {row["image"] for row in scores}
    for name in tested:
        classes = np.asarray(store.classes(name))
        # Objects, the rings around them, and all the rest.
        assert set(np.unique(classes)) == {0, 1, 255}
        assert (classes == 255).mean() > 0.3
    assert all(row["value"] for row in scores if row["metric"] == "seg")
    page = paths.dataset_report_html("sparse").read_text(encoding="utf-8")
    assert "unlabelled: ignore" in page
