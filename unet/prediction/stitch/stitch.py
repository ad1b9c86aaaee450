"""The stitch stage: turns tiles of probabilities into segmentations, masks and an object table."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet.config.stage_settings import StitchSettings
from unet.data.blocks import grid_of, ordered
from unet.errors import UserError, how_many
from unet.export import object_table, ome_zarr_writer
from unet.export.ome_zarr_collection import create_collection, list_images
from unet.files import remove, replacing, write_sentinel
from unet.io.zipped_images import MANY
from unet.prediction.objects.temporary_arrays import HELD_BLOCKS
from unet.prediction.objects.threshold import choose_threshold
from unet.prediction.stitch.plate_columns import Places
from unet.prediction.stitch.stitch_image import Stitched, StitchJob, mask_values, stitch_image
from unet.prediction.stitch.write_back import write_image_back
from unet.provenance import write_sidecar
from unet.tables import table_writer

if TYPE_CHECKING:
    from unet.data.store import Prepared
    from unet.prediction.tiles.tile_store import Tiles

log = logging.getLogger(__name__)

STITCH_BLOCK = 1024
# Probabilities of the images that are processed side by side; for each, about 10 bytes are needed.
HELD_VALUES = 1 << 26


@dataclass(frozen=True)
class Outputs:
    """Where the stage writes: the store, its sentinel, the folder of TIFF masks and the table of
    objects. The folders for outlines, next to these, exist only if outlines are requested."""

    segmentation: Path
    done: Path
    masks: Path
    objects: Path

    @property
    def geojson(self) -> Path:
        return self.masks.parent / "geojson"

    @property
    def rois(self) -> Path:
        return self.masks.parent / "rois"


def stitch_dataset(
    tiles: Tiles,
    prepared: Prepared,
    outputs: Outputs,
    settings: StitchSettings,
    threads: int = 1,
    block: int = STITCH_BLOCK,
    made_by: Mapping[str, Any] | None = None,
    wells: Mapping[str, Mapping[str, str]] | None = None,
    targets: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """Stitches all predicted images, validation and test, of one fold.

    Args:
        block: side of the blocks in which images are processed (memory grows with it; the result
            does not depend on it).
        made_by: provenance (:func:`unet.provenance.made_by`) to store in each result.
        wells: image id -> where it is on its plate (:data:`unet.data.records.WELL_KEYS`).
        targets: image id -> the user's image that its result becomes a label of
            (:func:`unet.prediction.stitch.write_back.write_targets`).

    Returns:
        Image id -> its entry in the sentinel: shape, part, number of objects (for task semantic of
        classes present) and a hash of the arrays' content.

    Raises:
        UserError: the tiles belong to another head or other images.
    """
    _remove_old(outputs)
    version, ids = settings.stitch.ome_zarr, tiles.ids()
    create_collection(outputs.segmentation, version)
    for image in ids:
        _check(tiles, prepared, image, settings)
    threshold = _threshold(tiles, prepared, outputs, settings, threads, block)
    entries = {}
    channels = prepared.image(ids[0]).shape[0] if ids else 0
    dims = len(tiles.attrs(ids[0])["shape"]) if ids else 2
    with ExitStack() as stack:
        masks = _folder(stack, outputs.masks)
        geojson, rois = _outlines(stack, outputs, settings, dims)
        places = Places(wells or {}, ids)
        columns = places.columns(object_table.columns(dims, channels))
        append = stack.enter_context(table_writer(outputs.objects, columns))
        job = StitchJob(
            tiles, prepared, outputs.segmentation, masks, geojson, rois,
            settings=settings, threshold=threshold, block=block, threads=threads, made_by=made_by,
            zipped=_zipped(settings, len(ids)),
        )  # fmt: skip
        for done in _stitch_all(job, ids):
            append(places.rows(done.image, _rows(done, settings)))
            done.table.close()
            entries[done.image] = done.entry
    written = [k for k in targets or () if k in entries and entries[k]["part"] == "test"]
    for image in written:
        group = (targets or {})[image]
        write_image_back(outputs.segmentation, image, group, settings, made_by, threads)
    if written:
        what, where = how_many(len(written), "image"), settings.stitch.write_back
        log.info("%s written into the images: %s", where, what)
    folders = {
        image: (len(settings.head), *entry["shape"])
        for image, entry in entries.items()
        if (outputs.segmentation / image).is_dir()
    }
    if len(folders) < len(entries):
        log.info(
            "%s: %d of %d images are zip files (.ozx), since there are many; stitch: "
            "{zip_images: never} makes folders of them, which more viewers open",
            outputs.segmentation, len(entries) - len(folders), len(entries),
        )  # fmt: skip
    list_images(outputs.segmentation, folders, version)
    if made_by is not None:
        write_sidecar(outputs.objects, made_by)
    write_sentinel(
        outputs.done, settings.version, entries, made_by,
        threshold=threshold, head=list(settings.head), class_names=list(settings.class_names),
    )  # fmt: skip
    log.info("stitched %s at threshold %.2f", how_many(len(ids), "image"), threshold)
    return entries


def _zipped(settings: StitchSettings, images: int) -> bool:
    """Whether small images become zip files."""
    section = settings.stitch
    if section.zip_images == "auto":
        return images > MANY and section.ome_zarr == "0.5"
    return section.zip_images == "always"


def _remove_old(outputs: Outputs) -> None:
    for path in (outputs.done, outputs.segmentation, outputs.geojson, outputs.rois):
        remove(path)
    for path in (outputs.masks, outputs.objects, outputs.geojson, outputs.rois):
        # Left behind by a run that was killed.
        for stale in path.parent.glob(f".{path.name}.*.tmp"):
            remove(stale)


def _folder(stack: ExitStack, path: Path) -> Path:
    """A new temporary folder that is renamed to ``path`` at the end."""
    folder = stack.enter_context(replacing(path))
    folder.unlink()
    folder.mkdir()
    return folder


def _outlines(
    stack: ExitStack, outputs: Outputs, settings: StitchSettings, dims: int
) -> tuple[Path | None, Path | None]:
    """Folders for the outlines as GeoJSON and as ROIs; None if not requested."""
    section = settings.stitch
    if (section.geojson or section.rois) and (dims == 3 or settings.task != "instances"):
        what = "volumes" if dims == 3 else "task semantic"
        log.info("stitch.geojson, stitch.rois: only 2D objects have outlines; none for %s", what)
        return None, None
    return (
        _folder(stack, outputs.geojson) if section.geojson else None,
        _folder(stack, outputs.rois) if section.rois else None,
    )


def _check(tiles: Tiles, prepared: Prepared, image: str, settings: StitchSettings) -> None:
    attrs = tiles.attrs(image)
    if tuple(attrs["head"]) != settings.head:
        raise UserError(
            f"tiles of image {image}: predicted for the classes {', '.join(attrs['head'])}, but "
            f"they are now {', '.join(settings.head)}; run the predict stage again"
        )
    shape = prepared.image(image).shape[1:]
    if tuple(attrs["shape"]) != shape:
        raise UserError(
            f"tiles of image {image}: predicted for the shape {tuple(attrs['shape'])}, but the "
            f"prepared image has {shape}; run the predict stage again"
        )


def _threshold(
    tiles: Tiles,
    prepared: Prepared,
    outputs: Outputs,
    settings: StitchSettings,
    threads: int,
    block: int,
) -> float:
    given = settings.stitch.threshold
    if given != "auto":
        return given
    return choose_threshold(
        tiles,
        prepared,
        outputs.segmentation,
        settings.stitch,
        settings.task,
        settings.head,
        threads,
        block,
    )


def _stitch_all(job: StitchJob, ids: list[str]) -> Iterator[Stitched]:
    """All images in order: small ones side by side, large ones one by one with all threads."""

    def side_by_side(image: str) -> int:
        grid = grid_of(job.tiles.attrs(image)["shape"], job.block)
        # The parts that threads write at the same time: with one, only one thread would work.
        parts = ome_zarr_writer.write_regions(grid.shape, len(job.settings.head))
        if len(grid) > HELD_BLOCKS or len(parts) > 1:
            return 1
        values = math.prod(grid.shape) * len(job.settings.head)
        return max(1, min(job.threads, HELD_VALUES // values))

    def one_after_other() -> Iterator[Stitched]:
        for most, group in groupby(ids, key=side_by_side):
            images = list(group)
            across = min(most, len(images))
            one = partial(stitch_image, replace(job, threads=job.threads // across))
            yield from ordered(one, images, across)

    return ordered(lambda done: done, one_after_other(), 1, what="stitched images", total=len(ids))


def _rows(done: Stitched, settings: StitchSettings) -> Iterable[list[str]]:
    names: Iterable[tuple[int, int, str]]
    if settings.task == "instances":
        kind = settings.class_names[1]
        # A generator: a list of Python numbers takes five times the memory of the array.
        names = ((int(label), int(label), kind) for label in done.table.labels)
    else:
        values = mask_values(settings).tolist()
        names = (
            (i + 1, value, name)
            for i, (value, name) in enumerate(zip(values, settings.class_names, strict=True))
        )
    return done.table.rows(names)
