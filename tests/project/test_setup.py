"""`make setup` when pip cannot install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.workflow


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        ("numpy==2.4.6\n", "pip cannot reach its package index (no network, or a proxy that pip"),
        ("numpy=2.4.6\n", "pip: ERROR: Invalid requirement: 'numpy=2.4.6'"),
    ],
)
def test_an_error_of_pip_is_one_line(tmp_path: Path, lock: str, said: str) -> None:
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text(encoding="utf-8"))
    for name in ("pyproject.toml", "setup.py"):
        (tmp_path / name).touch()
    (tmp_path / "requirements.lock").write_text(lock)
    # As from a fresh shell: the tests may have been started by make.
    ours = ("PIP_", "MAKE", "MFLAGS")
    alone = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    # Nothing listens on this port.
    index = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(
        ["make", "setup", f"PYTHON={sys.executable}", "VENV=env"],
        cwd=tmp_path, env={**alone, **index, "PIP_RETRIES": "0"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    line, last = done.stderr.splitlines()
    assert line.startswith(f"error: {said}")
    assert line.endswith("full output: env/pip.log")
    assert last.startswith("make: ***")
    assert "ERROR" in (tmp_path / "env" / "pip.log").read_text()
    assert not (tmp_path / "env" / ".stamp").exists()
