"""Prepares one image: its statistics, its normalised array and its label arrays."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from unet.config.heads import IGNORE
from unet.config.sections import PrepareSection
from unet.data import background_rings, normalize
from unet.data.blocks import ArraySource, Budget, Grid, Progress, mapped
from unet.data.connected_components import ConnectedComponents
from unet.data.label_maps import UNLABELLED, instance_maps, semantic_classes
from unet.data.normalize import ImageStatistics
from unet.data.records import ImageRecord
from unet.data.resample import Resampling, peak_bytes, pixel_sizes, resampling
from unet.data.store import OWN, UNLABELLED_ARE, Layout, add_image, add_labels, layout_of, new_image
from unet.errors import UserError
from unet.io.images import open_image
from unet.io.mask_files import open_label_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """What a network requires of the images that it is applied to.

    Attributes:
        channels, dims: number of channels and of spatial axes.
        pixel_size_um: per spatial axis ((Z,) Y, X); None = unknown, so no image is resampled.
        statistics: of its training dataset, if the network uses them for normalisation.
    """

    channels: int
    dims: int
    pixel_size_um: tuple[float, ...] | None
    statistics: dict[str, Any] | None

    def resampling(self, record: ImageRecord) -> Resampling | None:
        """The resampling to the network's pixel size; None if the image stays as it is."""
        if self.pixel_size_um is None or record.pixel_size_um is None:
            return None
        return resampling(record.shape[1:], record.pixel_size_um, self.pixel_size_um)


@dataclass(frozen=True)
class Stage:
    """What the images of one run have in common."""

    root: Path
    store: Path
    section: PrepareSection
    task: str
    classes: dict[str, int]
    ignore: int | None
    axes: str | None
    channels: tuple[int | str, ...] | None
    budget: Budget
    workers: int
    threads: int  # to decode one image with
    target: Target | None = None
    binary: bool = False  # labels are masks whose connected components are the objects
    many: bool = False  # small images are zip files
    sparse: bool = False  # pixels without a label are unknown
    background: int | None = None  # label value of pixels that are background
    background_px: float | None = None  # of sparse labels: width of rings of background

    def resampling(self, record: ImageRecord) -> Resampling | None:
        return None if self.target is None else self.target.resampling(record)

    @property
    def allowed(self) -> int:
        return self.budget.total // self.workers

    def layout(self, record: ImageRecord) -> Layout:
        return layout_of(record.shape[1:], self.section.tile, self.section.shard)

    def zipped(self, record: ImageRecord) -> bool:
        """Whether the image becomes a zip file: one of many whose arrays have one chunk."""
        found = self.resampling(record)
        shapes = [record.shape[1:]] if found is None else [record.shape[1:], found.shape]
        tile, shard = self.section.tile, self.section.shard
        return self.many and all(layout_of(shape, tile, shard).chunk == shape for shape in shapes)

    def image_source(self, record: ImageRecord) -> tuple[ArraySource, Layout]:
        """Opens a record's image.

        Raises:
            UserError: it cannot be read, or differs from the manifest.
        """
        opened = open_image(
            self.root / record.image,
            axes=self.axes,
            channels=self.channels,
            page=record.page,
            # Taken from the record, since older manifests lack it and key and pixels must agree.
            inverted=record.inverted,
        )
        found = tuple(int(n) for n in opened.array.shape)
        if found != record.shape:
            raise UserError(
                f"{record.image}: has shape {found}, but {record.shape} when the manifest was "
                "made; run the manifest stage again"
            )
        layout = self.layout(record)
        shard = (found[0], *layout.shard)
        return ArraySource(opened.array, shard, self.allowed, self.threads), layout

    def label_source(self, record: ImageRecord) -> tuple[ArraySource, Layout]:
        """Opens a record's label.

        Raises:
            UserError: it cannot be read, or does not have the image's spatial shape.
        """
        opened = open_label_of(
            self.root / record.image, self.root / record.label, record.shape[1:],
            axes=self.axes, page=record.page, classes=self.classes or None,
        )  # fmt: skip
        found = tuple(int(n) for n in opened.array.shape)
        if found != record.shape[1:]:
            raise UserError(
                f"{record.label}: has shape {found}, but its image {record.image} has "
                f"{record.shape[1:]}; a label needs one value per pixel of its image"
            )
        layout = self.layout(record)
        return ArraySource(opened.array, layout.shard, self.allowed, self.threads), layout


def manifest_attrs(record: ImageRecord) -> dict[str, Any]:
    """Attributes that come from the manifest and have no effect on the arrays."""
    size = record.pixel_size_um
    return {
        "axes": record.axes,
        "pixel_size_um": None if size is None else list(size),
        "channels": list(record.channels),
        "group": record.group,
    }


def resampled_attrs(record: ImageRecord, found: Resampling | None) -> dict[str, Any]:
    """The attribute with the grid of a resampled image; empty if it is not resampled."""
    if found is None or record.pixel_size_um is None:
        return {}
    size = pixel_sizes(found, record.pixel_size_um)
    return {"resampled": {"shape": list(found.shape), "pixel_size_um": size}}


def raw_bytes(record: ImageRecord) -> int:
    return int(np.prod(record.shape, dtype=np.int64)) * np.dtype(record.dtype).itemsize


