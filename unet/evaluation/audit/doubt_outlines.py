"""Outlines of the doubts about the labels of 2D images, to open in QuPath and Fiji.

Per image a GeoJSON and a ZIP of ROIs, in the image's pixels. A doubt has the outlines of the
labelled objects (or the labelled region) and those of the predicted ones, each with its own name:
``3 shifted 0.91 label``. An exchanged label is a rectangle around the image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.config.heads import IGNORE
from unet.data.blocks import ordered
from unet.data.store import Prepared
from unet.data.tiling import Slices
from unet.evaluation.audit.doubts import LEVEL, Doubt
from unet.evaluation.blockwise import ScoredPair, open_pair
from unet.export.geojson import geojson_writer
from unet.export.mark_colours import PREDICTION, TRUTH
from unet.export.outlines import Polygon, corners, polygons
from unet.export.rois import roi_writer
from unet.files import remove, replacing
from unet.prediction.stitch.segmentation import Segmentation

# Larger boxes are not traced: their outline is the box.
MOST_PIXELS = 1 << 24
COLOURS = {"label": TRUTH, "prediction": PREDICTION}


def write_outlines(
    folder: Path,
    doubts: Sequence[Doubt],
    folds: Mapping[int, Path],
    prepared_path: Path,
    task: str,
    threads: int = 1,
) -> None:
    """Writes ``<image>.geojson`` and ``<image>.zip`` for each 2D image with doubts that stand out.

    The folder is replaced as a whole; without outlines there is none.

    Args:
        doubts: in the order of their rank.
        folds: number of a fold -> its segmentation store.
    """
    by_image: dict[str, list[tuple[int, Doubt]]] = {}
    for rank, doubt in enumerate(doubts, start=1):
        if doubt.confidence >= LEVEL and len(doubt.low) == 2:
            by_image.setdefault(doubt.image, []).append((rank, doubt))
    if not by_image:
        remove(folder)
        return
    prepared = Prepared(prepared_path)
    with replacing(folder) as temporary:
        temporary.unlink()
        temporary.mkdir()

        def one(image: str) -> None:
            fold = by_image[image][0][1].fold
            pair = open_pair(prepared, Segmentation(folds[fold]), image, task)
            _write_image(temporary, pair, by_image[image])

        for _ in ordered(one, sorted(by_image), threads):
            pass


def _write_image(folder: Path, pair: ScoredPair, ranked: Sequence[tuple[int, Doubt]]) -> None:
    where = (folder / f"{pair.image}.geojson", folder / f"{pair.image}.zip")
    with geojson_writer(where[0], pair.image) as features, roi_writer(where[1]) as archive:
        for rank, doubt in ranked:
            counts: dict[str, int] = {}
            measures = {"rank": rank, "confidence": round(doubt.confidence, 3), "size": doubt.size}
            for side, found in outlines_of(pair, doubt):
                counts[side] = counts.get(side, 0) + 1
                number = f" {counts[side]}" if counts[side] > 1 else ""
                name = f"{rank} {doubt.kind} {doubt.confidence:.2f} {side}{number}"
                features.add(name, found, doubt.kind, COLOURS[side], measures, "annotation")
                archive.add(name, found)


def outlines_of(pair: ScoredPair, doubt: Doubt) -> Iterator[tuple[str, list[Polygon]]]:
    """("label" or "prediction", outlines) of a doubt about a 2D image, object by object."""
    region = tuple(slice(a, b) for a, b in zip(doubt.low, doubt.high, strict=True))
    if doubt.kind == "exchanged" or math.prod(s.stop - s.start for s in region) > MOST_PIXELS:
        yield "label", [[_box(region)]]
        return
    if doubt.kind == "class":
        yield from (("prediction", found) for found in _traced(_in_doubt(pair, doubt), region))
        return
    wide = _wider(region, pair.truth.shape)
    for side, stored, ids in (
        ("label", pair.truth_ids, doubt.labels),
        ("prediction", pair.pred_ids, doubt.predicted),
    ):
        if stored is not None and ids:
            found = np.asarray(stored[wide])
            shown = np.where(np.isin(found, ids), found, 0)
            yield from ((side, traced) for traced in _traced(shown, wide))


def _wider(region: Slices, shape: Sequence[int]) -> Slices:
    """Twice as large: the other side's objects may lie partly beside the box."""
    return tuple(
        slice(max(0, s.start - (s.stop - s.start)), min(n, s.stop + (s.stop - s.start)))
        for s, n in zip(region, shape, strict=True)
    )


def _in_doubt(pair: ScoredPair, doubt: Doubt) -> NDArray[np.int64]:
    """The pixels of the box with this labelled and this predicted class."""
    region = tuple(slice(a, b) for a, b in zip(doubt.low, doubt.high, strict=True))
    label, pred = np.asarray(pair.truth[region]), np.asarray(pair.pred[region])
    found = (label == doubt.labels[0]) & (pred == doubt.predicted[0]) & (label != IGNORE)
    return np.asarray(found, np.int64)


def _traced(labels: NDArray[Any], region: Slices) -> Iterator[list[Polygon]]:
    """The outlines of each label in a part of the image, in pixels of the image."""
    shape = labels.shape
    whole = tuple(slice(0, n + 1) for n in shape)
    origin = np.array([region[1].start, region[0].start])
    for _, found in polygons(corners(lambda part: labels[part], shape, whole)):
        yield [[ring + origin for ring in polygon] for polygon in found]


def _box(region: Slices) -> NDArray[np.int64]:
    """A rectangle's corners as x, y."""
    (top, bottom), (left, right) = ((s.start, s.stop) for s in region)
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.int64)
