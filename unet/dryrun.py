"""Two things that Snakemake does not do by itself when it plans thousands of jobs.

Which arguments a function takes is looked up several times for each job, by ``inspect``, which
takes its time; it is the same each time. And ``snakemake -n --quiet``, which plans and leaves out
what printing each job would take, leaves out the table of jobs too, with which its authors meant to
end it.
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


class _Table(logging.Handler):
    """Prints the table of jobs of a quiet dry run, and nothing else."""

    def __init__(self, workflow: Any) -> None:
        super().__init__()
        self._workflow = workflow

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        # Whether it is one is known only when the jobs are planned.
        if getattr(event, "name", "") == "RUN_INFO" and self._workflow.dryrun:
            sys.stderr.write(record.getMessage() + "\n")


def show_table(workflow: Any) -> bool:
    """Lets ``snakemake -n --quiet`` print how many jobs of which rules there are.

    Args:
        workflow: Snakemake's, in a Snakefile.

    Returns:
        whether it would print nothing by itself.
    """
    try:
        quiet = {choice.name for choice in workflow.output_settings.quiet or ()}
    except AttributeError:
        return False  # of another version
    if quiet != {"RULES", "PROGRESS"}:
        return False
    logging.getLogger("snakemake.logging").addHandler(_Table(workflow))
    return True
