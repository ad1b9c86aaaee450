"""Scores of a joined dataset by the datasets that it joins, beside those of models that were
trained on one of them alone: whether training together helps, and whom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from unet.data.joined_stores import member_id
from unet.data.tested_units import enough
from unet.errors import how_many
from unet.evaluation.metrics.rows import MetricRow
from unet.evaluation.statistics import Interval
from unet.report.group_numbers import GroupScore
from unet.report.numbers import number
from unet.report.paired import Statistics
from unet.report.score_tables import MeanScore


class MemberScore(NamedTuple):
    """A model's scores on the test images of one joined dataset.

    ``rows``: one per image with a value; ``alone``: those of the same model, trained on this
    dataset alone, of its test images in the same folds; ``gain``: the mean difference on the
    images with both, positive if the joined training has the larger value; None without any.
    """

    model: str
    dataset: str
    rows: Sequence[MetricRow]
    alone: Sequence[MetricRow]
    gain: Interval | None


def member_scores(
    metrics: Sequence[MetricRow],
    alone: Mapping[tuple[str, str], Sequence[MetricRow]],
    score: MeanScore,
    models: Sequence[str],
    members: Sequence[str],
    statistics: Statistics,
) -> list[MemberScore]:
    """The scores of each model on each joined dataset that has any.

    Args:
        metrics: of the joined dataset.
        alone: (dataset, model) -> scores of the model that was trained there.
    """
    found = []
    for model in models:
        of_model = [row for row in metrics if row.model == model]
        for name in members:
            rows = _of(of_model, score, member_id(name, ""))
            others = {row.image: row for row in _of(alone.get((name, model), ()), score)}
            if not rows:
                continue
            pairs = [(r, others.get(r.image.removeprefix(member_id(name, "")))) for r in rows]
            both = [r._replace(value=r.value - o.value) for r, o in pairs if o is not None]
            gain = statistics.interval(both) if both else None
            found.append(MemberScore(model, name, rows, list(others.values()), gain))
    return found


def _of(rows: Sequence[MetricRow], score: MeanScore, prefix: str = "") -> list[MetricRow]:
    return [
        row
        for row in rows
        if (row.class_, row.metric) == (score.class_, score.metric)
        and row.image.startswith(prefix)
        and not math.isnan(row.value)
    ]


def as_groups(found: Sequence[MemberScore]) -> dict[str, list[GroupScore]]:
    """Name of a plot's series -> a group for each dataset."""
    series: dict[str, list[GroupScore]] = {}
    for each in found:
        for name, rows in ((each.model, each.rows), (f"{each.model}, alone", each.alone)):
            if rows:
                group = GroupScore(each.dataset, tuple(row.value for row in rows))
                series.setdefault(name, []).append(group)
    return series


def sentence(each: MemberScore, score: MeanScore, confidence: float) -> str:
    """What a model scores on a dataset, and whether training together changed it."""
    mean, images = number(mean_of(each.rows)), how_many(len(each.rows), "image")
    text = f"{each.model} on {each.dataset}: {score.label} {mean} ({images})"
    if each.gain is None:
        return f"{text}."
    text += f"; trained on {each.dataset} alone {number(mean_of(each.alone))}"
    gain = each.gain
    if math.isnan(gain.low) or not enough(gain.units, confidence):
        return f"{text}; too few images to tell whether they differ."
    ends = f"{number(gain.low)} to {number(gain.high)}"
    found = f"a difference of {number(gain.mean)} ({confidence:.0%} interval {ends})"
    return f"{text}: {found}{', which may be chance' if gain.low <= 0 <= gain.high else ''}."


def mean_of(rows: Sequence[MetricRow]) -> float:
    """NaN without rows."""
    return math.fsum(row.value for row in rows) / len(rows) if rows else math.nan
