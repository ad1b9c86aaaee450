"""What the workflow does before its first job, and at the end of a run in which a job failed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unet.data.dataset_warnings import warning_lines
from unet.errors import UserError
from unet.planning.jobs import Run
from unet.planning.resume import remember


def begin(run: Run) -> None:
    """Takes the output folder; ends the process where it cannot be had."""
    try:
        run.begin()
        # For scripts/resume.py, should this process be killed.
        remember(Path.cwd(), sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")


def warn(run: Run) -> None:
    """Prints the run's warnings. A run that ends well prints them below the report's table."""
    models = {name: run.config.models_for(name) for name in sorted(run.config.datasets)}
    for line in warning_lines(run.paths, models):
        print(line, file=sys.stderr)  # noqa: T201 - this is the workflow's output


def add_to(workflow: Any, run: Run) -> None:
    """Does both after what another workflow does then, in one that has this one as a module:
    Snakemake takes neither ``onstart`` nor ``onerror`` of a module.

    Each ``use rule`` reads a module again; once per output folder is enough.
    """
    known: set[Path] = workflow.__dict__.setdefault("unet_outputs", set())
    if run.paths.output not in known:
        known.add(run.paths.output)
        workflow._onstart = _after(workflow._onstart, begin, run)
        workflow._onerror = _after(workflow._onerror, warn, run)


def _after(
    before: Callable[[Any], None], do: Callable[[Run], None], run: Run
) -> Callable[[Any], None]:
    def both(log: Any) -> None:
        before(log)
        do(run)

    return both
