"""The predicted cores of an image's tiles, written by the predict stage and read by stitch.

``tiles.zarr/<image id>``: [tile, class, (Z,) Y, X], one chunk per tile, with the tile's core in the
corner of its chunk (cores at the image's end are smaller; the rest of the chunk is 0 and unused).
With the attribute ``blend: gaussian`` the "cores" are the full outputs of windows, which overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from unet.data.blending import weights_of
from unet.data.tiling import Slices, WindowPlan
from unet.errors import UserError
from unet.files import check_complete
from unet.io.checksums import CHECKSUM, COMPLETE, FLAT
from unet.io.zipped_images import StoredImage


def create_tiles(
    folder: Path, plan: WindowPlan, classes: int, dtype: str, attrs: dict[str, Any]
) -> zarr.Array[Any]:
    """Creates an empty array for the cores of this plan; its attributes contain the grid."""
    cores = [[(s.start, s.stop) for s in tile.core] for tile in plan.tiles]
    return zarr.create_array(
        folder,
        shape=(len(plan.tiles), classes, *plan.core),
        chunks=(1, classes, *plan.core),
        dtype=dtype,
        fill_value=0,
        compressors=(BloscCodec(cname="lz4", clevel=1, shuffle="shuffle"), CHECKSUM),
        chunk_key_encoding=FLAT,
        attributes={
            **attrs,
            "shape": list(plan.shape),
            "window": list(plan.window),
            "cores": cores,
        },
        zarr_format=3,
        config=COMPLETE,
    )


class Tiles:
    """Reads a tile store.

    Raises:
        UserError: the store is missing, or (from the methods) has no such image.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: dict[str, tuple[zarr.Array[Any], dict[str, Any]]] = {}
        self._cores: dict[str, np.ndarray] = {}
        if not path.is_dir():
            raise UserError(f"{path}: tile store is missing; run the predict stage")

    def ids(self) -> list[str]:
        """Sorted ids of the finished images.

        Raises:
            UserError: images of a finished prediction are missing.
        """
        names = (p.parent.name for p in self.path.glob("*/zarr.json"))
        found = sorted(name for name in names if not name.startswith("."))
        check_complete(self.path, found, "predict the images again")
        return found

    def attrs(self, image: str) -> dict[str, Any]:
        """shape ((Z,) Y, X), head, axes, pixel_size_um, part, channels, window, cores, dtype."""
        array, attributes = self._opened(image)
        return {**attributes, "dtype": str(array.dtype)}

    def cores(self, image: str) -> list[Slices]:
        """Position of each tile's core in the image (with blending they overlap)."""
        cores: Any = self._opened(image)[1]["cores"]
        return [tuple(slice(a, b) for a, b in core) for core in cores]

    def read(self, image: str, region: Slices) -> np.ndarray:
        """Probabilities of a region, assembled from the cores.

        Blended tiles are averaged by their weights, in the order of the tiles, so a pixel's value
        does not depend on the requested region. Others are returned as they are stored.

        Args:
            region: one slice with start and stop per spatial axis, within the image.

        Returns:
            [class, *region], float32 or (not blended) float16.
        """
        opened: tuple[Any, dict[str, Any]] = self._opened(image)
        array, attributes = opened
        blended = attributes.get("blend", "none") != "none"
        size = [s.stop - s.start for s in region]
        out = np.zeros((array.shape[1], *size), np.float64 if blended else array.dtype)
        total = np.zeros(size if blended else 0, np.float64)
        for index, core in self._touching(image, region):
            common = [
                slice(max(c.start, r.start), min(c.stop, r.stop))
                for c, r in zip(core, region, strict=True)
            ]
            source = tuple(_moved(s, c.start) for s, c in zip(common, core, strict=True))
            target = tuple(_moved(s, r.start) for s, r in zip(common, region, strict=True))
            pixels = array[(index, slice(None), *source)]
            if not blended:
                out[(slice(None), *target)] = pixels
                continue
            weights = weights_of(core, source)
            out[(slice(None), *target)] += weights * pixels
            total[target] += weights
        if not blended:
            return out
        out /= total
        return out.astype(np.float32)

    def _touching(self, image: str, region: Slices) -> Iterator[tuple[int, Slices]]:
        """The numbers and cores of the tiles that share pixels with a region, in order."""
        if image not in self._cores:
            # [tile, axis, 2]; one vectorised search, because large images have very many tiles.
            self._cores[image] = np.array(self._opened(image)[1]["cores"], np.int64)
        cores = self._cores[image]
        starts, stops = np.array([(s.start, s.stop) for s in region]).T
        touching = ((cores[..., 0] < stops) & (cores[..., 1] > starts)).all(axis=1)
        for index in np.flatnonzero(touching).tolist():
            yield index, tuple(slice(a, b) for a, b in cores[index].tolist())

    def _opened(self, image: str) -> tuple[zarr.Array[Any], dict[str, Any]]:
        """The array of an image, and its attributes."""
        if image not in self._open:
            done = self.path.with_suffix(".json")
            stored = StoredImage(
                self.path / image,
                f"remove {{path}} and {done} and run again to predict this image again",
            )
            if image.startswith(".") or not stored.has("zarr.json"):
                raise UserError(f"{self.path}: has no image {image!r}; run the predict stage")
            self._open[image] = stored.array(""), stored.attributes()
        return self._open[image]


def _moved(part: slice, start: int) -> slice:
    """The same slice, counted from ``start``."""
    return slice(part.start - start, part.stop - start)
