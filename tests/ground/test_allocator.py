"""A stage restarts itself with the allocator settings, as the same process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from unet import allocator

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import os, sys
before = os.environ.get("BEFORE", "")
os.environ["BEFORE"] = before + f"{os.getpid()} "
from unet import allocator
allocator.restart()
print(before, "/", os.getpid(), "/", *sys.argv[1:], "/", os.environ.get("MALLOC_ARENA_MAX"))
"""


def test_settings() -> None:
    new = allocator.settings_for({"HOME": "/"})
    assert new == {allocator.MARK: "1", **allocator.KEPT}
    # What the user has set stays, and nothing is added twice.
    assert "MALLOC_ARENA_MAX" not in allocator.settings_for({"MALLOC_ARENA_MAX": "8"})
    assert allocator.settings_for({allocator.MARK: "0"}) == {}
    assert allocator.settings_for(new) == {}


def started(**extra: str) -> list[str]:
    env = {k: v for k, v in os.environ.items() if k not in (allocator.MARK, *allocator.KEPT)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "--images", "a b", "$x"], cwd=ROOT, env=env | extra,
        text=True, capture_output=True, check=True,
    )  # fmt: skip
    return [part.strip() for part in done.stdout.split("/")]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_the_same_process_restarts_once() -> None:
    before, pid, arguments, arenas = started()
    # One earlier start, with the same process id and the same arguments.
    assert before == pid
    assert arguments == "--images a b $x"
    assert arenas == "1"


def test_no_restart_if_the_user_declines() -> None:
    before, _, arguments, arenas = started(**{allocator.MARK: "0"})
    assert (before, arguments, arenas) == ("", "--images a b $x", "None")
