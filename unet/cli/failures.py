"""The console message for a failed job of this workflow: which job, why, and where its log is.

Snakemake itself prints the command with all its settings (twice), a Python traceback, and the whole
log, although the cause is one line of that log. Its own log file still has all of this, and so does
the console with ``--verbose`` or ``--printshellcmds``. If another workflow uses this one as a
module, Snakemake's output for the other workflow's jobs is unchanged.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from unet.cli.stage import CAUSE_SHOWN
from unet.errors import one_line

# A line of a job's log (see unet.cli.stage) that tells why it ended.
_CAUSE = re.compile(
    r"^\S+ \S+ (?:ERROR|WARNING) (error: .*|stopped .*; run the same command to continue)$",
    re.MULTILINE,
)
# How a command ended, in the words of Python's subprocess.
_STATUS = re.compile(r"returned non-zero exit status (\d+)|died with <(\w+\.\w+): \d+>")
# What Snakemake appends to every queue's message.
_EMPTY = re.compile(r"For further error details see the cluster/cloud log and .*")
# Bytes read from the end of a log: a traceback may follow the cause.
_TAIL = 1 << 16
# Most lines shown of a cause (a config may have many mistakes); most characters of other lines.
_LINES, _WIDTH = 5, 400


def _tail(path: Path, since: float) -> str:
    """The end of a log; "" if it is missing or older than ``since`` (Unix time in s)."""
    try:
        with path.open("rb") as handle:
            status = os.fstat(handle.fileno())
            handle.seek(max(0, status.st_size - _TAIL))
            text = handle.read(_TAIL).decode("utf-8", "replace")
    except OSError:
        return ""
    return text if status.st_mtime >= since else ""


def causes(logs: Sequence[Path], since: float) -> list[str]:
    """The lines of a job's logs that say why it ended, if there are any.

    Args:
        since: logs older than this (Unix time in s) are from an earlier run and are ignored.
    """
    for path in logs:
        if found := _CAUSE.findall(_tail(path, since)):
            return found[-_LINES:]
    return []


def summary(failed: Mapping[str, Any], since: float, ended: str = "") -> str:
    """The message for a failed job.

    Args:
        failed: Snakemake's record: ``rule_name``, ``log``, and optionally the executor's
            ``rule_msg`` and ``aux``.
        since: see :func:`causes`.
        ended: how its command ended, if known.
    """
    paths = [Path(log) for log in failed["log"]]
    name = f"{failed['rule_name']} {paths[0].stem}" if paths else failed["rule_name"]
    executor = one_line(_EMPTY.sub("", failed.get("rule_msg") or ""), _WIDTH)
    found = causes(paths, since)
    tails = ["" if found else _last(_tail(path, since)) for path in paths]
    details = [f"    {executor}"] if found and executor else []
    if not found:
        found = [said for said in (executor, ended) if said]
        details = [f"    {key}: {value}" for key, value in (failed.get("aux") or {}).items()]
    if not found:
        unknown = "killed (memory? time limit?), or never started; see above"
        found = [f"ended without an error message{'' if any(tails) else f': {unknown}'}"]
    for path, tail in zip(paths, tails, strict=True):
        details += [f"    log: {path}", *([f"        last line: {tail}"] if tail else [])]
    return "\n".join([*(f"Job {name}: {line}" for line in found), *details])


def _last(text: str) -> str:
    lines = text.split("\n")
    return next((one_line(line, _WIDTH) for line in reversed(lines) if line.strip()), "")


def _ended(text: str) -> str:
    """How a command ended, taken from Snakemake's message."""
    match = _STATUS.search(text)
    if match is None:
        return ""
    if match[1] is None:
        return f"ended by {match[2].removeprefix('Signals.')}"
    name = ""
    # A shell reports a signal that ended its command as 128 + the signal's number.
    with suppress(ValueError):
        name = f" ({signal.Signals(int(match[1]) - 128).name})"
    return f"ended with exit status {match[1]}{name}"


class Brief(logging.Formatter):
    """Formats failed jobs of this workflow with :func:`summary`, everything else as before."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        # The clock of a file system may be behind this machine's.
        self._inner, self.since = inner, time.time() - 5
        # Several: another workflow may use several versions of this one as modules.
        self.scripts: set[Path] = set()
        self._exceptions: list[str] = []

    def format(self, record: logging.LogRecord) -> str:
        if self.is_failure(record):
            command = str(vars(record)["shellcmd"])
            # Snakemake logs the exception before the record of the job.
            known = [text for text in self._exceptions if command in text]
            self._exceptions = [text for text in self._exceptions if text not in known]
            return summary(vars(record), self.since, _ended("".join(known[-1:])))
        text = self._inner.format(record)
        if (
            text.startswith("RuleException")
            and "CalledProcessError" in text
            and any(f"{folder}{os.sep}" in text for folder in self.scripts)
        ):
            self._exceptions.append(text)
            return ""  # prints nothing
        return text

    def is_failure(self, record: logging.LogRecord) -> bool:
        """Whether the record says that a job with one of this workflow's scripts failed."""
        known = vars(record)
        event = getattr(known.get("event"), "name", "")
        if event != "JOB_ERROR" or not {"rule_name", "log", "shellcmd"} <= known.keys():
            return False
        try:
            words = shlex.split(known["shellcmd"] or "")
        except ValueError:  # unclosed quote
            return False
        return any(Path(word).parent in self.scripts for word in words[1:2])


class _Shown(logging.Filterer):
    """Always shows failed jobs: ``--quiet rules`` would hide them."""

    def __init__(self, handler: logging.Handler, brief: Brief) -> None:
        super().__init__()
        self.filters, self._brief = list(handler.filters), brief

    def filter(self, record: logging.LogRecord) -> bool:
        return self._brief.is_failure(record) or bool(super().filter(record))


def show_causes(workflow: Any, scripts: Path) -> bool:
    """Makes the console show the cause of a failed job instead of its command.

    An environment variable tells the jobs, so that they do not print the cause as well.

    Args:
        workflow: Snakemake's ``workflow`` object in a Snakefile.
        scripts: the folder of this workflow's scripts; jobs of other workflows are not affected.

    Returns:
        False if nothing was changed: the user requested more output or none at all, or this version
        of Snakemake has no such handler.
    """
    os.environ.pop(CAUSE_SHOWN, None)
    try:
        output = workflow.output_settings
        detailed = output.verbose or output.printshellcmds
        silent = "ALL" in {choice.name for choice in output.quiet or ()}
    except AttributeError:
        return False
    handlers = [
        (handler, handler.formatter)
        for handler in logging.getLogger("snakemake.logging").handlers
        if handler.name == "DefaultStreamHandler" and handler.formatter is not None
    ]
    if detailed or silent or not handlers:
        return False
    for handler, brief in handlers:
        if not isinstance(brief, Brief):
            brief = Brief(brief)
            handler.setFormatter(brief)
            handler.filters[:] = [_Shown(handler, brief)]
        brief.scripts.add(scripts)
    os.environ[CAUSE_SHOWN] = "1"
    return True
