"""Decides for each image how far its result can be believed, and which images need a look.

The constants here and in `score_model.py` were chosen on generated nuclei alone;
`benchmarks/quality.py` reports on real images, which no constant was chosen on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unet.evaluation.metrics.rows import NAN
from unet.evaluation.quality.conformal import count_interval, count_residual, margin
from unet.evaluation.quality.held_out import HeldOut, Seen
from unet.evaluation.quality.poor_scores import never_quiet, poor_model
from unet.evaluation.quality.quality_table import SCORE_NAMES, QualityRow
from unet.evaluation.quality.score_model import ScoreModel, fit_scores

# A predicted score is low below this quantile of the held-out scores, if it is this far below their
# median, too.
LOW_SHARE, LOW_STEP = 0.1, 0.05
# This share of the held-out images may be beyond the limit of drift; if there are more, the limit
# rises, but not above MOST_LIMIT: a few odd held-out images must not hide everything else.
USUAL_SHARE, MOST_LIMIT = 0.95, 2.0
# An object or class that covers this share of an image covers nearly all of it.
NEARLY_ALL = 0.95
# Without known training objects, a probable object that was not found has this many pixels.
OBJECT_PIXELS = 40
# A doubt for images without objects that look as usual: nothing is known for or against them.
UNKNOWN = 0.5
_UNLIKE = "unlike the training images"


class Feature(NamedTuple):
    """A feature of the predicted score.

    Attributes:
        worse: in words, what an image has whose value is below those of all held-out images.
        value: higher is better.
        probabilities: whether it depends on probabilities, which only the same number of networks
            makes comparable (:attr:`unet.config.quality_settings.QualitySettings.same_networks`).
    """

    name: str
    worse: str
    value: Callable[[Seen], float]
    probabilities: bool = False


_SURE = (
    Feature(
        "expected_iou",
        "less certain outlines than in any held-out image",
        lambda seen: seen.evidence.expected_iou,
        probabilities=True,
    ),
    Feature(
        "sureness",
        "less certain probabilities than in any held-out image",
        lambda seen: seen.evidence.sureness,
        probabilities=True,
    ),
)
_DRIFT = Feature(
    "drift", "more unlike the training images than any held-out image", lambda seen: -seen.drift
)
FEATURES: dict[str, tuple[Feature, ...]] = {
    "semantic": (*_SURE, _DRIFT),
    "instances": (
        *_SURE,
        Feature(
            "odd_sizes",
            "more objects of unusual size than in any held-out image",
            lambda seen: -seen.odd_sizes,
        ),
        Feature(
            "touching",
            "more objects that touch than in any held-out image",
            lambda seen: -seen.evidence.touching,
        ),
        Feature(
            "ragged",
            "more ragged objects than in any held-out image",
            lambda seen: -seen.evidence.ragged,
        ),
        Feature(
            "size_drift",
            "objects of a more unusual size than in any held-out image",
            lambda seen: -seen.size_drift,
        ),
        _DRIFT,
    ),
}


@dataclass(frozen=True, eq=False)
class Judge:
    """What is known from the held-out images, to judge new ones.

    Attributes:
        model: None = too few groups of held-out images with a score.
        scored: number of groups of held-out images with objects and a score.
        features: those that the model uses.
        low: below this a predicted score is low; NaN without a model.
        counted: number of held-out images with counts.
        counted_groups: number of their groups.
        half: half the width of the intervals of counts on the scale of square roots; None = too few
            groups for the level.
        limit: of the drift, 1 unless more held-out images than usual are beyond it.
        mean: main score of the held-out images, also of those in which nothing was found; NaN
            without any.
        poor: that the model is poor on them, in words; "" if it is not.
    """

    task: str
    model: ScoreModel | None
    scored: int
    features: tuple[Feature, ...]
    low: float
    counted: int
    counted_groups: int
    half: float | None
    limit: float
    mean: float = NAN
    poor: str = ""

    @classmethod
    def of(
        cls, held_out: Sequence[HeldOut], task: str, confidence: float, same_networks: bool
    ) -> Judge:
        """Learns from held-out images; there may be none.

        Args:
            confidence: level of the intervals.
            same_networks: whether probabilities can be compared.
        """
        scored = [one for one in held_out if not math.isnan(one.score) and not one.seen.empty]
        features = tuple(
            feature
            for feature in FEATURES[task]
            if (same_networks or not feature.probabilities)
            and not any(math.isnan(feature.value(one.seen)) for one in scored)
        )
        scores = np.array([one.score for one in scored], np.float64)
        groups = [one.group for one in scored]
        model = fit_scores(_matrix([s.seen for s in scored], features), scores, groups, confidence)
        low = NAN
        if model is not None:
            quantile = float(np.quantile(scores, LOW_SHARE, method="lower"))
            low = min(quantile, float(np.median(scores)) - LOW_STEP)
        known = [one for one in held_out if not math.isnan(one.score)]
        mean = float(np.mean([one.score for one in known])) if known else NAN
        units = len({one.group for one in known})
        counted = [(one.counts, one.group) for one in held_out if one.counts is not None]
        counted_groups = [group for _, group in counted]
        residuals = [count_residual(*counts) for counts, _ in counted]
        drifts = [drift for one in held_out if not math.isnan(drift := _drift(one.seen))]
        usual = float(np.quantile(drifts, USUAL_SHARE, method="lower")) if drifts else 1.0
        return cls(
            task=task,
            model=model,
            scored=len(set(groups)),
            features=features,
            low=low,
            counted=len(counted),
            counted_groups=len(set(counted_groups)),
            half=margin(residuals, counted_groups, confidence),
            limit=min(max(1.0, usual), MOST_LIMIT),
            mean=mean,
            poor=poor_model(mean, SCORE_NAMES[task], len(known), units),
        )

    @property
    def used(self) -> tuple[str, ...]:
        """Names of the features that have a say in the predicted score."""
        if self.model is None:
            return ()
        return tuple(self.features[k].name for k in np.flatnonzero(self.model.fitted.weights > 0))

    def row(self, seen: Seen) -> QualityRow:
        """Judges one image."""
        return never_quiet(self._row(seen), self.task)

    def _row(self, seen: Seen) -> QualityRow:
        drift, why = _drift(seen) / self.limit, []
        unlike = drift > 1 or (math.isnan(drift) and bool(seen.reasons))
        if unlike:
            why.append(_UNLIKE)
        if self.poor:
            why.append(self.poor)
        row = QualityRow(
            seen.image,
            drift=drift,
            drift_reasons="; ".join(seen.reasons) if unlike else "",
        )
        row = self._counted(row, seen)
        if seen.empty:
            return self._without_objects(row, seen, why)
        if seen.evidence.covered >= NEARLY_ALL:
            what = "object" if self.task == "instances" else "class"
            why.append(f"one {what} covers nearly all of it ({100 * seen.evidence.covered:.0f} %)")
        row, beyond = self._scored(row, seen, why)
        believed = row.predicted_score
        if math.isnan(believed):
            known = seen.evidence.expected_iou
            believed = (UNKNOWN if math.isnan(known) else known) / max(1.0, beyond)
        doubt = min(1.0, max(0.0, 1 - believed))
        return row._replace(doubt=doubt, flagged=bool(why), why="; ".join(why))

    def _counted(self, row: QualityRow, seen: Seen) -> QualityRow:
        count = seen.evidence.count
        if count is None or self.half is None:
            return row if count is None else row._replace(count_=count)
        low, high = count_interval(count, self.half)
        return row._replace(count_=count, count_low=low, count_high=high)

    def _without_objects(self, row: QualityRow, seen: Seen, why: list[str]) -> QualityRow:
        """An empty image is a result, unless something speaks against it."""
        missed = seen.evidence.missed
        if not math.isnan(missed) and missed >= OBJECT_PIXELS:
            why.append(f"no object was found, but {missed:.0f} pixels would be expected")
        flagged = bool(why)
        if not why:
            why.append("no object was found")
        doubt = 1.0 if flagged else UNKNOWN
        return row._replace(doubt=doubt, flagged=flagged, why="; ".join(why))

    def _scored(self, row: QualityRow, seen: Seen, why: list[str]) -> tuple[QualityRow, float]:
        """The row with its predicted score; and how far the image is beyond what was seen, 1 = at
        the limit. Beyond that the score is divided by it, and its interval reaches down to 0."""
        beyond = 1.0 if math.isnan(row.drift) else row.drift
        unlike = bool(why) and why[0] == _UNLIKE
        if self.model is None:
            return row, beyond
        values = _matrix([seen], self.features)[0]
        excess = self.model.beyond(values)
        for feature, far in zip(self.features, excess, strict=True):
            # Drift has its own words, and so has the size of objects there.
            if far > 1 and not (unlike and feature.name in ("drift", "size_drift")):
                why.append(f"beyond what was seen: {feature.worse}")
        beyond = max(beyond, float(excess.max(initial=0.0)))
        found, half = self.model.score(values), self.model.half
        score = found / max(1.0, beyond)
        if score < self.low:
            why.append(
                f"its predicted {SCORE_NAMES[self.task]} of {score:.2f} is low (lower than that "
                f"of most held-out images, {self.low:.2f})"
            )
        if half is None:
            return row._replace(predicted_score=score), beyond
        low = 0.0 if beyond > 1 else max(0.0, found - half)
        high = min(1.0, found + half)
        return row._replace(predicted_score=score, predicted_low=low, predicted_high=high), beyond


def _drift(seen: Seen) -> float:
    known = [value for value in (seen.drift, seen.size_drift) if not math.isnan(value)]
    return max(known) if known else NAN


def _matrix(images: Sequence[Seen], features: Sequence[Feature]) -> NDArray[np.float64]:
    """[N, F] of the images."""
    rows = [[feature.value(seen) for feature in features] for seen in images]
    return np.array(rows, np.float64).reshape(len(images), len(features))
