"""Finds outputs that are out of date in cases where Snakemake cannot know it.

Snakemake compares a job with its record of each output, which is stored in the working folder under
the output's path. Outputs that were moved, renamed, copied, cloned or fetched have no such record;
Snakemake then accepts them, or compares file times. But each output has its own record of what made
it (:mod:`unet.provenance`). So if Snakemake has no record, or its record is for a file with a
different time, the output's own record is compared: settings, set of inputs, and content of the
inputs, ignoring file times. An output without a record (made by an early version) is kept, unless
an input with a record is newer: that input was made later, and Snakemake's own rule decides.

Also, a sentinel does not count if someone has deleted its store: results are made again, and
intermediate stores are made again when a job needs them.

All of this happens in memory while Snakemake plans. If a version of Snakemake has different
internal names, nothing is changed.
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
from unet.data.joined_stores import stores_of
from unet.files import canonical
from unet.paths import store_of
from unet.planning.untracked import Untracked


@dataclass(frozen=True)
class Change:
    """What has changed since a job's outputs were made.

    Attributes:
        settings: the old settings, if they have changed.
        inputs: whether the set of inputs has changed.
        updated: the inputs whose content has changed.
    """

    settings: str | None = None
    inputs: bool = False
    updated: tuple[str, ...] = ()


def change(made: provenance.MadeBy, settings: str, inputs: Iterable[str]) -> Change:
    """Compares the record of a job's outputs with the job as it would run now.

    Args:
        made: the record.
        settings: the current settings, as canonical JSON.
        inputs: the current inputs.
    """
    then = canonical(made["settings"])
    other = None if then == settings else then
    if "inputs" not in made:  # a model.pt alone
        return Change(other)
    names, paths = sorted(made["inputs"]), sorted(map(str, inputs))
    # Sorted in the same order, they differ only by the path of the output folder.
    folder = paths[0].removesuffix(names[0]) if names and paths else ""
    if [folder + name for name in names] != paths:
        return Change(other, inputs=True)
    # Deleted inputs do not count as changed.
    known = dict(zip(paths, (made["inputs"][name] for name in names), strict=True))
    there = [path for path in paths if Path(path).exists()]
    return Change(other, updated=tuple(p for p in there if _content_id(p) != known[p]))


@cache  # many jobs share their inputs
def _content_id(path: str) -> str:
    return provenance.content_id(Path(path))


def record_of(outputs: Iterable[str]) -> provenance.MadeBy | None:
    """The record of a job's outputs; None if none of them has one.

    The settings are those of the first output with a record: a model.pt contains its own settings,
    whatever table is next to it.
    """
    found = [made for path in outputs if (made := provenance.read_made_by(Path(path))) is not None]
    if not found:
        return None
    inputs = [made["inputs"] for made in found if isinstance(made.get("inputs"), dict)]
    more = {"inputs": inputs[0]} if inputs else {}
    return {"settings": found[0]["settings"], **more}


def missing_stores(paths: Iterable[str]) -> Iterator[str]:
    """Stores that do not exist although their sentinels do; also those that a joined store
    names."""
    for path in paths:
        store = store_of(Path(path))
        if store is None or not Path(path).exists():
            continue
        named = stores_of(store).values() if store.name == "prepared.zarr" else ()
        yield from (str(each) for each in (store, *named) if not each.exists())


class Planning:
    """Replacements for the methods with which Snakemake's planning reads its records.

    Args:
        job: Snakemake's class for jobs.
        records: its class for records.
        changes: its class for changed params.
        warn: logs a line for the user.
    """

    def __init__(self, job: Any, records: Any, changes: Any, warn: Any) -> None:
        self._changes, self._warn = changes, warn
        self._oldest, self._missing = job.output_mintime.fget, job.missing_output
        self._has, self._outdated = records.has_metadata, records.has_outdated_metadata
        self._params, self._inputs = records.params_changed, records.input_changed
        # Results for the jobs that are compared here, and all jobs that were checked.
        self._found: dict[Any, Change] = {}
        self._checked: set[Any] = set()
        self._warned = False

    async def oldest(self, job: Any) -> float | None:
        """Replaces ``Job.output_mintime``, which Snakemake calls first: time of the oldest output;
        infinity if file times must be ignored."""
        time: float | None = await self._oldest(job)
        self._found.pop(job, None)
        self._checked.discard(job)
        if time is None or _settings(job) is None:
            return time
        if results := _results(job):
            gone = [path for path in results if not Path(path).exists()]
            if gone and any(Path(path).exists() for path in job.output):
                job.dag.reason(job).missing_output.update(gone)
        # Most jobs have no newer input; they are checked only if nothing else makes them run.
        if (newer := _newer_inputs(job, time)) and self._check(job, newer):
            return math.inf
        return time

    def _check(self, job: Any, newer: Sequence[Path] = ()) -> bool:
        """Compares a job with the record of its outputs, if Snakemake's record is missing or for
        other files, or if an input is newer (it may be too large for Snakemake to compare).

        Args:
            newer: the inputs that are newer than an output.

        Returns:
            whether file times must be ignored.
        """
        self._checked.add(job)
        records, settings = job.dag.workflow.persistence, _settings(job)
        there = [path for path in job.output if Path(path).exists()]
        if settings is None or not there:
            return False
        known = self._has(records, job)
        if known and not newer and _is_of(records, there):
            return False
        made = record_of(there)
        has_inputs = made is not None and "inputs" in made
        if known and not has_inputs:
            return False
        if made is not None:
            self._found[job] = change(made, settings, job.input)
        # The output is from an early version, but the input is from this one, so it is newer.
        if not has_inputs and any(map(provenance.records_inputs, newer)):
            return False
        if made is None:
            self._warn_once(there[0])
        return True

    def _warn_once(self, path: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(
                f"cannot tell with which settings {path} (and maybe other files) was made: results "
                "of an early version that were moved or copied have no record of it. They are "
                "kept; delete those that you want to remake."
            )

    async def missing(self, job: Any, requested: Any) -> AsyncIterator[Any]:
        """Replaces ``Job.missing_output``."""
        wanted = list(requested)
        gone = [path async for path in self._missing(job, wanted)]
        for path in gone:
            yield path
        if len(gone) < len(wanted) and _settings(job) is not None:
            for store in missing_stores(map(str, wanted)):
                yield store

    def has_record(self, records: Any, job: Any) -> bool:
        """Replaces ``has_metadata``, which Snakemake calls before the three below."""
        if job not in self._checked:
            self._check(job)
        if job not in self._found:
            return bool(self._has(records, job))
        # Snakemake cannot find these by file times.
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
    """The settings of a job of this workflow; None for jobs of a workflow that uses it as a
    module."""
    own = job.output and isinstance(getattr(job.params, "common", None), Untracked)
    settings = getattr(job.params, "settings", None) if own else None
    return settings if isinstance(settings, str) else None


def _results(job: Any) -> tuple[str, ...]:
    """Paths that must exist if any of the outputs exists."""
    words: tuple[str, ...] = getattr(getattr(job.params, "results", None), "words", ())
    return words


def _is_of(records: Any, outputs: Iterable[Any]) -> bool:
    """Whether the records are for these files, judged by their times."""
    return all(records.metadata(path).endtime == Path(path).stat().st_mtime for path in outputs)


def _newer_inputs(job: Any, time: float) -> list[Path]:
    inputs = (Path(path) for path in job.input)
    return [path for path in inputs if path.exists() and path.stat().st_mtime > time]


def compare_what_made_outputs() -> bool:
    """Makes Snakemake plan as described in this module.

    Returns:
        False if this version of Snakemake has different internal names: then nothing is changed.
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
