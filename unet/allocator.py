"""Memory allocator settings (glibc) for the stages.

Stages that compute with PyTorch on a CPU: by default glibc returns every freed block of a few
megabytes to the system and requests it again for the next layer. Each time the system fills all of
its pages with zeros. With the tensors of a U-Net this takes a third of the time or more
(`benchmarks/allocator.py`). With ``KEPT`` the process keeps freed blocks and reuses them, in pages
of 2 MB if the system has them. Its size stays at what the largest batch needs.

Stages that process images in blocks with threads: by default each thread has its own heap, and
memory that is free in one heap cannot be used by the other threads. With ``ONE_HEAP`` a process
takes only the memory that its blocks need.

glibc reads its settings when a process starts, so the process has to be restarted.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping

MARK = "UNET_ALLOCATOR"
ONE_HEAP = {"MALLOC_ARENA_MAX": "1"}
KEPT = ONE_HEAP | {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def settings_for(
    environment: Mapping[str, str], settings: Mapping[str, str] = KEPT
) -> dict[str, str]:
    """The variables to add to an environment: none if ``UNET_ALLOCATOR`` is already set (set it to
    0 to keep the system's defaults), and none that the user has set."""
    if MARK in environment:
        return {}
    new = {name: value for name, value in settings.items() if name not in environment}
    return {MARK: "1", **new}


def restart(settings: Mapping[str, str] = KEPT) -> None:
    """Restarts this process with the allocator settings, under the same process id.

    Returns only if there is nothing to do: the C library is not glibc, or the settings are already
    in effect. Call it before anything else, and only from a script, never from a library.
    """
    new = settings_for(os.environ, settings)
    if not new or platform.libc_ver()[0] != "glibc":
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **new})
