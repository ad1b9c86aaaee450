"""Changes what a dry run prints.

Snakemake prints sixteen lines per job; one is enough to say what runs and why. And
``snakemake -n --quiet`` leaves out not only the jobs but also their counts.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any


class _Counts(logging.Handler):
    """Prints only the job counts of a quiet dry run."""

    def __init__(self, workflow: Any) -> None:
        super().__init__()
        self._workflow = workflow

    def emit(self, record: logging.LogRecord) -> None:
        # Snakemake knows only after planning whether this is a dry run.
        if event_of(record) == "RUN_INFO" and self._workflow.dryrun:
            sys.stderr.write(record.getMessage() + "\n")


class _Table(logging.Filter):
    """Collects the jobs of a dry run, and prints one line for each at the end."""

    def __init__(self, workflow: Any) -> None:
        super().__init__()
        self._workflow = workflow
        self._rows: list[tuple[str, str, str]] = []
        self._seen = False

    def filter(self, record: logging.LogRecord) -> bool:
        event = event_of(record)
        if not self._workflow.dryrun or event not in ("JOB_INFO", "RUN_INFO"):
            return True
        if event == "JOB_INFO":
            self._seen = True
            job: Any = record
            if job.output:  # not rule all
                named = " ".join(str(value) for value in job.wildcards.values())
                self._rows.append((job.rule_name, named, why(job.reason)))
            return False
        if self._seen:
            sys.stderr.write(job_table(self._rows) + "\n\n")
            self._rows = []
        # Snakemake prints the counts before and after the jobs; once is enough.
        return self._seen


_HEAD = ("job", "of", "why")


def job_table(jobs: Sequence[tuple[str, str, str]]) -> str:
    """The jobs of a dry run as a table: rule, wildcards, reason."""
    rows = [_HEAD, *jobs]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    rows.insert(1, ("-" * widths[0], "-" * widths[1], "-" * len(_HEAD[2])))
    return "\n".join(
        f"{rule:<{widths[0]}}  {of:<{widths[1]}}  {reason}".rstrip() for rule, of, reason in rows
    )


def event_of(record: logging.LogRecord) -> str:
    """The name of Snakemake's event; "" for other records."""
    return str(getattr(getattr(record, "event", None), "name", ""))


def why(reason: str) -> str:
    """Snakemake's reasons for a job in one line: without the changed parameters (kilobytes of
    JSON), and with only the first of several files."""
    short = []
    for part in reason.split("; "):
        phrase, colon, files = part.partition(": ")
        if "execution" in phrase or not colon:
            short.append(phrase)
            continue
        names = sorted(files.split(", "))  # Snakemake has them in a set
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        short.append(f"{phrase}: {names[0]}{more}")
    # That another job will write an input is not a reason of its own.
    own = [part for part in short if not part.startswith("Input files updated by another")]
    return "; ".join(own or short)


def show_table(workflow: Any) -> bool:
    """Makes a dry run print one line per job, and ``snakemake -n --quiet`` the job counts. With
    ``--printshellcmds`` or ``--verbose`` Snakemake's own output stays.

    Args:
        workflow: Snakemake's ``workflow`` object in a Snakefile.

    Returns:
        whether Snakemake's output was changed.
    """
    logger = logging.getLogger("snakemake.logging")
    try:
        settings = workflow.output_settings
        quiet = {choice.name for choice in settings.quiet or ()}
        if quiet == {"RULES", "PROGRESS"}:
            logger.addHandler(_Counts(workflow))
            return True
        if quiet & {"RULES", "PROGRESS", "ALL"} or settings.printshellcmds or settings.verbose:
            return False
    except AttributeError:
        return False  # another version of Snakemake
    streams = [handler for handler in logger.handlers if handler.name == "DefaultStreamHandler"]
    for handler in streams:
        # The filter already exists if this is a module of another workflow and is read again.
        if not any(isinstance(one, _Table) for one in handler.filters):
            handler.addFilter(_Table(workflow))
    return bool(streams)
