"""What the console shows when a job of the workflow fails: which job, why, and where its log is.

Snakemake shows the command with all its settings, twice, a Python traceback, and the whole log. The
cause is one line of that log. Snakemake's own log file keeps all of it, and so does the console
with ``--verbose`` or ``--printshellcmds``.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# A line of a job's log (see unet.command) that tells why it ended.
_CAUSE = re.compile(r"^\S+ \S+ (?:ERROR|WARNING) ((?:error|stopped): .*)$", re.MULTILINE)
# What of a log is looked at, in bytes from its end: a traceback may follow the cause.
_TAIL = 1 << 16
# Lines that are shown of a cause: a config may have many mistakes.
_LINES = 5


def causes(logs: Sequence[Path], since: float) -> list[str]:
    """The lines of a job's logs that tell why it ended.

    Args:
        logs: those that are not there, or are older than ``since`` (Unix time in s), tell nothing.
    """
    for path in logs:
        try:
            with path.open("rb") as handle:
                status = path.stat()
                handle.seek(max(0, status.st_size - _TAIL))
                text = handle.read(_TAIL).decode("utf-8", "replace")
        except OSError:
            continue
        found = _CAUSE.findall(text) if status.st_mtime >= since else []
        if found:
            return found[-_LINES:]
    return ["ended without a message: killed (memory? time limit?), or never started; see above"]


def told(rule: str, logs: Sequence[str], since: float) -> str:
    """The lines on a failed job."""
    paths = [Path(log) for log in logs]
    name = f"{rule} {paths[0].stem}" if paths else rule
    lines = [f"Job {name}: {cause}" for cause in causes(paths, since)]
    return "\n".join([*lines, *(f"    log: {path}" for path in logs)])


class _Brief(logging.Formatter):
    """Formats failed jobs by :func:`told` and all else as before."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        # Clocks of file systems may be behind this machine's.
        self._inner, self._since = inner, time.time() - 5

    def format(self, record: logging.LogRecord) -> str:
        if _is_failure(record):
            known = vars(record)
            return told(known["rule_name"], known["log"], self._since)
        text = self._inner.format(record)
        # Nothing is printed for no text.
        return "" if "CalledProcessError" in text and text.startswith("RuleException") else text


class _Shown:
    """Lets failed jobs through in any case: ``--quiet rules`` would hide them."""

    def __init__(self, handler: logging.Handler) -> None:
        self._before = list(handler.filters)

    def filter(self, record: logging.LogRecord) -> bool:
        return _is_failure(record) or all(_passes(one, record) for one in self._before)


def _passes(one: Any, record: logging.LogRecord) -> bool:
    """Whether a filter, which may be an object or a function, lets the record through."""
    return bool(one.filter(record) if hasattr(one, "filter") else one(record))


def _is_failure(record: logging.LogRecord) -> bool:
    event = getattr(getattr(record, "event", None), "name", "")
    return event == "JOB_ERROR" and {"rule_name", "log"} <= vars(record).keys()


def show_causes(workflow: Any) -> bool:
    """From here on the console shows the cause of a failed job instead of its command.

    Args:
        workflow: Snakemake's, in a Snakefile.

    Returns:
        False where nothing is changed: more than that is asked for, nothing is, or this version of
        Snakemake has no such handler.
    """
    try:
        output = workflow.output_settings
        asked = output.verbose or output.printshellcmds
        silent = "ALL" in {choice.name for choice in output.quiet or ()}
    except AttributeError:
        return False
    handlers = [
        handler
        for handler in logging.getLogger("snakemake.logging").handlers
        if handler.name == "DefaultStreamHandler" and handler.formatter is not None
    ]
    if asked or silent or not handlers:
        return False
    for handler in handlers:
        if handler.formatter is not None and not isinstance(handler.formatter, _Brief):
            shown = _Shown(handler)
            handler.setFormatter(_Brief(handler.formatter))
            handler.filters[:] = [shown]
    return True
