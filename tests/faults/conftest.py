"""Injects faults. ``tally`` counts them; the table is printed at the end of the session and, with
UNET_WRITE_RELIABILITY=1, written to docs/reliability.md."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.stages import SEED, Lab
from tests.faults.tallies import HEAD, PAGE, Tally, rewritten

TALLY = Tally()


@pytest.fixture(scope="session")
def tally() -> Tally:
    """``tally(fault, how, outcome, times=1)``: the last line of a test that injected a fault."""
    return TALLY


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A small undisturbed run, and the tools to disturb others like it."""
    # Not below pytest's folder, which other users cannot enter.
    folder = Path(tempfile.mkdtemp(prefix="unet-faults-"))
    folder.chmod(0o755)
    yield Lab(folder)
    shutil.rmtree(folder)


# With several processes (pytest-xdist) each has its own tally and sends it to the main process as
# plain lists.


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["tally"] = TALLY.plain()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    TALLY.add(getattr(node, "workeroutput", {}).get("tally", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = TALLY.lines()
    if not rows:
        return
    terminalreporter.section("faults")
    for line in (*HEAD, *rows):
        terminalreporter.write_line(line)
    total = sum(TALLY.counts.values())
    terminalreporter.write_line(f"{total} faults in total; UNET_FAULT_SEED={SEED}")
    if os.environ.get("UNET_WRITE_RELIABILITY"):
        text = rewritten(PAGE.read_text(encoding="utf-8"), rows)
        PAGE.write_text(text, encoding="utf-8")
        terminalreporter.write_line(f"written to {PAGE}")
