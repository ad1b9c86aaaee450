"""The section about trainings from trained weights: the start beside the result."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest

from tests.report.test_report import assert_self_contained, make_results
from unet.config.sections import ReportSection
from unet.config.stage_settings import ReportSettings
from unet.errors import UserError
from unet.files import write_json
from unet.paths import Paths
from unet.report.dataset_page import report_dataset

ABOUT: dict[str, Any] = {
    "layers": {"taken": ["down.0.convs.0"], "adapted": ["first"], "new": ["heads.0"],
               "left_out": ["heads.0"]},
    "validation_score": {"start": 0.5, "best": 0.7, "last": 0.6},
    "warnings": [],
}  # fmt: skip


def scored(paths: Paths, model: str, value: float) -> None:
    """Gives each test image about this score."""
    path = paths.metrics("d", model)
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    for number, row in enumerate(rows):
        if row["metric"] == "ap_0.50":
            # The gain varies from image to image, or there would be no interval.
            row["value"] = f"{value * (1 + 0.005 * number)}"
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def section_of(folder: Path, about: Any = ABOUT, before: float = 0.4, after: float = 0.6) -> str:
    paths = Paths(folder)
    make_results(paths, "d", ["net", "net-start"], "instances", images=12)
    scored(paths, "net", after)
    scored(paths, "net-start", before)
    if about is not None:
        write_json(paths.start("d", "net", 0), about)
    settings = ReportSettings.made(
        report=ReportSection(bootstrap=100), task="instances", models=("net", "net-start"),
        folds=(0, 1), class_names=("ground", "cell"), seed=0, starts={"net": "net-start"},
    )  # fmt: skip
    report_dataset(paths, "d", settings)
    page = paths.dataset_report_html("d").read_text(encoding="utf-8")
    assert_self_contained(page)
    found = re.search(r'<section id="start">.*?</section>', page, re.DOTALL)
    assert found is not None
    assert "nan" not in found[0].lower()
    return found[0]


def test_a_training_that_improved_its_start(tmp_path: Path) -> None:
    part = section_of(tmp_path)
    assert "net is better than its start: AP@0.5" in part
    assert re.search(r"difference 0\.\d+, 95 % interval 0\.\d+ to 0\.\d+; 12 images", part)
    assert "Worse." not in part
    assert "ended below" not in part
    assert "<td>0.500</td><td>0.700</td><td>0.600</td>" in part
    assert "New, with random weights: heads.0." in part
    assert "Adapted to the number of channels: first." in part


def test_a_training_that_made_it_worse(tmp_path: Path) -> None:
    scores = {"validation_score": {"start": 0.8, "best": 0.9, "last": 0.6}}
    part = section_of(tmp_path, {**ABOUT, **scores}, before=0.7, after=0.5)
    assert "<strong>Worse.</strong> net is worse than its start" in part
    assert "ended below the start" in part


def test_no_epoch_was_better(tmp_path: Path) -> None:
    about = {**ABOUT, "validation_score": {"start": 0.8, "best": 0.7, "last": 0.6}}
    part = section_of(tmp_path / "taken", about)
    assert "no epoch was better, so the start&#39;s weights were kept" in part
    assert "ended below" not in part
    part = section_of(tmp_path / "random", {**about, "random_outputs": True})
    assert "no epoch was better than a random last layer" in part
    assert "were kept" not in part


def test_no_difference(tmp_path: Path) -> None:
    part = section_of(tmp_path, before=0.5, after=0.5)
    assert "Worse." not in part
    assert "No clear difference" in part or "cannot be compared" in part


def test_files_that_are_missing_or_damaged(tmp_path: Path) -> None:
    part = section_of(tmp_path / "missing", None)
    assert "layers have the weights" not in part
    with pytest.raises(UserError, match=r"start\.json: damaged"):
        section_of(tmp_path / "damaged", {"layers": {}})
