"""Stores another tool's masks like a model's segmentation, so that everything that reads one
reads them, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from unet.config.compare_settings import CompareSettings
from unet.data.blocks import ArraySource
from unet.data.mask_contents import scored_maps
from unet.data.store import Prepared
from unet.errors import UserError
from unet.evaluation.arrays import ALLOWED
from unet.export import ome_zarr_writer
from unet.files import replacing
from unet.io.axes import DaskArray


@dataclass(frozen=True)
class ImageGrid:
    """The image that a mask belongs to.

    Attributes:
        shape: (Z,) Y, X.
        pixel_size_um: per spatial axis, None = unknown.
    """

    id: str
    shape: tuple[int, ...]
    pixel_size_um: Sequence[float] | None

    @classmethod
    def of(cls, prepared: Prepared, image: str) -> ImageGrid:
        """The image on its own pixel grid, that of its labels.

        Raises:
            UserError: it has no labels.
        """
        classes = prepared.classes(image)
        if classes is None:
            raise UserError(f"{prepared.path / image}: has no labels, so no mask can be scored")
        return cls(image, classes.shape, prepared.attrs(image).get("pixel_size_um"))


def store_mask(
    store: Path, grid: ImageGrid, mask: DaskArray, settings: CompareSettings, threads: int = 1
) -> None:
    """Writes a mask [(Z,) Y, X] as ``labels/classes`` and, for task instances,
    ``labels/instances`` of an image without probabilities, block by block.

    Raises:
        UserError: a value is neither an id nor, for task semantic, one of the classes.
    """
    with replacing(store / grid.id) as path:
        path.unlink()
        arrays = _create(path, grid, settings)
        step = arrays["classes"].shards or arrays["classes"].chunks
        source = ArraySource(mask, step, ALLOWED, threads)
        source.load()
        classes = None
        if settings.class_values is not None:
            classes = dict(zip(settings.class_names, settings.class_values, strict=True))
        for region, values in source.regions():
            for name, labels in scored_maps(values, classes).items():
                arrays[name][region] = labels


def _create(path: Path, grid: ImageGrid, settings: CompareSettings) -> dict[str, Any]:
    pyramid = ome_zarr_writer.pyramid_of(grid.shape, 1, grid.pixel_size_um)
    about = {
        "head": list(settings.class_names),
        "part": "test",
        "axes": "C" + pyramid.axes.upper(),
        "pixel_size_um": pyramid.pixel_size_um and list(pyramid.pixel_size_um),
    }
    zarr.create_group(str(path), attributes={"unet": about}, zarr_format=3)
    kinds: dict[str, Any] = {"classes": np.uint8}
    if settings.task == "instances":
        kinds["instances"] = np.uint32
    names = settings.class_names
    made = ome_zarr_writer.create_labels(path, pyramid, kinds, names, len(names))
    return {name: levels[0] for name, levels in made.items()}
