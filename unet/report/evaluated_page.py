"""The page of ``unet evaluate``: scores of masks of any tool, and the pictures of some images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unet.config.heads import IGNORE
from unet.errors import UserError
from unet.evaluation.blockwise import ScoredPair
from unet.evaluation.mask_folders import MaskFiles, Method, opened_files
from unet.evaluation.mask_scoring import MaskScoring
from unet.evaluation.metrics.rows import MetricRow
from unet.export.mark_colours import COLOURS
from unet.files import replacing
from unet.io.images import open_image
from unet.report import collect, overlays, score_tables
from unet.report.cuts import Cut, cuts_of
from unet.report.overlays import OverlayView
from unet.report.page_file import render
from unet.report.paired import Statistics
from unet.report.score_tables import ReportRow
from unet.report.score_values import score_values
from unet.report.shown_overlays import MANY_OVERLAYS, Overlay, overlays_of_plane

log = logging.getLogger(__name__)

# Files that the page lists per method and reason; evaluate.json has all.
LISTED = 200


@dataclass(frozen=True)
class Evaluated:
    """Scored masks, for the page.

    Attributes:
        truth: as the user wrote it.
        metrics: the rows of all methods; ``model`` is the method's name.
        rows: their means.
        images: image -> file to draw outlines on; may be empty.
        missing_counts: whether images without a prediction count as empty predictions.
        warnings: lines to show first.
        facts: (name, value) pairs about the options.
        shown: pictures per method.
    """

    truth: str
    methods: Sequence[Method]
    scoring: MaskScoring
    files: MaskFiles
    metrics: Sequence[MetricRow]
    rows: Sequence[ReportRow]
    statistics: Statistics = field(default_factory=Statistics)
    images: Mapping[str, Path] = field(default_factory=dict)
    missing_counts: bool = False
    warnings: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    shown: int = 3


def write_evaluated_page(path: Path, found: Evaluated) -> None:
    """Writes the page."""
    names = [method.name for method in found.methods]
    task = found.scoring.task
    columns = score_tables.columns_for(found.rows, task)
    page = render(
        "evaluated.html.j2",
        truth=found.truth,
        task=task,
        names=names,
        images=len({row.image for row in found.metrics}),
        confidence=found.statistics.confidence,
        **score_values(found.metrics, found.rows, columns, names, found.statistics, "method"),
        overlays=_overlays(found, columns) if columns else {},
        on_images=bool(found.images),
        colours=COLOURS,
        classes=[(n, overlays.class_colour(k)) for k, n in enumerate(found.scoring.class_names)],
        methods=[_listed(method) for method in found.methods],
        missing_counts=found.missing_counts,
        listed=LISTED,
        warnings=found.warnings,
        facts=found.facts,
        versions=collect.versions(),
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _listed(method: Method) -> dict[str, Any]:
    """A method's values in the list of files."""
    lists = [
        ("images without a prediction", list(method.missing)),
        ("masks without truth", [str(path) for path in method.extra]),
        ("left out", [f"{image}: {reason}" for image, reason in method.left_out.items()]),
    ]
    return {
        "name": method.name,
        "source": method.source,
        "scored": len(method.pairs) - len(method.left_out),
        "missing": method.missing,
        "extra": method.extra,
        "left_out": method.left_out,
        "lists": [(title, lines) for title, lines in lists if lines],
    }


def _overlays(
    found: Evaluated, columns: Sequence[score_tables.MeanScore]
) -> dict[str, list[Overlay]]:
    """Method -> pictures of its best, median and worst images."""
    side = 640 if found.shown * len(found.methods) <= MANY_OVERLAYS else 400
    shown: dict[str, list[Overlay]] = {}
    for method in found.methods:
        pairs = {pair.image: pair for pair in method.pairs}
        pictures: list[Overlay] = []
        for pick in collect.picks(found.metrics, method.name, columns[0], found.shown):
            with opened_files(pairs[pick.image], found.scoring, found.files) as maps:
                image = _image(found, pick.image, maps)
                pictures += _pictures(maps, image, found.scoring.task, pick, side)
        if pictures:
            shown[method.name] = pictures
    return shown


def _image(found: Evaluated, name: str, maps: ScoredPair) -> Any | None:
    """The image [C, (Z,) Y, X] under the outlines; None if there is none that fits."""
    path = found.images.get(name)
    if path is None:
        return None
    try:
        image = open_image(path, axes=found.files.axes)
    except UserError as error:
        log.warning("warning: %s; its outlines are drawn without it", error)
        return None
    if image.shape[1:] != maps.truth.shape:
        log.warning(
            "warning: %s: %s pixels, but its masks have %s; their outlines are drawn without it",
            *(path, image.shape[1:], maps.truth.shape),
        )
        return None
    return image.array


def _pictures(
    maps: ScoredPair, image: Any | None, task: str, pick: collect.Pick, side: int
) -> list[Overlay]:
    pictures: list[Overlay] = []
    for cut in cuts_of(maps.truth, maps.pixel_size_um):
        view = _view_of_plane(maps, image, task, cut)
        found = overlays_of_plane(view, task, pick, side, cut)
        if image is None:
            # Without the image, its panel says nothing.
            found = [Overlay(one.pick, one.note, one.panels[1:]) for one in found]
        pictures += found
    return pictures


def _view_of_plane(
    maps: ScoredPair, image: Any | None, task: str, cut: Cut | None
) -> Callable[[collect.Window | None], OverlayView]:
    objects = task == "instances"
    truth = maps.truth_ids if objects else maps.truth
    pred = maps.pred_ids if objects else maps.pred
    under = image if image is not None else _Ground(maps.truth, objects)

    def view(window: collect.Window | None) -> OverlayView:
        return collect.view_of(under, truth, pred, maps.truth, window, cut)

    return view


@dataclass(frozen=True, eq=False)
class _Ground:
    """Stands for an image that nobody gave: dark, with the true classes in grey; black under
    outlines of objects. Looks like an array [1, (Z,) Y, X]."""

    classes: Any
    black: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, *self.classes.shape)

    def __getitem__(self, where: tuple[Any, ...]) -> Any:
        classes = np.asarray(self.classes[where[1:]])
        grey = (classes > 0) & (classes != IGNORE) & (not self.black)
        return grey[None].astype(np.float32)
