"""The cost of the stages, from the files of Snakemake's ``benchmark:``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet.evaluation.metrics.rows import NAN
from unet.paths import Paths, fold_name
from unet.tables import read_table
from unet.versions import STAGES

# Splits take no time worth a row. No result needs the check. The report cannot know its own cost,
# and would never be the same twice. Earlier versions had a stage "download".
_WITHOUT = ("splits", "check", "report")
STAGES_WITH_COSTS = ("download", *(stage for stage in STAGES if stage not in _WITHOUT))


@dataclass(frozen=True)
class Cost:
    """Cost of a stage's jobs: sum of the seconds (wall, CPU), and the largest peak memory (MiB)."""

    stage: str
    model: str
    jobs: int
    seconds: float
    cpu_seconds: float
    memory_mb: float


def stage_costs(
    paths: Paths, dataset: str, models: Sequence[str], folds: Sequence[int]
) -> list[Cost]:
    """A row per stage, and per model if the stage's jobs have one; none without a record."""
    rows = []
    for stage in STAGES_WITH_COSTS:
        for model in ["", *models]:
            # The jobs of a stage are per dataset, per model, or per fold: two of these have none.
            names = [(dataset, *([model] if model else []))]
            if model:
                names += [(*names[0], fold_name(fold)) for fold in folds]
            jobs = [read_benchmark(paths.benchmark(stage, *name)) for name in names]
            found = [job for job in jobs if job is not None]
            if found:
                seconds, cpu, memory = zip(*found, strict=True)
                rows.append(
                    Cost(stage, model, len(found), _sum(seconds), _sum(cpu), _largest(memory))
                )
    return rows


def total_cost(rows: Iterable[Cost]) -> Cost:
    """All rows in one: sums of jobs, wall and CPU seconds, and the largest peak memory."""
    rows = list(rows)
    return Cost(
        "total",
        "",
        sum(row.jobs for row in rows),
        _sum(row.seconds for row in rows),
        _sum(row.cpu_seconds for row in rows),
        _largest(row.memory_mb for row in rows),
    )


def read_benchmark(path: Path) -> tuple[float, float, float] | None:
    """Seconds, CPU seconds and peak MiB of a job from Snakemake's TSV file; None if it is missing.

    NaN for values that Snakemake could not measure (in jobs of a few milliseconds), for which it
    writes "-" or "NA".
    """
    if not path.exists():
        return None
    rows = read_table(path, "(none)", delimiter="\t").to_dict("records")
    if not rows:
        return None
    return _number(rows[-1], "s"), _number(rows[-1], "cpu_time"), _number(rows[-1], "max_rss")


def _number(row: Mapping[Any, str], key: str) -> float:
    try:
        return float(row.get(key) or NAN)
    except ValueError:
        return NAN


def _sum(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) if known else NAN


def _largest(values: Iterable[float]) -> float:
    return max((value for value in values if not math.isnan(value)), default=NAN)
