"""Fine-tuning as a user runs it: one dataset's model starts from another's, and the report shows
the start beside the result."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workflow.test_workflow import CONFIG as SMALL
from tests.workflow.test_workflow import Workplace
from unet.config.run import merge
from unet.paths import Paths

pytestmark = pytest.mark.workflow

SEM = {
    **SMALL["datasets"]["sem"],
    "synthetic": {"kind": "membranes", "images": 4, "size": 96},
    "split": {"test": 0.25, "val": 0.25},
    "evaluate": {"metrics": ["pixel"]},
}
MODEL = SMALL["models"]["a"]
CONFIG: dict[str, Any] = {
    **SMALL,
    "datasets": {
        "old": {**SEM, "models": ["a"]},
        "new": {**SEM, "synthetic": {**SEM["synthetic"], "images": 5}, "models": ["a"],
                "train": {"from": "old/a"}},
    },
    "models": {"a": MODEL},
}  # fmt: skip


def test_a_fine_tuned_model(tmp_path: Path) -> None:
    place, paths = Workplace(tmp_path), Paths(tmp_path / "out")
    wanted = place.wanted(CONFIG)
    assert {"train old a 0", "train new a 0", "train new a-start 0"} <= wanted
    assert "audit new a-start" not in wanted
    done = place.snakemake("--cores", "2", "--quiet", "rules", config=CONFIG)
    assert done.returncode == 0, done.stdout + done.stderr

    rows = paths.history("new", "a", 0).read_text().splitlines()
    start = paths.history("new", "a-start", 0).read_text().splitlines()
    assert rows[1].startswith("0,0,")
    assert len(start) == 2
    # Both score the same start on the same images, before any step.
    assert rows[1].split(",")[4:6] == start[1].split(",")[4:6]
    about = json.loads(paths.start("new", "a", 0).read_text())
    assert about["layers"]["new"] == []
    assert about["layers"]["taken"]
    page = paths.dataset_report_html("new").read_text()
    section = re.search(r'<section id="start">.*?</section>', page, re.DOTALL)
    assert section is not None
    assert "a-start" in section[0]
    assert "nan" not in section[0].lower()
    assert "a-start" not in paths.report_html.read_text()
    assert "a-start" in paths.dataset_report_csv("new").read_text()

    # The run's own config is the same run. Another rate leaves the start as it is, and another
    # first training changes both.
    assert place.wanted(CONFIG) == set()
    written = yaml.safe_load(paths.config.read_text())
    assert list(written["models"]) == ["a"]
    assert place.wanted(written) == set()
    slower = place.wanted(merge(CONFIG, {"datasets": {"new": {"train": {"lr": 1e-5}}}}))
    assert "train new a 0" in slower
    assert not {"train new a-start 0", "train old a 0"} & slower
    first = place.wanted(merge(CONFIG, {"datasets": {"old": {"train": {"lr": 1e-5}}}}))
    assert {"train old a 0", "train new a 0", "train new a-start 0"} <= first

    # From the same weights in a file elsewhere, wherever it lies, until it changes.
    kept = tmp_path / "kept.pt"
    shutil.copyfile(paths.model("old", "a", 0), kept)
    of_file = merge(
        CONFIG,
        {
            "datasets": {"old": None, "new": {"train": {"from": "kept.pt"}}},
            "data_root": str(tmp_path),
        },
    )
    made = paths.model("new", "a", 0).relative_to(tmp_path)
    done = place.snakemake("--cores", "1", "--quiet", "rules", "--", str(made), config=of_file)
    assert done.returncode == 0, done.stdout + done.stderr
    again = paths.history("new", "a", 0).read_text().splitlines()
    assert again[1].split(",")[4:6] == start[1].split(",")[4:6]
    kept.rename(tmp_path / "moved.pt")
    moved = merge(of_file, {"datasets": {"new": {"train": {"from": "moved.pt"}}}})
    assert "train new a 0" not in place.wanted(moved)
    shutil.copyfile(paths.model("new", "a", 0), tmp_path / "moved.pt")
    assert "train new a 0" in place.wanted(moved)
