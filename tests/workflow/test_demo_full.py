"""Checks what the long demo promises on the results of a finished `make demo-full`.

`UNET_DEMO_FULL_RESULTS` is its output folder; without it the tests are skipped.
"""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import pytest

RESULTS = Path(os.environ.get("UNET_DEMO_FULL_RESULTS", ""))
pytestmark = pytest.mark.skipif(
    not os.environ.get("UNET_DEMO_FULL_RESULTS"),
    reason="UNET_DEMO_FULL_RESULTS does not name the results of a `make demo-full`",
)

# Dataset -> the sections that its page must have.
SECTIONS = {
    "nuclei": ("scores", "groups", "objects", "thresholds", "curve", "audit", "training", "images"),
    "new-nuclei": ("scores", "quality", "images"),
    "phase": ("quality",),
    "membranes": ("scores", "confusion", "thresholds", "audit", "training", "images"),
}


def page(dataset: str) -> str:
    return (RESULTS / dataset / "report.html").read_text(encoding="utf-8")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize("dataset", SECTIONS)
def test_every_section_is_on_the_page(dataset: str) -> None:
    found = set(re.findall(r'<section id="([a-z-]+)"', page(dataset)))
    assert set(SECTIONS[dataset]) <= found


def test_other_tools_stand_beside_the_models() -> None:
    scored = [row for row in rows(RESULTS / "nuclei" / "report.csv") if row["metric"] == "ap_0.50"]
    means = {row["model"]: float(row["mean"]) for row in scored}
    assert set(means) == {"unet2015", "unet-border", "otsu-watershed", "otsu-pieces"}
    assert max(means["unet2015"], means["unet-border"]) > means["otsu-pieces"] > 0.1
    assert "otsu-pieces: no mask for 1 of 24 test images" in page("nuclei")


def test_the_audit_finds_the_exchanged_labels() -> None:
    mistakes = rows(RESULTS.parent / f"{RESULTS.name}-data" / "nuclei" / "mistakes.csv")
    exchanged = {row["image"] for row in mistakes if row["kind"] == "exchanged"}
    assert len(exchanged) == 2
    doubts = rows(RESULTS / "nuclei" / "unet-border" / "audit.csv")
    assert exchanged <= {row["image"] for row in doubts if row["kind"] == "exchanged"}
    one, other = sorted(exchanged)
    assert f"check the labels of {one} and {other}: probably exchanged" in page("nuclei")


def test_another_kind_of_image_is_doubted() -> None:
    drift = {
        dataset: [
            float(row["drift"])
            for row in rows(RESULTS / dataset / "unet-border@nuclei/quality.csv")
        ]
        for dataset in ("new-nuclei", "phase")
    }
    assert min(drift["phase"]) > 1
    assert min(drift["phase"]) > max(sorted(drift["new-nuclei"])[:6])


def test_every_page_is_self_contained() -> None:
    pages = [RESULTS / "report.html", *RESULTS.glob("*/report.html")]
    assert len(pages) == 5
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert 'src="http' not in text
        assert 'href="http' not in text
    json.loads((RESULTS / "nuclei" / "compared" / "otsu-pieces" / "masks.json").read_text())
