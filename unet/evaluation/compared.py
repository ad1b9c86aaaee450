"""The compare stage: scores the masks of another tool on the images that the models are tested on.

The truth and the metrics are those of the evaluate stage, so the rows can be compared image by
image. An image without a usable mask has no rows, and a warning names it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unet.config.compare_settings import CompareSettings
from unet.config.stage_settings import EvaluateSettings
from unet.data.compared_masks import FoundMasks, match_masks
from unet.data.dataset_warnings import grouped
from unet.data.mask_claims import Named
from unet.data.mask_contents import LOOKED_AT, content_of, copies_of, shared_values
from unet.data.records import SplitRecord, ids_of
from unet.data.store import Prepared
from unet.errors import UserError, how_many
from unet.evaluation.arrays import IN_MEMORY
from unet.evaluation.compared_store import ImageGrid, store_mask
from unet.evaluation.evaluate import evaluate_model
from unet.evaluation.mask_folders import are_images
from unet.evaluation.metrics.rows import MetricRow
from unet.export.ome_zarr_collection import create_collection
from unet.files import replacing
from unet.io.mask_files import open_mask
from unet.paths import ENSEMBLE
from unet.prediction.stitch.segmentation import Segmentation

log = logging.getLogger(__name__)

# Number of names in a warning.
_NAMED = 5


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        key: of the config, for messages.
        masks: the tool's files.
        images: all images of the dataset.
        tested: fold -> ids of its test images.
        stores: fold -> where its masks are stored, as in a model's ``segmentation.zarr``.
        prepared: the store with the labels.
    """

    dataset: str
    tool: str
    key: str
    masks: FoundMasks
    images: Sequence[Named]
    tested: Mapping[int, Sequence[str]]
    stores: Mapping[int, Path]
    prepared: Prepared
    settings: CompareSettings
    threads: int = 1


@dataclass
class _Outcome:
    """What became of the masks: image -> why it is not scored, and warnings about files."""

    left_out: dict[str, str] = field(default_factory=dict)
    warnings: list[tuple[str, str]] = field(default_factory=list)
    # Contents of masks and of labels, to find copies.
    masks: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


def images_of_folds(
    splits: Sequence[SplitRecord], folds: Sequence[int], prepared: Prepared
) -> dict[int, list[str]]:
    """Fold -> the images that the models are tested on; without splits (models of other datasets
    predict) all images with labels."""
    if not splits:
        labelled = [image for image in prepared.ids() if prepared.classes(image) is not None]
        return dict.fromkeys(folds, labelled)
    # The folds of an ensemble share their test images.
    first = min(row.fold for row in splits)
    return {fold: ids_of(splits, first if fold == ENSEMBLE else fold, "test") for fold in folds}


def compare_tool(job: Comparison) -> tuple[list[MetricRow], list[str]]:
    """Stores and scores a tool's masks.

    Returns:
        the rows of ``metrics.csv`` (the tool's name in the column ``model``), and warnings.

    Raises:
        UserError: no mask belongs to a test image, none can be scored, or they are images.
    """
    lines: list[str] = []
    wanted = {image for ids in job.tested.values() for image in ids}
    matched = match_masks(job.masks, job.images, wanted, job.key, lines.append)
    outcome = _Outcome()
    with ExitStack() as stack:
        stores: dict[int, Path] = {}
        for fold, path in job.stores.items():
            stores[fold] = stack.enter_context(replacing(path))
            stores[fold].unlink()
            _store_fold(job, fold, stores[fold], matched, outcome)
        scored = wanted & outcome.masks.keys()
        if not scored:
            image, why = next(iter(outcome.left_out.items()))
            raise UserError(
                f"{job.key}: none of {how_many(len(outcome.left_out), 'mask')} can be scored, the "
                f"first because {matched[image]}: {why}"
            )
        lines += _doubts(job, [Segmentation(path) for path in stores.values()], outcome)
        rows = _rows(job, stores)
    log.info("%s: %d of %d test images scored", job.tool, len(scored), len(wanted))
    lines += _left_out(wanted - matched.keys(), len(wanted), outcome)
    return rows, [f"{job.tool}: {line}" for line in lines]


