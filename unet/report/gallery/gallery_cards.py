"""The cards of the gallery: each image with its scores, tags, links to its files, and pictures."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from unet.data.records import ImageRecord
from unet.errors import UserError
from unet.paths import fold_name
from unet.report.collect import evenly_spaced, rank_name
from unet.report.dataset_results import DatasetResults
from unet.report.gallery import picture_budget
from unet.report.gallery.card_files import CardFiles, FileLink
from unet.report.gallery.gallery_reader import read_planes
from unet.report.gallery.label_layers import LayerPictures, PlaneDrawing
from unet.report.gallery.tested_images import TestedImage, tested_images

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GalleryCard:
    """An image of the gallery.

    Attributes:
        anchor: id of its element; ``#image-<id>`` links to it.
        rank: its place among all images, such as "worst" or "rank 3 of 9".
        tags: part of the split, "warned", "no labels".
        links: model -> the files with its results.
        planes: its pictures; empty if it has none.
        side: the longer side of these, in pixels.
        large: whether the page shows it large.
    """

    image: TestedImage
    anchor: str
    rank: str
    tags: Sequence[str]
    links: Mapping[str, Sequence[FileLink]]
    planes: Sequence[LayerPictures]
    side: int
    large: bool

    @property
    def fold(self) -> str:
        """The name of the fold that predicted the image."""
        return _fold(self.image)

    @property
    def size(self) -> int:
        """Characters of its pictures."""
        return sum(plane.size for plane in self.planes)

    @property
    def facts(self) -> dict[str, Any]:
        """What the page's script sorts and filters by, as plain values; None = not defined."""
        image = self.image
        return {
            "image": image.id,
            "group": image.group,
            "tags": list(self.tags),
            "objects": _defined(image.objects),
            "scores": {model: list(map(_defined, row)) for model, row in image.scores.items()},
            "counts": {model: _defined(count) for model, count in image.counts.items()},
        }


@dataclass(frozen=True)
class Gallery:
    """The cards, in the order of `tested_images`; ``total``: number of all images."""

    cards: Sequence[GalleryCard]
    total: int

    @property
    def reduced(self) -> bool:
        """Whether a picture has fewer pixels than its image."""
        return any(
            max(plane.shape) > card.side or "reduced" in plane.note
            for card in self.cards
            for plane in card.planes
        )


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def card_anchor(image: str, fold: str = "") -> str:
    """The id of an image's card, also for links from other sections; ``fold``: the name of the fold
    for the second and later cards of an image that several folds tested."""
    return f"image-{quote(image, safe='')}" + (f"-fold-{fold}" if fold else "")


def gallery(data: DatasetResults) -> Gallery:
    """Reads one image after another. All pictures together have at most `picture_budget.BUDGET`
    characters."""
    images = tested_images(data)
    last = len(images) - 1
    ranks = picture_budget.shown_ranks(len(images), picture_budget.most_images(len(data.scored)))
    large = {ranks[k] for k in evenly_spaced(len(ranks), data.settings.report.overlays)}
    files = CardFiles(data, [images[rank] for rank in ranks])
    records = {record.id: record for record in data.records}
    side = picture_budget.usual_side(len(ranks), len(data.scored))
    share, cards = picture_budget.share_of(len(ranks)), []
    for rank in ranks:
        image = images[rank]
        planes, own_side = _pictures(data, image, side, share, detail=rank in large)
        cards.append(
            GalleryCard(
                image,
                card_anchor(image.id, _fold(image) if image.again else ""),
                _rank(rank, last, data),
                _tags(records.get(image.id), data),
                {model: files.links(image, model) for model in image.folds},
                planes,
                own_side,
                rank in large,
            )
        )
    return Gallery(cards, len(images))


def _fold(image: TestedImage) -> str:
    # Models whose results do not depend on the fold come after our own.
    return fold_name(next(iter(image.folds.values())))


def _rank(rank: int, last: int, data: DatasetResults) -> str:
    if data.columns:
        return rank_name(rank, last, "worst", "best")
    if data.settings.task == "instances":
        return rank_name(rank, last, "most objects", "fewest objects")
    return f"image {rank + 1} of {last + 1}"


def _tags(record: ImageRecord | None, data: DatasetResults) -> list[str]:
    part = (record.part if record is not None else "") or "test"
    found = ["predicted" if data.settings.applied is not None else part]
    if record is not None and record.warnings:
        found.append("warned")
    if record is not None and not record.label:
        found.append("no labels")
    return found


def _pictures(
    data: DatasetResults, image: TestedImage, side: int, share: int, *, detail: bool
) -> tuple[list[LayerPictures], int]:
    """The pictures of an image and their side; none (and a warning) if no store has it."""
    task, detail_from = data.settings.task, 2 * side if detail else 0
    names = {data.model_path(name): name for name in image.folds}
    folds = {path: image.folds[name] for path, name in names.items()}
    try:
        planes = read_planes(data.paths, data.dataset, task, image.id, folds, detail_from)
    except UserError as error:
        log.warning("%s: no picture: %s", image.id, error)
        return [], 0
    drawings = []
    for plane in planes:
        predictions = {names[path]: labels for path, labels in plane.predictions.items()}
        drawings.append(PlaneDrawing(replace(plane, predictions=predictions), task))
    return picture_budget.drawn_within(
        lambda side: [drawing.draw(side) for drawing in drawings],
        lambda drawn: sum(plane.size for plane in drawn),
        side,
        share,
    )
