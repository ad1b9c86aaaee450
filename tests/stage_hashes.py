"""Writes ``stage_hashes.json``: the version of each stage and a hash of its code.

``make stage-hashes`` calls it. Before that, decide whether the stage's version in
``unet/versions.py`` must be raised.
"""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path
from typing import Any

from unet.versions import STAGES

ROOT = Path(__file__).resolve().parent.parent
STORED = Path(__file__).with_suffix(".json")
# These modules make the stages' settings: their changes show in the settings, which Snakemake
# compares. `unet` itself contains the release number, which changes no result.
EXCLUDED = {"unet"} | {
    f"unet.{name}"
    for name in (
        "errors", "paths", "versions", "cli.commands", "cli.main", "cli.stage", "planning.jobs",
        "planning.resources", "config.checks", "config.choices", "config.data_settings",
        "config.dataset_sections", "config.inactive", "config.load", "config.messages",
        "config.model_section", "config.prediction_sections", "config.recipes", "config.run",
        "config.section_base", "config.sections", "config.split_section", "config.stage_sections",
        "config.stage_settings", "config.tracked", "config.training_sections",
    )
}  # fmt: skip
# Script -> modules that only draw its results, so a change is no reason to compute them again.
DRAWING = {"train": {"unet.report", "unet.report.figures"}}


def file_of(module: str, root: Path = ROOT) -> Path | None:
    """The source file of a module of the package; None if there is no such module."""
    path = root.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def imports_of(tree: ast.AST, root: Path = ROOT) -> set[str]:
    """Modules of the package that the code imports anywhere, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            # What is imported from a module may be a module itself.
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "unet" and file_of(name, root) is not None:
                found.add(name)
    return found


def reachable(entry: Path, root: Path = ROOT) -> dict[str, Path]:
    """Module name -> source file of all modules that a script uses, except excluded ones."""
    found: dict[str, Path] = {}
    skipped = EXCLUDED | DRAWING.get(entry.stem, set())
    todo = [("", entry)]
    while todo:
        _, path = todo.pop()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for name in imports_of(tree, root):
            source = file_of(name, root)
            if name not in skipped and name not in found and source is not None:
                found[name] = source
                todo.append((name, source))
    return found


def plain(node: Any) -> Any:
    """A syntax tree without docstrings, positions and empty fields. It does not depend on the
    version of Python (later ones add fields), on formatting or on comments."""
    if isinstance(node, list):
        return [plain(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    values = {}
    for name in node._fields:
        value = getattr(node, name, None)
        if name == "body" and isinstance(value, list) and _is_text(value):
            value = value[1:]
        if value is not None and value != []:
            values[name] = plain(value)
    return [type(node).__name__, values]


def _is_text(body: list[Any]) -> bool:
    first = body[0] if body else None
    return (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )


def stage_hash(entry: Path, root: Path = ROOT) -> str:
    """sha256 of all code that a stage's script uses."""
    modules = reachable(entry, root)
    trees = {
        name: plain(ast.parse(path.read_text(encoding="utf-8"))) for name, path in modules.items()
    }
    trees["script"] = plain(ast.parse(entry.read_text(encoding="utf-8")))
    return hashlib.sha256(json.dumps(trees, sort_keys=True).encode()).hexdigest()


def current() -> dict[str, dict[str, Any]]:
    """stage -> version and sha256, for the current code."""
    return {
        stage: {"version": version, "sha256": stage_hash(ROOT / "scripts" / f"{stage}.py")}
        for stage, version in STAGES.items()
    }


if __name__ == "__main__":
    STORED.write_text(json.dumps(current(), indent=1) + "\n", encoding="utf-8")
