"""The families for cells between membranes. They threshold a class's probability at values chosen
on the fold's validation images. 2D; the slices of a volume are scored one by one."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from operator import add
from typing import TypeVar

from unet.errors import UserError
from unet.evaluation.blockwise import ScoredPair, cell_slices
from unet.evaluation.fold import Case, Fold, Scorer
from unet.evaluation.metrics.isbi2012 import Ratio, Slice, pixel_error, rand_error, warping_errors
from unet.evaluation.metrics.pixel import mean_of_defined
from unet.evaluation.metrics.rows import Score, ratio
from unet.evaluation.metrics.topology import boundary_map_scores, score_thresholds
from unet.prediction.objects.threshold import CANDIDATES, DEFAULT_THRESHOLD, best

log = logging.getLogger(__name__)

# Those of the challenge without 0 and 1, where everything or nothing is cell.
ISBI_THRESHOLDS = tuple(k / 10 for k in range(1, 10))

K = TypeVar("K")


# Score by which a threshold is chosen -> the metric that contains the threshold.
THRESHOLD_OF = {
    "V_rand": "topology_threshold",
    **{f"isbi_{name}_error": f"isbi_{name}_threshold" for name in ("rand", "pixel", "warping")},
}


def topology(fold: Fold) -> Scorer:
    """V_rand and V_info of the cells of ``topology_class``, and the threshold used.

    The threshold is the one with the best mean V_rand over the fold's validation images. Each
    thread has one whole 2D slice in memory. A volume's scores are the means over its slices.
    """
    name = _topology_class(fold)
    thin = fold.settings.boundary == "thinned"

    def curve(pair: ScoredPair) -> dict[float, float]:
        slices = [
            {t: scores["v_rand"] for t, scores in found.items()}
            for found in (
                score_thresholds(s.truth, s.probability, CANDIDATES, thin=thin)
                for s in cell_slices(pair, name, fold.class_names)
            )
        ]
        return _mean_scores(slices)

    means = _mean_scores(fold.each(curve, "val"))
    threshold = _chosen(fold, name, "V_rand", means)

    def score(case: Case) -> list[Score]:
        slices = cell_slices(case.pair, name, fold.class_names)
        found = _mean_scores(
            boundary_map_scores(s.truth, s.probability > threshold, thin=thin) for s in slices
        )
        rows = [Score(name, metric, value) for metric, value in found.items()]
        return [*rows, Score(name, THRESHOLD_OF["V_rand"], threshold)]

    return Scorer(score)


# Error of the challenge -> function that computes it from a slice and a threshold.
ISBI: dict[str, Callable[[Slice, float], Ratio]] = {
    "isbi_rand_error": rand_error,
    "isbi_pixel_error": pixel_error,
    "isbi_warping_error": lambda s, threshold: warping_errors(s, threshold)[0],
}


def isbi2012(fold: Fold) -> Scorer:
    """Rand, pixel and warping error of the first leader board, for the cells of
    ``topology_class``. Each uses the threshold with the smallest pooled error on the fold's
    validation images. The slices of a volume are pooled, as in the challenge."""
    name = _topology_class(fold)

    def curves(pair: ScoredPair) -> dict[tuple[str, float], Ratio]:
        sums: dict[tuple[str, float], Ratio] = {}
        for s in cell_slices(pair, name, fold.class_names):
            for metric, error in ISBI.items():
                for t in ISBI_THRESHOLDS:
                    sums[metric, t] = sums.get((metric, t), Ratio(0, 0)) + error(s, t)
        return sums

    found = fold.each(curves, "val")
    thresholds = {}
    for metric in ISBI:
        pooled = {t: _total(sums[metric, t] for sums in found) for t in ISBI_THRESHOLDS}
        errors = {t: -r.above / r.below if r.below else math.nan for t, r in pooled.items()}
        thresholds[metric] = _chosen(fold, name, metric, errors)

    def score(case: Case) -> list[Score]:
        slices = list(cell_slices(case.pair, name, fold.class_names))
        rows = []
        for metric, error in ISBI.items():
            threshold = thresholds[metric]
            rows.append(ratio(name, metric, *_total(error(s, threshold) for s in slices)))
            rows.append(Score(name, THRESHOLD_OF[metric], threshold))
        threshold = thresholds["isbi_warping_error"]
        everything = _total(warping_errors(s, threshold)[1] for s in slices)
        return [*rows, ratio(name, "warping_error", *everything)]

    return Scorer(score)


def _topology_class(fold: Fold) -> str:
    name = fold.settings.topology_class or fold.class_names[-1]
    if name not in fold.class_names:
        raise UserError(
            f"evaluate.topology_class: no class {name!r}; there are: {', '.join(fold.class_names)}"
        )
    return name


def _chosen(fold: Fold, name: str, metric: str, scores: Mapping[float, float]) -> float:
    """The threshold with the highest score on the validation images (on those of its training
    dataset if a model is applied to another one); 0.5 if no image has a score."""
    given = fold.thresholds.get((name, THRESHOLD_OF[metric]))
    if given is not None:
        log.info("%s: threshold %.3f, chosen on the model's training dataset", fold.name, given)
        return given
    defined = {t: value for t, value in scores.items() if not math.isnan(value)}
    if not defined:
        log.warning(
            "%s: no validation image with class %s to choose the threshold of %s on; 0.5 is "
            "used (give the split a validation part, such as split.val: 0.2; for a model of "
            "another dataset: evaluate the same metrics there)", fold.name, name, metric,
        )  # fmt: skip
        return DEFAULT_THRESHOLD
    chosen = best(defined)
    log.info("%s: threshold %.2f (%s %.4f)", fold.name, chosen, metric, abs(defined[chosen]))
    return chosen


def _total(ratios: Iterable[Ratio]) -> Ratio:
    return reduce(add, ratios, Ratio(0, 0))


def _mean_scores(tables: Iterable[Mapping[K, float]]) -> dict[K, float]:
    """Mean of each key's defined values, over tables with the same keys."""
    values: dict[K, list[float]] = {}
    for table in tables:
        for key, value in table.items():
            values.setdefault(key, []).append(value)
    return {key: mean_of_defined(found) for key, found in values.items()}
