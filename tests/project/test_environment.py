"""environment.yml, workflow/envs/unet.yaml, pyproject.toml and requirements.lock agree."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
# Names on conda-forge and bioconda that differ from those on PyPI.
CONDA_NAMES = {
    "pytorch": "torch",
    "matplotlib-base": "matplotlib",
    "snakemake-minimal": "snakemake",
}


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(texts: list[str]) -> dict[str, Requirement]:
    found = {canonicalize_name(Requirement(text).name): Requirement(text) for text in texts}
    assert len(found) == len(texts)
    return found


RUNTIME = requirements(pyproject()["dependencies"])
TESTING = requirements(pyproject()["optional-dependencies"]["test"])
# What users choose to install; imported where it is used.
OPTIONAL = {
    name: requirement
    for extra in (
        "cluster",
        "cluster-generic",
        "docs",
        "engines",
        "formats",
        "keras",
        "slurm",
        "zoo",
    )
    for name, requirement in requirements(pyproject()["optional-dependencies"][extra]).items()
}
# Not in the lock: it would make every setup half as large again. `make view-test` installs it.
DESKTOP = requirements(pyproject()["optional-dependencies"]["view"])

REQUIRED = Requirement(f"python{pyproject()['requires-python']}").specifier
# The versions that the project supports.
PYTHONS = [f"3.{minor}" for minor in range(8, 30) if f"3.{minor}" in REQUIRED]


def lock_lines() -> list[str]:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def lock(python: str) -> dict[str, Version]:
    """Name -> locked version, for a version of Python."""
    found = {}
    for requirement in map(Requirement, lock_lines()):
        marker = requirement.marker
        if marker is None or marker.evaluate({"python_version": python}):
            name = canonicalize_name(requirement.name)
            assert name not in found, f"{name} twice for Python {python}"
            found[name] = Version(str(requirement.specifier).removeprefix("=="))
    return found


def conda(path: str) -> dict[str, str]:
    """PyPI name -> version of a conda environment."""
    value = yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
    found = {}
    for text in value["dependencies"]:
        match = re.fullmatch(r"([a-z0-9-]+) =([0-9.]+)", text)
        assert match, f"{path}: {text!r}; write `name =version`"
        name, version = match.groups()
        found[canonicalize_name(CONDA_NAMES.get(name, name))] = version
    assert len(found) == len(value["dependencies"])
    return found


def test_the_lock_is_plain() -> None:
    for line in lock_lines():
        # No hash, no local version (+cpu), no index: pip takes the build that fits.
        marker = r"(; python_version (<|>=) \"3\.[0-9]+\")?"
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*" + marker, line), line
    names = {name for python in PYTHONS for name in lock(python)}
    assert not [name for name in names if re.match(r"nvidia|cuda|triton|cupy", name)]


@pytest.mark.parametrize("name", sorted({**RUNTIME, **OPTIONAL, **TESTING}))
def test_the_lock_fits_the_ranges(name: str) -> None:
    wanted = {**RUNTIME, **OPTIONAL, **TESTING}[name]
    for python in PYTHONS:
        locked = lock(python)
        assert name in locked, f"requirements.lock: {name} of pyproject.toml is missing"
        assert locked[name] in wanted.specifier
    # Every range needs a lowest version.
    assert any(spec.operator in (">=", "~=", "==") for spec in wanted.specifier), name


@pytest.mark.parametrize("path", ["environment.yml", "workflow/envs/unet.yaml"])
def test_conda_environments(path: str) -> None:
    found = conda(path)
    python = found.pop("python")
    assert set(found) == set(RUNTIME)
    assert {name: Version(v) for name, v in found.items()} == {n: lock(python)[n] for n in found}
    assert python in PYTHONS


def test_every_python_is_named() -> None:
    assert PYTHONS == ["3.11", "3.12", "3.13"]
    for path in ("README.md", "Makefile", ".ci/run"):
        assert "Python 3.11, 3.12 or 3.13" in (ROOT / path).read_text(encoding="utf-8"), path


def test_the_two_conda_environments_are_the_same() -> None:
    environment, jobs = (
        yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
        for path in ("environment.yml", "workflow/envs/unet.yaml")
    )
    assert environment.pop("name") == "unet"
    assert environment == jobs


def imported(folder: str) -> set[str]:
    found: set[str] = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                found.add(node.module.split(".")[0])
    own = {"unet", "tests", "conftest", "scripts", "benchmarks", "docs", "architectures"}
    return found - set(sys.stdlib_module_names) - own


IMPORT_NAMES = {
    "skimage": "scikit-image", "yaml": "pyyaml", "cc3d": "connected-components-3d",
    "nrrd": "pynrrd",
    "PIL": "pillow", "git": "gitpython", "sklearn": "scikit-learn", "ctc_metrics": "py-ctcmetrics",
    # bioimageio.core, for tests, has the same name above it and brings this one.
    "bioimageio": "bioimageio-spec",
}  # fmt: skip


# What Snakemake and pytest need themselves comes with them.
THEIRS = {"packaging", "snakemake-interface-logger-plugins"}


def test_what_is_imported_is_declared() -> None:
    for folder, declared in (
        ("unet", {*RUNTIME, *OPTIONAL, *DESKTOP}),
        ("scripts", set(RUNTIME)),
        ("tests", {*RUNTIME, *OPTIONAL, *DESKTOP, *TESTING, *THEIRS}),
    ):
        names = {canonicalize_name(IMPORT_NAMES.get(n, n)) for n in imported(folder)}
        assert names <= declared, f"{folder}: {sorted(names - declared)} not in pyproject.toml"


def test_the_entry_of_the_workflow_catalog() -> None:
    text = (ROOT / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8")
    usage = yaml.safe_load(text)["usage"]
    # The keys that the catalog reads, at the level where it expects them.
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    deployment = usage["software-stack-deployment"]
    assert set(deployment) == {"conda", "apptainer", "apptainer+conda"}
    rules = "".join(path.read_text() for path in (ROOT / "workflow").rglob("*.smk"))
    assert usage["report"] == ("report(" in rules)
    # Each rule that has a shell command names its environment.
    assert deployment["conda"] == (rules.count("conda:") == rules.count("shell:"))
    assert deployment["apptainer"] == bool(re.search(r"container(ized)?:", rules))
    # Deploying a workflow copies `profiles`.
    assert (ROOT / "profiles").resolve() == ROOT / "workflow" / "profiles"