def _store_fold(
    job: Comparison, fold: int, store: Path, matched: Mapping[str, Path], outcome: _Outcome
) -> None:
    """Stores the masks of a fold's test images."""
    settings, shared = job.settings, Counter(matched.values())
    pages = {image.id: image.page for image in job.images}
    classes = None
    if settings.class_values is not None:
        classes = dict(zip(settings.class_names, settings.class_values, strict=True))
    create_collection(store)
    for image in job.tested[fold]:
        path = matched.get(image)
        if path is None:
            continue
        grid = ImageGrid.of(job.prepared, image)
        # The mask of a stack of images is a stack; otherwise each image has a file of its own.
        page = pages[image] if shared[path] > 1 else None
        try:
            mask = open_mask(path, grid.shape, axes=settings.axes, page=page, classes=classes)
            store_mask(store, grid, mask.array, settings, job.threads)
        except UserError as error:
            # Without the file's name, so that one line can stand for many images.
            outcome.left_out[image] = str(error).removeprefix(f"{path}: ")
            continue
        outcome.warnings += [(path.name, text) for text in mask.warnings()]
        made, kind = Segmentation(store), settings.task == "instances"
        outcome.masks[image] = content_of(made.instances(image) if kind else made.classes(image))
        truth = job.prepared.instances(image) if kind else job.prepared.classes(image)
        outcome.labels[image] = content_of(truth)


def _rows(job: Comparison, stores: Mapping[int, Path]) -> list[MetricRow]:
    settings, prepared = job.settings, job.prepared
    scoring = EvaluateSettings.made(
        evaluate=settings.evaluate,
        task=settings.task,
        class_names=settings.class_names,
        applied=settings.applied,
    )
    groups = {image: prepared.attrs(image).get("group") or "" for image in prepared.ids()}
    where = (job.dataset, job.tool, stores, prepared.path, groups)
    return evaluate_model(*where, scoring, job.threads)


def _left_out(missing: set[str], tested: int, outcome: _Outcome) -> list[str]:
    """Lines about images without scores, and about what looked wrong in files."""
    lines = []
    if missing:
        lines.append(
            f"no mask for {len(missing)} of {how_many(tested, 'test image')}, not scored "
            f"({_listed(missing)})"
        )
    lines += [f"not scored: {line}" for line in grouped(outcome.left_out.items())]
    return lines + grouped(outcome.warnings)


def _listed(images: set[str]) -> str:
    shown = ", ".join(sorted(images)[:_NAMED])
    return shown if len(images) <= _NAMED else f"{shown}, ..."


def _doubts(job: Comparison, stores: Sequence[Segmentation], outcome: _Outcome) -> list[str]:
    """Lines about masks that may not be what they should.

    Raises:
        UserError: they are images.
    """
    lines = _copies(outcome)
    if empty := {image for image, content in outcome.masks.items() if not content}:
        what = "objects" if job.settings.task == "instances" else "pixels but of the first class"
        number = how_many(len(empty), "mask")
        lines.append(f"{number} without {what} ({_listed(empty)})")
    if job.settings.task != "instances":
        return lines
    if are_images(_some(stores)):
        raise UserError(
            f"{job.key}: the masks look like images: neighbouring pixels are hardly ever equal, as "
            "they are inside objects; give the folder with the masks"
        )
    if values := shared_values(_some(stores), None):
        listed = ", ".join(map(str, values))
        lines.append(
            f"the masks hold only the value{'s' if len(values) > 1 else ''} {listed} besides 0, in "
            "many separate pieces, so all pieces with one value count as one object; number the "
            "objects (skimage.measure.label), or let the tool write numbered ones"
        )
    return lines


def _some(stores: Sequence[Segmentation]) -> Iterator[np.ndarray[Any, Any]]:
    """The ids of a few images that are not large."""
    images = ((store, image) for store in stores for image in store.ids())
    for _, (store, image) in zip(range(LOOKED_AT), images, strict=False):
        ids = store.instances(image)
        if ids is not None and ids.size <= IN_MEMORY:
            yield np.asarray(ids[:])


def _copies(outcome: _Outcome) -> list[str]:
    """Lines about masks that are exactly labels of the dataset, or each other."""
    lines, masks = [], {image: found for image, found in outcome.masks.items() if found}
    if same := copies_of(outcome.masks, outcome.labels):
        what = "mask is" if same == 1 else "masks are"
        lines.append(
            f"all {same} {what} exactly the labels, so a perfect score says nothing: are "
            "these copies of the labels?"
        )
    owner = {content: image for image, content in outcome.labels.items() if content}
    for image, content in masks.items():
        other = owner.get(content, image)
        if other != image and content != outcome.labels[image]:
            lines.append(f"the mask of {image} is exactly the label of {other}: are files swapped?")
    alike: dict[str, set[str]] = {}
    for image, content in masks.items():
        alike.setdefault(content, set()).add(image)
    for content, images in alike.items():
        if len(images) > 1 and any(content != outcome.labels[image] for image in images):
            lines.append(f"{len(images)} images have exactly the same mask ({_listed(images)})")
    return lines
