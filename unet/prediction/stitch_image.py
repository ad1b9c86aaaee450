"""One image of the stitch stage: its OME-Zarr image, labels and mask, written in parts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unet.data.tiling import Slices
from unet.errors import UserError
from unet.export import objects, omezarr, tiff
from unet.files import replacing
from unet.prediction.blocks import Grid, Scratch, grid_of, ordered, scratch
from unet.prediction.methods import segment
from unet.sections import StitchSection

if TYPE_CHECKING:
    from unet.data.store import Prepared
    from unet.prediction.tiles import Tiles


@dataclass(frozen=True)
class StitchSettings:
    """What the stage is told.

    Attributes:
        version: the stage's version constant.
        section: the config's stitch section.
        task: "semantic" or "instances".
        class_names: in the order of the class index.
        class_values: the value that stands for each class in the user's labels and so in the
            masks; None = the class index. Only for task semantic.
        head: names of the probabilities' classes.
    """

    version: int
    section: StitchSection
    task: str
    class_names: tuple[str, ...]
    class_values: tuple[int, ...] | None
    head: tuple[str, ...]

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> StitchSettings:
        """From the stage's slice of the config."""
        values = settings["class_values"]
        return cls(
            version=int(settings["version"]),
            section=StitchSection.model_validate(settings["stitch"]),
            task=str(settings["task"]),
            class_names=tuple(settings["class_names"]),
            class_values=None if values is None else tuple(int(v) for v in values),
            head=tuple(settings["head"]),
        )

    @property
    def mask_values(self) -> NDArray[Any]:
        """What each class index is in a semantic mask, in the mask's dtype."""
        values = self.class_values or tuple(range(len(self.class_names)))
        try:
            return np.array(values, tiff.smallest_dtype(min(values), max(values)))
        except ValueError as error:
            raise UserError(f"config: classes: {error}; no TIFF mask can hold them") from None


@dataclass(frozen=True, eq=False)
class Job:
    """What the images of one run have in common."""

    tiles: Tiles
    prepared: Prepared
    store: Path
    masks: Path
    settings: StitchSettings
    threshold: float
    block: int
    threads: int


@dataclass(frozen=True, eq=False)
class Stitched:
    """One finished image: what the sentinel says of it, and its objects."""

    image: str
    entry: dict[str, Any]
    sums: objects.Sums
    pixel_size_um: list[float] | None


def stitch_image(job: Job, image: str) -> Stitched:
    """Writes the OME-Zarr image, its labels and the TIFF mask of one image.

    The group takes its name when all is in it; a mask of a failed run goes with its folder.
    """
    settings, attrs = job.settings, job.tiles.attrs(image)
    grid = grid_of(attrs["shape"], job.block)
    pixel_size = attrs["pixel_size_um"]
    pyramid = omezarr.pyramid_of(grid.shape, settings.section.pyramid, pixel_size)
    about = {
        "head": list(settings.head),
        "part": attrs["part"],
        "axes": "C" + pyramid.axes.upper(),
        "pixel_size_um": pixel_size,
    }
    names = ["classes", "instances"] if settings.task == "instances" else ["classes"]
    dtypes = {"classes": np.uint8, "instances": np.uint32}
    with replacing(job.store / image) as path:
        path.unlink()
        levels = omezarr.create_image(
            path, pyramid, attrs.get("dtype", "float32"), settings.head, {"unet": about}
        )
        labels = omezarr.create_labels(
            path, pyramid, {n: dtypes[n] for n in names}, settings.class_names, len(settings.head)
        )
        sha = hashlib.sha256(_write_probabilities(job, image, levels[0]))
        with scratch(job.store, grid) as temporary:
            sums = _write_labels(job, image, grid, temporary, levels[0], labels, sha)
        _write_pyramids(job, image, grid, levels, labels)
        count = len(sums.labels)
        # Before the rename: the arrays lie under the temporary name.
        if settings.section.tiff:
            _write_tiff(job, image, labels[names[-1]][0], count, pixel_size)
    entry = {
        "shape": list(grid.shape),
        "part": attrs["part"],
        "objects": count,
        "sha256": sha.hexdigest(),
    }
    return Stitched(image, entry, sums, pixel_size)


