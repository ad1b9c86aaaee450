"""From the tidy metrics to the report's tables: means with their intervals, best first seen."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from unet.errors import UserError
from unet.evaluation.rows import METRIC_COLUMNS, MetricRow
from unet.evaluation.statistics import Interval, bootstrap_interval
from unet.files import replacing

NAN = float("nan")


@dataclass(frozen=True)
class Score:
    """One of the main metrics. ``class_`` "*" stands for whichever class has the metric."""

    metric: str
    class_: str
    label: str
    meaning: str


_V_RAND = Score(
    "v_rand",
    "*",
    "V_rand",
    "Rand score of the cells after thinning their boundaries: falls when cells are merged or split",
)
_V_INFO = Score("v_info", "*", "V_info", "the same question as V_rand, asked by information")
_ERROR = Score("pixel_error", "*", "Pixel error", "share of pixels with the wrong class")

# The main metrics of each task, in the order of the columns. The first that was measured is the
# one that ranks models and images.
HEADLINE: dict[str, tuple[Score, ...]] = {
    "semantic": (
        Score(
            "iou",
            "foreground-mean",
            "IoU",
            "pixels in both prediction and truth, divided by pixels in either; mean over the "
            "classes after the first",
        ),
        _V_RAND,
        _V_INFO,
        _ERROR,
    ),
    "instances": (
        Score(
            "ap_0.50",
            "instances",
            "AP@0.5",
            "true positives / (true positives + false positives + misses), an object being found "
            "when its IoU is at least 0.5",
        ),
        Score("f1_0.50", "instances", "F1@0.5", "harmonic mean of precision and recall of objects"),
        Score("pq", "instances", "PQ", "panoptic quality: F1 times the mean IoU of found objects"),
        Score("seg", "instances", "SEG", "mean IoU over all true objects, a miss counting 0"),
        Score(
            "iou", "foreground", "IoU", "overlap of all foreground pixels, whatever their object"
        ),
        _V_RAND,
        _V_INFO,
    ),
}
# Everything that is not named here is better when higher; counts are neither.
LOWER_IS_BETTER = frozenset({"pixel_error"})
NEITHER = frozenset({"n_true", "n_pred", "topology_threshold"})


def better(metric: str) -> int:
    """1 if a higher value of the metric is better, -1 if a lower one, 0 if neither."""
    return 0 if metric in NEITHER else -1 if metric in LOWER_IS_BETTER else 1


class ReportRow(NamedTuple):
    """One row of ``report.csv``: mean over the test images with its bootstrap interval."""

    dataset: str
    model: str
    class_: str
    metric: str
    mean: float
    low: float
    high: float
    n: int


REPORT_COLUMNS = ("dataset", "model", "class", "metric", "mean", "low", "high", "n")


def read_metrics(path: Path) -> list[MetricRow]:
    """Reads ``metrics.csv``; an empty value is NaN. Raises UserError if it is not such a file."""
    return [
        MetricRow(
            row["dataset"],
            row["model"],
            int(row["fold"]),
            row["image"],
            row["group"],
            row["class"],
            row["metric"],
            float(row["value"] or NAN),
        )
        for row in _read(path, METRIC_COLUMNS, "evaluate")
    ]


def read_report(path: Path) -> list[ReportRow]:
    """Reads what :func:`write_report` wrote."""
    rows = []
    for row in _read(path, REPORT_COLUMNS, "report"):
        mean, low, high = (float(row[name] or NAN) for name in ("mean", "low", "high"))
        names = (row["dataset"], row["model"], row["class"], row["metric"])
        rows.append(ReportRow(*names, mean, low, high, int(row["n"])))
    return rows


def write_report(path: Path, rows: Iterable[ReportRow]) -> None:
    """Writes ``report.csv``; values that are not defined are empty cells."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(REPORT_COLUMNS)
        for row in rows:
            numbers = ("" if math.isnan(v) else f"{v:.6g}" for v in (row.mean, row.low, row.high))
            writer.writerow([*row[:4], *numbers, row.n])


