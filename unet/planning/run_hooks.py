"""What the workflow does before its first job, and after a run in which a job failed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unet.data.dataset_warnings import warning_lines
from unet.errors import UserError
from unet.planning.jobs import Run
from unet.planning.resume import remember


def begin_run(run: Run) -> None:
    """Locks the output folder; ends the process if this fails."""
    try:
        run.begin()
        # For scripts/resume.py, in case this process is killed.
        remember(Path.cwd(), sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")


def print_warnings(run: Run) -> None:
    """Prints the run's warnings. A successful run prints them below the report's table instead."""
    models = {name: run.config.scored_for(name) for name in sorted(run.config.datasets)}
    for line in warning_lines(run.paths, models):
        print(line, file=sys.stderr)  # noqa: T201 - this is the workflow's output


def add_hooks(workflow: Any, run: Run) -> None:
    """Adds both hooks to a workflow that uses this one as a module, after its own hooks: Snakemake
    ignores ``onstart`` and ``onerror`` of a module.

    Each ``use rule`` reads the module again; the hooks are added only once per output folder.
    """
    known: set[Path] = workflow.__dict__.setdefault("unet_outputs", set())
    if run.paths.output not in known:
        known.add(run.paths.output)
        workflow._onstart = _after(workflow._onstart, begin_run, run)
        workflow._onerror = _after(workflow._onerror, print_warnings, run)


def _after(
    own_hook: Callable[[Any], None], hook: Callable[[Run], None], run: Run
) -> Callable[[Any], None]:
    def both(log: Any) -> None:
        own_hook(log)
        hook(run)

    return both
