"""Measures the objects of one stitched image, and writes their outlines.

Everything is read from the finished labels, block by block with a halo of one pixel. So objects are
measured and traced as a whole, wherever blocks, shards and tiles end.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.data.blocks import ordered
from unet.data.tiling import Slices
from unet.export import outlines
from unet.export.collected_sums import CollectedSums
from unet.export.geojson import geojson_writer
from unet.export.object_sums import Sums, read_around, sums
from unet.export.object_table import Table
from unet.export.ome_zarr_writer import Pixels
from unet.export.rois import roi_writer

# All objects belong to one class, so they have one colour.
COLOUR = (0xE6, 0x9F, 0x00)


def measure(
    labels: Pixels,
    intensity: Any,
    regions: list[Slices],
    threads: int,
    path: Path,
    *,
    what: str,
    first: int = 0,
) -> CollectedSums:
    """Measures all labels of an image, as sums.

    Args:
        labels: ids [(Z,) Y, X].
        intensity: the image [C, (Z,) Y, X].
        regions: parts that cover the image once, in raster order.
        path: file for the sums if there are many.
        first: added to every label (1 for classes, because class 0 counts, too).
    """

    def read(region: Slices) -> NDArray[Any]:
        pixels = np.asarray(labels[region])
        return pixels + np.uint16(first) if first else pixels

    def one(region: Slices) -> Sums:
        around = read_around(read, labels.shape, region)
        return sums(around, np.asarray(intensity[(slice(None), *region)]), region)

    parts = ordered(one, regions, threads, what=what, total=len(regions))
    return CollectedSums.of(parts, labels.ndim, intensity.shape[0], path)


def write_outlines(
    labels: Pixels,
    table: Table,
    kind: str,
    image: str,
    folders: tuple[Path | None, Path | None],
    threads: int,
) -> None:
    """Writes the outlines of an image's objects, each as soon as all of its pixels were read.

    Args:
        labels: ids [Y, X].
        table: the table of these objects.
        kind: name of their class.
        folders: for the GeoJSON and for the ROIs, None = not requested.
    """
    blocks = outlines.vertex_blocks(labels.shape, outlines.OUTLINE_BLOCK)

    def read(region: Slices) -> NDArray[Any]:
        return np.asarray(labels[region])

    find: Callable[[Slices], outlines.Corners] = partial(outlines.corners, read, labels.shape)
    what = f"{image}: outlines"
    parts = ordered(find, blocks, threads, what=what, total=len(blocks))
    as_geojson, as_rois = folders
    with ExitStack() as stack:
        features = archive = None
        if as_geojson is not None:
            path = as_geojson / f"{image}.geojson"
            features = stack.enter_context(geojson_writer(path, image))
        if as_rois is not None:
            archive = stack.enter_context(roi_writer(as_rois / f"{image}.zip"))
        for label, polygons in outlines.completed(parts, blocks, table.labels, table.high):
            if features is not None:
                features.add(label, polygons, kind, COLOUR, table.measures(label))
            if archive is not None:
                archive.add(label, polygons)
