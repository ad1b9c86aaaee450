"""The stage quality: says of each new image how far a model's result can be believed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from unet.config.quality_settings import QualitySettings
from unet.data.blocks import ordered
from unet.data.dataset_warnings import write_warnings
from unet.data.store import Prepared
from unet.errors import UserError
from unet.evaluation.metrics.rows import NAN, MetricRow, read_metrics
from unet.evaluation.quality.conformal import needed
from unet.evaluation.quality.doubt import Judge
from unet.evaluation.quality.held_out import (
    HeldOut,
    comparisons,
    held_out_images,
    look,
    members,
)
from unet.evaluation.quality.poor_scores import order_note
from unet.evaluation.quality.quality_table import (
    MAIN_FAMILIES,
    MAIN_SCORES,
    SCORE_NAMES,
    QualityRow,
)
from unet.evaluation.quality.score_model import LEAST_IMAGES, rank_correlation
from unet.paths import ENSEMBLE, Paths, fold_number, origin_of
from unet.prediction.drift import unlike_warnings
from unet.prediction.stitch.segmentation import Segmentation

log = logging.getLogger(__name__)

ADVICE = (
    "the result may be poor: look at it; if the pixel size or the channel is wrong, give the "
    "dataset pixel_size_um or channels; otherwise train a model on images like these"
)
POOR_ADVICE = (
    "so no result here can be believed without a look: train longer, or on more images, before you "
    "apply it"
)
# Names of images in a warning.
NAMED = 3


@dataclass(frozen=True)
class Basis:
    """What stands behind the judgement of a model's results.

    Attributes:
        score: name of the main score.
        confidence: level of the intervals.
        images: held-out images with a score.
        groups: number of their groups; an image on its own is a group.
        counted: held-out images with counts.
        correlation: rank correlation (Spearman) of predicted and true scores of the held-out
            images, each predicted from the others; NaN = not defined.
        interval: half the width of a predicted score's interval; NaN = none.
        features: names of those that have a say in the predicted score.
        limit: of the drift.
        mean: main score of the held-out images; NaN = none.
        poor: that the model is poor on them, in words; "" if it is not.
        notes: what could not be said, and why, one sentence each.
    """

    score: str
    confidence: float
    images: int
    groups: int
    counted: int
    correlation: float
    interval: float
    features: tuple[str, ...]
    limit: float
    mean: float
    poor: str
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; None for NaN, which JSON lacks."""
        return {key: None if value != value else value for key, value in asdict(self).items()}


def judge_images(
    paths: Paths, dataset: str, model: str, settings: QualitySettings, threads: int = 1
) -> tuple[list[QualityRow], Basis]:
    """Judges all images of a dataset that a model of another dataset predicted.

    Images are read one at a time (per thread), in blocks.

    Returns:
        a row per image, in the order of ids; and what stands behind them.

    Raises:
        UserError: a result of an earlier stage is missing or unreadable.
    """
    origin = origin_of(model)
    if origin is None:
        raise UserError(f"{model}: write a model of another dataset, such as {model}@<dataset>")
    networks = [paths.model(dataset, model, fold) for fold in settings.networks]
    metrics = read_metrics(paths.metrics(origin.dataset, origin.model))
    known = held_out_images(
        {
            fold: paths.segmentation(origin.dataset, origin.model, fold)
            for fold in map(fold_number, settings.held_out)
        },
        lambda fold: [
            paths.model(origin.dataset, origin.model, k) for k in members(fold, settings.networks)
        ],
        paths.prepared(origin.dataset),
        metrics,
        settings.task,
        threads,
    )
    judge = Judge.of(known, settings.task, settings.confidence, settings.same_networks)
    compared = comparisons(networks)
    segmentation = Segmentation(paths.segmentation(dataset, model, ENSEMBLE))
    seeing = partial(
        look,
        segmentation=segmentation,
        prepared=Prepared(paths.prepared(dataset, model)),
        known=compared,
        task=settings.task,
    )
    ids = segmentation.ids()
    found = ordered(seeing, ids, threads, what="judged images", total=len(ids))
    rows = [judge.row(seen) for seen in found]
    notes = notes_of(judge, known, settings, missing_scores(metrics, settings.task, origin.dataset))
    if all(one.training is None for one in compared):
        notes.append(
            "The model files are of an earlier version and do not say what the training images "
            "looked like, so drift is not measured. Train again to have it."
        )
    basis = _basis(judge, known, settings, notes)
    if order := order_note(basis.correlation, basis.groups):
        basis = replace(basis, notes=(*basis.notes, order))
    return rows, basis