def _read(path: Path, columns: Sequence[str], stage: str) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle)
            rows = list(reader)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); run the {stage} stage first"
        ) from None
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise UserError(
            f"{path}: has no column {', '.join(missing)}; run the {stage} stage again to remake it"
        )
    return rows


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: confidence level, resamplings, seed."""

    confidence: float = 0.95
    n: int = 2000
    seed: int = 0

    def interval(self, rows: Sequence[MetricRow]) -> Interval:
        """Mean over the rows (one per image) with its interval.

        Whole groups are resampled where the rows name at least two; an image without a group then
        stands for itself.
        """
        # Sorted, so that the draws do not depend on the order in which images were evaluated.
        rows = sorted(rows, key=lambda row: (row.image, row.fold))
        grouped = len({row.group for row in rows if row.group}) > 1
        groups = [("group", r.group) if r.group else ("image", r.image) for r in rows]
        return bootstrap_interval(
            [row.value for row in rows],
            groups if grouped else None,
            self.confidence,
            self.n,
            self.seed,
        )


def summarise(metrics: Iterable[MetricRow], bootstrap: Bootstrap) -> list[ReportRow]:
    """A row for each model, class and metric, in the order in which they first appear."""
    parts: dict[tuple[str, str, str, str], list[MetricRow]] = {}
    for row in metrics:
        parts.setdefault((row.dataset, row.model, row.class_, row.metric), []).append(row)
    return [ReportRow(*key, *bootstrap.interval(rows)) for key, rows in parts.items()]


@dataclass(frozen=True)
class Cell:
    """A mean with its interval as shown; ``best`` among the models compared."""

    mean: float = NAN
    low: float = NAN
    high: float = NAN
    n: int = 0
    best: bool = False


def columns_for(rows: Sequence[ReportRow], task: str) -> list[Score]:
    """The task's main metrics that were measured, their classes filled in."""
    found: list[Score] = []
    for score in HEADLINE[task]:
        classes = [
            row.class_
            for row in rows
            if row.metric == score.metric and score.class_ in ("*", row.class_)
        ]
        if classes:
            found.append(replace(score, class_=classes[0]))
    return found


def comparison(
    rows: Iterable[ReportRow], keys: Sequence[tuple[str, str]], models: Sequence[str]
) -> dict[str, list[Cell]]:
    """Per model the cells of ``keys`` (class, metric); the best of each is marked.

    Nothing is marked where one model alone was measured, or where neither direction is better.
    """
    found = {(row.model, row.class_, row.metric): row for row in rows}
    table: dict[str, list[Cell]] = {model: [] for model in models}
    for class_, metric in keys:
        means = {m: found[m, class_, metric].mean for m in models if (m, class_, metric) in found}
        signed = [better(metric) * v for v in means.values() if not math.isnan(v)]
        compared = len(signed) > 1 and better(metric) != 0
        for model in models:
            row = found.get((model, class_, metric))
            if row is None:
                table[model].append(Cell())
                continue
            best = compared and better(metric) * row.mean == max(signed)
            table[model].append(Cell(row.mean, row.low, row.high, row.n, best))
    return table


# With fewer pairs even a difference that has the same sign in all of them is no evidence: the sign
# test gives 2 / 2^5 = 0.06 for five.
FEW_PAIRS = 6


def differences(
    metrics: Sequence[MetricRow], score: Score, models: Sequence[str], bootstrap: Bootstrap
) -> list[tuple[str, str, Cell]]:
    """(best model, other model, best minus other), image by image, with its paired interval.

    Two models see the same images, so what is hard for one is hard for the other: the interval
    of the difference is far narrower than the two intervals suggest. Images that only one of the
    models has are left out.
    """
    values: dict[str, dict[tuple[str, int], MetricRow]] = {model: {} for model in models}
    for row in metrics:
        wanted = row.model in values and (row.class_, row.metric) == (score.class_, score.metric)
        if wanted and not math.isnan(row.value):
            values[row.model][row.image, row.fold] = row
    means = {m: fmean(row.value for row in v.values()) for m, v in values.items() if v}
    if len(means) < 2:
        return []
    best = max(means, key=lambda model: better(score.metric) * means[model])
    result = []
    for model in means:
        shared = [key for key in values[best] if key in values[model]]
        if model == best or not shared:
            continue
        change = [
            values[best][key]._replace(value=values[best][key].value - values[model][key].value)
            for key in shared
        ]
        result.append((best, model, Cell(*bootstrap.interval(change))))
    return result
