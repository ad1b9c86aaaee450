"""The predicted cores of an image's tiles, as the predict stage writes them and stitch reads them.

``tiles.zarr/<image id>``: [tile, class, (Z,) Y, X], one chunk per tile, each tile's core in the
corner of its chunk (cores at the image's end are smaller; what is beyond them is 0 and unused).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from unet.data.tiling import Plan
from unet.errors import UserError

Slices = tuple[slice, ...]


def create_tiles(
    folder: Path, plan: Plan, classes: int, dtype: str, attrs: dict[str, Any]
) -> zarr.Array[Any]:
    """An empty array for the cores of this plan; the grid travels in its attributes."""
    cores = [[(s.start, s.stop) for s in tile.core] for tile in plan.tiles]
    return zarr.create_array(
        folder,
        shape=(len(plan.tiles), classes, *plan.core),
        chunks=(1, classes, *plan.core),
        dtype=dtype,
        fill_value=0,
        compressors=BloscCodec(cname="lz4", clevel=1, shuffle="shuffle"),
        attributes={
            **attrs,
            "shape": list(plan.shape),
            "window": list(plan.window),
            "cores": cores,
        },
        zarr_format=3,
    )


class Tiles:
    """Read side of a tile store.

    Raises:
        UserError: there is no such store, or (from the methods) no such image in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: dict[str, zarr.Array[Any]] = {}
        if not path.is_dir():
            raise UserError(f"{path}: there is no tile store here; run the predict stage")

    def ids(self) -> list[str]:
        """Sorted ids of the images that are there."""
        names = (p.parent.name for p in self.path.glob("*/zarr.json"))
        return sorted(name for name in names if not name.startswith("."))

    def attrs(self, image: str) -> dict[str, Any]:
        """shape ((Z,) Y, X), head, axes, pixel_size_um, part, channels, window, cores, dtype."""
        array = self._array(image)
        return {**array.attrs, "dtype": str(array.dtype)}

    def cores(self, image: str) -> list[Slices]:
        """Where each tile's core lies in the image."""
        cores: Any = self._array(image).attrs["cores"]
        return [tuple(slice(a, b) for a, b in core) for core in cores]

    def read(self, image: str, region: Slices) -> np.ndarray:
        """Probabilities of a region, put together from the cores.

        Args:
            region: one slice with start and stop per spatial axis, within the image.

        Returns:
            [class, *region] float32.
        """
        array = self._array(image)
        starts = [s.start for s in region]
        out = np.zeros((array.shape[1], *(s.stop - s.start for s in region)), dtype=np.float32)
        for index, core in enumerate(self.cores(image)):
            lows = [max(c.start, r.start) for c, r in zip(core, region, strict=True)]
            highs = [min(c.stop, r.stop) for c, r in zip(core, region, strict=True)]
            if any(a >= b for a, b in zip(lows, highs, strict=True)):
                continue
            both = list(zip(lows, highs, strict=True))
            source = [slice(a - c.start, b - c.start) for (a, b), c in zip(both, core, strict=True)]
            target = [slice(a - r, b - r) for (a, b), r in zip(both, starts, strict=True)]
            tile: Any = array  # zarr's types know no tuple of unknown length
            out[(slice(None), *target)] = tile[(index, slice(None), *source)]
        return out

    def _array(self, image: str) -> zarr.Array[Any]:
        if image not in self._open:
            path = self.path / image
            if image.startswith(".") or not (path / "zarr.json").is_file():
                raise UserError(f"{self.path}: has no image {image!r}; run the predict stage")
            found = zarr.open_array(path, mode="r")
            self._open[image] = found
        return self._open[image]
