"""Which outputs are out of date, where Snakemake cannot know.

Snakemake compares a job with its record of each output, kept in the working folder under the
output's path. Outputs that were moved, renamed, copied, cloned or fetched have none, and it takes
them as they are, or goes by the times of files. But each output says what made it
(:mod:`unet.provenance`). So where there is no record, or it is of a file with another time than
the one that is there, this is compared: settings, set of inputs, and content of inputs, whatever
their times. An output that does not say (made by an earlier version) is kept, unless an input that
does say is newer: it was made since, and Snakemake's own rule decides.

Also, a sentinel does not stand for a store that someone has deleted: results are made again, and
intermediate stores when a job needs them.

All this is in memory, while Snakemake plans; where a version of Snakemake has other names inside,
it plans as it does by itself.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from unet import provenance
from unet.files import canonical
from unet.paths import store_of
from unet.planning.untracked import Untracked


@dataclass(frozen=True)
class Change:
    """What has changed since a job's outputs were made.

    Attributes:
        settings: those that made them, where these are others now.
        inputs: whether other files are its inputs now.
        updated: its inputs of which the content has changed.
    """

    settings: str | None = None
    inputs: bool = False
    updated: tuple[str, ...] = ()


def change(made: provenance.MadeBy, settings: str, inputs: Iterable[str]) -> Change:
    """What a job would do in another way than it was done.

    Args:
        made: what its outputs were made by.
        settings: what it would be told, as canonical JSON.
        inputs: what it would be given.
    """
    then = canonical(made["settings"])
    other = None if then == settings else then
    if "inputs" not in made:  # a model.pt alone
        return Change(other)
    names, paths = sorted(made["inputs"]), sorted(map(str, inputs))
    # In the same order: they differ by the path of the output folder alone.
    folder = paths[0].removesuffix(names[0]) if names and paths else ""
    if [folder + name for name in names] != paths:
        return Change(other, inputs=True)
    # What was deleted is not known to have changed.
    known = dict(zip(paths, (made["inputs"][name] for name in names), strict=True))
    there = [path for path in paths if Path(path).exists()]
    return Change(other, updated=tuple(p for p in there if _content_id(p) != known[p]))


@cache  # inputs are shared by many jobs
def _content_id(path: str) -> str:
    return provenance.content_id(Path(path))


def maker_of(outputs: Iterable[str]) -> provenance.MadeBy | None:
    """What made the outputs of a job, as far as any of them says.

    The settings are those of the first one that knows them: a model.pt knows its own, whatever
    table lies beside it.
    """
    found = [made for path in outputs if (made := provenance.read_made_by(Path(path))) is not None]
    if not found:
        return None
    inputs = [made["inputs"] for made in found if isinstance(made.get("inputs"), dict)]
    more = {"inputs": inputs[0]} if inputs else {}
    return {"settings": found[0]["settings"], **more}


def missing(paths: Iterable[str]) -> Iterator[str]:
    """Stores that are gone, of sentinels that are there."""
    for path in paths:
        store = store_of(Path(path))
        if store is not None and not store.exists() and Path(path).exists():
            yield str(store)


class Planning:
    """What is put between Snakemake's planning and its records.

    Args:
        job: Snakemake's class of jobs.
        records: its class of records.
        changes: its class for params that have changed.
        warn: takes a line for the user.
    """

    def __init__(self, job: Any, records: Any, changes: Any, warn: Any) -> None:
        self._changes, self._warn = changes, warn
        self._oldest, self._missing = job.output_mintime.fget, job.missing_output
        self._has, self._outdated = records.has_metadata, records.has_outdated_metadata
        self._params, self._inputs = records.params_changed, records.input_changed
        # Of the jobs that are compared here.
        self._found: dict[Any, Change] = {}
        self._looked_at: set[Any] = set()
        self._warned = False

    async def oldest(self, job: Any) -> float | None:
        """In the place of ``Job.output_mintime``, which is asked first: time of the oldest output;
        the end of time where times say nothing."""
        time: float | None = await self._oldest(job)
        self._found.pop(job, None)
        self._looked_at.discard(job)
        if time is None or _settings(job) is None:
            return time
        if results := _results(job):
            gone = [path for path in results if not Path(path).exists()]
            if gone and any(Path(path).exists() for path in job.output):
                job.dag.reason(job).missing_output.update(gone)
        # Most jobs have no newer input; they are looked at only if nothing else makes them run.
        if (newer := _newer_inputs(job, time)) and self._look(job, newer):
            return math.inf
        return time

    def _look(self, job: Any, newer: Sequence[Path] = ()) -> bool:
        """Compares a job with what made its outputs, where Snakemake's record is not of these or
        an input is newer, which may be too large for Snakemake to look into.

        Args:
            newer: its inputs that are newer than an output.

        Returns:
            whether times say nothing.
        """
        self._looked_at.add(job)
        records, settings = job.dag.workflow.persistence, _settings(job)
        there = [path for path in job.output if Path(path).exists()]
        if settings is None or not there:
            return False
        known = self._has(records, job)
        if known and not newer and _is_of(records, there):
            return False
        made = maker_of(there)
        says_inputs = made is not None and "inputs" in made
        if known and not says_inputs:
            return False
        if made is not None:
            self._found[job] = change(made, settings, job.input)
        # An output of an earlier version, and an input that was made by this one, so later.
        if not says_inputs and any(map(provenance.says_inputs, newer)):
            return False
        if made is None:
            self._say(there[0])
        return True

    def _say(self, path: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(
                f"cannot tell with which settings {path} was made, and perhaps others: results of "
                "an earlier version that were moved or copied do not say. They are kept; delete "
                "what is to be made again."
            )

    async def missing(self, job: Any, requested: Any) -> AsyncIterator[Any]:
        """In the place of ``Job.missing_output``."""
        wanted = list(requested)
        gone = [path async for path in self._missing(job, wanted)]
        for path in gone:
            yield path
        if len(gone) < len(wanted) and _settings(job) is not None:
            for store in missing(map(str, wanted)):
                yield store

    def has_record(self, records: Any, job: Any) -> bool:
        """In the place of ``has_metadata``, which is asked before the three below."""
        if job not in self._looked_at:
            self._look(job)
        if job not in self._found:
            return bool(self._has(records, job))
        # Times do not tell of these.
        job.dag.reason(job).updated_input.update(self._found[job].updated)
        return True

    def has_old_record(self, records: Any, job: Any) -> bool:
        return job not in self._found and bool(self._outdated(records, job))

    def params_changed(self, records: Any, job: Any, file: Any = None) -> Any:
        if job not in self._found:
            return self._params(records, job, file=file)
        then = self._found[job].settings
        if then is None:
            return self._changes()
        files = set(job.output) if file is None else {file}
        return self._changes({repr(then)}, {repr(_settings(job))}, files)

    def input_changed(self, records: Any, job: Any, file: Any = None) -> Any:
        if job not in self._found:
            return self._inputs(records, job, file=file)
        others = self._found[job].inputs
        return others if file is not None else iter(job.output if others else ())


def _settings(job: Any) -> str | None:
    """The settings of a job of this workflow; None for another's, that has it as a module."""
    own = job.output and isinstance(getattr(job.params, "common", None), Untracked)
    told = getattr(job.params, "settings", None) if own else None
    return told if isinstance(told, str) else None


