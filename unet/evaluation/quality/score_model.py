"""Predicts the score of an image from what can be seen without its labels.

A ridge regression with weights that are at least 0: every feature is turned so that a higher value
is better, so a better-looking image never gets a worse score. The strength of the ridge is the one
with the smallest error on images left out one after the other (group by group); the strongest one
ignores all features and predicts the mean, which wins if the features say nothing. Few images are
the norm, so there is nothing else to choose.

Better values than those of the held-out images count as the best of these, and no prediction
exceeds the best held-out score: nothing is extrapolated upwards. Worse values are extrapolated
downwards, and named (:attr:`ScoreModel.beyond`).

The intervals have the quantile of the errors on left-out images as their margin (the jackknife). As
the model is fitted again on all images, they hold the truth about as often as they say, but without
a promise (Barber, Candès, Ramdas & Tibshirani 2021, "Predictive inference with the jackknife+",
doi:10.1214/20-AOS1965).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unet.evaluation.quality.conformal import margin
from unet.evaluation.statistics import group_index

Floats = NDArray[np.float64]

# With fewer held-out images (or groups) no score is predicted.
LEAST_IMAGES = 8
# Strengths of the ridge, as a share of the variance of a standardised feature.
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, math.inf)
# Smallest spread of a feature that counts; all features are shares, or of that size.
LEAST_SPREAD = 0.05
# A feature is beyond what was seen if it is worse than that of the worst held-out image by so many
# spreads. Chosen on generated nuclei, so that hardly any held-out image is flagged by it alone.
BEYOND_SPREADS = 2.0
# At most so many parts are left out in turn; more would only take longer.
PARTS = 100


@dataclass(frozen=True, eq=False)
class Fitted:
    """Weights of one fit: score = base + sum of weights * (min(value, best) - centre)."""

    base: float
    centre: Floats
    weights: Floats
    best: Floats

    def scores(self, values: Floats) -> Floats:
        """[N] of the features [N, F], not cut to a range."""
        found: Floats = self.base + (np.minimum(values, self.best) - self.centre) @ self.weights
        return found


@dataclass(frozen=True, eq=False)
class ScoreModel:
    """What predicts the scores of new images.

    Attributes:
        fitted: on all held-out images.
        worst: lowest value of each feature among the held-out images [F].
        spread: standard deviation of each feature, at least LEAST_SPREAD [F].
        highest: best score of the held-out images.
        half: half the width of the interval, None = too few groups for its level.
        groups: number of groups of held-out images.
        left_out: scores of the held-out images as predicted while they were left out [images].
        strength: of the ridge; infinite if no feature helps.
    """

    fitted: Fitted
    worst: Floats
    spread: Floats
    highest: float
    half: float | None
    groups: int
    left_out: Floats
    strength: float

    def score(self, values: Floats) -> float:
        """The score of an image with these features [F]; unknown ones (NaN) count as usual."""
        known = np.where(np.isnan(values), self.fitted.centre, values)
        return min(max(float(self.fitted.scores(known[None])[0]), 0.0), self.highest)

    def beyond(self, values: Floats) -> Floats:
        """How far each feature is beyond the worst one that was seen, [F]: 1 = at the limit."""
        known = np.where(np.isnan(values), self.fitted.centre, values)
        return np.maximum(0.0, (self.worst - known) / (BEYOND_SPREADS * self.spread))


def fit_scores(
    values: Floats, scores: Floats, groups: Sequence[Hashable], confidence: float
) -> ScoreModel | None:
    """Fits the features [N, F] of held-out images to their scores [N].

    Args:
        values: finite; higher is better.
        groups: of each image; images of a group are left out together, and weigh as much as one.
        confidence: level of the intervals.

    Returns:
        None if there are fewer than LEAST_IMAGES groups.
    """
    index = group_index(groups)
    number = len(set(groups))
    if number < LEAST_IMAGES:
        return None
    tried = {strength: _left_out(values, scores, index, strength) for strength in STRENGTHS}
    errors = {strength: float(((left - scores) ** 2).mean()) for strength, left in tried.items()}
    # In a tie the stronger one; sums of floats differ in their last bits.
    strength = min(STRENGTHS, key=lambda s: (round(errors[s], 12), -s))
    half = margin(np.abs(tried[strength] - scores).tolist(), groups, confidence)
    return ScoreModel(
        fitted=_fit(values, scores, strength),
        worst=values.min(axis=0),
        spread=np.maximum(values.std(axis=0), LEAST_SPREAD),
        highest=float(scores.max()),
        half=half,
        groups=number,
        left_out=tried[strength],
        strength=strength,
    )


def _left_out(values: Floats, scores: Floats, groups: NDArray[np.intp], strength: float) -> Floats:
    """The score of each image [N], predicted from the images of other groups."""
    found = np.empty(len(scores))
    for out in _parts(groups):
        fitted = _fit(values[~out], scores[~out], strength)
        found[out] = np.clip(fitted.scores(values[out]), 0.0, scores[~out].max())
    return found


def _parts(groups: NDArray[np.intp]) -> Iterator[NDArray[np.bool_]]:
    """Which images [N] are left out in turn: a group, or some of them if there are many."""
    number = int(groups.max()) + 1
    part = groups % min(number, PARTS)
    for k in range(min(number, PARTS)):
        yield part == k


def _fit(values: Floats, scores: Floats, strength: float) -> Fitted:
    from scipy.optimize import nnls

    centre, base, best = values.mean(axis=0), float(scores.mean()), values.max(axis=0)
    spread = np.maximum(values.std(axis=0), LEAST_SPREAD)
    weights = np.zeros(values.shape[1])
    if math.isfinite(strength) and values.shape[1]:
        scaled = (values - centre) / spread
        # The ridge as rows that want each weight to be 0; the spread of a constant feature is 0.
        penalty = math.sqrt(strength * len(scores)) * np.eye(values.shape[1])
        target = np.concatenate([scores - base, np.zeros(values.shape[1])])
        weights = nnls(np.concatenate([scaled, penalty]), target)[0] / spread
    return Fitted(base, centre, weights, best)


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN for fewer than 3 pairs, or if one side is constant."""
    from scipy.stats import rankdata

    if len(one) < 3 or min(np.ptp(one), np.ptp(other)) < 1e-12:
        return math.nan
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])
