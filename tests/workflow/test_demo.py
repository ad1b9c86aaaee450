"""Checks the scores that the demo promises on the results of a finished `make demo`.

`UNET_DEMO_RESULTS` is its output folder; without it the tests are skipped.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

RESULTS = os.environ.get("UNET_DEMO_RESULTS", "")
pytestmark = pytest.mark.skipif(
    not RESULTS, reason="UNET_DEMO_RESULTS does not name the results of a `make demo`"
)

# Dataset -> the class whose IoU is promised.
CLASSES = {"membranes": "membrane", "nuclei": "foreground", "phase": "foreground"}


def _rows() -> list[dict[str, str]]:
    with (Path(RESULTS) / "report.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize("dataset", CLASSES)
def test_the_better_model_reaches_an_iou_of_085(dataset: str) -> None:
    scores = {
        row["model"]: float(row["mean"])
        for row in _rows()
        if (row["dataset"], row["metric"], row["class"]) == (dataset, "iou", CLASSES[dataset])
    }
    assert len(scores) == 2
    assert max(scores.values()) >= 0.85


@pytest.mark.parametrize("dataset", ["nuclei", "phase"])
def test_most_objects_are_found(dataset: str) -> None:
    found = [
        float(row["mean"])
        for row in _rows()
        if (row["dataset"], row["metric"]) == (dataset, "ap_0.50")
    ]
    assert len(found) == 2
    assert max(found) >= 0.6


def test_every_report_is_there_and_self_contained() -> None:
    for path in [Path(RESULTS) / "report.html", *Path(RESULTS).glob("*/report.html")]:
        text = path.read_text()
        assert "<table" in text
        assert 'src="http' not in text
        assert 'href="http' not in text
    assert len(list(Path(RESULTS).glob("*/report.html"))) == 3
