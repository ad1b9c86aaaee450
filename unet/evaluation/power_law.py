"""A power law through a learning curve, and what it says about more training images.

The score of a network grows with the number n of its training images about as a - b n^-c (a: the
score with endless images; Hestness et al. 2017, arXiv:1712.00409; Viering & Loog 2023,
doi:10.1109/TPAMI.2022.3220744). A handful of points determine the three numbers poorly, so the
answer is a band from a bootstrap, and "can't tell" if the band is too wide.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unet.data.tested_units import enough
from unet.evaluation.statistics import group_index

Floats = NDArray[np.float64]
# Exponents of learning curves: Hestness et al. found 0.07 to 0.5 for errors of deep networks.
# Larger ones say that the curve is flat after its first points.
EXPONENTS = (0.05, 2.0)
# The law is never used beyond this multiple of the images at hand.
REACH = 4.0
# Exponents that are tried first.
_GRID = 40
# Numbers of images at which the band is computed.
_STEPS = 60
# What is known before any point is seen of how much the score changes if a network is trained
# again on other images of the same number: a standard deviation of 0.008, as sure as _KNOWN
# degrees of freedom. A curve of one training per point says little about it itself.
_SPREAD, _KNOWN = 0.008, 3
# Numbers drawn at once, so that memory stays bounded for a million images.
_AT_ONCE = 2**22
MORE, HARDLY, UNKNOWN = "more", "hardly", "unknown"
POINTS, FLOOR, UNITS, FALLS, WIDE = "points", "floor", "units", "falls", "wide"


class PowerLaw(NamedTuple):
    """score(n) = a - b n^-c, with b >= 0: it never falls with n."""

    a: float
    b: float
    c: float

    def at(self, n: Floats | float) -> Floats:
        return np.asarray(self.a - self.b * np.asarray(n, float) ** -self.c)


class Range(NamedTuple):
    """The middle and the ends of an interval; infinite if out of reach."""

    middle: float
    low: float
    high: float


_NOTHING = Range(math.nan, math.nan, math.nan)


@dataclass(frozen=True, eq=False)
class Outlook:
    """What more training images would bring.

    Attributes:
        images: the number of training images at hand.
        goal: the improvement that is asked for.
        verdict: MORE (``needed`` tells how many for the goal), HARDLY (four times as many would not
            reach it), or UNKNOWN.
        reason: of UNKNOWN: POINTS (fewer than three), FLOOR (no network has learned the task),
            UNITS (too few test images or groups), FALLS (the score clearly falls with more images,
            which the law cannot describe), WIDE (the band is too wide).
        law: the fit; None with fewer than three points.
        numbers, low, high: [M], the band from the smallest number of images to four times those at
            hand.
        gain: what four times the images would add to the score (or take from the error).
        needed: how many more images reach the goal.
    """

    images: float
    goal: float
    verdict: str
    reason: str = ""
    law: PowerLaw | None = None
    numbers: Floats = field(default_factory=lambda: np.empty(0))
    low: Floats = field(default_factory=lambda: np.empty(0))
    high: Floats = field(default_factory=lambda: np.empty(0))
    gain: Range = _NOTHING
    needed: Range = _NOTHING


def fit(n: Floats, scores: Floats, top: float = math.inf) -> PowerLaw:
    """The power law with the smallest squared error, with ``a`` at most ``top`` and the exponent
    in EXPONENTS.

    n: [K], numbers of images, above 0. scores: [K], higher is better. Raises ValueError for fewer
    than three different numbers.
    """
    from scipy.optimize import minimize_scalar

    n, scores = np.asarray(n, float), np.asarray(scores, float)
    if n.shape != scores.shape or len(np.unique(n)) < 3 or (n <= 0).any():
        raise ValueError(f"need a score for three or more numbers of images, got {n}, {scores}")
    (start,) = _exponents(n, scores[None], top)
    # The error is smooth in the exponent, for which the best a and b follow (variable projection).
    step = math.log(EXPONENTS[1] / EXPONENTS[0]) / _GRID
    found = minimize_scalar(
        lambda log: float(_linear(n, scores[None], np.exp([log])[None], top)[2].item()),
        bounds=(
            max(math.log(EXPONENTS[0]), math.log(start) - step),
            min(math.log(EXPONENTS[1]), math.log(start) + step),
        ),
        method="bounded",
        options={"xatol": 1e-10},
    )
    c = math.exp(found.x)
    a, b, _ = (float(part.item()) for part in _linear(n, scores[None], np.array([[c]]), top))
    return PowerLaw(a, b, c)


def _exponents(n: Floats, scores: Floats, top: float) -> Floats:
    """The best exponent of each of D curves: [D]. scores: [D, K]. Tried on a grid, then on finer
    ones around the best."""
    low, high = map(math.log, EXPONENTS)
    logs = np.linspace(low, high, _GRID + 1)[None].repeat(len(scores), axis=0)
    for _ in range(3):
        error = _linear(n, scores, np.exp(logs), top)[2]
        best = np.take_along_axis(logs, error.argmin(axis=1)[:, None], axis=1)
        step = logs[:, 1:2] - logs[:, :1]
        found = best
        logs = np.clip(best + step * np.linspace(-1, 1, 11), low, high)
    return np.asarray(np.exp(found[:, 0]))


def _linear(n: Floats, scores: Floats, c: Floats, top: float) -> tuple[Floats, Floats, Floats]:
    """a, b and the squared error for given exponents, each [D, C].

    n: [K]. scores: [D, K]. c: [D, C]. Least squares with b >= 0 and a <= top: if the free solution
    breaks a bound, the best one lies on a bound.
    """
    x = n ** -c[..., None]  # [D, C, K]
    y = scores[:, None]
    mean_x, mean_y = x.mean(axis=-1), y.mean(axis=-1)
    spread = np.square(x - mean_x[..., None]).sum(axis=-1)
    b = -((x - mean_x[..., None]) * y).sum(axis=-1) / spread
    a = mean_y + b * mean_x
    flat = np.minimum(mean_y, top) + 0 * b
    tops = np.full_like(b, top if math.isfinite(top) else 0.0)
    steep = np.maximum(0, ((tops[..., None] - y) * x).sum(axis=-1) / np.square(x).sum(axis=-1))

    def error(a: Floats, b: Floats) -> Floats:
        return np.asarray(np.square(y - a[..., None] + b[..., None] * x).sum(axis=-1))

    on_flat, on_top = error(flat, 0 * b), error(tops, steep)
    if not math.isfinite(top):
        on_top = np.full_like(on_top, math.inf)
    bound = np.where(on_flat <= on_top, 0, 1)
    free = (b >= 0) & (a <= top)
    a = np.where(free, a, np.where(bound == 0, flat, tops))
    b = np.where(free, b, np.where(bound == 0, 0, steep))
    return a, b, error(a, b)


def outlook(
    n: Sequence[float],
    scores: Floats,
    units: Sequence[Hashable],
    folds: Sequence[Hashable],
    top: float = math.inf,
    goal: float = 0.02,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
    bottom: float = -math.inf,
) -> Outlook:
    """Fits the power law and its band.

    Each draw of the bootstrap takes the test images (or groups) with replacement, the same for all
    points, because an image that is hard for one network is hard for the others. To each point it
    adds the chance of the training itself (which images, weights and patches): see `_spread`.

    Args:
        n: [K], the training images of each point; the largest number is that at hand.
        scores: [N, K], of each test image at each point, without NaN; higher is better (for an
            error: its negative).
        units: [N], of each test image: images of one unit are not independent.
        folds: [N], of each test image: its networks are those of this fold.
        top, bottom: the largest and the smallest possible score.
    """
    numbers, scores = np.asarray(n, float), np.asarray(scores, float)
    if scores.shape != (len(units), len(numbers)) or len(folds) != len(units):
        raise ValueError(f"need [image, point], got {scores.shape} for {len(numbers)} points")
    images = float(numbers.max(initial=0))
    if len(np.unique(numbers)) < 3 or not len(scores):
        return Outlook(images, goal, UNKNOWN, POINTS)
    law = fit(numbers, scores.mean(axis=0), top)
    # A flat curve at the bottom says nothing about more images: they may be what is missing.
    if float(scores.mean(axis=0).max()) < bottom + goal:
        return Outlook(images, goal, UNKNOWN, FLOOR, law)
    grid = np.geomspace(numbers.min(), REACH * images, _STEPS)
    index = group_index(units)
    if not enough(int(index.max()) + 1, confidence):
        return Outlook(images, goal, UNKNOWN, UNITS, law)
    drawn = _drawn(numbers, scores, index, group_index(folds), law, top, draws, seed)
    c = _exponents(numbers, drawn, top)[:, None]
    a, b, _ = _linear(numbers, drawn, c, top)  # each [D, 1]
    curves = a - b * grid**-c
    gains = curves[:, -1] - (a - b * images**-c)[:, 0]
    low, high = (_quantile(curves, q) for q in ((1 - confidence) / 2, (1 + confidence) / 2))
    gain = _range(gains, confidence)
    needed = _range(_more(a[:, 0], b[:, 0], c[:, 0], images, goal), confidence)
    verdict, reason = UNKNOWN, WIDE
    # Around a flat curve half of the draws fall, and get b = 0.
    if float((b <= 0).mean()) > (1 + confidence) / 2:
        reason = FALLS
    elif gain.high < goal:
        verdict, reason = HARDLY, ""
    elif math.isfinite(needed.high):
        verdict, reason = MORE, ""
    return Outlook(images, goal, verdict, reason, law, grid, low, high, gain, needed)


def _more(a: Floats, b: Floats, c: Floats, images: float, goal: float) -> Floats:
    """How many images more reach the goal, for each law: [D]; infinite beyond REACH."""
    left = b * images**-c - goal
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        wanted = np.where(left > 0, (b / left) ** (1 / c), math.inf)
    return np.where(wanted <= REACH * images, wanted - images, math.inf)


def _drawn(
    n: Floats,
    scores: Floats,
    unit: NDArray[np.intp],
    fold: NDArray[np.intp],
    law: PowerLaw,
    top: float,
    draws: int,
    seed: int,
) -> Floats:
    """The mean score at each point in each draw: [D, K]."""
    rng = np.random.default_rng(seed)
    sums = np.zeros((unit.max() + 1, scores.shape[1]))
    np.add.at(sums, unit, scores)
    counts, units = np.bincount(unit).astype(float), len(sums)
    mean = scores.mean(axis=0)
    # A bootstrap of few units is too narrow by this factor.
    wider = math.sqrt(units / (units - 1))
    parts = []
    for size in _sizes(draws, units):
        times = rng.multinomial(units, np.full(units, 1 / units), size)
        parts.append(mean + wider * (times @ sums / (times @ counts)[:, None] - mean))
    means = np.concatenate(parts)
    variance, freedom, trainings = _spread(n, scores, fold, law, top)
    drawn = freedom * variance / rng.chisquare(freedom, draws) / trainings
    return np.asarray(means + np.sqrt(drawn)[:, None] * rng.standard_normal(means.shape))


def _spread(
    n: Floats, scores: Floats, fold: NDArray[np.intp], law: PowerLaw, top: float
) -> tuple[float, int, int]:
    """Variance of a point's mean score from one training to another, its degrees of freedom, and
    the number of trainings per point.

    From how differently the curves of the folds run; with one fold, from how far the points are
    from the law. Both are added to what is known beforehand.
    """
    folds = int(fold.max()) + 1
    table = np.stack([scores[fold == k].mean(axis=0) for k in range(folds)])
    if folds > 1:
        rest = table - table.mean(axis=0) - table.mean(axis=1)[:, None] + table.mean()
        freedom = (folds - 1) * (len(n) - 1)
    else:
        # A number at its bound was not chosen to fit the points; on a flat curve there is only a.
        at_bound = (law.a >= top, not 1.001 * EXPONENTS[0] < law.c < EXPONENTS[1] / 1.001)
        chosen = 1 if law.b <= 0 else len(law) - sum(at_bound)
        rest, freedom = table[0] - law.at(n), max(0, len(n) - chosen)
    total = _KNOWN * _SPREAD**2 + (float(np.square(rest).sum()) if freedom else 0.0)
    return total / (_KNOWN + freedom), _KNOWN + freedom, folds


def _sizes(draws: int, units: int) -> Iterator[int]:
    step = max(1, _AT_ONCE // units)
    for start in range(0, draws, step):
        yield min(step, draws - start)


def _quantile(values: Floats, q: float) -> Floats:
    """Of each column, without interpolation: values may be infinite."""
    rank = round(q * (len(values) - 1))
    return np.asarray(np.sort(values, axis=0)[rank])


def _range(values: Floats, confidence: float) -> Range:
    ends = (0.5, (1 - confidence) / 2, (1 + confidence) / 2)
    return Range(*(float(_quantile(values, q)) for q in ends))
