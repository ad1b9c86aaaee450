"""Follows a run of Snakemake from its first event to its end, and shows it."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unet.cli.run_events import Told
from unet.cli.run_process import LOOK_SECONDS, SnakemakeProcess, Stopping
from unet.cli.run_progress import RunningJob, job_name
from unet.cli.run_view import View
from unet.errors import one_line

# Snakemake's exceptions for a user's mistakes; all others are internal errors.
_MISTAKES = {
    "AmbiguousRuleException", "CliException", "IncompleteFilesException", "InvalidPluginException",
    "LockException", "MissingInputException", "MissingRuleException", "ProtectedOutputException",
    "WorkflowError",
}  # fmt: skip
# It says no more than the failed jobs before it.
_ECHO = re.compile(r"Exiting because a job execution failed|.*At least one job did not complete")
# The first line of an exception, before its message.
_KIND = re.compile(r"\w+(?:Exception|Error)\b[^\n]*:\n")
# What Snakemake prints before it reads the Snakefile.
_BEFORE = re.compile(
    r"Using (?:profiles? .*|workflow specific profile .*) command line arg|Assuming "
)
_HEADER_END = re.compile(r"\s*Config MD5: ")
# Most lines of an output that are shown as the reason of a failure.
_LINES = 20


@dataclass
class Outcome:
    """What became of a run.

    Attributes:
        code: Snakemake's exit code.
        told: what the Snakefile said about the run; None if it was not read to its end.
        planned: rule -> number of jobs.
        would_run: the jobs of a dry run: rule, wildcards, reason.
        done: number of finished jobs.
        failed: a failed job -> whether its user can fix the cause.
        exceptions: Snakemake's own errors, by name.
        locked: another run has locked the folder, or a killed one has.
        check_failed: number and message of the job ``check`` if it failed: most often because a
            finding must stop the run. ``failed`` has it, too.
        printed: the lines that Snakemake printed beside its events.
    """

    code: int = 0
    told: Told | None = None
    planned: dict[str, int] = field(default_factory=dict)
    would_run: list[tuple[str, str, str]] = field(default_factory=list)
    done: int = 0
    failed: dict[int, bool] = field(default_factory=dict)
    exceptions: list[str] = field(default_factory=list)
    locked: bool = False
    check_failed: tuple[int, str] | None = None
    printed: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.planned.values())

    @property
    def mistake(self) -> bool:
        """Whether the user can fix what made it fail."""
        if self.failed:
            return all(self.failed.values())
        if self.exceptions:
            return all(name in _MISTAKES for name in self.exceptions)
        return not any(line.startswith("Traceback ") for line in self.printed)

    def reasons(self) -> list[str]:
        """The printed lines that say why no job was started."""
        lines = self.printed
        ends = [number for number, line in enumerate(lines) if _HEADER_END.match(line)]
        lines = [line for line in lines[ends[-1] + 1 if ends else 0 :] if not _BEFORE.match(line)]
        return lines[-_LINES:]


class Follower:
    """Turns events into an outcome and a view."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.outcome = Outcome()
        self._jobs: dict[int, RunningJob] = {}
        self._stopping = False

    def follow(self, words: Sequence[str], stopping: Stopping, own_output: bool = False) -> Outcome:
        """Runs Snakemake with these words to its end.

        Args:
            own_output: Snakemake prints by itself; the outcome is its exit code alone.
        """
        with SnakemakeProcess(words, own_output) as process:
            sent = 0
            while process.running:
                self._look(process)
                if stopping.count > sent:
                    sent = stopping.count
                    self._stop(process, sent)
                time.sleep(LOOK_SECONDS)
            if stopping.count:
                process.wait_for_jobs()
            self._look(process)
            self.outcome.code, self.outcome.printed = process.code, process.output()
        return self.outcome

    def _stop(self, process: SnakemakeProcess, count: int) -> None:
        self._stopping = True
        if count == 1:
            self._view.say(
                "stopping: running jobs save their state; Ctrl-C again ends them at once"
            )
            # Also for SIGTERM: Snakemake then cancels jobs in a queue, too.
            process.signal(signal.SIGINT)
        else:
            process.signal(signal.SIGTERM if count == 2 else signal.SIGKILL)

    def _look(self, process: SnakemakeProcess) -> None:
        for event in process.new_events():
            self._take(event)
        for job in self._jobs.values():
            job.look()
        self._view.tick(self._jobs, self.outcome.done)

    def _take(self, event: dict[str, Any]) -> None:
        outcome = self.outcome
        match event["kind"]:
            case "run":
                where = Path(event["folder"]), Path(event["output"])
                outcome.told = Told(*where, event["tasks"], event["models"], event["checked"])
            case "planned":
                if event["counts"] and event["counts"] != outcome.planned:
                    outcome.planned = event["counts"]
                    self._view.plan(outcome.total)
            case "would run":
                outcome.would_run.append((event["rule"], event["of"], event["why"]))
            case "job":
                name = job_name(event["rule"], event["wildcards"])
                self._jobs[event["id"]] = RunningJob(name, Path(event["log"]))
                outcome.failed.pop(event["id"], None)  # it is tried again
            case "finished":
                if job := self._jobs.pop(event["id"], None):
                    outcome.done += 1
                    self._view.finished(job, outcome.done)
            case "failed":
                self._jobs.pop(event["id"], None)
                outcome.failed[event["id"]] = event["mistake"]
                if event["rule"] == "check" and not self._stopping:
                    # Its findings are shown later; its message only if there are none.
                    outcome.check_failed = event["id"], event["text"]
                    return
                self._view.say(_brief(event["text"]) if self._stopping else event["text"])
            case "message":
                self._message(event["level"], event["exception"], event["text"])

    def _message(self, level: str, exception: str, text: str) -> None:
        if exception == "LockException":
            self.outcome.locked = True
            return
        if _ECHO.match(text.replace("\n", " ")):
            return
        if exception:
            self.outcome.exceptions.append(exception)
        known = exception in _MISTAKES or not exception
        said = one_line(_KIND.sub("", text), 500) if known else text
        self._view.say(said if said.startswith("error: ") else f"{level.lower()}: {said}")


def _brief(text: str) -> str:
    """A stopped job in one line, without what holds for all of them."""
    return text.split("\n", 1)[0].removesuffix("; run the same command to continue")
