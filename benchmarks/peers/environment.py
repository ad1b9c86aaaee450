"""The peers' virtual environment, separate from the pipeline's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
DEFAULT = Path(".venv-peers")


def python_of(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def ensure(folder: Path) -> Path:
    """Makes the environment, unless it exists with these requirements; returns its interpreter.

    torch is installed first, separately, so that packages that need any torch use the version that
    the pipeline is tested with.
    """
    python, stamp = python_of(folder), folder / ".requirements"
    wanted = REQUIREMENTS.read_text()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing the peers into {folder} (some minutes) ...", flush=True)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, torch_line(wanted)], check=True)
    subprocess.run([*pip, "--requirement", str(REQUIREMENTS)], check=True)
    stamp.write_text(wanted)
    return python


def torch_line(requirements: str) -> str:
    """The requirement of torch itself."""
    for line in requirements.splitlines():
        if line.startswith("torch=="):
            return line.strip()
    raise ValueError(f"{REQUIREMENTS.name}: pins no torch")
