"""The images that the gallery can show: who predicted each, and with which scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from unet.evaluation.metrics.rows import NAN
from unet.files import read_json
from unet.paths import ENSEMBLE
from unet.report.dataset_results import DatasetResults
from unet.report.score_tables import better

_TRUE_OBJECTS, _FOUND_OBJECTS = ("instances", "n_true"), ("instances", "n_pred")


@dataclass(frozen=True)
class TestedImage:
    """A test image, or an image that models of another dataset predict.

    Attributes:
        folds: model -> the fold that predicted it; models without a prediction are left out. Then
            the tools whose masks are compared with those of the models.
        scores: model or tool -> its values of the main scores; NaN = not defined.
        counts: model or tool -> number of predicted objects, NaN = unknown; empty for task
            semantic.
        objects: number of labelled objects, NaN = unknown.
        again: whether it is in the list already, tested by another fold.
        compared: the tools, which have no part in the means.
    """

    id: str
    group: str
    folds: Mapping[str, int]
    scores: Mapping[str, Sequence[float]]
    counts: Mapping[str, float]
    objects: float
    again: bool = False
    compared: Sequence[str] = ()

    def mean_of(self, column: int) -> float:
        """The mean of a score over the models that have it; NaN if none has."""
        own = [values for model, values in self.scores.items() if model not in self.compared]
        return _mean([values[column] for values in own])

    @property
    def mean_count(self) -> float:
        """The mean number of predicted objects; NaN if unknown."""
        return _mean([n for model, n in self.counts.items() if model not in self.compared])


def tested_images(data: DatasetResults) -> list[TestedImage]:
    """The images from the worst to the best mean of the first main score over the models. Without
    scores: from the most to the fewest objects (task instances), or by id.

    An image that several folds tested is there several times.
    """
    table = _Table(data)
    found = []
    for image, folds_of in table.folds.items():
        for k in range(max(map(len, folds_of.values()))):
            folds = {
                # What does not depend on the fold (other tools) is shown beside each fold.
                model: folds[k if k < len(folds) else 0]
                for model, folds in folds_of.items()
                if k < len(folds) or len(folds) == 1
            }
            found.append(table.image(image, folds, again=k > 0))
    return sorted(found, key=lambda image: _order(image, data))


def _order(image: TestedImage, data: DatasetResults) -> tuple[bool, float, str]:
    main = data.columns[0].metric if data.columns else None
    value = -image.mean_count if main is None else better(main) * image.mean_of(0)
    unknown = value != value
    return unknown, 0.0 if unknown else value, image.id


class _Table:
    """What the metrics and the sentinels of the segmentations say, by image.

    Attributes:
        folds: image -> model -> the folds that predicted it, sorted.
    """

    def __init__(self, data: DatasetResults) -> None:
        self.data = data
        self.sentinels: dict[tuple[str, int], Mapping[str, Any]] = {}
        self.scores: dict[tuple[str, str, int], list[float]] = {}
        self.groups = {record.id: record.group for record in data.records}
        self.objects: dict[str, float] = {}
        self.of_tools: dict[tuple[str, str, int], float] = {}
        keys = {(score.class_, score.metric): k for k, score in enumerate(data.columns)}
        folds: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
        for row in data.metrics:
            folds[row.image][row.model].add(row.fold)
            if row.group:
                self.groups[row.image] = row.group
            found = self.scores.setdefault((row.image, row.model, row.fold), [NAN] * len(keys))
            if (column := keys.get((row.class_, row.metric))) is not None:
                found[column] = row.value
            if (row.class_, row.metric) == _TRUE_OBJECTS:
                self.objects[row.image] = row.value
            if (row.class_, row.metric) == _FOUND_OBJECTS and row.model in data.compared:
                self.of_tools[row.image, row.model, row.fold] = row.value
        for model in data.models if data.settings.applied is not None else ():
            for image in self._segmented(model, ENSEMBLE):
                folds[image][model].add(ENSEMBLE)
        self.folds = {
            image: {model: sorted(own[model]) for model in data.scored if model in own}
            for image, own in folds.items()
        }
        if data.settings.task == "instances":
            labelled = {r.id: r.objects for r in data.records if r.label and r.objects is not None}
            self.objects = {**labelled, **self.objects}

    def image(self, image: str, folds: Mapping[str, int], *, again: bool) -> TestedImage:
        undefined = [NAN] * len(self.data.columns)
        counted = folds if self.data.settings.task == "instances" else {}
        return TestedImage(
            image,
            self.groups.get(image, ""),
            folds,
            {model: self.scores.get((image, model, k), undefined) for model, k in folds.items()},
            {model: self._count(image, model, k) for model, k in counted.items()},
            self.objects.get(image, NAN),
            again,
            self.data.compared,
        )

    def _count(self, image: str, model: str, fold: int) -> float:
        if model in self.data.compared:
            # They have no sentinel with the numbers of objects.
            return self.of_tools.get((image, model, fold), NAN)
        entry = self._segmented(model, fold).get(image, {})
        return float(entry["objects"]) if "objects" in entry else NAN

    def _segmented(self, model: str, fold: int) -> Mapping[str, Any]:
        """The entries of a segmentation's images; empty without its sentinel."""
        if (model, fold) not in self.sentinels:
            path = self.data.paths.segmentation_done(self.data.dataset, model, fold)
            found = read_json(path)["images"] if path.is_file() else {}
            self.sentinels[model, fold] = found
        return self.sentinels[model, fold]


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if value == value]
    return mean(defined) if defined else NAN
