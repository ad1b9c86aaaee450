"""Reads tiles that were predicted at a model's pixel size on the images' own pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from unet.data.resample import Axis, Resampling
from unet.data.store import OwnGrid
from unet.data.tiling import Slices
from unet.prediction.tiles.tile_store import Tiles


class ResampledTiles(Tiles):
    """Like `Tiles`, but each image has the shape and the pixel size of its file. The probabilities
    are resampled by linear interpolation.

    Args:
        path: the tile store.
        prepared: the same images on their own grid; also tells which ones were resampled.
    """

    def __init__(self, path: Path, prepared: OwnGrid) -> None:
        super().__init__(path)
        self._prepared = prepared
        self._grids: dict[str, Resampling | None] = {}

    def attrs(self, image: str) -> dict[str, Any]:
        """Like :meth:`Tiles.attrs`, for the image's own grid (on which tiles have no borders)."""
        found, grid = super().attrs(image), self._grid(image)
        if grid is None:
            return found
        size = self._prepared.attrs(image)["pixel_size_um"]
        return {**found, "shape": list(grid.shape), "pixel_size_um": size, "cores": []}

    def cores(self, image: str) -> list[Slices]:
        """Position of each tile's core in the image, rounded to whole pixels."""
        cores, grid = super().cores(image), self._grid(image)
        if grid is None:
            return cores
        return [
            tuple(
                slice(round(s.start / a.step), round(s.stop / a.step))
                for s, a in zip(core, grid.axes, strict=True)
            )
            for core in cores
        ]

    def read(self, image: str, region: Slices) -> np.ndarray:
        """Like :meth:`Tiles.read`; the value of a pixel does not depend on the region."""
        read, grid = super().read, self._grid(image)
        if grid is None:
            return read(image, region)
        return grid.read(lambda window: read(image, window).astype(np.float32), region)

    def _grid(self, image: str) -> Resampling | None:
        """Resampling from the tiles' grid to the image's own; None if they are the same."""
        if image not in self._grids:
            there = self._prepared.attrs(image).get("resampled")
            grid = None
            if there is not None:
                own = self._prepared.image(image).shape[1:]
                axes = zip(own, there["shape"], strict=True)
                grid = Resampling(tuple(Axis(*pair) for pair in axes)).back
            self._grids[image] = grid
        return self._grids[image]
