"""Models of one dataset applied to others by the workflow: a complete tiny run, and what reruns
after edits."""

from __future__ import annotations

import csv
import html
import json
from pathlib import Path
from typing import Any

import pytest
import tifffile

from tests.made import check_made_by
from tests.planner import Plan, Request, plans
from tests.workflow.test_workflow import Workplace
from unet.config.load import load_file
from unet.config.run import merge
from unet.data.synthetic import write_dataset
from unet.paths import Paths
from unet.prediction.stitch.segmentation import Segmentation

pytestmark = pytest.mark.workflow

# `there` has labels and pixels of half the size, `new` has none.
SOURCE: dict[str, Any] = {
    "output": "out",
    "data_root": "raw",
    "device": "cpu",
    "datasets": {
        "src": {
            "images": "src/images/*.tif", "labels": "src/labels/*.tif", "task": "instances",
            "split": {"test": 0.25, "val": 0.25},
        },
    },
    "models": {"a": {"preset": "unet-bn", "width": 4, "depth": 1, "train": {"patch": 48}}},
    "prepare": {"tile": 64},
    "train": {"batch": 2, "epochs": 1, "steps_per_epoch": 3, "warmup_steps": 1, "lr": 0.01},
    "evaluate": {"metrics": ["pixel", "instance"]},
    "stitch": {"min_size": 4, "threshold": "auto"},
    "report": {"bootstrap": 100},
}  # fmt: skip
THERE = {"images": "there/images", "labels": "there/labels", "predict_with": ["src/a"]}
NEW = {"images": "there/images/*_000.tif", "predict_with": ["src/a"]}
CONFIG = merge(SOURCE, {"datasets": {"there": THERE, "new": NEW}})
NEW_JOBS = {"manifest new", "prepare_applied new a@src", "predict new a@src ensemble",
            "stitch new a@src ensemble", "quality new a@src", "report_dataset new",
            "report"}  # fmt: skip
THERE_JOBS = {job.replace("new", "there") for job in NEW_JOBS} | {
    f"{stage} there a@src" for stage in ("evaluate", "details")
}
SOURCE_JOBS = {"manifest src", "splits src", "prepare src", "train src a 0", "predict src a 0",
               "stitch src a 0", "evaluate src a", "details src a", "audit src a",
               "report_dataset src", "report"}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("applied"))
    write_dataset(place.folder / "raw" / "src", "nuclei", 3, 4, (96, 96), 0.5)
    write_dataset(place.folder / "raw" / "there", "nuclei", 5, 3, (80, 112), 0.25)
    assert place.wanted(CONFIG) == SOURCE_JOBS | THERE_JOBS | NEW_JOBS
    done = place.snakemake("--cores", "2", "--quiet", "rules", config=CONFIG)
    assert done.returncode == 0, done.stdout + done.stderr
    return place


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_results_are_in_the_users_pixels(place: Workplace) -> None:
    paths = Paths(place.folder / "out")
    threshold = json.loads(paths.segmentation_done("src", "a", 0).read_text())["threshold"]
    for dataset, count in (("there", 3), ("new", 1)):
        where = (dataset, "a@src", "ensemble")
        done = json.loads(paths.segmentation_done(*where).read_text())
        assert {entry["part"] for entry in done["images"].values()} == {"test"}
        assert len(done["images"]) == count
        assert done["threshold"] == threshold
        prepared = json.loads(paths.prepared_done(dataset, "a@src").read_text())
        assert {tuple(entry["shape"]) for entry in prepared["images"].values()} == {(1, 40, 56)}
        found = Segmentation(paths.segmentation(*where))
        for name in found.ids():
            assert found.probabilities(name).shape == (2, 80, 112)
            assert found.attrs(name)["pixel_size_um"] == [0.25, 0.25]
            assert tifffile.imread(paths.masks(*where) / f"{name}.tif").shape == (80, 112)
        assert not paths.prepared(dataset).exists()
        assert not paths.splits(dataset).exists()


