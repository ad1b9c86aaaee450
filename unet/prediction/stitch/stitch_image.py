"""One image of the stitch stage: its OME-Zarr image, labels and mask, written in parts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unet.config.stage_settings import StitchSettings
from unet.data.blocks import Grid, grid_of, ordered, within
from unet.data.tiling import Slices
from unet.errors import UserError
from unet.export import ome_zarr_writer, tiff_writer
from unet.export.object_table import Scale, Table
from unet.export.ome_zarr_writer import Pixels
from unet.export.pyramid import Reduction
from unet.io.zipped_images import OME, Place, new_hierarchy
from unet.prediction.objects.methods import segment
from unet.prediction.objects.temporary_arrays import Scratch, scratch
from unet.prediction.stitch.seams import Jumps, SeamScore
from unet.prediction.stitch.stitch_objects import measure, write_outlines

if TYPE_CHECKING:
    from unet.data.store import Prepared
    from unet.prediction.tiles.tile_store import Tiles


def mask_values(settings: StitchSettings) -> NDArray[Any]:
    """The value of each class index in a semantic mask, in the mask's dtype.

    Raises:
        UserError: no dtype can hold the values.
    """
    values = settings.class_values or tuple(range(len(settings.class_names)))
    try:
        return np.array(values, tiff_writer.smallest_dtype(min(values), max(values)))
    except ValueError as error:
        raise UserError(f"config: classes: {error}; no TIFF mask can store them") from None


@dataclass(frozen=True, eq=False)
class StitchJob:
    """What all images of one run share.

    ``geojson`` and ``rois``: folders for outlines of objects, None = not requested.
    ``made_by``: provenance of the results (:func:`unet.provenance.made_by`), None = unknown.
    ``zipped``: images of one chunk become zip files.
    """

    tiles: Tiles
    prepared: Prepared
    store: Path
    masks: Path
    geojson: Path | None
    rois: Path | None
    settings: StitchSettings
    threshold: float
    block: int
    threads: int
    made_by: Mapping[str, Any] | None
    zipped: bool = False


@dataclass(frozen=True, eq=False)
class Stitched:
    """One finished image: its entry in the sentinel, and its table of objects."""

    image: str
    entry: dict[str, Any]
    table: Table


def stitch_image(job: StitchJob, image: str) -> Stitched:
    """Writes the OME-Zarr image, its labels, the TIFF mask and the outlines of one image.

    The group (a folder, or a zip file) gets its name once it is complete. The mask of a
    failed run is removed with its folder.
    """
    settings, attrs = job.settings, job.tiles.attrs(image)
    grid = grid_of(attrs["shape"], job.block)
    pixel_size = attrs["pixel_size_um"]
    pyramid = ome_zarr_writer.pyramid_of(grid.shape, settings.stitch.pyramid, pixel_size)
    about = {
        "head": list(settings.head),
        "part": attrs["part"],
        "axes": "C" + pyramid.axes.upper(),
        "pixel_size_um": pixel_size,
        **({} if job.made_by is None else {"made_by": job.made_by}),
    }
    suffix = OME if job.zipped and ome_zarr_writer.one_chunk(grid.shape) else None
    with new_hierarchy(job.store / image, suffix) as place:
        levels, labels = _create(place, pyramid, settings, attrs.get("dtype", "float32"), about)
        seams = SeamScore.of(attrs)
        digests, probabilities = _write_probabilities(job, image, levels[0], seams)
        sha = hashlib.sha256(digests)
        with scratch(job.store, grid) as temporary:
            found = _write_labels(job, image, grid, temporary, probabilities, labels, sha)
        _write_pyramids(job, image, levels, labels, {"": probabilities, **found})
        # Before the rename, because the open arrays use the temporary name.
        ids = found["instances" if settings.task == "instances" else "classes"]
        table = _write_objects(job, image, ids, pixel_size)
        count = len(table.labels)
        if settings.stitch.tiff:
            _write_tiff(job, image, ids, count, pixel_size)
    entry = {
        "shape": list(grid.shape),
        "part": attrs["part"],
        "objects": count,
        "seam": seams.result(len(settings.head)),
        "sha256": sha.hexdigest(),
    }
    return Stitched(image, entry, table)


def _create(
    path: Place,
    pyramid: ome_zarr_writer.Pyramid,
    settings: StitchSettings,
    dtype: str,
    about: dict[str, Any],
) -> tuple[list[ome_zarr_writer.ZarrArray], dict[str, list[ome_zarr_writer.ZarrArray]]]:
    """Creates the empty levels of the image and of its labels."""
    section, head = settings.stitch, settings.head
    kinds: dict[str, Any] = {"classes": np.uint8, "instances": np.uint32}
    if settings.task != "instances":
        del kinds["instances"]
    version, by = section.ome_zarr, section.label_pyramid
    levels = ome_zarr_writer.create_image(path, pyramid, dtype, head, {"unet": about}, version)
    return levels, ome_zarr_writer.create_labels(
        path, pyramid, kinds, settings.class_names, len(head), version, by
    )


def _write_probabilities(
    job: StitchJob, image: str, level: ome_zarr_writer.ZarrArray, seams: SeamScore
) -> tuple[bytes, Pixels]:
    """Writes level 0 of the image, shard by shard, and adds the jumps of the probabilities to
    ``seams``. Returns the digests of the shards, and where to read the image."""
    level_pixels: Pixels = level

    def one(region: Slices) -> tuple[bytes, Jumps]:
        nonlocal level_pixels
        around = seams.around(region)
        found = job.tiles.read(image, around)
        pixels = found[(slice(None), *within(region, around))].astype(level.dtype, copy=False)
        level[(slice(None), *region)] = pixels
        level_pixels = _kept(pixels, level)
        return _digest(pixels), seams.jumps(region, found)

    regions = ome_zarr_writer.write_regions(level.shape[1:], level.shape[0])
    what = f"{image}: probabilities"
    digests = []
    for digest, jumps in ordered(one, regions, job.threads, what=what, total=len(regions)):
        digests.append(digest)
        seams.add(jumps)
    return b"".join(digests), level_pixels


def _kept(pixels: NDArray[Any], level: ome_zarr_writer.ZarrArray) -> Pixels:
    """Where to read a level of which ``pixels`` were just written: they are all of a small image,
    which need not be read from the disk again."""
    return pixels if pixels.shape == level.shape else level


def _digest(pixels: NDArray[Any]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(pixels).reshape(-1).view(np.uint8).data).digest()


def _write_labels(
    job: StitchJob,
    image: str,
    grid: Grid,
    temporary: Scratch,
    probabilities: Pixels,
    labels: Mapping[str, list[ome_zarr_writer.ZarrArray]],
    sha: Any,
) -> dict[str, Pixels]:
    """Writes level 0 of the labels, and adds their content to ``sha``. Returns where to read
    them."""
    settings, found = job.settings, None
    kept: dict[str, Pixels] = {name: levels[0] for name, levels in labels.items()}
    if settings.task == "instances":

        def read(channel: int, region: Slices) -> NDArray[np.float32]:
            where: tuple[int | slice, ...] = (channel, *region)
            return np.asarray(probabilities[where], np.float32)

        found = segment(
            read, grid, temporary, settings.head, settings.stitch, job.threshold, job.threads
        )

    def one(region: Slices) -> bytes:
        if found is None:
            pixels = np.asarray(probabilities[(slice(None), *region)], np.float32)
            parts = {"classes": class_map(pixels, job.threshold)}
        else:
            ids = found.read(region)
            parts = {"classes": (ids > 0).view(np.uint8), "instances": ids}
        for name, part in parts.items():
            level = labels[name][0]
            level[region] = part
            kept[name] = _kept(part, level)
        # The classes say nothing that the instances do not.
        return _digest(part)

    regions = ome_zarr_writer.write_regions(grid.shape, len(settings.head))
    what = f"{image}: labels"
    for digest in ordered(one, regions, job.threads, what=what, total=len(regions)):
        sha.update(digest)
    return kept


def _write_pyramids(
    job: StitchJob,
    image: str,
    levels: list[ome_zarr_writer.ZarrArray],
    labels: Mapping[str, list[ome_zarr_writer.ZarrArray]],
    finest: Mapping[str, Pixels],
) -> None:
    """Writes the coarser levels; ``finest``: where to read level 0 of the image, "", and of its
    labels."""
    by = job.settings.stitch.label_pyramid
    pyramids: list[tuple[Pixels, list[ome_zarr_writer.ZarrArray], Reduction]] = [
        (finest[""], levels, "mean"),
        *((finest[name], arrays, by) for name, arrays in labels.items()),
    ]
    for source, arrays, way in pyramids:
        for target in arrays[1:]:
            reduce = partial(ome_zarr_writer.reduce_region, source, target, by=way)
            # Probabilities have one more axis: the classes.
            shape = target.shape[1:] if way == "mean" else target.shape
            regions = ome_zarr_writer.write_regions(shape, levels[0].shape[0])
            what = f"{image}: pyramid"
            for part in ordered(reduce, regions, job.threads, what=what, total=len(regions)):
                source = _kept(part, target)


def _write_objects(
    job: StitchJob, image: str, labels: Pixels, pixel_size_um: list[float] | None
) -> Table:
    """Measures the objects and writes their outlines, if requested.

    For task semantic, the table's labels are the class indices plus one.
    """
    settings, intensity = job.settings, job.prepared.image(image)
    regions = ome_zarr_writer.write_regions(labels.shape, len(settings.head))
    first = 0 if settings.task == "instances" else 1
    what = f"{image}: objects"
    # Inside the store, so that it is removed with it if the stage was killed and starts again.
    name = hashlib.sha256(image.encode()).hexdigest()[:32]
    path = job.store / f".{name}.sums.tmp"
    found = measure(labels, intensity, regions, job.threads, path, what=what, first=first)
    scale = Scale.of(job.prepared.attrs(image).get("statistics"), intensity.shape[0])
    table = Table(image, found, labels.shape, pixel_size_um, scale)
    folders = (job.geojson, job.rois)
    if any(folder is not None for folder in folders):
        kind = settings.class_names[1]
        write_outlines(labels, table, kind, image, folders, job.threads)
    return table


def _write_tiff(
    job: StitchJob,
    image: str,
    labels: Pixels,
    count: int,
    pixel_size_um: list[float] | None,
) -> None:
    settings = job.settings
    if settings.task == "instances":
        # At least 16 bits, so that typical images all get the same type.
        values, dtype, top = None, tiff_writer.smallest_dtype(0, max(count, 2**16 - 1)), count
    else:
        values = mask_values(settings)
        dtype = values.dtype
        top = int(values.max())

    def read(region: Slices) -> NDArray[Any]:
        pixels = np.asarray(labels[region])
        return pixels if values is None else values[pixels]

    path = job.masks / f"{image}.tif"
    tiff_writer.write_mask(
        path, read, labels.shape, dtype, pixel_size_um,
        top=top, made_by=job.made_by, threads=job.threads,
    )  # fmt: skip


def class_map(probabilities: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Class index [(Z,) Y, X] of probabilities [C, (Z,) Y, X]: the class with the largest one (the
    first in a tie); with two classes the second where its probability exceeds ``threshold``."""
    if len(probabilities) == 2:
        return np.asarray(probabilities[1] > threshold, np.uint8)
    return np.asarray(probabilities.argmax(axis=0), np.uint8)
