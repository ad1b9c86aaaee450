"""The page and the sheet of ``unet predict``: what was predicted in which image, without labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np

from unet.data.records import ImageRecord
from unet.data.scale_check import sizes_text
from unet.data.store import OwnGrid
from unet.errors import how_many
from unet.export.mark_colours import Rgb
from unet.prediction.apply.result_folder import Output
from unet.prediction.object_counts import Counted
from unet.prediction.stitch.segmentation import Segmentation
from unet.report import collect, figures
from unet.report.collect import evenly_spaced
from unet.report.explained_plot import ExplainedPlot
from unet.report.numbers import NO_VALUE
from unet.report.overlays import mark_colour
from unet.report.page_file import render, write_page
from unet.report.predicted_pictures import SHEET_IMAGES, Picture, picture, write_sheet

# Images that the page shows (the table lists all), and the longest side of a picture by how many
# there are, in pixels: a page of 100 images stays below 15 MB.
SHOWN = 100
SIDES = ((6, 720), (24, 512), (SHOWN, 340))
UNLIKE = "unlike the training images"
# Rows of the table of images, and of the images left out, on the page; the files have all.
LISTED, LISTED_LEFT_OUT = 5000, 200


@dataclass(frozen=True)
class PredictedImages:
    """What a call of ``unet predict`` made, and what is known about it.

    Attributes:
        task: semantic or instances.
        class_names: in the order of the class indices.
        records: rows of the manifest.
        counted: what was predicted in each segmented image.
        unlike: images that differ from the training images, and how.
        odd: images whose result looks wrong, and why.
        warnings, new_warnings: one line each, of the stages, and about the results.
        threshold: minimum foreground probability.
        models: name -> hash of each network.
        settings: name -> value of the settings that made the objects.
        maps: heat maps of the plate, for images of one.
    """

    task: str
    class_names: tuple[str, ...]
    records: Sequence[ImageRecord]
    counted: Mapping[str, Counted]
    unlike: Mapping[str, Sequence[str]] = field(default_factory=dict)
    odd: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    new_warnings: Sequence[str] = ()
    threshold: float = 0.5
    models: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    maps: Sequence[ExplainedPlot] = ()

    @property
    def all_warnings(self) -> list[str]:
        """All warnings; those about the results first."""
        return [*self.new_warnings, *self.warnings]


@dataclass(frozen=True)
class ImageRow:
    """A row of the table of images.

    Attributes:
        size: pixels and, if known, the size of a pixel.
        count: number of objects; None for task semantic.
        diameter: median equivalent diameter, with its unit; "" without objects.
        shares: (class, share) pairs (task semantic).
        mask: link to the mask, relative to the page; "" if there is none.
        notes, short: what looks wrong, in full and for the picture.
        shown: whether its picture is on the page.
    """

    id: str
    file: str
    size: str
    count: int | None
    diameter: str
    shares: tuple[tuple[str, float], ...]
    mask: str
    notes: tuple[str, ...]
    short: tuple[str, ...]
    shown: bool


@dataclass(frozen=True)
class Card:
    """An image on the page: data URIs of the image and of the marks on it."""

    row: ImageRow
    image: str
    marks: str
    note: str
    width: int
    height: int


def write_predicted(out: Output, prepared: OwnGrid, found: PredictedImages) -> None:
    """Writes ``index.html`` and ``overview.png`` next to the results.

    Memory is bounded: one image at a time, at reduced resolution.

    Args:
        out: the results.
        prepared: the images on their own pixels.

    Raises:
        UserError: a store lacks an image.
    """
    segmentation = Segmentation(out.segmentation)
    ids = sorted(found.counted)
    shown = {ids[k] for k in evenly_spaced(len(ids), SHOWN)}
    sheet = {ids[k] for k in evenly_spaced(len(ids), SHEET_IMAGES)}
    side = next(side for most, side in SIDES if len(shown) <= most)
    rows = {row.id: row for row in _rows(out, found, shown)}
    cards, small, marks = [], [], set[int]()
    for image in sorted(shown | sheet):
        one = picture(prepared, segmentation, image, found.task, side)
        if image in shown:
            cards.append(_card(rows[image], one, found.task))
            marks.add(int(one.marked.marks.max(initial=0)))
        if image in sheet:
            small.append((one.marked, image, _summary(rows[image])))
    page_file, sheet_file = out.pages
    if small:
        write_sheet(sheet_file, small, found.task, len(ids))
    page = render("predicted.html.j2", cards=cards, **_values(found, list(rows.values()), marks))
    write_page(page_file, page)


def _rows(out: Output, found: PredictedImages, shown: Iterable[str]) -> list[ImageRow]:
    records = {record.id: record for record in found.records}
    rows = []
    for image in sorted(found.counted):
        one, record = found.counted[image], records[image]
        unlike = found.unlike.get(image, ())
        odd = [found.odd[image]] if image in found.odd else []
        full = [f"{UNLIKE}: {'; '.join(unlike)}"] if unlike else []
        mask = out.masks / f"{image}.tif"
        rows.append(
            ImageRow(
                id=image,
                file=record.image,
                size=_size(record),
                count=len(one.sizes) if found.task == "instances" else None,
                diameter=_diameter(one) if found.task == "instances" else "",
                shares=tuple(one.shares.items()) if found.task == "semantic" else (),
                mask=quote(f"masks/{image}.tif") if mask.is_file() else "",
                notes=(*full, *odd, *record.warnings),
                short=tuple([UNLIKE] * bool(unlike) + odd),
                shown=image in shown,
            )
        )
    return rows


def _size(record: ImageRecord) -> str:
    channels, *space = record.shape
    text = " × ".join(map(str, space)) + " px"
    if channels > 1:
        text += f", {channels} channels"
    size = record.pixel_size_um
    if size is None:
        return text
    alike = f"{size[0]:.4g}" if len(set(size)) == 1 else sizes_text(size).replace(" x ", " × ")
    return f"{text}, {alike} µm/px"


def _diameter(one: Counted) -> str:
    if not len(one.diameters):
        return ""
    median = float(np.median(one.diameters))
    if one.um_per_px is None:
        return f"{median:.1f} px"
    return f"{median * one.um_per_px:.3g} µm"


def _summary(row: ImageRow) -> str:
    """What was found in an image, in a few words."""
    if row.count is not None:
        return how_many(row.count, "object")
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in row.shares[1:])


def _card(row: ImageRow, one: Picture, task: str) -> Card:
    image, marks = one.marked.uris(task)
    height, width = one.marked.marks.shape
    return Card(row, image, marks, one.note, width, height)


def _values(found: PredictedImages, rows: Sequence[ImageRow], marks: set[int]) -> dict[str, Any]:
    """The page's values other than pictures; ``marks`` are those drawn in them."""
    left_out = [record for record in found.records if record.status != "ok"]
    instances = found.task == "instances"
    return {
        "task": found.task,
        "rows": rows,
        "listed": LISTED,
        "left_out": left_out,
        "listed_left_out": LISTED_LEFT_OUT,
        "warnings": found.all_warnings,
        "legend": _legend(found, marks),
        "objects": sum(row.count or 0 for row in rows) if instances else None,
        "per_image": float(np.median([row.count or 0 for row in rows])) if instances else None,
        "noted": any(row.notes for row in rows),
        "class_names": found.class_names,
        **_sizes(found.counted if instances else {}),
        "models": found.models,
        "threshold": found.threshold,
        "settings": found.settings,
        "maps": found.maps,
        "versions": collect.versions(),
    }


def _legend(found: PredictedImages, marks: set[int]) -> list[tuple[str, Rgb]]:
    if found.task == "instances":
        text = "outline of an object"
        colours = [mark_colour(found.task, mark)[0] for mark in sorted(marks - {0})]
        return [
            (text if k == 0 else f"{text} (on a bright image)", c) for k, c in enumerate(colours)
        ]
    names = enumerate(found.class_names)
    return [(name, mark_colour(found.task, k)[0]) for k, name in names if k]


def _sizes(counted: Mapping[str, Counted]) -> dict[str, Any]:
    """The histogram of all objects' diameters, in micrometres if all pixel sizes are known."""
    some = [one for one in counted.values() if len(one.diameters)]
    if not some:
        return {"histogram": "", "median_diameter": NO_VALUE}
    known = all(one.um_per_px is not None for one in some)
    unit = "µm" if known else "px"
    scaled = [one.diameters * ((one.um_per_px or 1.0) if known else 1.0) for one in some]
    diameters = np.concatenate(scaled)
    return {
        "histogram": figures.figure_uri(figures.size_histogram(diameters, unit)),
        "median_diameter": f"{float(np.median(diameters)):.3g} {unit}",
    }
