"""The page of crops to annotate: each with the model's outlines and the reason for its choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from unet.data.tiling import Slices
from unet.export.mark_colours import Rgb
from unet.prediction.annotation.ranked_crops import RankedCrop
from unet.report.overlays import Marked, OverlayView, mark_colour, marked
from unet.report.page_file import render

# Crops that the page shows (the table lists all), and the longest side of a picture by how many
# there are, in pixels: a page of 100 crops stays below 15 MB.
SHOWN = 100
SIDES = ((6, 720), (24, 512), (SHOWN, 340))
# Longest side of what is drawn from; larger crops are drawn from every n-th pixel.
LIMIT = 1600


@dataclass(frozen=True)
class CropRow:
    """A row of the table of crops.

    Attributes:
        name: of the crop's files.
        place: where it is, in words.
        image_file, label_file: links, relative to the page.
        doubt_from: ``quality.csv`` or ``probabilities``.
        caution: what speaks against the masks, in words; "" = nothing is known.
    """

    rank: int
    name: str
    image: str
    group: str
    place: str
    doubt: float
    distance: float | None
    foreground: float
    objects: int
    enough: bool
    why: str
    image_file: str
    label_file: str
    doubt_from: str = ""
    caution: str = ""

    @classmethod
    def of(cls, one: RankedCrop, name: str) -> CropRow:
        crop, facts = one.crop, one.crop.facts
        return cls(
            one.rank,
            name,
            crop.image,
            crop.group,
            place_text(crop.place),
            crop.doubt,
            one.choice.distance,
            facts.foreground / facts.pixels,
            facts.objects,
            one.choice.enough,
            one.choice.why,
            quote(f"images/{name}.tif"),
            quote(f"labels/{name}.tif"),
        )


def doubt_text(known: int, images: int) -> str:
    """Which kind of doubt was used.

    Args:
        known: number of images whose doubt is in ``quality.csv``.
        images: of all chosen crops.
    """
    own = "the model's mean uncertainty about the objects and what is around them, from 0 to 1"
    table = (
        "that of the whole image in quality.csv, from 0 to 1; its most doubtful crop gets all of "
        "it, the others in proportion to the model's uncertainty about their objects"
    )
    if not known:
        return f"Doubt: {own}. (There is no quality.csv with a doubt for each whole image.)"
    if known == images:
        return f"Doubt: {table}."
    return f"Doubt of {known} of {images} images: {table}. Of the others: {own}."


@dataclass(frozen=True)
class CropCard:
    """A crop on the page: data URIs of the image and of the marks on it."""

    row: CropRow
    image: str
    marks: str
    note: str
    width: int
    height: int
    kinds: tuple[int, ...]


def place_text(place: Slices) -> str:
    """Such as ``y 0–256, x 128–384``: the first pixel, and the one after the last."""
    names = "zyx"[-len(place) :]
    return ", ".join(f"{n} {s.start}–{s.stop}" for n, s in zip(names, place, strict=True))


def picture_side(count: int) -> int:
    """The longest side of each of so many pictures, in pixels."""
    return next(side for most, side in SIDES if min(count, SHOWN) <= most)


def crop_card(
    row: CropRow, pixels: NDArray[Any], labels: NDArray[Any], task: str, side: int
) -> CropCard:
    """The picture of a crop; of a volume the section with the most foreground.

    Args:
        pixels: [C, (Z,) Y, X].
        labels: ids of objects or class indices [(Z,) Y, X].
        side: longest side in pixels.
    """
    note = ""
    if labels.ndim == 3:
        section = int((labels > 0).sum(axis=(1, 2)).argmax())
        pixels, labels, note = pixels[:, section], labels[section], f"section {section}"
    stride = -(-max(labels.shape) // LIMIT)
    image, pred = pixels[:3, ::stride, ::stride], labels[::stride, ::stride]
    view = OverlayView(image, pred, pred, np.zeros(pred.shape, bool), stride, labelled=False)
    found: Marked = marked(view, task, side)
    shown, marks = found.uris(task)
    height, width = found.marks.shape
    kinds = tuple(int(kind) for kind in np.unique(found.marks) if kind)
    return CropCard(row, shown, marks, note, width, height, kinds)


def annotation_page(
    rows: Sequence[CropRow], cards: Sequence[CropCard], task: str, names: Sequence[str], **more: Any
) -> str:
    """The text of the page.

    Args:
        names: of the classes, in the order of their indices.
        more: ``name``, ``model``, ``possible``, ``method``, ``seed``, ``snippet``, ``warnings``,
            ``outlines`` (whether there are files of outlines), ``doubt`` and ``cautions``
            (sentences on what the doubt is, and where cautions come from).
    """
    return render(
        "annotation.html.j2",
        rows=rows,
        cards=cards,
        task=task,
        legend=_legend(task, sorted({kind for card in cards for kind in card.kinds}), names),
        images=len({row.image for row in rows}),
        grouped=any(row.group for row in rows),
        cautioned=any(row.caution for row in rows),
        **more,
    )


def _legend(task: str, kinds: Sequence[int], names: Sequence[str]) -> list[tuple[str, Rgb]]:
    if task == "instances":
        texts = ["outline of a predicted object", "outline of a predicted object (bright image)"]
        return [(texts[kind - 1], mark_colour(task, kind)[0]) for kind in kinds]
    return [(names[kind], mark_colour(task, kind)[0]) for kind in kinds]
