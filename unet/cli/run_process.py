"""Starts Snakemake, follows its events, and stops it cleanly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from unet.cli.run_events import EVENTS

# Seconds between two looks at the events.
LOOK_SECONDS = 0.2
# Seconds after the end of Snakemake in which stopped jobs may save their state.
_SAVE_SECONDS = 60.0


def command_of(words: Sequence[str]) -> list[str]:
    """The command that starts Snakemake with these words, with this interpreter. ``-P``: modules in
    the user's folder are not Snakemake's."""
    return [sys.executable, "-P", "-m", "snakemake", *words]


class SnakemakeProcess:
    """A running Snakemake, in a process group of its own, so that Ctrl-C reaches it only once.

    Its output goes to a temporary file and not into a pipe: if this process is killed, Snakemake
    and its jobs end their work undisturbed.

    Args:
        words: for Snakemake.
        shown: Snakemake prints to the console by itself, and there are no events.
    """

    def __init__(self, words: Sequence[str], shown: bool = False) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="unet-run-")
        self._events = Path(self._folder.name, "events.jsonl")
        self._output = Path(self._folder.name, "output.txt")
        self._events.touch()
        self._place = 0
        environment = dict(os.environ) if shown else {**os.environ, EVENTS: str(self._events)}
        with self._output.open("wb") as file:
            output = None if shown else file
            self._process = subprocess.Popen(
                command_of(words), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=environment, process_group=0,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self.running:
            self.signal(signal.SIGINT)
            self._process.wait()
        self._folder.cleanup()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def code(self) -> int:
        """The exit code, after the end."""
        return int(self._process.returncode)

    def signal(self, number: int) -> None:
        """Sends a signal to Snakemake and its jobs, as a terminal does."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def wait_for_jobs(self) -> None:
        """Waits until stopped jobs have ended, too."""
        end = time.monotonic() + _SAVE_SECONDS
        while time.monotonic() < end:
            try:
                os.killpg(self._process.pid, 0)
            except (ProcessLookupError, PermissionError):
                return
            time.sleep(LOOK_SECONDS)

    def new_events(self) -> Iterator[dict[str, Any]]:
        """The events since the last call."""
        with self._events.open("rb") as handle:
            handle.seek(self._place)
            for line in handle:
                if not line.endswith(b"\n"):
                    break  # still being written
                self._place += len(line)
                with suppress(ValueError):
                    yield json.loads(line)

    def output(self) -> list[str]:
        """The lines that Snakemake and the jobs have printed; the last ones, if they are many."""
        with self._output.open("rb") as handle:
            handle.seek(max(0, self._output.stat().st_size - (1 << 16)))
            text = handle.read().decode("utf-8", "replace")
        return [line.rstrip() for line in text.splitlines() if line.strip()]


class Stopping:
    """Requests to stop: the last signal, and how many there were."""

    def __init__(self) -> None:
        self.number, self.count = 0, 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.number, self.count = number, self.count + 1


@contextmanager
def stop_requests() -> Iterator[Stopping]:
    """Collects Ctrl-C, SIGTERM and SIGHUP instead of ending this process.

    A started process has the signals' default actions again, also where this one was started with
    Ctrl-C ignored (in the background of a script).
    """
    stopping = Stopping()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP"):  # not on Windows
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, stopping.handle) for number in numbers}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
