"""What the page over all datasets says about each of them: counts, warnings, a strip of images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from unet.config.stage_settings import DatasetTask
from unet.data.dataset_warnings import read_warnings
from unet.data.records import read_manifest, read_splits
from unet.errors import UserError
from unet.paths import Paths
from unet.report import collect, score_tables
from unet.report.applied import applied_picks
from unet.report.collect import Pick
from unet.report.outlined import Thumbnail, thumbnails
from unet.report.score_tables import Cell, MeanScore, better

# Images in the strip of a dataset, and about how many thumbnails the page has at most.
STRIP, MOST = 6, 90
# Number of warnings to list per dataset; its own page has more.
LISTED_WARNINGS = 10


@dataclass(frozen=True)
class Counts:
    """How much there is of what; None if unknown.

    Attributes:
        images, objects: usable images, and the labelled objects in them.
        tested: images that are a test image in some fold, or, of a dataset that models of another
            one predict, that have a label; None without any label.
        left_out: quarantined images.
        folds: 0 if models of another dataset predict.
    """

    images: int | None
    left_out: int
    tested: int | None
    objects: int | None
    models: int
    folds: int


@dataclass(frozen=True)
class Interval:
    """A model's main score, and where its mean and interval lie on the axis, 0 to 1 (NaN: not
    measured)."""

    dataset: str
    model: str
    cell: Cell
    low: float
    mean: float
    high: float


@dataclass(frozen=True)
class IntervalPlot:
    """The intervals of all models of some datasets by one score; ``ticks``: position -> value."""

    score: MeanScore
    rows: tuple[Interval, ...]
    ticks: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Summary:
    """A dataset in the overview.

    Attributes:
        link: to its page, relative to the output folder.
        score: the one by which the images of the strip were chosen; None without labels.
        model: the model of the strip.
    """

    name: str
    task: str
    link: str
    counts: Counts
    warnings: tuple[str, ...]
    score: MeanScore | None
    model: str
    strip: tuple[Thumbnail, ...]


def summary(
    paths: Paths,
    dataset: str,
    entry: DatasetTask,
    columns: Sequence[MeanScore],
    cells: Mapping[str, Sequence[Cell]],
    datasets: int,
) -> Summary:
    """Reads what the overview says about a dataset.

    Args:
        columns, cells: its main scores, and per model their means in the same order.
        datasets: number of datasets on the page.
    """
    score = columns[0] if columns and entry.labelled else None
    model = _shown_model(entry, score, cells)
    number = max(1, min(STRIP, MOST // max(1, datasets)))
    return Summary(
        name=dataset,
        task=entry.task,
        link=f"{quote(dataset)}/report.html",
        counts=_counts(paths, dataset, entry),
        warnings=tuple(read_warnings(paths.dataset(dataset), entry.scored)),
        score=score,
        model=model,
        strip=tuple(
            thumbnails(
                paths,
                dataset,
                model,
                entry.task,
                _picks(paths, dataset, entry, model, score, number),
            )
        ),
    )


def _shown_model(
    entry: DatasetTask, score: MeanScore | None, cells: Mapping[str, Sequence[Cell]]
) -> str:
    """The model with the best mean; the first one without scores."""
    if score is None:
        return entry.models[0] if entry.models else ""
    # A tool's masks may be better, but the strip shows what this run predicted.
    own = {m: cells[m][0].mean for m in entry.models if m in cells}
    measured = {m: mean for m, mean in own.items() if not math.isnan(mean)}
    sign = better(score.metric)
    return max(measured, key=lambda m: sign * measured[m], default=entry.models[0])


def _picks(
    paths: Paths,
    dataset: str,
    entry: DatasetTask,
    model: str,
    score: MeanScore | None,
    number: int,
) -> list[Pick]:
    """The images of the strip, the worst one first; none if their table is gone."""
    try:
        if not entry.labelled:
            return applied_picks(paths, dataset, model, entry.task, number)
        if score is None:
            return []
        rows = score_tables.read_metrics(paths.metrics(dataset, model))
    except (UserError, FileNotFoundError):
        return []
    return collect.picks(rows, model, score, number)[::-1]


def _counts(paths: Paths, dataset: str, entry: DatasetTask) -> Counts:
    if not paths.manifest(dataset).exists():
        return Counts(None, 0, None, None, len(entry.models), 0)
    records = read_manifest(paths.manifest(dataset))
    good = [record for record in records if record.status == "ok"]
    objects = [r.objects for r in good if r.objects is not None and r.label]
    # Models of another dataset have no folds here.
    splits = read_splits(paths.splits(dataset)) if paths.splits(dataset).exists() else []
    tested = {row.image for row in splits if row.part == "test"}
    labelled = sum(bool(record.label) for record in good)
    return Counts(
        images=len(good),
        left_out=sum(record.status == "quarantined" for record in records),
        tested=len(tested) if splits else labelled if entry.labelled else None,
        objects=sum(objects) if objects and entry.task == "instances" else None,
        models=len(entry.models),
        folds=len({row.fold for row in splits}),
    )


def interval_plots(
    measured: Iterable[tuple[str, Sequence[MeanScore], Mapping[str, Sequence[Cell]]]],
) -> list[IntervalPlot]:
    """A plot per main score.

    Args:
        measured: dataset, its main scores, and per model their means in the same order.
    """
    by_score: dict[str, tuple[MeanScore, list[tuple[str, str, Cell]]]] = {}
    for dataset, columns, cells in measured:
        if columns:
            _, rows = by_score.setdefault(columns[0].label, (columns[0], []))
            rows += [(dataset, model, own[0]) for model, own in cells.items()]
    return [_plot(score, rows) for score, rows in by_score.values()]


def _plot(score: MeanScore, rows: Sequence[tuple[str, str, Cell]]) -> IntervalPlot:
    ends = [v for _, _, c in rows for v in (c.low, c.mean, c.high) if not math.isnan(v)]
    start, end, step = axis(min(ends, default=0.0), max(ends, default=1.0))

    def place(value: float) -> float:
        return (value - start) / (end - start)

    shown = [
        Interval(dataset, model, cell, place(cell.low), place(cell.mean), place(cell.high))
        for dataset, model, cell in rows
    ]
    values = [start + k * step for k in range(round((end - start) / step) + 1)]
    return IntervalPlot(score, tuple(shown), tuple((place(v), v) for v in values))


def axis(low: float, high: float) -> tuple[float, float, float]:
    """Start, end and step of an axis with two to five steps of a round size that shows ``low`` to
    ``high``."""
    span = max(high - low, 1e-6)
    size = 10.0 ** math.floor(math.log10(span))
    for factor in (0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0):
        step = factor * size
        # Rounded, since 0.7 / 0.1 is a bit below 7.
        first = math.floor(round(low / step, 6)) * step
        last = math.ceil(round(high / step, 6)) * step
        if round((last - first) / step) <= 5:
            break
    if round((last - first) / step) < 2:
        first = first - step if first >= step else first
        last = first + 2 * step
    return round(first, 9), round(last, 9), round(step, 9)
