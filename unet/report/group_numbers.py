"""Scores of groups of images, and which group fails."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from unet.evaluation.metrics.rows import MetricRow
from unet.report.numbers import number
from unet.report.score_tables import MeanScore, better

# Images that a group needs before its mean is called the worst.
LEAST_IMAGES = 3


@dataclass(frozen=True)
class GroupScore:
    """The scores of a group's images by one model; images without a value are left out."""

    group: str
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.scores)


def group_scores(
    metrics: Sequence[MetricRow], score: MeanScore, models: Sequence[str]
) -> dict[str, list[GroupScore]]:
    """Model -> its groups, sorted by name; images of no group are left out."""
    found: dict[str, dict[str, list[float]]] = {model: {} for model in models}
    for row in metrics:
        same = (row.class_, row.metric) == (score.class_, score.metric)
        if same and row.group and row.model in found and not math.isnan(row.value):
            found[row.model].setdefault(row.group, []).append(row.value)
    return {
        model: [GroupScore(name, tuple(groups[name])) for name in sorted(groups)]
        for model, groups in found.items()
        if groups
    }


def worst_first(found: dict[str, list[GroupScore]], score: MeanScore) -> list[str]:
    """The groups, the one with the worst mean over all models' images first."""
    every: dict[str, list[float]] = {}
    for groups in found.values():
        for each in groups:
            every.setdefault(each.group, []).extend(each.scores)
    sign = better(score.metric) or 1
    return sorted(every, key=lambda name: (sign * fmean(every[name]), name))


def group_finding(model: str, groups: Sequence[GroupScore], score: MeanScore) -> str:
    """Which group has the worst mean, against the others; that there are too few images if so."""
    enough = [each for each in groups if len(each.scores) >= LEAST_IMAGES]
    if len(enough) < 2:
        return f"{model}: too few images per group to tell (fewer than {LEAST_IMAGES} in most)."
    sign = better(score.metric) or 1
    worst = min(enough, key=lambda each: (sign * each.mean, each.group))
    rest = [value for each in groups if each is not worst for value in each.scores]
    return (
        f"{model}: {score.label} is worst in group {worst.group}, {number(worst.mean)} "
        f"(n = {len(worst.scores)} images), against {number(fmean(rest))} in the others "
        f"(n = {len(rest)})."
    )
