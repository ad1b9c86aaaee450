"""The evaluate stage: every metric of every test image, one row each."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from unet.config import EvaluateSection
from unet.data.store import Prepared
from unet.data.streaming import Progress, mapped
from unet.errors import UserError
from unet.evaluation.blockwise import Pair, cell_slices, confusion_of, contingency_of, open_pair
from unet.evaluation.instance import instance_metrics
from unet.evaluation.pixel import mean_of_defined, pixel_metrics
from unet.evaluation.rows import METRIC_COLUMNS, MetricRow
from unet.evaluation.topology import boundary_map_scores, score_thresholds
from unet.files import replacing
from unet.prediction.segmentation import Segmentation
from unet.prediction.threshold import best

log = logging.getLogger(__name__)

INSTANCES = "instances"
# Of the probability of a cell's inside, from which the topology metrics choose.
THRESHOLDS = tuple(k / 20 for k in range(2, 19))
DEFAULT_THRESHOLD = 0.5

K = TypeVar("K")
R = TypeVar("R")
Score = tuple[str, str, float]  # class, metric, value
Scorer = Callable[[Pair], list[Score]]


@dataclass(frozen=True, eq=False)
class Fold:
    """One fold's segmentation beside the labels, and how it is to be scored.

    Attributes:
        parts: image id -> "test" or "val", sorted by id.
        class_names: in the order of the class index.
        threads: for all images together.
        block: side of the blocks in pixels, None = the store's shards.
    """

    number: int
    prepared: Prepared
    segmentation: Segmentation
    parts: Mapping[str, str]
    settings: EvaluateSection
    task: str
    class_names: tuple[str, ...]
    threads: int
    block: int | None

    def ids(self, part: str) -> list[str]:
        return [image for image, of in self.parts.items() if of == part]

    def each(self, function: Callable[[Pair], R], part: str) -> list[R]:
        """``function`` of each image of a part, in the order of ids, by threads."""
        ids = self.ids(part)
        progress = Progress(f"fold {self.number}, {part} images", len(ids), self._bytes(ids))

        def one(image: str) -> R:
            pair = open_pair(self.prepared, self.segmentation, image, self.task)
            result = function(pair)
            progress.advance(pair.truth.nbytes, images=1)
            return result

        return mapped(one, ids, max(1, min(self.threads, len(ids))))

    def threads_within(self) -> int:
        """Threads left for each image's blocks when there are fewer test images than threads."""
        return max(1, self.threads // max(1, len(self.ids("test"))))

    def _bytes(self, ids: Iterable[str]) -> int:
        return sum(self.segmentation.classes(image).nbytes for image in ids)


def pixel(fold: Fold) -> Scorer:
    """Metrics of the class maps, per class, from a confusion matrix summed over blocks."""

    def score(pair: Pair) -> list[Score]:
        number = len(fold.class_names)
        matrix = confusion_of(pair, number, fold.threads_within(), fold.block)
        return pixel_metrics(matrix, fold.class_names)

    return score


def instance(fold: Fold) -> Scorer | None:
    """Metrics of the objects, from a table of ids summed over blocks; none for task semantic."""
    if fold.task != "instances":
        return None

    def score(pair: Pair) -> list[Score]:
        table = contingency_of(pair, fold.threads_within(), fold.block)
        return [(INSTANCES, metric, value) for metric, value in instance_metrics(table)]

    return score


def topology(fold: Fold) -> Scorer:
    """V_rand and V_info of the cells of ``topology_class``, and the threshold that made them.

    The threshold is the one with the best mean V_rand over the fold's validation images. A whole
    2D slice of each image in work (one per thread) is in memory; a volume's scores are the means
    over its slices.
    """
    name = fold.settings.topology_class or fold.class_names[-1]
    if name not in fold.class_names:
        raise UserError(
            f"evaluate.topology_class: no class {name!r}; there are: {', '.join(fold.class_names)}"
        )
    thin = fold.settings.boundary == "thinned"
    threshold = _topology_threshold(fold, name, thin)

    def score(pair: Pair) -> list[Score]:
        slices = cell_slices(pair, name, fold.class_names)
        found = _mean_scores(boundary_map_scores(t, p > threshold, thin=thin) for t, p in slices)
        rows = [(name, metric, value) for metric, value in found.items()]
        return [*rows, (name, "topology_threshold", threshold)]

    return score


# A family of metrics: given a fold, what scores an image of it, or None if it has nothing to say.
FAMILIES: dict[str, Callable[[Fold], Scorer | None]] = {
    "pixel": pixel,
    "instance": instance,
    "topology": topology,
}


def _topology_threshold(fold: Fold, name: str, thin: bool) -> float:
    def curve(pair: Pair) -> dict[float, float]:
        slices = [
            {t: scores["v_rand"] for t, scores in found.items()}
            for found in (
                score_thresholds(truth, p, THRESHOLDS, thin=thin)
                for truth, p in cell_slices(pair, name, fold.class_names)
            )
        ]
        return _mean_scores(slices)

    means = _mean_scores(fold.each(curve, "val"))
    defined = {t: value for t, value in means.items() if not math.isnan(value)}
    if not defined:
        log.warning(
            "fold %d: no validation image with class %s to choose the topology metrics' threshold "
            "on; 0.5 is used (give the split a validation part, such as split.val: 0.2)",
            fold.number,
            name,
        )
        return DEFAULT_THRESHOLD
    chosen = best(defined)
    log.info("fold %d: topology threshold %.2f (V_rand %.4f)", fold.number, chosen, means[chosen])
    return chosen


def _mean_scores(tables: Iterable[Mapping[K, float]]) -> dict[K, float]:
    """Mean of each key's values that are defined, over tables of the same keys."""
    values: dict[K, list[float]] = {}
    for table in tables:
        for key, value in table.items():
            values.setdefault(key, []).append(value)
    return {key: mean_of_defined(found) for key, found in values.items()}


def evaluate_model(
    dataset: str,
    model: str,
    folds: Mapping[int, Path],
    prepared_path: Path,
    groups: Mapping[str, str],
    settings: EvaluateSection,
    task: str,
    class_names: Iterable[str],
    threads: int = 1,
    block: int | None = None,
) -> list[MetricRow]:
    """Scores the test images of each fold against their labels.

    Args:
        folds: number of a fold -> its segmentation store. Images whose part there is "val" serve
            to choose thresholds and nothing else.
        prepared_path: the store of the labels.
        groups: image id -> group; images that are missing have none.
        class_names: in the order of the class index.
        block: side of the blocks in pixels, None = the store's shards; changes no value.

    Returns:
        Rows ordered by fold, image and family; within these as the family's metrics come.

    Raises:
        UserError: a store is missing, a test image has no labels, shapes or classes differ.
    """
    prepared, names = Prepared(prepared_path), tuple(class_names)
    opened = []
    for number, path in sorted(folds.items()):
        segmentation = Segmentation(path)
        parts = {image: segmentation.attrs(image)["part"] for image in segmentation.ids()}
        fold = Fold(
            number, prepared, segmentation, parts, settings, task, names, max(1, threads), block
        )
        # All folds before any work: a mistake shows in seconds, not after the hours of others.
        _check(fold, path)
        opened.append(fold)
    return [
        MetricRow(dataset, model, fold.number, image, groups.get(image, ""), *score)
        for fold in opened
        for image, scores in zip(fold.ids("test"), _scores(fold), strict=True)
        for score in scores
    ]


def _scores(fold: Fold) -> list[list[Score]]:
    """All scores of each test image."""
    wanted = [make for family, make in FAMILIES.items() if family in fold.settings.metrics]
    scorers = [scorer for make in wanted if (scorer := make(fold)) is not None]
    return fold.each(lambda pair: [s for scorer in scorers for s in scorer(pair)], "test")


def _check(fold: Fold, path: Path) -> None:
    if not fold.ids("test"):
        log.warning("%s: holds no test image; fold %d adds nothing", path, fold.number)
    for image in fold.parts:
        pair = open_pair(fold.prepared, fold.segmentation, image, fold.task)
        if fold.task == "semantic" and pair.head != fold.class_names:
            raise UserError(
                f"{path / image}: predicted for the classes {', '.join(pair.head)}, but now they "
                f"are {', '.join(fold.class_names)}; run the train stage and those after it again"
            )


def write_metrics(path: Path, rows: Iterable[MetricRow]) -> None:
    """Writes ``metrics.csv``, whole or not at all; values that are not defined are empty cells."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(METRIC_COLUMNS)
        for row in rows:
            writer.writerow([*row[:-1], "" if math.isnan(row.value) else f"{row.value:.8g}"])
