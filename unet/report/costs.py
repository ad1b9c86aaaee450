"""The cost of the stages: Snakemake's ``benchmark:`` files, and what jobs measure on GPUs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet.config.stage_settings import ReportSettings
from unet.evaluation.metrics.rows import NAN
from unet.paths import Paths, fold_name
from unet.tables import read_table
from unet.versions import STAGES

# Splits take no time worth a row. No result needs the check. The report cannot know its own cost,
# and would never be the same twice.
_WITHOUT = ("splits", "check", "report")
STAGES_WITH_COSTS = tuple(stage for stage in STAGES if stage not in _WITHOUT)


@dataclass(frozen=True)
class GpuCost:
    """What jobs used of their GPUs: the seconds in which these could have computed and those in
    which they did (sums), and the largest peak memory (MiB)."""

    seconds: float
    busy_seconds: float
    memory_mb: float

    @property
    def busy(self) -> float:
        """Share of the time in which the GPUs did not wait for data, 0 to 1."""
        return self.busy_seconds / self.seconds if self.seconds else NAN


@dataclass(frozen=True)
class Cost:
    """Cost of a stage's jobs: sum of the seconds (wall, CPU), the largest peak memory (MiB), and
    the use of GPUs, if the jobs had any."""

    stage: str
    model: str
    jobs: int
    seconds: float
    cpu_seconds: float
    memory_mb: float
    gpu: GpuCost | None = None


def all_costs(
    paths: Paths, dataset: str, settings: ReportSettings | Mapping[str, Any], folds: Sequence[int]
) -> list[Cost]:
    """As :func:`stage_costs`, with a row for all models of a sweep or of a learning curve together,
    and one for each tool whose masks are compared.

    Args:
        settings: of the dataset's report, or their record.
    """
    known = settings if isinstance(settings, Mapping) else settings.to_json()
    models = tuple(known["models"])
    groups = {model: (model,) for model in models}
    for name, members in known.get("sweeps", {}).items():
        groups[f"{name}: sweep of {len(members)} models"] = tuple(members)
    for name, members in known.get("curves", {}).items():
        groups[f"{name}: learning curve"] = tuple(m for m in members if m not in models)
    groups |= {tool: (tool,) for tool in known.get("compared", ())}
    return stage_costs(paths, dataset, groups, folds)


def stage_costs(
    paths: Paths,
    dataset: str,
    models: Sequence[str] | Mapping[str, Sequence[str]],
    folds: Sequence[int],
) -> list[Cost]:
    """A row per stage, and per model if the stage's jobs have one; none without a record.

    Args:
        models: their names; or what a row is called -> the models in it.
    """
    rows = []
    groups = models if isinstance(models, Mapping) else {model: (model,) for model in models}
    for stage in STAGES_WITH_COSTS:
        for model, members in {"": (), **groups}.items():
            # The jobs of a stage are per dataset, per model, or per fold: two of these have none.
            names: list[tuple[str, ...]] = [] if model else [(dataset,)]
            for member in members:
                names.append((dataset, member))
                names += [(dataset, member, fold_name(fold)) for fold in folds]
            jobs = [read_benchmark(paths.benchmark(stage, *name)) for name in names]
            found = [job for job in jobs if job is not None]
            gpus = [read_gpu_use(paths.gpu_use(stage, *name)) for name in names]
            if found:
                seconds, cpu, memory = zip(*found, strict=True)
                sums = (_sum(seconds), _sum(cpu), _largest(memory), _together(gpus))
                rows.append(Cost(stage, model, len(found), *sums))
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
        _together(row.gpu for row in rows),
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


def read_gpu_use(path: Path) -> GpuCost | None:
    """What a job measured (:meth:`unet.models.gpu_meter.GpuMeter.write`); None if it had no GPU,
    was run by an earlier version, or its record is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return GpuCost(*(float(found[key]) for key in ("seconds", "busy_seconds", "memory_mib")))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _together(gpus: Iterable[GpuCost | None]) -> GpuCost | None:
    known = [gpu for gpu in gpus if gpu is not None]
    if not known:
        return None
    return GpuCost(
        sum(gpu.seconds for gpu in known),
        sum(gpu.busy_seconds for gpu in known),
        max(gpu.memory_mb for gpu in known),
    )


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
