"""The layers of the package: imports run one way, light folders load no heavy libraries, and each
folder says what it is for."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = sorted(path.parent for path in (ROOT / "unet").rglob("__init__.py"))
HEAVY = {"torch", "dask", "zarr", "pandas", "numpy"}


def light_modules() -> list[str]:
    paths = [p for folder in ("config", "planning") for p in (ROOT / "unet" / folder).rglob("*.py")]
    names = (path.relative_to(ROOT).with_suffix("").parts for path in sorted(paths))
    return [".".join(parts).removesuffix(".__init__") for parts in names]


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )


def contracts(config: Path, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`lint-imports`, which `make lint` runs, on the package in that folder."""
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); "
        "from importlinter.cli import lint_imports_command; lint_imports_command()"
    )
    return subprocess.run(
        [sys.executable, "-P", "-c", code, str(folder), "--no-cache", "--config", str(config)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_imports_run_one_way() -> None:
    done = contracts(ROOT / "pyproject.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", done.stdout), done.stdout


def test_an_import_upwards_is_found(tmp_path: Path) -> None:
    """The contracts can fail: here config imports the report, and two modules each other."""
    for name, code in {
        "__init__": "", "report/__init__": "", "report/a": "", "config/__init__": "",
        "config/b": "from unet.report import a\nfrom unet.config import c\n",
        "config/c": "import torch\nfrom unet.config import b\n",
    }.items():  # fmt: skip
        path = tmp_path / "unet" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    # The small package has only two of the layers.
    text = re.sub(
        r"^layers = \[\n.*?^\]\n", 'layers = ["report", "config"]\n', text, flags=re.M | re.S
    )
    text = re.sub(
        r"(?s)\[\[tool\.importlinter\.contracts\]\]\nname = \"Within.*?(?=\n\[\[)", "", text
    )
    text = text.replace('"unet.planning"', '"unet.config.b"')
    text = re.sub(r"^ignore_imports = .*$", "", text, flags=re.M)
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    said = contracts(tmp_path / "pyproject.toml", tmp_path)
    assert said.returncode == 1, said.stdout + said.stderr
    broken = re.findall(r"^(.+) BROKEN$", said.stdout, re.M)
    assert len(broken) == 3, said.stdout
    assert "unet.config is not allowed to import unet.report" in said.stdout


@pytest.mark.parametrize("modules", [["unet.config.load"], light_modules()], ids=["load", "all"])
def test_config_and_planning_are_light(modules: list[str]) -> None:
    """Imported in a process of their own, as a dry run does."""
    assert modules
    done = python(f"import sys, {', '.join(modules)}; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert HEAVY & set(done.stdout.split()) == set()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_folder_says_what_it_is_for(folder: Path) -> None:
    where = (folder / "__init__.py").relative_to(ROOT)
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    assert text, f"{where}: write a docstring: what comes in, what goes out, where to start reading"
    for word in (r"\bIn: ", r"\bOut: ", r"\bStart with\b"):
        assert re.search(word, text), f"{where}: the docstring has no {word!r}"
    # The files that it mentions exist.
    for name in re.findall(r"`([a-z0-9_/]+\.py|[a-z]+/)`", text):
        assert (folder / name).exists() or (ROOT / name).exists(), f"{where}: {name} is missing"