def _results(job: Any) -> tuple[str, ...]:
    """Paths that must be there, as long as any of the outputs is."""
    words: tuple[str, ...] = getattr(getattr(job.params, "results", None), "words", ())
    return words


def _is_of(records: Any, outputs: Iterable[Any]) -> bool:
    """Whether the records are of these very files, by their times."""
    return all(records.metadata(path).endtime == Path(path).stat().st_mtime for path in outputs)


def _newer_inputs(job: Any, time: float) -> list[Path]:
    inputs = (Path(path) for path in job.input)
    return [path for path in inputs if path.exists() and path.stat().st_mtime > time]


def compare_what_made_outputs() -> bool:
    """From here on Snakemake plans as this module says.

    Returns:
        False where this version of Snakemake has other names inside: then nothing is changed.
    """
    try:
        from snakemake import persistence
        from snakemake.jobs import Job
        from snakemake.logging import logger

        records: Any = getattr(persistence, "PersistenceBase", None) or persistence.Persistence
        changes = persistence.ParamsChange
        if hasattr(Job, "plans_by_what_made_outputs"):
            return True
        planning = Planning(Job, records, changes, logger.warning)
        known = inspect.iscoroutinefunction(Job.output_mintime.fget) and inspect.isasyncgenfunction(
            Job.missing_output
        )
    except (ImportError, AttributeError):
        return False
    if not known:
        return False

    async def oldest(job: Any) -> float | None:
        return await planning.oldest(job)

    def missing_output(job: Any, requested: Any) -> AsyncIterator[Any]:
        return planning.missing(job, requested)

    Job.output_mintime = property(oldest)
    Job.missing_output = missing_output
    for name, method in (
        ("has_metadata", planning.has_record),
        ("has_outdated_metadata", planning.has_old_record),
        ("params_changed", planning.params_changed),
        ("input_changed", planning.input_changed),
    ):
        setattr(records, name, _as_method(method))
    Job.plans_by_what_made_outputs = True
    return True


def _as_method(function: Any) -> Any:
    def method(records: Any, job: Any, **more: Any) -> Any:
        return function(records, job, **more)

    return method
