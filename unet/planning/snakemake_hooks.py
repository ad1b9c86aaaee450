"""What Snakemake does not do by itself when it plans.

Which arguments a function takes is looked up several times for each of thousands of jobs, by
``inspect``, which takes its time; it is the same each time. A dry run prints sixteen lines per job,
where one says what is done and why. And ``snakemake -n --quiet``, which leaves out what printing
each job would take, leaves out the numbers of jobs too, with which its authors meant to end it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any


def remember_parameters() -> bool:
    """From here on Snakemake looks at each function once.

    Uses the mark that Snakemake itself puts on functions whose parameters it is told.

    Returns:
        False where this version of Snakemake has no such mark: then nothing is changed.
    """
    try:
        from snakemake.common import FUNC_OVERWRITE_PARAMS_ATTR as MARK
        from snakemake.common import get_function_params as look
    except ImportError:
        return False
    if getattr(look, "remembers", False):
        return True

    def parameters(function: Any) -> Mapping[str, Any]:
        known: Mapping[str, Any] = look(function)
        # Of a method, the function: the methods of all objects share it. Without `self` in both.
        owner = getattr(function, "__func__", function)
        if not hasattr(owner, MARK):
            # What is built in takes no mark, and is looked at each time.
            with suppress(AttributeError, TypeError):
                setattr(owner, MARK, known)
        return known

    parameters.remembers = True  # type: ignore[attr-defined]
    # Where it was imported by its name.
    for name in [name for name in sys.modules if name.startswith("snakemake.")]:
        module: Any = sys.modules[name]
        if getattr(module, "get_function_params", None) is look:
            module.get_function_params = parameters
    return True


class _Counts(logging.Handler):
    """Prints the numbers of jobs of a quiet dry run, and nothing else."""

    def __init__(self, workflow: Any) -> None:
        super().__init__()
        self._workflow = workflow

    def emit(self, record: logging.LogRecord) -> None:
        # Whether it is one is known only when the jobs are planned.
        if _event(record) == "RUN_INFO" and self._workflow.dryrun:
            sys.stderr.write(record.getMessage() + "\n")


class _Table(logging.Filter):
    """Holds back the jobs of a dry run, and prints a line for each at its end."""

    HEAD = ("job", "of", "why")

    def __init__(self, workflow: Any) -> None:
        super().__init__()
        self._workflow = workflow
        self._rows: list[tuple[str, str, str]] = []
        self._seen = False

    def filter(self, record: logging.LogRecord) -> bool:
        event = _event(record)
        if not self._workflow.dryrun or event not in ("JOB_INFO", "RUN_INFO"):
            return True
        if event == "JOB_INFO":
            self._seen = True
            job: Any = record
            if job.output:  # not the target that only gathers them
                named = " ".join(str(value) for value in job.wildcards.values())
                self._rows.append((job.rule_name, named, why(job.reason)))
            return False
        if self._seen:
            sys.stderr.write(self._text() + "\n\n")
            self._rows = []
        # The numbers come at the beginning and at the end; they are enough once.
        return self._seen

    def _text(self) -> str:
        rows = [self.HEAD, *self._rows]
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        rows.insert(1, ("-" * widths[0], "-" * widths[1], "-" * len(self.HEAD[2])))
        return "\n".join(
            f"{rule:<{widths[0]}}  {of:<{widths[1]}}  {reason}".rstrip()
            for rule, of, reason in rows
        )


def _event(record: logging.LogRecord) -> str:
    return str(getattr(getattr(record, "event", None), "name", ""))


def why(reason: str) -> str:
    """Snakemake's reasons for a job, in a line: without what changed in the parameters, which is
    kilobytes of JSON, and of several files the first."""
    short = []
    for part in reason.split("; "):
        phrase, colon, files = part.partition(": ")
        if "execution" in phrase or not colon:
            short.append(phrase)
            continue
        names = sorted(files.split(", "))  # Snakemake holds them in a set
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        short.append(f"{phrase}: {names[0]}{more}")
    # What another job makes is no reason of its own.
    own = [part for part in short if not part.startswith("Input files updated by another")]
    return "; ".join(own or short)


def show_table(workflow: Any) -> bool:
    """Lets a dry run print a line for each job, and ``snakemake -n --quiet`` how many jobs of which
    rules there are. With ``--printshellcmds`` or ``--verbose`` all that Snakemake says stays.

    Args:
        workflow: Snakemake's, in a Snakefile.

    Returns:
        whether it prints something else than it would by itself.
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
        return False  # of another version
    streams = [handler for handler in logger.handlers if handler.name == "DefaultStreamHandler"]
    for handler in streams:
        # Read again as a module of another workflow it is there already.
        if not any(isinstance(one, _Table) for one in handler.filters):
            handler.addFilter(_Table(workflow))
    return bool(streams)
