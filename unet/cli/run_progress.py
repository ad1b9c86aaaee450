"""How far a job is, from the last lines of its log."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

# Bytes read from the end of a log.
_TAIL = 4096
# A line of a log starts with date, time and level.
_LINE = re.compile(r"^\d{4}-\d\d-\d\d \S+ INFO (.*)$", re.MULTILINE)
# What the stages log every few seconds: a training, tiles, images, anything else that is counted.
_STEP = re.compile(r"(step|epoch) (\d+)/(\d+)  .*?left (\d.*)$")
_PIXELS = re.compile(r"([\d.]+) of ([\d.]+) Mpx  .*left (\d.*)$")
_IMAGE = re.compile(r"(?:(\S.*): )?image (\d+) of (\d+), (\d+) %")
_COUNT = re.compile(r"(\S.*?):? (\d+) of (\d+)$")


@dataclass(frozen=True)
class Step:
    """How far a job is.

    Attributes:
        share: from 0 to 1.
        text: for people, such as ``step 130 of 400, 40 s left``.
    """

    share: float
    text: str


def read_step(text: str) -> Step | None:
    """The last line of a log that says how far the job is; None if there is none."""
    for line in reversed(_LINE.findall(text)):
        if step := _step(line.strip()):
            return step
    return None


def _step(line: str) -> Step | None:
    if found := _STEP.match(line):
        what, done, total, left = found.groups()
        return Step(_share(done, total), f"{what} {done} of {total}, {left} left")
    if found := _PIXELS.match(line):
        done, total, left = found.groups()
        return Step(_share(done, total), f"{done} of {total} Mpx, {left} left")
    if found := _IMAGE.match(line):
        what, done, total, percent = found.groups()
        named = f"{what}: " if what and what not in ("manifest", "prepare") else ""
        return Step(int(percent) / 100, f"{named}image {done} of {total}")
    if found := _COUNT.match(line):
        what, done, total = found.groups()
        return Step(_share(done, total), f"{what} {done} of {total}")
    return None


def _share(done: str, total: str) -> float:
    return min(1.0, float(done) / max(float(total), 1e-9))


@dataclass
class RunningJob:
    """A job that Snakemake has started (or submitted to a queue).

    Attributes:
        name: for people, such as ``train nuclei/unet fold 0``.
        log: its log file.
        started: from ``time.monotonic``.
        step: how far it is, if its log says so.
    """

    name: str
    log: Path
    started: float = field(default_factory=lambda: time.monotonic())
    step: Step | None = None
    _first: tuple[int, ...] | None = None
    _last: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        # A log of an earlier run, until the job opens its own.
        self._first = self._last = self._state()

    def _state(self) -> tuple[int, ...] | None:
        try:
            status = self.log.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def look(self) -> None:
        """Reads the log, if it has changed."""
        state = self._state()
        if state is None or state in (self._first, self._last):
            return
        self._last = state
        try:
            with self.log.open("rb") as handle:
                handle.seek(max(0, os.fstat(handle.fileno()).st_size - _TAIL))
                text = handle.read(_TAIL).decode("utf-8", "replace")
        except OSError:
            return
        self.step = read_step(text) or self.step

    @property
    def seconds(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.started


def job_name(rule: str, wildcards: dict[str, str]) -> str:
    """A job for people: ``train nuclei/unet fold 0``."""
    stage = rule.removesuffix("_dataset").removesuffix("_shard")
    names = ("dataset", "model", "tool")
    parts = [stage, "/".join(wildcards[key] for key in names if key in wildcards)]
    if fold := wildcards.get("fold"):
        parts.append(f"fold {fold}" if fold.isdecimal() else fold)
    if shard := wildcards.get("shard"):
        parts.append(f"shard {shard}")
    return " ".join(part for part in parts if part)