def _basis(
    judge: Judge, known: Sequence[HeldOut], settings: QualitySettings, notes: Sequence[str]
) -> Basis:
    model = judge.model
    scored = [one for one in known if one.score == one.score]
    correlation = NAN
    if model is not None:
        true = [one.score for one in scored if not one.seen.empty]
        correlation = rank_correlation(model.left_out.tolist(), true)
    return Basis(
        score=SCORE_NAMES[settings.task],
        confidence=settings.confidence,
        images=len(scored),
        groups=len({one.group for one in scored}),
        counted=judge.counted,
        correlation=correlation,
        interval=NAN if model is None or model.half is None else model.half,
        features=judge.used,
        limit=judge.limit,
        mean=judge.mean,
        poor=judge.poor,
        notes=tuple(notes),
    )


def missing_scores(metrics: Sequence[MetricRow], task: str, dataset: str) -> str:
    """A sentence if no image of the training dataset was measured by what is predicted, or ""."""
    if any((row.class_, row.metric) == MAIN_SCORES[task] for row in metrics):
        return ""
    counts = ", and the counts have no interval" if task == "instances" else ""
    return (
        f"No score is predicted{counts}: the test images of {dataset} have no {SCORE_NAMES[task]}. "
        f"Add {MAIN_FAMILIES[task]} to evaluate.metrics."
    )


def notes_of(
    judge: Judge, known: Sequence[HeldOut], settings: QualitySettings, missing: str
) -> list[str]:
    """What could not be said of scores and counts; ``missing``: of :func:`missing_scores`."""
    notes = [missing] if missing else _too_few(judge, known, settings)
    if judge.model is not None and not judge.used:
        notes.append(
            "What can be seen without labels does not tell good from bad held-out images: the "
            "predicted score is their mean, lowered only for images beyond what was seen."
        )
    if not settings.same_networks:
        notes.append(
            f"{len(settings.networks)} networks predict these images together, but one alone "
            "predicted each held-out image. So predicted scores and intervals are those of single "
            "networks. The networks together are usually no worse, but nothing promises that these "
            "intervals hold the truth as often as they say. The predicted score does not use the "
            "probabilities, as they can't be compared. With split: {test: ..., folds: ...} the "
            "same networks predict both."
        )
    return notes


def _too_few(judge: Judge, known: Sequence[HeldOut], settings: QualitySettings) -> list[str]:
    level, least = f"{100 * settings.confidence:g} %", needed(settings.confidence)
    grouped = len({one.group for one in known}) < len(known)
    images = "groups of held-out images" if grouped else "held-out images"
    labelled = f"{least} {images} with labels are needed for {level}"
    notes, model = [], judge.model
    if model is None:
        notes.append(
            f"No score is predicted: {LEAST_IMAGES} {images} with objects and a score are needed, "
            f"there {_are(judge.scored)}."
        )
    elif model.half is None:
        notes.append(
            f"The predicted scores have no interval: {labelled}, there {_are(model.groups)}."
        )
    if settings.task == "instances" and judge.half is None:
        notes.append(
            f"The counts have no interval: {labelled}, there {_are(judge.counted_groups)}."
        )
    return notes


def _are(number: int) -> str:
    return "is 1" if number == 1 else f"are {number}"


def warn(path: Path, model: str, rows: Sequence[QualityRow], poor: str = "") -> None:
    """Writes the stage's warnings for a model, and logs them.

    Args:
        poor: that the model is poor on its own held-out images, in words.
    """
    # Only the first reason: the more of them, the fewer images share a line.
    unlike = {row.image: row.drift_reasons.split("; ")[:1] for row in rows if row.drift_reasons}
    lines = list(unlike_warnings(unlike, len(rows), ADVICE))
    flagged = sorted((row for row in rows if row.flagged), key=lambda row: -row.doubt)
    others = [row for row in flagged if row.image not in unlike]
    if others:
        named = ", ".join(row.image for row in others[:NAMED])
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        also = "other " if unlike else ""
        lines.append(
            f"{also}images that need a look, {len(others)} of {len(rows)} "
            f"(quality.csv says why): {named}{more}"
        )
    first = [f"{model}: {poor}; {POOR_ADVICE}"] if poor else []
    write_warnings(path, [f"{model}: {line}" for line in lines], first)
