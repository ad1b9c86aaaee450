"""How large the windows of an image are: as the config says, or what computes the least within the
memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from unet.config.geometry import Footprints
from unet.config.sections import PredictSection
from unet.data.blending import blended_plan, blended_tile
from unet.data.tiling import WindowPlan, cheapest_tile, plan

# Bytes per pixel of a window and per channel of the first level that a forward pass needs at most:
# on the safe side of what benchmarks/memory.py finds; a batch that is too large is halved.
BYTES_PER_PIXEL_AND_WIDTH = 32
# Pixels of a window, at most, where the tile is chosen here, by the number of spatial axes: beyond
# them little is gained. The halo takes the larger part of a volume's window.
LARGEST_WINDOW = {2: 1 << 22, 3: 1 << 25}


def memory_needed(window: Sequence[int], width: int, batch: int) -> float:
    """Bytes that a batch of these windows needs at most, by our estimate."""
    return float(np.prod(window)) * width * BYTES_PER_PIXEL_AND_WIDTH * batch


def choose_batch(
    wanted: int | Literal["auto"],
    window: Sequence[int],
    width: int,
    device: str,
    memory_bytes: float,
) -> int:
    """The number of windows per batch: as given, or what a third of the memory holds (1..16).

    Args:
        device: its kind, "cpu" or "cuda".
    """
    if wanted != "auto":
        return wanted
    per_tile = memory_needed(window, width, 1)
    # Beyond so many pixels a larger batch is no faster: four million on a GPU, one on a processor.
    pixels = 1 << 22 if device == "cuda" else 1 << 20
    enough = max(1, pixels // int(np.prod(window)))
    return int(max(1, min(memory_bytes / 3 / per_tile, 16, enough)))


def auto_tile(
    shape: Sequence[int], footprints: Footprints, width: int, memory_bytes: float
) -> tuple[int, ...]:
    """The windows, per axis, that compute the least, of which one needs at most a third of the
    memory and has at most ``LARGEST_WINDOW`` pixels (or the fewest that the halo allows)."""
    return cheapest_tile(shape, footprints, _fitting(len(shape), width, memory_bytes))


def _fitting(dims: int, width: int, memory_bytes: float) -> float:
    return min(memory_bytes / 3 / (width * BYTES_PER_PIXEL_AND_WIDTH), LARGEST_WINDOW[dims])


def tile_for(
    section: PredictSection,
    shape: Sequence[int],
    footprints: Footprints,
    width: int,
    memory_bytes: float,
) -> list[int]:
    """The largest window per axis for an image of this spatial shape, as the section wants it."""
    if section.tile != "auto":
        tile = section.tile
        return [tile] * len(shape) if isinstance(tile, int) else list(tile)
    if section.blend == "gaussian":
        return list(blended_tile(shape, footprints, _fitting(len(shape), width, memory_bytes)))
    return list(auto_tile(shape, footprints, width, memory_bytes))


def layout(
    section: PredictSection, tile: Sequence[int], shape: Sequence[int], footprints: Footprints
) -> WindowPlan:
    """The windows of at most ``tile`` pixels: with exact cores, or such that overlap."""
    if section.blend == "gaussian":
        return blended_plan(shape, tile, footprints, section.overlap)
    return plan(shape, tile, footprints)
