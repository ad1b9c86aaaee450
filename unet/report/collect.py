"""Reads the results of the stages as plain values for the report's pages."""

from __future__ import annotations

import logging
import math
import platform
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import pydantic
from numpy.typing import NDArray

from unet import __version__
from unet.config.heads import IGNORE
from unet.data.dataset_warnings import read_facts
from unet.data.label_warnings import table_line
from unet.data.records import ImageRecord, SplitRecord
from unet.errors import UserError
from unet.evaluation.metrics.rows import NAN, MetricRow
from unet.files import read_json
from unet.paths import FOLD_PATTERN, Paths, fold_number, origin_of
from unet.report.cuts import Cut
from unet.report.figures import HistoryRow, best_epoch, read_history
from unet.report.overlays import OverlayView
from unet.report.score_tables import MeanScore, better
from unet.versions import library_versions

log = logging.getLogger(__name__)

# Longest side of an array that is read for an overlay.
LIMIT = 1500


@dataclass(frozen=True)
class Training:
    """One trained network: how long it was trained, its best validation score, its threshold.

    For an ensemble only the threshold is known.
    """

    model: str
    fold: int
    epochs: float
    best_epoch: float
    best_score: float
    images_per_s: float
    data_share: float
    threshold: float


@dataclass(frozen=True)
class Pick:
    """A test image to show, and why."""

    rank: str
    image: str
    fold: int
    score: float


def versions() -> dict[str, str]:
    """Name -> version of the pipeline, Python and the libraries that results depend on."""
    return {
        "unet-pipeline": __version__,
        "python": platform.python_version(),
        **library_versions(),
        "pydantic": pydantic.VERSION,
    }


def config_text(paths: Paths) -> str:
    """The text of the run's merged config, "" if there is none."""
    return paths.config.read_text(encoding="utf-8") if paths.config.exists() else ""


def folds_there(paths: Paths, dataset: str, model: str) -> list[int]:
    """The folds with results in the output folder."""
    found = paths.fold(dataset, model, 0).parent.glob("fold-*")
    names = (path.name.removeprefix("fold-") for path in found)
    return sorted(fold_number(name) for name in names if re.fullmatch(FOLD_PATTERN, name))


def split_counts(
    splits: Iterable[SplitRecord], folds: Sequence[int]
) -> dict[int, dict[str, list[str]]]:
    """Fold -> part -> sorted image ids."""
    table: dict[int, dict[str, list[str]]] = {
        fold: {"train": [], "val": [], "test": []} for fold in folds
    }
    for row in sorted(splits, key=lambda row: row.image):
        if row.fold in table:
            table[row.fold][row.part].append(row.image)
    return table


def facts(records: Sequence[ImageRecord]) -> list[tuple[str, str]]:
    """Facts about a dataset's images: (name, value) pairs for people."""
    good = [record for record in records if record.status == "ok"]
    rows = [("Images", f"{len(good)} ({len(records) - len(good)} quarantined)")]
    if not good:
        return rows
    rows.append(("With labels", str(sum(bool(record.label) for record in good))))
    rows.append(("Size", _counted(f"{r.axes} {'×'.join(map(str, r.shape))}" for r in good)))
    rows.append(("Pixel type", _counted(record.dtype for record in good)))
    sizes = (
        " × ".join(f"{v:.4g}" for v in r.pixel_size_um) + " µm" if r.pixel_size_um else "unknown"
        for r in good
    )
    rows.append(("Pixel size", _counted(sizes)))
    # In the order of the images' channels.
    names = dict.fromkeys(name for record in good for name in record.channels if name)
    if names:
        rows.append(("Channels", ", ".join(names)))
    groups = {record.group for record in good if record.group}
    if groups:
        rows.append(("Groups", str(len(groups))))
    return rows


def noted_facts(paths: Paths, dataset: str) -> list[tuple[str, str]]:
    """Facts that the stages recorded: pixels by class, and the parts of the split kept from earlier
    runs."""
    noted, rows = read_facts(paths.dataset(dataset)), []
    if noted.get("classes"):
        rows.append(("Pixels by class", table_line(noted["classes"])))
    if noted.get("remembered"):
        rows.append(("Split", str(noted["remembered"])))
    return rows


def objects_fact(records: Sequence[ImageRecord]) -> tuple[str, str] | None:
    """How many labelled objects an instance dataset has; None if unknown."""
    counts = [r.objects for r in records if r.status == "ok" and r.objects is not None]
    if not counts:
        return None
    return "Objects", f"{sum(counts)} (median {median(counts):g} per image)"


def _counted(values: Iterable[str], most: int = 3) -> str:
    counts = Counter(values)
    if len(counts) == 1:
        return next(iter(counts))
    shown = [f"{value} ({n}×)" for value, n in counts.most_common(most)]
    return ", ".join(shown) + (f", {len(counts) - most} more" if len(counts) > most else "")


def histories(
    paths: Paths, dataset: str, model: str, folds: Sequence[int]
) -> dict[int, list[dict[str, float]]]:
    """Fold -> rows of its training history; folds without one are left out."""
    found = {fold: read_history(paths.history(dataset, model, fold)) for fold in folds}
    return {fold: rows for fold, rows in found.items() if rows}


