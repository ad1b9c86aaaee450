"""The images of a dataset whose score is known, and what can be seen of them without labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from unet.data.appearance import appearance
from unet.data.blocks import mapped
from unet.data.store import Prepared
from unet.evaluation.metrics.rows import MetricRow
from unet.evaluation.quality.evidence import Evidence, Sizes, measure, odd_sizes, size_drift
from unet.evaluation.quality.quality_table import COUNTS, MAIN_SCORES
from unet.models.model_file import load_model
from unet.paths import ENSEMBLE
from unet.prediction.drift import Comparison
from unet.prediction.stitch.segmentation import Segmentation


@dataclass(frozen=True)
class Seen:
    """What is seen of an image without its labels.

    Attributes:
        evidence: of its segmentation, without the size of each object: all held-out images are
            in memory at once.
        drift: how unlike the training images it looks, mean over the networks, 1 = at the limit of
            what is usual; NaN = unknown.
        size_drift: the same for the size of its objects.
        reasons: in words.
        odd_sizes: share of its objects with an unusual size; NaN = unknown.
    """

    image: str
    evidence: Evidence
    drift: float = math.nan
    size_drift: float = math.nan
    reasons: tuple[str, ...] = ()
    odd_sizes: float = math.nan

    @property
    def empty(self) -> bool:
        """Whether nothing but background was predicted."""
        return self.evidence.count == 0 or (
            self.evidence.count is None and self.evidence.covered == 0.0
        )


@dataclass(frozen=True)
class HeldOut:
    """An image that was not used in training, with its score.

    Attributes:
        score: main score; NaN if it is not defined (no object in truth and prediction).
        counts: (predicted, true) number of objects; None = not measured.
    """

    seen: Seen
    score: float
    counts: tuple[float, float] | None
    group: str


def comparisons(networks: Sequence[Path]) -> list[Comparison]:
    """What each network was trained on.

    Raises:
        UserError: a model file is missing or unusable.
    """
    return [Comparison.of({path: load_model(path)}) for path in networks]


def look(
    image: str,
    segmentation: Segmentation,
    prepared: Prepared,
    known: Sequence[Comparison],
    task: str,
) -> Seen:
    """What is seen of one image.

    Args:
        prepared: the images as the networks see them.
        known: what each network that predicted it was trained on.
    """
    evidence = measure(segmentation, image, task)
    own = appearance(prepared, image)
    found = [one.drift(own) for one in known]
    drifts = [value for value, _ in found if not math.isnan(value)]
    # Sizes are compared on the grid of the network.
    factor = evidence.pixels / math.prod(prepared.image(image).shape[1:])
    sizes = evidence.sizes / factor
    usual = [one.sizes for one in known if one.sizes is not None]
    return Seen(
        image,
        replace(evidence, sizes=np.empty(0, np.int64)),
        drift=float(np.mean(drifts)) if drifts else math.nan,
        size_drift=_mean([size_drift(sizes, limits) for limits in usual]),
        reasons=_reasons(found, sizes, usual),
        odd_sizes=_mean([odd_sizes(sizes, limits) for limits in usual]),
    )


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _reasons(
    found: Sequence[tuple[float, list[str]]], sizes: Sizes, usual: Sequence[Sequence[float]]
) -> tuple[str, ...]:
    """How the image differs: in the words of the network to which it is least alike."""
    reasons = max(found, key=lambda one: (len(one[1]) > 0, one[0]), default=(0.0, []))[1]
    if usual and len(sizes) and _mean([size_drift(sizes, limits) for limits in usual]) > 1:
        low, median, high = np.mean(usual, axis=0)
        own = float(np.median(sizes))
        kind = "larger" if own > median else "smaller"
        return (
            *reasons,
            f"its objects are {kind} (median {own:.0f} pixels, 90 % of the training objects "
            f"{low:.0f} to {high:.0f})",
        )
    return tuple(reasons)


def held_out_images(
    folds: Mapping[int, Path],
    networks: Callable[[int], Sequence[Path]],
    prepared: Path,
    metrics: Sequence[MetricRow],
    task: str,
    threads: int,
) -> list[HeldOut]:
    """All test images of a dataset's folds, in the order of folds and ids.

    Args:
        folds: number of a tested fold -> its segmentation store.
        networks: from the number of a fold to the model files that predicted it.
        prepared: the store of prepared images.
        metrics: rows of ``metrics.csv``; images without a row are left out.

    Raises:
        UserError: a store or a model file is missing.
    """
    values = {(row.fold, row.image, row.class_, row.metric): row.value for row in metrics}
    groups = {(row.fold, row.image): row.group for row in metrics}
    store, found = Prepared(prepared), []
    for fold, path in sorted(folds.items()):
        segmentation, known = Segmentation(path), comparisons(networks(fold))
        ids = [image for image in segmentation.ids() if (fold, image) in groups]

        def one(
            image: str,
            fold: int = fold,
            segmentation: Segmentation = segmentation,
            known: Sequence[Comparison] = known,
        ) -> HeldOut:
            own = [values.get((fold, image, *key), math.nan) for key in COUNTS]
            return HeldOut(
                look(image, segmentation, store, known, task),
                score=values.get((fold, image, *MAIN_SCORES[task]), math.nan),
                counts=None if any(map(math.isnan, own)) else (own[1], own[0]),
                group=groups[fold, image] or image,
            )

        found += mapped(one, ids, threads)
    return found


def members(fold: int, trained: Sequence[int]) -> tuple[int, ...]:
    """The folds whose networks predict a fold: itself, or all of an ensemble."""
    return tuple(trained) if fold == ENSEMBLE else (fold,)
