"""A run that downloads its dataset: from the archive to the report, and what runs again."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.web_server import web_server
from tests.workflow.test_workflow import CONFIG as SMALL
from tests.workflow.test_workflow import Workplace
from unet.data.synthetic import write_dataset
from unet.files import read_json
from unet.paths import Paths

pytestmark = pytest.mark.workflow


def archive(scratch: Path) -> bytes:
    """Like that of ISBI 2012: two stacks of sections."""
    write_dataset(scratch, "membranes", 3, 6, (96, 96), 0.004)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, folder in (("train-volume", "images"), ("train-labels", "labels")):
            pages = [tifffile.imread(path) for path in sorted((scratch / folder).glob("*.tif"))]
            stack = io.BytesIO()
            tifffile.imwrite(stack, np.stack(pages), photometric="minisblack")
            made.writestr(f"ISBI-2012-challenge/{name}.tif", stack.getvalue())
    return buffer.getvalue()


def test_from_an_archive_to_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    place, paths = Workplace(tmp_path), Paths(tmp_path / "out")
    with web_server() as web:
        web.files["isbi.zip"] = archive(tmp_path / "scratch")
        config: dict[str, Any] = {
            **SMALL,
            "data_root": "data",
            "datasets": {
                "em": {
                    "download": "isbi2012", "download_from": f"{web.url}isbi.zip",
                    "images": "**/train-volume.tif", "labels": "**/train-labels.tif",
                    "layout": "stack", "classes": {"membrane": 0, "cell": 255},
                    "split": {"test": 0.34, "val": 0.34}, "models": ["a"],
                }
            },
        }  # fmt: skip
        done = place.snakemake("--quiet", "rules", "--cores", "2", config=config)
        assert done.returncode == 0, done.stdout + done.stderr
        assert [path for path, _ in web.asked] == ["isbi.zip"]
    assert paths.dataset_report_html("em").is_file()
    assert (tmp_path / "data" / "isbi2012" / "ISBI-2012-challenge" / "train-volume.tif").is_file()
    made = read_json(paths.download_done("em"))
    assert made["made_by"]["stage"] == "download"
    assert set(made["images"]) == {"ISBI-2012-challenge.zip"}

    # The server is gone; nothing needs it, nor another address.
    moved = {**config["datasets"]["em"], "download_from": "elsewhere.zip"}
    assert place.wanted({**config, "datasets": {"em": moved}}) == set()
