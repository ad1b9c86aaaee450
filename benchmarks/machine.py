"""Describes the machine that a benchmark ran on; every result file contains it."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """The processor's name, its cores, and the cores that this process may use."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "python": platform.python_version(),
    }


def torch_machine() -> dict[str, Any]:
    """Like `machine`, plus torch, its threads and the GPU, if there is one."""
    import torch

    found = {**machine(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def processor() -> str:
    """The first processor's model name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [
            x for x in info.read_text(encoding="utf-8").splitlines() if x.startswith("model name")
        ]
        if lines:
            return lines[0].split(":", 1)[1].strip()
    return platform.processor()


def usable_cores() -> int:
    """Number of cores that this process may use: in a batch job, fewer than the machine has."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def load() -> list[float] | None:
    """The system's load over 1, 5 and 15 minutes, which shows other work on the machine."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except OSError:
        return None


def commit_of(tree: Path) -> str:
    """The short hash of a checkout's commit."""
    command = ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def versions(*packages: str) -> dict[str, str | None]:
    """Installed versions by package; None for one that is not installed."""
    found: dict[str, str | None] = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
