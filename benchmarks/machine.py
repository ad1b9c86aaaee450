"""What a benchmark ran on, so that no number stands without its machine."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """The processor, as the system names it, its cores and those that this process may use."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "python": platform.python_version(),
    }


def torch_machine() -> dict[str, Any]:
    """As `machine`, with torch, its threads and the GPU, if there is one."""
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
    """Cores that this process is allowed to run on: fewer than there are in a batch job."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def load() -> list[float] | None:
    """The system's load over 1, 5 and 15 minutes: what else kept the machine busy."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except OSError:
        return None


def versions(*packages: str) -> dict[str, str | None]:
    """Installed versions by package; None for one that is not installed."""
    found: dict[str, str | None] = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
