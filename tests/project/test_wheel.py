"""The contents of the wheel that `make build` made; `UNET_WHEEL` is its path."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from unet import __version__

ROOT = Path(__file__).resolve().parents[2]
WHEEL = os.environ.get("UNET_WHEEL", "")
pytestmark = pytest.mark.skipif(not WHEEL, reason="UNET_WHEEL names no wheel of a `make build`")


def test_all_of_the_package_and_nothing_else() -> None:
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "unet").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    with zipfile.ZipFile(ROOT / WHEEL) as wheel:
        files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert files == package
    # Files that are not modules are easily forgotten.
    assert {"unet/py.typed", "unet/config/stage_keys.json"} <= files
    assert any(name.startswith("unet/report/templates/") for name in files)


def test_its_metadata() -> None:
    with zipfile.ZipFile(ROOT / WHEEL) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        about = Parser().parsestr(wheel.read(name).decode())
        assert f"{name.rpartition('/')[0]}/licenses/LICENSE" in wheel.namelist()
    assert (about["Name"], about["Version"]) == ("unet-pipeline", __version__)
    assert about["License-Expression"] == "MIT"


def test_it_runs(tmp_path: Path) -> None:
    with zipfile.ZipFile(ROOT / WHEEL) as wheel:
        wheel.extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "unet", "--version"], cwd=tmp_path, capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout.splitlines()[:1] == [f"unet-pipeline {__version__}"], done.stderr
