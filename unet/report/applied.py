"""The report's part on models of another dataset: what they predicted, with or without labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import Any

from unet.config.stage_settings import Applied
from unet.errors import UserError
from unet.evaluation.metrics.rows import NAN
from unet.files import read_json
from unet.paths import ENSEMBLE, Paths, origin_of
from unet.report.collect import Pick, evenly_spaced, rank_name
from unet.tables import read_table


@dataclass(frozen=True)
class Predicted:
    """What a model predicted on a dataset.

    Attributes:
        source: dataset that the model was trained on.
        objects, per_image: number of objects and their median per image (task instances).
        resampled: number of images that were resampled to the model's pixel size.
        shares: share of the pixels of each class (task semantic).
    """

    model: str
    source: str
    folds: tuple[int, ...]
    images: int
    resampled: int
    objects: float
    per_image: float
    shares: tuple[tuple[str, float], ...]
    threshold: float


def predicted(paths: Paths, dataset: str, task: str, applied: Applied) -> list[Predicted]:
    """A row per model.

    Raises:
        UserError: a model's images were not stitched.
    """
    rows = []
    for model, folds in applied.networks.items():
        origin = origin_of(model)
        images, threshold = _sentinel(paths, dataset, model)
        counts = [int(entry["objects"]) for entry in images.values()]
        objects = task == "instances" and counts
        prepared = read_json(paths.prepared_done(dataset, model))["images"]
        rows.append(
            Predicted(
                model=model,
                source="" if origin is None else origin.dataset,
                folds=folds,
                images=len(images),
                resampled=sum(bool(entry.get("resampled")) for entry in prepared.values()),
                objects=sum(counts) if objects else NAN,
                per_image=median(counts) if objects else NAN,
                shares=_shares(paths, dataset, model) if task == "semantic" else (),
                threshold=threshold,
            )
        )
    return rows


def _sentinel(paths: Paths, dataset: str, model: str) -> tuple[dict[str, Any], float]:
    path = paths.segmentation_done(dataset, model, ENSEMBLE)
    if not path.is_file():
        raise UserError(f"{path}: segmentation is missing; run the stitch stage")
    found = read_json(path)
    threshold = found.get("threshold")
    return found["images"], NAN if threshold is None else float(threshold)


def _shares(paths: Paths, dataset: str, model: str) -> tuple[tuple[str, float], ...]:
    """The share of each class in all pixels, from the table of objects."""
    sizes: Counter[str] = Counter()
    table = read_table(paths.objects(dataset, model, ENSEMBLE), "stitch", ["class"])
    measured = table["area_px" if "area_px" in table else "volume_px"].replace("", "0").astype(int)
    for name, size in zip(table["class"], measured, strict=True):
        sizes[name] += int(size)
    total = max(1, sum(sizes.values()))
    return tuple((name, size / total) for name, size in sizes.items())


def applied_picks(paths: Paths, dataset: str, model: str, task: str, number: int) -> list[Pick]:
    """``number`` images of a model, from the one with the most objects to the one with the fewest;
    for task semantic evenly spaced in the order of ids."""
    images, _ = _sentinel(paths, dataset, model)
    order = sorted(images)
    if task == "instances":
        order.sort(key=lambda image: -int(images[image]["objects"]))
    last = len(order) - 1
    found = []
    for rank in evenly_spaced(len(order), number):
        image = order[rank]
        if task == "instances":
            name = rank_name(rank, last, "most objects", "fewest objects")
            found.append(Pick(name, image, ENSEMBLE, float(images[image]["objects"])))
        else:
            found.append(Pick(f"image {rank + 1} of {last + 1}", image, ENSEMBLE, NAN))
    return found
