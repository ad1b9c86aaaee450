"""The notebooks in docs/notebooks: stored without outputs, and run in CI (`make notebooks`)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_there_are_two() -> None:
    assert [path.name for path in NOTEBOOKS] == ["predict.ipynb", "report.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    notebook = read(path)
    for cell in notebook["cells"]:
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            compile("".join(cell["source"]), str(path), "exec")
    assert notebook["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path) -> None:
    text = "".join("".join(cell["source"]) for cell in read(path)["cells"])
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    assert links
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_they_run_after_the_small_run() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert lines.index("make notebooks") == lines.index("make small-run") + 1
    rule = re.search(
        r"^notebooks: setup\n(?:\t.*\n)+", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M
    )
    assert rule is not None
    assert "--nbmake docs/notebooks" in rule[0]
    assert "run make small-run first" in rule[0]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_without_a_run_the_first_cell_says_what_to_do(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNET_RESULTS", str(tmp_path))
    first = next(cell for cell in read(path)["cells"] if cell["cell_type"] == "code")
    with pytest.raises(SystemExit, match="run `make small-run`, or set UNET_RESULTS"):
        exec("".join(first["source"]), {})
