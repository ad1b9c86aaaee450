"""The contents of the wheel that `make build` made; `UNET_WHEEL` is its path."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import venv
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

from unet import __version__

ROOT = Path(__file__).resolve().parents[2]
INSIDE = "unet/_pipeline/"
WHEEL = os.environ.get("UNET_WHEEL", "")
pytestmark = pytest.mark.skipif(not WHEEL, reason="UNET_WHEEL names no wheel of a `make build`")


def files_of(folder: str) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def test_all_of_the_package_and_the_workflow_and_nothing_else() -> None:
    package = files_of("unet")
    workflow = {*files_of("workflow"), *files_of("scripts"), "config/config.yaml"}
    with zipfile.ZipFile(ROOT / WHEEL) as wheel:
        files = {name for name in wheel.namelist() if ".dist-info/" not in name}
        for name in sorted(workflow):
            assert wheel.read(INSIDE + name) == (ROOT / name).read_bytes(), name
        mode = wheel.getinfo(f"{INSIDE}workflow/profiles/cluster-generic/status.sh").external_attr
    assert files == package | {INSIDE + name for name in workflow}
    assert mode >> 16 & 0o100, "not executable"
    # Files that are not modules are easily forgotten.
    assert {"unet/py.typed", "unet/config/stage_keys.json"} <= files
    assert any(name.startswith("unet/report/templates/") for name in files)
    for name in ("Snakefile", "schemas/config.schema.yaml", "profiles/default/config.yaml"):
        assert f"{INSIDE}workflow/{name}" in files


def test_its_metadata() -> None:
    with zipfile.ZipFile(ROOT / WHEEL) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        about = Parser().parsestr(wheel.read(name).decode())
        assert f"{name.rpartition('/')[0]}/licenses/LICENSE" in wheel.namelist()
    assert (about["Name"], about["Version"]) == ("unet-pipeline", __version__)
    assert about["License-Expression"] == "MIT"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own with the wheel and, from the tests' environment, what it needs."""
    folder = tmp_path_factory.mktemp("python")
    venv.create(folder, symlinks=True, with_pip=False)
    site = next((folder / "lib").glob("python*/site-packages"))
    known = sysconfig.get_path("purelib")
    # .pth files in folders that are listed here are not read, such as those of editable installs.
    (site / "known.pth").write_text(known + "\n")
    interpreter = folder / "bin" / "python"
    done = call([interpreter, "-c", "import unet"], folder)
    if done.returncode == 0:
        pytest.skip("the package is installed as a copy, so it cannot be left out")
    words = ["install", "--no-deps", "--no-index", "--quiet", ROOT / WHEEL]
    done = call([interpreter, "-m", "pip", *words, "--ignore-installed"], folder)
    assert done.returncode == 0, done.stderr
    return interpreter


def call(words: list[Any], folder: Path) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        list(map(str, words)), cwd=folder, env=kept, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_it_runs(python: Path, tmp_path: Path) -> None:
    unet = python.with_name("unet")
    done = call([unet, "--version"], tmp_path)
    assert done.stdout.splitlines()[:1] == [f"unet-pipeline {__version__}"], done.stderr
    done = call([unet, "--help"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert " run " in done.stdout
    where = Path(call([unet, "run", "--where"], tmp_path).stdout.strip())
    assert where.is_relative_to(python.parents[1])
    assert (where / "Snakefile").is_file()


@pytest.mark.workflow
def test_the_small_run_without_a_clone(python: Path, tmp_path: Path) -> None:
    """From another folder, with nothing of the clone but the config's content."""
    shutil.copy(ROOT / ".test" / "config" / "config.yaml", tmp_path / "small.yaml")
    done = call([python.with_name("unet"), "run", "small.yaml"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "Report: results/report.html"
    assert (tmp_path / "results" / "nuclei" / "unet-border" / "metrics.csv").is_file()
    logs = [path.read_text() for path in (tmp_path / ".snakemake" / "log").iterdir()]
    for part in ("unet", "workflow", "scripts"):
        assert not any(f"{ROOT}/{part}/" in text for text in logs), part
    # Plain Snakemake works with the same files.
    where = call([python.with_name("unet"), "run", "--where"], tmp_path).stdout.strip()
    words = ["--snakefile", f"{where}/Snakefile", "--configfile", "small.yaml", "--dry-run"]
    done = call([python, "-m", "snakemake", *words], tmp_path)
    assert "Nothing to be done" in done.stdout + done.stderr
