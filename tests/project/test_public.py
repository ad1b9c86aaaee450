"""The files that a public repository needs agree with the project and with each other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.project.test_environment import PYTHONS, pyproject
from unet import __version__
from unet.config.load import load_file

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def steps_of(path: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


def test_one_version() -> None:
    citation = yaml.safe_load(text_of("CITATION.cff"))
    assert citation["version"] == __version__
    assert json.loads(text_of(".release-please-manifest.json")) == {".": __version__}
    newest = re.search(r"^## \[(\d[^\]]*)\]", text_of("CHANGELOG.md"), re.M)
    assert newest is not None
    assert newest[1] == __version__, (
        f"CHANGELOG.md: give the lines of `Unreleased` the heading `## [{__version__}] - date`"
    )


def test_a_release_changes_every_place() -> None:
    """release-please looks for its mark in the files that its config names."""
    (package,) = json.loads(text_of("release-please-config.json"))["packages"].values()
    for name in package["extra-files"]:
        (line,) = re.findall(r"^.*x-release-please-version.*$", text_of(name), re.M)
        assert __version__ in line, name
    assert pyproject()["dynamic"] == ["version"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_what_can_be_run_here(path: Path) -> None:
    """Each command is a make target that .ci/run also calls; actions are pinned to a commit."""
    called = set(re.findall(r"\bmake ([a-z-]+)$", text_of(".ci/run"), re.M))
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.M))
    commands = [step["run"] for step in steps_of(path) if "run" in step]
    makes = {command.removeprefix("make ") for command in commands if command.startswith("make ")}
    assert makes
    assert makes <= called & targets
    others = [command for command in commands if not command.startswith("make ")]
    assert all(command.startswith("gh release upload ") for command in others), others
    uses = re.findall(r"uses: (.*)$", path.read_text(encoding="utf-8"), re.M)
    for use in uses:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+(\.\d+)*", use), use


def test_the_tests_run_on_every_python() -> None:
    jobs = yaml.safe_load(text_of(".github/workflows/ci.yml"))["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == PYTHONS
    prefix = "Programming Language :: Python :: 3."
    named = [c.removeprefix(prefix[:-2]) for c in pyproject()["classifiers"] if prefix in c]
    assert named == PYTHONS


def test_the_small_run_is_a_valid_config() -> None:
    config = load_file(ROOT / ".test" / "config" / "config.yaml")
    assert {dataset.task for dataset in config.datasets.values()} == {"semantic", "instances"}
    # It needs nothing but the clone.
    assert all(dataset.synthetic for dataset in config.datasets.values())


def test_the_container_takes_only_what_it_copies() -> None:
    kept = {line[1:] for line in text_of(".dockerignore").splitlines() if line.startswith("!")}
    copies = re.findall(r"^COPY (.*) \S+$", text_of("Dockerfile"), re.M)
    assert kept == {word for line in copies for word in line.split()}