def prepare_image(
    stage: Stage,
    record: ImageRecord,
    key: str,
    shared: dict[str, Any] | None,
    progress: Progress,
) -> dict[str, Any]:
    """Writes one image's group and returns its attributes; ``shared``: the dataset's statistics."""
    with new_image(stage.store, record.id, stage.zipped(record)) as group:
        statistics = _write_image(stage, record, group, shared, progress)
        if record.label:
            _write_labels(stage, record, group)
        attrs = {
            "key": key,
            "statistics": statistics,
            "display": {name: statistics[name] for name in ("low", "high")},
            **manifest_attrs(record),
            **resampled_attrs(record, stage.resampling(record)),
            **(UNLABELLED_ARE if stage.sparse and record.label else {}),
        }
        group.attrs.put(attrs)
    progress.advance(0, images=1)
    return attrs


def _write_image(
    stage: Stage,
    record: ImageRecord,
    group: zarr.Group,
    shared: dict[str, Any] | None,
    progress: Progress,
) -> dict[str, Any]:
    source, layout = stage.image_source(record)
    with stage.budget.reserve(source.plan.peak, record.image):
        source.load()
        statistics = shared or _image_statistics(stage, source, record)
        found = stage.resampling(record)
        name = "image" if found is None else OWN
        array = add_image(group, source.shape[0], source.shape[1:], layout, name)
        for region, block in source.regions():
            array[region] = normalize.apply(block, statistics)
            progress.advance(block.nbytes)
    if found is not None:
        _write_resampled(stage, record, group, found, array)
    return statistics


def _write_resampled(
    stage: Stage, record: ImageRecord, group: zarr.Group, found: Resampling, own: Any
) -> None:
    channels = record.shape[0]
    layout = layout_of(found.shape, stage.section.tile, stage.section.shard)
    image = add_image(group, channels, found.shape, layout)
    with stage.budget.reserve(peak_bytes(found, layout.shard, channels), record.image):
        for region in Grid(found.shape, layout.shard).regions():
            image[(slice(None), *region)] = found.read(lambda r: own[(slice(None), *r)], region)


def _image_statistics(stage: Stage, source: ArraySource, record: ImageRecord) -> dict[str, Any]:
    section = stage.section.normalize
    found = ImageStatistics(source.shape[0], source.dtype)
    for block in source.shards():
        found.update(block)
    if found.passes == 2:
        found.select(section.low, section.high)
        for block in source.shards():
            found.refine(block)
    _warn_non_finite(found, record.image)
    return normalize.describe(found, section)


def dataset_statistics(stage: Stage, records: list[ImageRecord]) -> dict[str, Any]:
    """Statistics of all images together, the same for any number of workers."""
    section = stage.section.normalize
    dtype = np.result_type(*{record.dtype for record in records})
    total = ImageStatistics(records[0].shape[0], dtype)
    progress = Progress("statistics", len(records), sum(map(raw_bytes, records)))

    def gathered(record: ImageRecord, take: str, part: ImageStatistics) -> ImageStatistics:
        source, _ = stage.image_source(record)
        with stage.budget.reserve(source.plan.peak, record.image):
            source.load()
            for block in source.shards():
                getattr(part, take)(block)
                progress.advance(block.nbytes)
        progress.advance(0, images=1)
        return part

    def gather(take: str) -> None:
        # Merged in the records' order, since sums of floats depend on it; a few at a time, since
        # each part holds its own counts.
        for start in range(0, len(records), 4 * stage.workers):
            batch = records[start : start + 4 * stage.workers]
            work = [(record, take, total.blank()) for record in batch]
            for part in mapped(lambda item: gathered(*item), work, stage.workers):
                total.merge(part)

    gather("update")
    if total.passes == 2:
        total.select(section.low, section.high)
        progress = Progress("statistics, pass 2", len(records), sum(map(raw_bytes, records)))
        gather("refine")
    _warn_non_finite(total, "the dataset")
    return normalize.describe(total, section)


def _warn_non_finite(found: ImageStatistics, name: str) -> None:
    if found.non_finite:
        log.warning("%s: %d values are NaN or infinite; they become 0", name, found.non_finite)


def _write_labels(stage: Stage, record: ImageRecord, group: zarr.Group) -> None:
    source, layout = stage.label_source(record)
    numbering = ConnectedComponents(source.shape) if stage.binary else None
    classes = add_labels(group, "classes", "uint8", source.shape, layout)
    if stage.task == "instances":
        instances = add_labels(group, "instances", "uint32", source.shape, layout)
    with stage.budget.reserve(source.plan.peak, record.label):
        source.load()
        for region, block in source.regions():
            try:
                if stage.task == "instances":
                    classes[region], ids = _instance_maps(stage, block)
                    instances[region] = ids if numbering is None else numbering.add(region, ids > 0)
                else:
                    classes[region] = semantic_classes(
                        block, stage.classes, stage.ignore, sparse=stage.sparse
                    )
            except UserError as error:
                page = "" if record.page is None else f" (page {record.page})"
                raise UserError(f"{record.label}{page}: {error}") from None
        if numbering is not None:
            numbering.settle(instances)
    if stage.background_px is not None:
        width, size = stage.background_px, record.pixel_size_um or (1.0,) * len(source.shape)
        steps = [length / min(size) for length in size]
        margin = background_rings.margin_of(width, steps)
        wide = np.prod([s + 2 * m for s, m in zip(layout.shard, margin, strict=True)], dtype=float)
        needed = min(stage.budget.total, int(background_rings.BYTES_PER_PIXEL * wide))
        with stage.budget.reserve(needed, record.label):
            background_rings.mark_background(classes, instances, layout.shard, width, steps)


def _instance_maps(stage: Stage, block: Any) -> tuple[Any, Any]:
    if not stage.sparse:
        return instance_maps(block, stage.ignore)
    unlabelled = IGNORE if stage.background_px is None else UNLABELLED
    return instance_maps(block, stage.ignore, unlabelled=unlabelled, background=stage.background)