def test_labels_are_scored_if_there_are_any(place: Workplace) -> None:
    paths = Paths(place.folder / "out")
    rows = table(paths.metrics("there", "a@src"))
    assert {(row["model"], row["fold"]) for row in rows} == {("a@src", "ensemble")}
    assert len({row["image"] for row in rows}) == 3
    assert not paths.metrics("new", "a@src").exists()
    assert {row["dataset"] for row in table(paths.report_csv)} == {"src", "there"}
    page = paths.dataset_report_html("there").read_text(encoding="utf-8")
    assert "Scores on the test images" in page
    page = paths.dataset_report_html("new").read_text(encoding="utf-8")
    assert "Scores on the test images" not in page
    assert page.count("<figure>") == 3
    assert "Images without labels" in paths.report_html.read_text(encoding="utf-8")
    assert load_file(paths.config).datasets["new"].task == "instances"


def test_each_image_is_judged(place: Workplace) -> None:
    paths = Paths(place.folder / "out")
    for dataset, count in (("there", 3), ("new", 1)):
        rows = table(paths.quality(dataset, "a@src"))
        assert len(rows) == count
        # One held-out image: nothing can be promised, and the page says so.
        assert {row["predicted_score"] for row in rows} == {""}
        assert all(0 <= float(row["doubt"]) <= 1 for row in rows)
        assert all(row["drift"] for row in rows)
        page = paths.dataset_report_html(dataset).read_text(encoding="utf-8")
        assert '<section id="quality">' in page
        # The network is hardly trained: it may find no object there.
        needed = "8 held-out images with objects and a score are needed, there "
        assert f"{needed}is 1." in page or f"{needed}are 0." in page
        assert "19 held-out images with labels are needed for 95 %, there is 1" in page
        found = json.loads(paths.warnings(dataset, "quality-a@src").read_text())["warnings"]
        assert len(found) >= bool({row["flagged"] for row in rows} - {"no"})
        assert all(line in html.unescape(page) for line in found)
    own = paths.dataset_report_html("src").read_text(encoding="utf-8")
    assert '<section id="quality">' not in own


EDITS: list[tuple[dict[str, Any], set[str]]] = [
    (CONFIG, set()),
    # Settings of the dataset that it is applied to do not affect the training dataset.
    (merge(CONFIG, {"datasets": {"there": {"stitch": {"min_size": 9}}}}),
     {"stitch there a@src ensemble", "evaluate there a@src", "details there a@src",
      "quality there a@src",
      "report_dataset there", "report"}),
    (merge(CONFIG, {"datasets": {"other": NEW}}),
     {job.replace("new", "other") for job in NEW_JOBS}),
    # Another network changes all results, and the images are prepared for it again.
    (merge(CONFIG, {"train": {"lr": 0.02}}),
     (SOURCE_JOBS | THERE_JOBS | NEW_JOBS)
     - {"manifest src", "splits src", "prepare src", "manifest there", "manifest new"}),
    # Its threshold is used there.
    (merge(CONFIG, {"datasets": {"src": {"stitch": {"fill_holes": 1}}}}),
     {job for job in SOURCE_JOBS | THERE_JOBS | NEW_JOBS
      if job.split()[0] in ("stitch", "evaluate", "details", "audit", "quality", "report_dataset",
                            "report")}),
    (merge(CONFIG, {"report": {"bootstrap": 200}}),
     {f"report_dataset {name}" for name in ("src", "there", "new")} | {"report"}),
    # Without the other datasets.
    (SOURCE, {"report"}),
]  # fmt: skip


@pytest.fixture(scope="module")
def found(place: Workplace) -> list[Plan]:
    return plans([Request(place.folder, config) for config, _ in EDITS])


@pytest.mark.parametrize("number", range(len(EDITS)))
def test_what_an_edit_reruns(found: list[Plan], number: int) -> None:
    plan = found[number]
    assert plan.code == 0, plan.text
    assert set(plan.jobs) == EDITS[number][1]
    assert plan.jobs or "Nothing to be done" in plan.text


def test_every_output_says_what_made_it(place: Workplace) -> None:
    assert check_made_by(place.folder) >= {
        "prepare_applied", "predict", "stitch", "evaluate", "details",
    }  # fmt: skip


def test_by_hand(place: Workplace) -> None:
    """The same stage from a config file, without the workflow; unknown names are one line."""
    import subprocess
    import sys

    root = Path(__file__).resolve().parents[2]
    words = ["--output", "out", "--config", "out/config.yaml", "--dataset", "new", "--model"]
    for model, code, said in (("a@src", 0, ""), ("b@src", 2, "no model 'b@src'; there are: a@src")):
        done = subprocess.run(
            [sys.executable, str(root / "scripts" / "prepare_applied.py"), *words, model],
            cwd=place.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert said in done.stderr