def _write_probabilities(job: Job, image: str, level: omezarr.ZarrArray) -> bytes:
    """Writes level 0 of the image, shard by shard; returns the digests of its shards."""

    def one(region: Slices) -> bytes:
        pixels = job.tiles.read(image, region).astype(level.dtype)
        level[(slice(None), *region)] = pixels
        return hashlib.sha256(pixels.tobytes()).digest()

    regions = omezarr.shard_regions(level, level.ndim - 1)
    what = f"{image}: probabilities"
    return b"".join(ordered(one, regions, job.threads, what=what, total=len(regions)))


def _write_labels(
    job: Job,
    image: str,
    grid: Grid,
    temporary: Scratch,
    level: omezarr.ZarrArray,
    labels: Mapping[str, list[omezarr.ZarrArray]],
    sha: Any,
) -> objects.Sums:
    """Writes level 0 of the labels, adds their content to ``sha``, and sums up their objects.

    Task semantic: the sums' labels are the class indices plus one.
    """
    settings, intensity = job.settings, job.prepared.image(image)
    found = None
    if settings.task == "instances":

        def read(channel: int, region: Slices) -> NDArray[np.float32]:
            where: tuple[int | slice, ...] = (channel, *region)
            return np.asarray(level[where]).astype(np.float32)

        found = segment(
            read, grid, temporary, settings.head, settings.section, job.threshold, job.threads
        )

    def one(region: Slices) -> tuple[bytes, objects.Sums]:
        if found is None:
            probabilities = np.asarray(level[(slice(None), *region)]).astype(np.float32)
            classes = class_map(probabilities, job.threshold)
            ids = classes.astype(np.uint16) + np.uint16(1)
            digest = hashlib.sha256(classes.tobytes()).digest()
        else:
            ids = found.read(region)
            classes = (ids > 0).astype(np.uint8)
            labels["instances"][0][region] = ids
            digest = hashlib.sha256(ids.tobytes()).digest()
        labels["classes"][0][region] = classes
        pixels = np.asarray(intensity[(slice(None), *region)])
        return digest, objects.sums(ids, pixels, region)

    regions = omezarr.shard_regions(labels["classes"][0], len(grid.shape))
    sums = []
    for digest, part in ordered(
        one, regions, job.threads, what=f"{image}: labels", total=len(regions)
    ):
        sha.update(digest)
        sums.append(part)
    return objects.add(sums, len(grid.shape), intensity.shape[0])


def _write_pyramids(
    job: Job,
    image: str,
    grid: Grid,
    levels: list[omezarr.ZarrArray],
    labels: Mapping[str, list[omezarr.ZarrArray]],
) -> None:
    for arrays, averaged in [(levels, True), *((found, False) for found in labels.values())]:
        for source, target in pairwise(arrays):
            reduce = partial(omezarr.reduce_region, source, target, averaged=averaged)
            regions = omezarr.shard_regions(target, len(grid.shape))
            what = f"{image}: pyramid"
            for _ in ordered(reduce, regions, job.threads, what=what, total=len(regions)):
                pass


def _write_tiff(
    job: Job,
    image: str,
    level: omezarr.ZarrArray,
    count: int,
    pixel_size_um: list[float] | None,
) -> None:
    settings = job.settings
    if settings.task == "instances":
        # At least 16 bits: the type does not change with the number of objects of common images.
        values, dtype = None, tiff.smallest_dtype(0, max(count, 2**16 - 1))
    else:
        values, dtype = settings.mask_values, settings.mask_values.dtype

    def read(region: Slices) -> NDArray[Any]:
        pixels = np.asarray(level[region])
        return pixels if values is None else values[pixels]

    tiff.write_mask(job.masks / f"{image}.tif", read, level.shape, dtype, pixel_size_um)


def class_map(probabilities: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Class index [(Z,) Y, X] of probabilities [C, (Z,) Y, X]: the largest (the first of equals);
    of two classes the second where it exceeds ``threshold``."""
    if len(probabilities) == 2:
        return np.asarray(probabilities[1] > threshold, np.uint8)
    return np.asarray(probabilities.argmax(axis=0), np.uint8)
