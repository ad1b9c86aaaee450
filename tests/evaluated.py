"""Stores like those that the stages before evaluate write, for tests of scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from unet.config.details_settings import DetailsSettings
from unet.config.sections import EvaluateSection
from unet.config.stage_settings import EvaluateSettings
from unet.data.store import add_image, add_labels, layout_of, new_image
from unet.evaluation.details import DetailTables, write_details
from unet.evaluation.evaluate import evaluate_model
from unet.evaluation.metrics.rows import MetricRow
from unet.export import ome_zarr_writer
from unet.files import write_sentinel
from unet.paths import Paths

NAMES = ("background", "foreground")
BORDER = ("background", "inside", "border")
PIXEL = ("pixel_error", *["precision", "recall", "iou", "dice"] * 2, "iou", "dice")


@dataclass
class Stores:
    """A dataset's stores under the pipeline's own names."""

    root: Path
    dataset: str = "cells"
    model: str = "net"
    made: set[int] = field(default_factory=set)
    tile: int = 4

    @property
    def prepared(self) -> Path:
        return self.root / self.dataset / "prepared.zarr"

    def segmentation(self, fold: int) -> Path:
        return self.root / self.dataset / self.model / f"fold-{fold}" / "segmentation.zarr"

    @property
    def metrics(self) -> Path:
        return self.root / self.dataset / self.model / "metrics.csv"

    def truth(
        self, image: str, classes: Any, instances: Any = None, shape: Any = None, group: str = ""
    ) -> None:
        shape = np.shape(classes) if shape is None else shape
        layout = layout_of(shape, self.tile, 2)
        zarr.open_group(self.prepared, mode="a", zarr_format=3)
        with new_image(self.prepared, image) as group_:
            add_image(group_, 1, shape, layout)
            if classes is not None:
                add_labels(group_, "classes", "uint8", shape, layout)[:] = np.asarray(classes)
            if instances is not None:
                add_labels(group_, "instances", "uint32", shape, layout)[:] = np.asarray(instances)
            group_.attrs["group"] = group
        write_sentinel(self.prepared.with_suffix(".json"), 1, {})

    def prediction(
        self,
        image: str,
        classes: Any,
        instances: Any = None,
        probabilities: Any = None,
        *,
        head: Sequence[str] = NAMES,
        part: str = "test",
        fold: int = 0,
        size: Sequence[float] | None = None,
    ) -> None:
        store = self.segmentation(fold)
        if fold not in self.made:
            zarr.create_group(str(store))
            write_sentinel(store.with_suffix(".json"), 1, {})
            self.made.add(fold)
        pyramid = ome_zarr_writer.pyramid_of(np.shape(classes), 1, None)
        about = {"unet": {"head": list(head), "part": part, "axes": "CYX", "pixel_size_um": size}}
        (level,) = ome_zarr_writer.create_image(store / image, pyramid, "float32", head, about)
        if probabilities is not None:
            level[:] = np.asarray(probabilities, np.float32)
        dtypes: dict[str, Any] = {"classes": np.uint8}
        if instances is not None:
            dtypes["instances"] = np.uint32
        labels = ome_zarr_writer.create_labels(store / image, pyramid, dtypes, NAMES, len(head))
        labels["classes"][0][:] = np.asarray(classes, np.uint8)
        if instances is not None:
            labels["instances"][0][:] = np.asarray(instances, np.uint32)

    def evaluate(
        self,
        *metrics: str,
        task: str = "semantic",
        names: Sequence[str] = NAMES,
        threads: int = 1,
        groups: dict[str, str] | None = None,
        block: int | None = None,
        **section: Any,
    ) -> list[MetricRow]:
        return evaluate_model(
            self.dataset,
            self.model,
            {fold: self.segmentation(fold) for fold in self.made or {0}},
            self.prepared,
            groups or {},
            EvaluateSettings.made(
                evaluate=EvaluateSection(metrics=metrics, **section), task=task, class_names=names
            ),
            threads,
            block,
        )

    def details(
        self,
        task: str = "semantic",
        names: Sequence[str] = NAMES,
        groups: dict[str, str] | None = None,
        threads: int = 1,
        block: int | None = None,
    ) -> DetailTables:
        """Writes the tables of the details stage, and returns their paths."""
        tables = DetailTables(*Paths(self.root).details(self.dataset, self.model))
        write_details(
            tables,
            {fold: self.segmentation(fold) for fold in self.made or {0}},
            self.prepared,
            groups or {},
            DetailsSettings.made(task=task, class_names=names),
            threads,
            block,
        )
        return tables


def values(rows: Sequence[MetricRow], image: str = "a", class_: str = "*") -> dict[str, float]:
    return {r.metric: r.value for r in rows if r.image == image and class_ in ("*", r.class_)}


def cells(gap: slice = slice(5, 6)) -> Any:
    """Class map [5, 11]: cells (1), a membrane (0) in the columns ``gap``."""
    classes = np.ones((5, 11), np.uint8)
    classes[:, gap] = 0
    return classes


def probability(membrane: float, cell: float, gap: slice = slice(5, 6)) -> Any:
    """Probabilities [2, 5, 11]: the second class has ``cell``, but ``membrane`` in the gap."""
    p = np.where(cells(gap) == 1, cell, membrane)
    return np.stack([1 - p, p])


def add_cells(stores: Stores, image: str, membrane: float, cell: float, **more: Any) -> None:
    stores.truth(image, cells())
    stores.prediction(image, cells(), probabilities=probability(membrane, cell), **more)