def training(
    paths: Paths, dataset: str, model: str, fold: int, rows: Sequence[HistoryRow]
) -> Training:
    best = best_epoch(rows) or {}
    sentinel = paths.segmentation_done(dataset, model, fold)
    threshold = read_json(sentinel).get("threshold") if sentinel.exists() else None
    return Training(
        model,
        fold,
        # Epoch 0 is the start of a training from trained weights.
        max((row["epoch"] for row in rows), default=NAN),
        best.get("epoch", NAN),
        best.get("val_score", NAN),
        _mean(rows, "images_per_s"),
        _mean(rows, "data_share"),
        NAN if threshold is None else float(threshold),
    )


def skipped(
    paths: Paths, dataset: str, models: Sequence[str], folds: Sequence[int]
) -> list[tuple[str, int, int]]:
    """(model, tiles that were skipped as empty, all tiles) for each model that skipped tiles."""
    found = []
    for model in models:
        sentinels = (paths.tiles_done(dataset, model, fold) for fold in folds)
        tables = [read_json(path)["images"] for path in sentinels if path.exists()]
        entries = [entry for table in tables for entry in table.values()]
        number = sum(int(entry.get("skipped", 0)) for entry in entries)
        if number:
            found.append((model, number, sum(int(entry["tiles"]) for entry in entries)))
    return found


def _mean(rows: Sequence[HistoryRow], key: str) -> float:
    values = [row[key] for row in rows if not math.isnan(row.get(key, NAN))]
    return sum(values) / len(values) if values else NAN


def picks(metrics: Iterable[MetricRow], model: str, score: MeanScore, number: int) -> list[Pick]:
    """``number`` test images of a model, from the best to the worst score.

    Three are the best, the median and the worst one; a single one is the median. Images with an
    undefined score are left out; ties are ordered by id.
    """
    wanted = (model, score.class_, score.metric)
    rows = [r for r in metrics if (r.model, r.class_, r.metric) == wanted and r.value == r.value]
    rows.sort(key=lambda row: (-better(score.metric) * row.value, row.image, row.fold))
    return [
        Pick(rank_name(rank, len(rows) - 1), rows[rank].image, rows[rank].fold, rows[rank].value)
        for rank in evenly_spaced(len(rows), number)
    ]


def evenly_spaced(count: int, number: int) -> list[int]:
    """At most ``number`` ranks among 0 .. count - 1, with both ends; a single one is the median."""
    if not count or number < 1:
        return []
    steps = [k / (number - 1) for k in range(number)] if number > 1 else [0.5]
    return sorted({round(step * (count - 1)) for step in steps})


def rank_name(rank: int, last: int, first_name: str = "best", last_name: str = "worst") -> str:
    """The name of a rank among the ranks 0 to ``last``."""
    if last == 0:
        return "only image"
    named = {round(last / 2): "median", 0: first_name, last: last_name}
    return named.get(rank, f"rank {rank + 1} of {last + 1}")


Window = tuple[int, int, int]


def view(
    paths: Paths,
    dataset: str,
    model: str,
    task: str,
    pick: Pick,
    window: Window | None = None,
    cut: Cut | None = None,
) -> OverlayView | None:
    """The data for an overlay of an image; None (and a warning) if a store lacks it.

    The whole image (for a volume the plane ``cut``), every n-th pixel so that no side is longer
    than ``LIMIT``; or the ``window`` (y, x, size) with all its pixels. If a model is applied to an
    image without labels, only the prediction.
    """
    from unet.data.store import OwnGrid
    from unet.prediction.stitch.segmentation import Segmentation

    try:
        prepared = OwnGrid(paths.prepared(dataset, model))
        segmentation = Segmentation(paths.segmentation(dataset, model, pick.fold))
        image = prepared.image(pick.image)
        classes = prepared.classes(pick.image)
        if task == "instances":
            truth, pred = prepared.instances(pick.image), segmentation.instances(pick.image)
        else:
            truth, pred = classes, segmentation.classes(pick.image)
    except (UserError, FileNotFoundError) as error:
        log.warning("no overlay of %s by %s: %s", pick.image, model, error)
        return None
    labelled = classes is not None
    if not labelled and origin_of(model) is not None:
        truth = classes = pred
    if truth is None or pred is None or classes is None:
        log.warning("no overlay of %s by %s: no labels", pick.image, model)
        return None
    return view_of(image, truth, pred, classes, window, cut, labelled)


def view_of(
    image: Any,
    truth: Any,
    pred: Any,
    classes: Any,
    window: Window | None = None,
    cut: Cut | None = None,
    labelled: bool = True,
) -> OverlayView:
    """The same for stored arrays: ``image`` [C, (Z,) Y, X], the others [(Z,) Y, X]; ``classes``:
    the true ones, 255 = ignored."""
    stride = -(-max(image.shape[-2:] if cut is None else image.shape[1:]) // LIMIT)
    where = (slice(None, None, stride), slice(None, None, stride))
    if window is not None:
        y, x, size = window
        stride, where = 1, (slice(y, y + size), slice(x, x + size))
    plane = _whole if cut is None else cut.of
    return OverlayView(
        plane(image, (slice(0, 3),), where),
        plane(truth, (), where),
        plane(pred, (), where),
        (plane(classes, (), where) == IGNORE) & labelled,
        stride,
        labelled,
    )


def _whole(array: Any, lead: tuple[slice, ...], where: tuple[slice, slice]) -> NDArray[Any]:
    """[.., Y, X] of a stored array."""
    return np.asarray(array[(*lead, *where)])
