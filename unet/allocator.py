"""How stages take memory from the system.

Those that compute with PyTorch on a processor: glibc hands every block of some megabytes back to
the system when it is freed and asks for it again at the next layer, and each time the system fills
all of its pages with zeros: with the tensors of a U-Net that is a third and more of the time
(`benchmarks/allocator.py`). Kept by the process, in pages of 2 MB where the system has them, the
same blocks go round, and its size stays what the largest batch needs.

Those that work through images in blocks by threads: each thread has a heap of its own, which keeps
what is free in it from all others. With one heap a process needs what its blocks need.

glibc reads its settings when a process starts, so the process starts once more.
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
    """The variables to add to an environment: none where ``UNET_ALLOCATOR`` is there already (its
    value 0 keeps the system's ways), none that the user has set otherwise."""
    if MARK in environment:
        return {}
    new = {name: value for name, value in settings.items() if name not in environment}
    return {MARK: "1", **new}


def restart(settings: Mapping[str, str] = KEPT) -> None:
    """Starts this process once more, as the same process, with the settings that help it.

    Returns only where nothing is to be done: under another C library than glibc, or done already.
    To be called first of all, from a script and never from a library.
    """
    new = settings_for(os.environ, settings)
    if not new or platform.libc_ver()[0] != "glibc":
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **new})
