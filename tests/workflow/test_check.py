"""The target ``check``: it makes the pages, reruns nothing else, and fails if a run must stop."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.workflow.test_workflow import CONFIG, Workplace
from unet.cli.check_work import write_checked
from unet.config.load import load
from unet.config.run import merge
from unet.paths import Paths
from unet.report.checked import read_checked

pytestmark = pytest.mark.workflow


def test_the_target_check(finished_run: Path, tmp_path: Path) -> None:
    place = Workplace(Path(shutil.copytree(finished_run, tmp_path / "run", symlinks=True)))
    paths = Paths(place.folder / "out")
    done = place.snakemake("--quiet", "all", "--cores", "2", "check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 usable" in done.stdout
    for dataset in ("sem", "own"):
        assert "</html>" in paths.check_html(dataset).read_text(encoding="utf-8")
        found = json.loads(paths.check_json(dataset).read_text(encoding="utf-8"))
        assert found["made_by"]["stage"] == "check"
        assert f"{dataset}/manifest.csv" in found["made_by"]["inputs"]
        assert found["survey"]["splits"]
    # The results do not depend on it.
    assert place.wanted() == set()
    # It is made again only for another config or other images; only what joins the checks runs.
    assert place.snakemake("--dry-run", "check").stdout.count("check_dataset") == 0
    edited = merge(CONFIG, {"train": {"epochs": 3}})
    assert "check_dataset" in place.snakemake("--dry-run", "check", config=edited).stdout
    # What `unet check` writes to the same place is made again, without a warning.
    write_checked(paths, load(CONFIG), read_checked(paths.check_json("own")))
    done = place.snakemake("--dry-run", "check")
    planned = done.stdout + done.stderr
    assert "check_dataset  own " in planned
    assert "check_dataset  sem " not in planned
    assert "early version" not in planned

    # No label has an object: the page is whole, and the target fails in one line.
    for path in (place.folder / "raw" / "labels").iterdir():
        tifffile.imwrite(path, np.zeros((96, 96), np.uint16))
    for _ in range(2):
        done = place.snakemake("--quiet", "rules", "--cores", "2", "check")
        said = done.stdout + done.stderr
        assert done.returncode == 1, said
        assert "Job check all: error: own: " in said
        assert "Traceback" not in said
        assert "</html>" in paths.check_html("own").read_text(encoding="utf-8")
