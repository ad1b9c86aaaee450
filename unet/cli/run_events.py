"""What the running workflow tells ``unet run``: one JSON object per line of a file.

The Snakefile calls :func:`tell_events` in Snakemake's main process. It adds a log handler, which
writes Snakemake's events to the file that an environment variable names, and mutes the console.
Without that variable nothing changes. A file, because a pipe would end the run together with
whoever reads it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet.cli.failures import Brief, causes
from unet.planning.jobs import Run
from unet.planning.snakemake_hooks import event_of, why

# Names the file to write to.
EVENTS = "UNET_EVENTS"


class EventWriter(logging.Handler):
    """Writes Snakemake's events; it never fails, because the run must go on without a reader.

    Args:
        workflow: Snakemake's ``workflow`` object in a Snakefile.
        path: the file to append to.
        brief: formats failed jobs in few lines.
    """

    def __init__(self, workflow: Any, path: Path, brief: Brief) -> None:
        super().__init__()
        self._workflow, self._path, self._brief = workflow, path, brief

    def write(self, kind: str, **values: object) -> None:
        """Appends an event."""
        with suppress(OSError), self._path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps({"kind": kind, **values}) + "\n")

    def emit(self, record: logging.LogRecord) -> None:
        # An unknown version of Snakemake may have other records.
        with suppress(AttributeError, KeyError, TypeError, ValueError):
            self._tell(event_of(record), record)

    def _tell(self, event: str, record: logging.LogRecord) -> None:
        known = vars(record)
        if event == "JOB_INFO":
            if known["output"]:  # not rules all and check
                self._tell_job(known)
        elif event == "JOB_FINISHED":
            self.write("finished", id=known["job_id"])
        elif event == "JOB_ERROR":
            found = causes([Path(log) for log in known["log"]], self._brief.since)
            mistake = bool(found) and all(_is_mistake(line) for line in found)
            self.write(
                "failed", id=known["jobid"], rule=known["rule_name"], text=self._text(record),
                mistake=mistake,
            )  # fmt: skip
        elif event == "RUN_INFO":
            counts = {k: v for k, v in known["stats"].items() if k not in ("all", "check", "total")}
            self.write("planned", counts=counts)
        elif record.levelno >= logging.WARNING and (text := self._text(record)):
            error = known.get("exception", "")
            self.write("message", level=record.levelname, exception=error, text=text)

    def _tell_job(self, known: Mapping[str, Any]) -> None:
        wildcards = {key: str(value) for key, value in known["wildcards"].items()}
        if self._workflow.dryrun:
            of = " ".join(wildcards.values())
            self.write("would run", rule=known["rule_name"], of=of, why=why(known["reason"]))
            return
        log = str(Path(known["log"][0]).absolute()) if known["log"] else ""
        self.write(
            "job", id=known["jobid"], rule=known["rule_name"], wildcards=wildcards, log=log
        )  # fmt: skip

    def _text(self, record: logging.LogRecord) -> str:
        return str(self._brief.format(record) or "").strip()


def _is_mistake(cause: str) -> bool:
    return cause.startswith("error: ") and not cause.endswith("(internal error)")


@dataclass(frozen=True)
class Told:
    """What ``unet run`` needs to know of the run.

    Attributes:
        folder: Snakemake's working folder; relative paths start there.
        output: the output folder.
        tasks: dataset -> task.
        models: dataset -> its models.
        checked: the datasets that the check reads: those with files of their own.
    """

    folder: Path
    output: Path
    tasks: dict[str, str]
    models: dict[str, list[str]]
    checked: list[str]


def tell_events(workflow: Any, run: Run, scripts: Path) -> bool:
    """Tells ``unet run`` what happens, if it started this process, instead of the console.

    Args:
        workflow: Snakemake's ``workflow`` object in a Snakefile.
        scripts: the folder of this workflow's scripts.

    Returns:
        whether somebody listens.
    """
    # Jobs must not inherit it: some of them are a Snakemake of their own.
    path = os.environ.pop(EVENTS, "")
    if not path or not workflow.is_main_process:
        return False
    logger = logging.getLogger("snakemake.logging")
    streams = [each for each in logger.handlers if each.name == "DefaultStreamHandler"]
    brief = Brief(streams[0].formatter or logging.Formatter() if streams else logging.Formatter())
    for handler in streams:
        if isinstance(handler.formatter, Brief):
            brief = handler.formatter
        handler.filters[:] = [lambda record: False]
    brief.scripts.add(scripts)
    writer = EventWriter(workflow, Path(path), brief)
    logger.addHandler(writer)
    datasets = run.config.datasets
    writer.write(
        "run",
        folder=str(Path.cwd()),
        output=str(run.paths.output),
        tasks={name: datasets[name].task for name in datasets},
        models={name: list(run.config.scored_for(name)) for name in datasets},
        checked=sorted(run.config.with_files),
    )
    return True
