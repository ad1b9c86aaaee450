"""What ``quality.csv`` says about a model's results, as values for the report's page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unet.evaluation.metrics.rows import NAN, MetricRow
from unet.evaluation.quality.poor_scores import never_quiet, order_note
from unet.evaluation.quality.quality_table import (
    COUNTS,
    MAIN_SCORES,
    SCORE_NAMES,
    QualityRow,
    read_quality,
)
from unet.evaluation.quality.score_model import rank_correlation
from unet.files import read_json
from unet.paths import Paths
from unet.provenance import sidecar
from unet.report import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Images farther than this are drawn at the edge of the plot.
FAR = 10.0


@dataclass(frozen=True)
class Tested:
    """How true the judgement was, where the new images have labels.

    Attributes:
        images: with a predicted and a true score.
        correlation: rank correlation of the two.
        within: share of them whose interval has the true score; NaN = no intervals.
        counted, covered: the same for the counts.
    """

    images: int
    correlation: float
    within: float
    counted: int
    covered: float


@dataclass(frozen=True)
class Judged:
    """A model's rows, the images with the highest doubt first.

    Attributes:
        rows: by today's rules (:func:`~unet.evaluation.quality.poor_scores.never_quiet`), also of
            tables of earlier versions.
        basis: as in :class:`unet.evaluation.quality.quality.Basis`, from the table's metadata;
            that of earlier versions has fewer keys.
        notes: what could not be said, and why.
        true: image -> true score; empty without labels.
        tested: None without labels.
        plot: data URI; "" if no score was predicted.
    """

    model: str
    score: str
    rows: tuple[QualityRow, ...]
    basis: dict[str, Any]
    notes: tuple[str, ...]
    true: dict[str, float]
    tested: Tested | None
    plot: str

    @property
    def flagged(self) -> int:
        return sum(row.flagged for row in self.rows)

    @property
    def poor(self) -> str:
        """That the model is poor on its own held-out images, in words, or ""."""
        return str(self.basis.get("poor", ""))


def judged_model(
    paths: Paths, dataset: str, model: str, task: str, metrics: Sequence[MetricRow]
) -> Judged | None:
    """What was found out about a model's results; None if the stage did not run.

    Args:
        metrics: of the dataset, if it has labels.

    Raises:
        UserError: the table is unreadable.
    """
    table = paths.quality(dataset, model)
    if not table.is_file():
        return None
    read = [never_quiet(row, task) for row in read_quality(table)]
    rows = sorted(read, key=lambda row: (-row.doubt, row.image))
    about = sidecar(table)
    basis = read_json(about).get("basis", {}) if about.is_file() else {}
    own = [row for row in metrics if row.model == model]
    scored = any(not math.isnan(row.predicted_score) for row in rows)
    true = _values(own, MAIN_SCORES[task])
    counts = _values(own, COUNTS[0])
    return Judged(
        model=model,
        score=SCORE_NAMES[task],
        rows=tuple(rows),
        basis=basis,
        notes=_notes(basis),
        true=true,
        tested=compared(rows, true, counts) if own else None,
        plot=figures.figure_uri(quality_plot(rows, true, SCORE_NAMES[task])) if scored else "",
    )


def _notes(basis: dict[str, Any]) -> tuple[str, ...]:
    """Those of the stage; earlier versions said nothing about a useless order."""
    notes = list(basis.get("notes", ()))
    correlation, groups = basis.get("correlation"), basis.get("groups", basis.get("images", 0))
    order = order_note(NAN if correlation is None else correlation, groups)
    return tuple(notes if not order or order in notes else [*notes, order])


def _values(rows: Sequence[MetricRow], key: tuple[str, str]) -> dict[str, float]:
    return {
        row.image: row.value
        for row in rows
        if (row.class_, row.metric) == key and not math.isnan(row.value)
    }


def compared(
    rows: Sequence[QualityRow], true: dict[str, float], counts: dict[str, float]
) -> Tested:
    """Compares predicted with true scores, and intervals with true numbers of objects.

    Args:
        true, counts: of each image with labels.
    """
    scored = [r for r in rows if r.image in true and not math.isnan(r.predicted_score)]
    ranged = [row for row in scored if not math.isnan(row.predicted_low)]
    counted = [row for row in rows if row.image in counts and not math.isnan(row.count_low)]
    return Tested(
        images=len(scored),
        correlation=rank_correlation(
            [row.predicted_score for row in scored], [true[row.image] for row in scored]
        ),
        within=_share(
            [row.predicted_low <= true[row.image] <= row.predicted_high for row in ranged]
        ),
        counted=len(counted),
        covered=_share([row.count_low <= counts[row.image] <= row.count_high for row in counted]),
    )


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else NAN


def quality_plot(rows: Sequence[QualityRow], true: dict[str, float], score: str) -> Figure:
    """Left: predicted score of each image against its drift. Right, with labels: against its true
    score. Images that need a look are orange squares."""
    figure = figures.new_figure(9.0, 3.2)
    if true:
        left, right = figure.subplots(1, 2)
        right.plot([0, 1], [0, 1], "--", color=figures.INK, linewidth=1.0)
        pairs = [(true.get(r.image, NAN), r.predicted_score, r.flagged) for r in rows]
        _dots(right, pairs)
        right.set_xlim(-0.02, 1.02)
        _named(right, f"true {score}", f"predicted {score}", "Was it right?")
    else:
        left = figure.subplots()
    _dots(left, [(min(row.drift, FAR), row.predicted_score, row.flagged) for row in rows])
    left.axvline(1.0, color=figures.INK, linestyle="--", linewidth=1.0)
    left.set_xlim(left=0)
    _named(left, "drift (1 = limit of the usual)", f"predicted {score}", "Predicted score, drift")
    figures.add_legend(left)
    return figure


def _dots(axis: Axes, points: Sequence[tuple[float, float, bool]]) -> None:
    for flagged, colour, marker in ((False, figures.LINES[0], "o"), (True, figures.LINES[1], "s")):
        shown = [(x, y) for x, y, own in points if own == flagged and x == x and y == y]
        label = "needs a look" if flagged else "no sign against it"
        x, y = [p[0] for p in shown], [p[1] for p in shown]
        size = 20 if len(points) <= 300 else 6
        axis.scatter(
            x, y, s=size, color=colour, marker=marker, alpha=0.7, linewidths=0, label=label
        )


def _named(axis: Axes, x: str, y: str, title: str) -> None:
    figures.plain_axis(axis, title)
    axis.set_ylim(-0.02, 1.02)
    axis.set_xlabel(x, color=figures.INK, fontsize=8.5)
    axis.set_ylabel(y, color=figures.INK, fontsize=8.5)
    axis.grid(color=figures.INK, alpha=0.2, linewidth=0.6)
