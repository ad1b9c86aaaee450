"""Scores a peer's predictions with our stages: the same stitching, the same metrics.

Its class probabilities are written in the format of our predict stage. All that follows, including
the choice of the threshold on the validation images, is the same code as for our models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.budget import Seen, seen
from unet.config.run import Config
from unet.config.stage_settings import EvaluateSettings, StitchSettings
from unet.data.store import Prepared
from unet.data.tiling import Span, Tile, WindowPlan
from unet.evaluation.evaluate import evaluate_model, write_metrics
from unet.evaluation.metrics.rows import MetricRow
from unet.evaluation.statistics import Interval, mean_interval
from unet.files import remove
from unet.paths import Paths
from unet.prediction.stitch.stitch import Outputs, stitch_dataset
from unet.prediction.tiles.tile_store import Tiles, create_tiles
from unet.report.paired import Statistics
from unet.report.score_tables import MeanScore, bounds, columns_for, read_metrics, summarise
from unet.tables import read_table

PEER = "nnunet"


def one_tile(shape: Sequence[int]) -> WindowPlan:
    """The tile plan of an image that is predicted as a whole."""
    whole = tuple(int(n) for n in shape)
    return WindowPlan(
        whole, whole, whole, whole, (Tile(0, tuple(Span(0, n, 0, n, 0) for n in whole)),)
    )


def write_tiles(
    folder: Path,
    probabilities: Mapping[str, Path],
    parts: Mapping[str, str],
    prepared: Prepared,
    head: Sequence[str],
    dtype: str,
) -> None:
    """Writes nnU-Net's .npz files as a tile store.

    Args:
        probabilities: image -> file with the array "probabilities", [class, 1, Y, X].
        dtype: as the predict stage keeps probabilities.
    """
    import zarr

    remove(folder)
    folder.mkdir(parents=True)
    zarr.open_group(folder, mode="a", zarr_format=3)
    for image, path in sorted(probabilities.items()):
        p = read_probabilities(path, len(head))
        attrs = prepared.attrs(image)
        about = {
            "key": PEER,
            "part": parts[image],
            "head": list(head),
            "axes": attrs["axes"],
            "pixel_size_um": attrs["pixel_size_um"],
            "channels": int(prepared.image(image).shape[0]),
        }
        create_tiles(folder / image, one_tile(p.shape[1:]), len(head), dtype, about)[0] = p


def read_probabilities(path: Path, classes: int) -> NDArray[np.float32]:
    """Reads class probabilities [class, Y, X] from one of nnU-Net's .npz files."""
    with np.load(path) as file:
        found = np.asarray(file["probabilities"], np.float32)
    if found.ndim != 4 or found.shape[:2] != (classes, 1):
        raise ValueError(f"{path.name}: has shape {found.shape}, expected ({classes}, 1, Y, X)")
    return found[:, 0]


def stitch_settings(
    config: Config, dataset: str, model: str, head: Sequence[str]
) -> StitchSettings:
    """Our model's stitching for the peer's head: objects grow from their insides."""
    settings = StitchSettings.of(config, dataset, model).model_copy(update={"head": tuple(head)})
    if "inside" in head:
        # Our model's settings lack those that have no effect with its own method.
        own = config.stitch_for(dataset, model)
        settings = settings.with_section(method="grow", grow_px=own.grow_px)
    return settings


def score(
    config: Config,
    paths: Paths,
    dataset: str,
    model: str,
    fold: int,
    tiles: Path,
    head: Sequence[str],
    work: Path,
    threads: int,
) -> list[MetricRow]:
    """Stitches and evaluates a tile store; leaves masks and metrics.csv in ``work``."""
    prepared = Prepared(paths.prepared(dataset))
    outputs = Outputs(
        segmentation=work / "segmentation.zarr",
        done=work / "segmentation.json",
        masks=work / "masks",
        objects=work / "objects.csv",
    )
    stitch_dataset(
        Tiles(tiles), prepared, outputs, stitch_settings(config, dataset, model, head), threads
    )
    rows = evaluate_model(
        dataset,
        PEER,
        {fold: outputs.segmentation},
        prepared.path,
        {image: prepared.attrs(image).get("group") or "" for image in prepared.ids()},
        EvaluateSettings.of(config, dataset),
        threads,
    )
    write_metrics(work / "metrics.csv", rows)
    return rows


def our_rows(paths: Paths, dataset: str, model: str, fold: int) -> list[MetricRow]:
    """Our model's rows of this fold; none if it was not evaluated."""
    path = paths.metrics(dataset, model)
    return [row for row in read_metrics(path) if row.fold == fold] if path.exists() else []


def our_training(config: Config, paths: Paths, dataset: str, model: str, fold: int) -> Seen | None:
    """The cost of our model's training; None if it was not trained."""
    path = paths.history(dataset, model, fold)
    if not path.exists():
        return None
    rows: list[Any] = read_table(path, "train").to_dict("records")
    section = config.train_for(dataset, model)
    return seen(rows, section.batch * section.accumulate, section.patch)


def summary(rows: Sequence[MetricRow], task: str, statistics: Statistics) -> dict[str, Any]:
    """Per main metric: class, metric, mean, interval, number of images, and each image's value."""
    report = summarise(rows, statistics)
    return {
        column.label: {
            "class": column.class_,
            "metric": column.metric,
            **as_json(statistics.interval(_of(rows, column), bounds(column.metric))),
            "images": {r.image: _number(r.value) for r in _of(rows, column)},
        }
        for column in columns_for(report, task)
    }


def differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], confidence: float
) -> dict[str, Any]:
    """Per main metric of both: ours minus theirs, image by image, with its paired interval.

    Args:
        ours: as `summary` gives it.
        theirs: likewise.
    """
    result = {}
    for label, found in theirs.items():
        own = ours.get(label, {"images": {}})["images"]
        change = [
            own[image] - value
            for image, value in sorted(found["images"].items())
            if value is not None and own.get(image) is not None
        ]
        if change:
            low, high = bounds(found["metric"])
            limits = (low - high, high - low)
            result[label] = as_json(mean_interval(change, None, confidence, limits))
    return result


def _of(rows: Sequence[MetricRow], column: MeanScore) -> list[MetricRow]:
    return [r for r in rows if (r.class_, r.metric) == (column.class_, column.metric)]


def as_json(interval: Interval) -> dict[str, Any]:
    """Mean, ends and number of images."""
    ends = {name: _number(getattr(interval, name)) for name in ("mean", "low", "high")}
    return {**ends, "n": interval.n}


def _number(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return None if math.isnan(value) else round(float(value), 6)
