"""Masks of another tool in the workflow: from the folder to the report."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from tests.workflow.test_workflow import CONFIG, Workplace, table
from unet.config.run import merge
from unet.paths import Paths

AFTER = {"report_dataset own", "report"}


def with_masks(folder: str) -> dict[str, Any]:
    return merge(CONFIG, {"datasets": {"own": {"compare": {"shifted": folder}}}})


def test_masks_of_another_tool_in_a_run(finished_run: Path, tmp_path: Path) -> None:
    place = Workplace(shutil.copytree(finished_run, tmp_path / "run", symlinks=True))
    raw, paths = place.folder / "raw", Paths(place.folder / "out")
    (raw / "masks").mkdir()
    for path in (raw / "labels").glob("*.tif"):
        moved = np.roll(tifffile.imread(path), 1, axis=1)
        tifffile.imwrite(raw / "masks" / f"{path.stem}_cp_masks.tif", moved)
    assert place.wanted(with_masks("masks")) == {"compare own shifted", *AFTER}
    done = place.snakemake("--cores", "2", "--quiet", "rules", config=with_masks("masks"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert place.wanted(with_masks("masks")) == set()

    rows = table(paths.metrics("own", "compared/shifted"))
    tested = {row["image"] for row in table(paths.splits("own")) if row["part"] == "test"}
    assert {row["image"] for row in rows} == tested
    assert all(0 < float(r["value"]) < 1 for r in rows if r["metric"] == "iou")
    models = {row["model"] for row in table(paths.dataset_report_csv("own"))}
    assert models == {"a", "b", "shifted"}
    assert "masks from elsewhere" in paths.dataset_report_html("own").read_text(encoding="utf-8")
    assert "masks from elsewhere" in paths.report_html.read_text(encoding="utf-8")

    # The check counts the masks, and sees an edited one as a reason to look again.
    done = place.snakemake("--quiet", "all", "--cores", "2", "check", config=with_masks("masks"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(tested)} of {len(tested)} test images (.tif)" in done.stdout
    planned = place.snakemake("--dry-run", "check", config=with_masks("masks"))
    assert "check_dataset" not in planned.stdout

    # Elsewhere, the same files are the same masks; an edited one is not.
    (raw / "masks").rename(raw / "there")
    assert place.wanted(with_masks("there")) == set()
    edited = next((raw / "there").glob("*.tif"))
    tifffile.imwrite(edited, np.roll(tifffile.imread(edited), 1, axis=0))
    assert place.wanted(with_masks("there")) == {"compare own shifted", *AFTER}
    planned = place.snakemake("--dry-run", "check", config=with_masks("there"))
    assert "check_dataset  own " in planned.stdout + planned.stderr
