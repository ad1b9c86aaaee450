"""Measures the pixels of a sample of a dataset's images, and their labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.config.sections import DatasetSection
from unet.data.blocks import Budget, mapped
from unet.data.inspection import blocks_of
from unet.data.raw_files import RawSource
from unet.data.records import ImageRecord
from unet.data.survey.fingerprints import Borders, borders_of
from unet.data.survey.image_facts import REGION_PIXELS, Cut, PixelFacts, pixel_facts
from unet.data.survey.object_facts import ObjectFacts, numbered, object_facts, unlabelled_share
from unet.errors import UserError
from unet.io.images import open_image
from unet.io.mask_files import open_label_of

Array = NDArray[Any]

# Of a region: numbers and pieces of objects, smoothed pixels, and sums over them.
BYTES_PER_PIXEL = 40
# Memory without a setting.
MEMORY = 4_000_000_000


@dataclass(frozen=True)
class Measured:
    """One measured image.

    Attributes:
        record: of the image.
        pixels: facts, without the pixels themselves.
        borders: None for an image that is too large.
        objects: None without a label, or for task semantic.
        intensity: class -> sum and number of pixels of the first channel; empty without a label.
        unlabelled: see :func:`unet.data.survey.object_facts.unlabelled_share`.
    """

    record: ImageRecord
    pixels: PixelFacts
    borders: Borders | None
    objects: ObjectFacts | None
    intensity: Mapping[str, tuple[float, int]]
    unlabelled: float | None = None

    @property
    def middle(self) -> tuple[int, ...]:
        """Shape of the region in the middle that was measured; empty for the whole image."""
        sizes = tuple(s.stop - s.start for s in self.pixels.region)
        return () if sizes == tuple(self.record.shape[1:]) else sizes


def spread(records: Sequence[ImageRecord], most: int) -> list[ImageRecord]:
    """At most so many records, evenly spread over the sorted ids."""
    ordered = sorted(records, key=lambda record: record.id)
    if len(ordered) <= most:
        return ordered
    return [ordered[number * len(ordered) // most] for number in range(most)]


def measured(
    records: Sequence[ImageRecord],
    source: RawSource,
    data: DatasetSection,
    *,
    threads: int,
    region_pixels: int = REGION_PIXELS,
    memory: int = MEMORY,
) -> list[Measured]:
    """The images that can be read, in the order of the records.

    Args:
        threads: images in memory at the same time.
        region_pixels: of a larger image, only a region in the middle with so many pixels gives the
            facts about objects and focus.
        memory: in bytes, for the images that are measured at the same time. A single one that
            needs more is measured alone.
    """
    budget = Budget(memory)

    def measure(record: ImageRecord) -> Measured | None:
        needed = min(_bytes_of(record, region_pixels), memory)
        try:
            with budget.reserve(needed, record.image):
                return _measured(record, source, data, region_pixels)
        except UserError:
            return None  # changed since the manifest was made; the manifest stage will say so

    return [found for found in mapped(measure, records, threads) if found is not None]


def _bytes_of(record: ImageRecord, region_pixels: int) -> int:
    """Memory that measuring an image takes, at most: the decoded file (it may be a single strip),
    and the copies that are made of its region."""
    pixels = math.prod(record.shape[1:])
    decoded = 2 * math.prod(record.shape) * np.dtype(record.dtype).itemsize
    return decoded + BYTES_PER_PIXEL * min(pixels, region_pixels)


def _measured(
    record: ImageRecord, source: RawSource, data: DatasetSection, region_pixels: int
) -> Measured:
    opened = open_image(
        source.root / record.image, axes=data.axes, channels=data.channels, page=record.page
    )
    facts = pixel_facts(opened, region_pixels)
    whole = all(s.stop - s.start == n for s, n in zip(facts.region, opened.shape[1:], strict=True))
    borders = borders_of(facts.pixels) if whole else None
    kept = replace(facts, pixels=np.zeros((0,) * facts.pixels.ndim, facts.pixels.dtype))
    if not record.label:
        return Measured(record, kept, borders, None, {})
    marked = open_label_of(
        source.root / record.image, source.root / record.label, opened.shape[1:],
        axes=data.axes, page=record.page, classes=data.classes,
    )  # fmt: skip
    cut = Cut(facts.region, marked.array.dtype)
    for start, block in blocks_of(marked.array):
        cut.add(start, block)
    if data.task == "semantic":
        classes = data.classes or {}
        masks = {name: cut.pixels == value for name, value in classes.items()}
        return Measured(record, kept, borders, None, _intensity(facts.pixels, masks))
    ground = data.background if data.sparse else 0
    labels = cut.pixels
    none = np.zeros(labels.shape, bool) if ground is None else labels == ground
    ids = numbered(
        np.where(none, labels.dtype.type(0), labels),
        ignore=data.ignore,
        binary=data.label_kind == "binary",
    )
    masks = {"background": none, "foreground": ids > 0}
    return Measured(
        record,
        kept,
        borders,
        object_facts(ids, whole=whole),
        _intensity(facts.pixels, masks),
        # Pixels that are ignored or unknown say that objects without a label are expected.
        None if data.sparse or data.ignore is not None else unlabelled_share(facts.pixels, ids),
    )


def _intensity(
    image: Array, masks: Mapping[str, NDArray[np.bool_]]
) -> dict[str, tuple[float, int]]:
    return {
        name: (float(image[mask].sum(dtype=np.float64)), int(np.count_nonzero(mask)))
        for name, mask in masks.items()
    }
