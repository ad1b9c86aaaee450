"""A learning curve as a user runs it: the trainings, the report, and what runs again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workflow.test_workflow import CONFIG as SMALL
from tests.workflow.test_workflow import Workplace
from unet.data.records import ids_of, read_splits
from unet.data.subsets import subset_of
from unet.paths import Paths

pytestmark = pytest.mark.workflow

CONFIG: dict[str, Any] = {
    **SMALL,
    "datasets": {
        "sem": {
            **SMALL["datasets"]["sem"],
            "synthetic": {"kind": "membranes", "images": 6, "size": 96},
            "split": {"test": 0.17, "val": 0.2},
            "evaluate": {"metrics": ["pixel"]},
        },
    },
    "models": {"a": {**SMALL["models"]["a"], "learning_curve": [0.25, 0.5]}},
}
SHARES = {"a-25pct": 0.25, "a-50pct": 0.5, "a": 1.0}


def test_a_learning_curve(tmp_path: Path) -> None:
    place, paths = Workplace(tmp_path), Paths(tmp_path / "out")
    wanted = place.wanted(CONFIG)
    for model in SHARES:
        jobs = {f"{stage} sem {model} 0" for stage in ("train", "predict", "stitch")}
        assert jobs | {f"evaluate sem {model}"} <= wanted
    done = place.snakemake("--cores", "2", "--quiet", "rules", config=CONFIG)
    assert done.returncode == 0, done.stdout + done.stderr

    train = ids_of(read_splits(paths.splits("sem")), 0, "train")
    for model, share in SHARES.items():
        number = len(subset_of(train, {}, share, 0, 0))
        log = paths.log("train", "sem", model, "0").read_text()
        assert f"training on {number} images, validating on 1" in log
    assert len(train) == 4

    page = paths.dataset_report_html("sem").read_text()
    section = re.search(r'<section id="curve">.*?</section>', page, re.DOTALL)
    assert section is not None
    assert re.findall(r"%</td><td>([\d.]+)</td>", section[0]) == ["1", "2", "4"]
    assert "Can&#39;t tell" in section[0]
    assert "took" in section[0]
    table = paths.dataset_report_csv("sem").read_text() + paths.report_csv.read_text()
    assert "pct" not in table
    assert "a-25pct" not in paths.report_html.read_text()

    # The run's own config is the same run; a share less reruns only the report.
    assert place.wanted(CONFIG) == set()
    written = yaml.safe_load(paths.config.read_text())
    assert list(written["models"]) == ["a"]
    assert place.wanted(written) == set()
    written["models"]["a"]["learning_curve"] = [0.5]
    assert place.wanted(written) == {"report_dataset sem", "report"}
