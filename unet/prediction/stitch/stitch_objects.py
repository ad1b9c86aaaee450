"""What is known of the objects of one stitched image: their measures, and their outlines as files.

All is read from the finished labels, block by block, with a pixel of what is around each block; so
objects are measured and traced whole, wherever blocks, shards and tiles end.
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
from unet.export import ome_zarr_writer, outlines
from unet.export.collected_sums import CollectedSums
from unet.export.geojson import geojson_writer
from unet.export.object_sums import Sums, read_around, sums
from unet.export.object_table import Table
from unet.export.rois import roi_writer

# Of objects that all are of one class.
COLOUR = (0xE6, 0x9F, 0x00)


def measure(
    labels: ome_zarr_writer.ZarrArray,
    intensity: Any,
    regions: list[Slices],
    threads: int,
    path: Path,
    *,
    what: str,
    first: int = 0,
) -> CollectedSums:
    """Sums of all labels of an image.

    Args:
        labels: ids [(Z,) Y, X].
        intensity: the image [C, (Z,) Y, X].
        regions: parts that cover the image once, in raster order.
        path: where they go when they are many.
        first: added to every label (1 for classes, whose 0 counts as well).
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
    labels: ome_zarr_writer.ZarrArray,
    table: Table,
    kind: str,
    image: str,
    folders: tuple[Path | None, Path | None],
    threads: int,
) -> None:
    """Writes the outlines of an image's objects, each as soon as all of it has been read.

    Args:
        labels: ids [Y, X].
        table: of these objects.
        kind: name of their class.
        folders: where the GeoJSON and the ROIs go, None = not wanted.
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
