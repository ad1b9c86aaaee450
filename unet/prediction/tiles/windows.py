"""The size of an image's windows: as the config says, or the one that fits in memory and needs the
least computation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from unet.config.geometry import Footprints
from unet.config.sections import PredictSection
from unet.data.blending import blended_plan, blended_tile
from unet.data.tiling import WindowPlan, cheapest_tile, plan

# Bytes that a forward pass needs at most per pixel of a window and channel of the first level: on
# the safe side of what benchmarks/memory.py measures. A batch that is too large is halved.
BYTES_PER_PIXEL_AND_WIDTH = 32
# Largest window in pixels that is chosen automatically, by the number of spatial axes: larger ones
# gain little. Volumes get more, because the halo fills most of their windows.
LARGEST_WINDOW = {2: 1 << 22, 3: 1 << 25}


def memory_needed(window: Sequence[int], width: int, batch: int) -> float:
    """Estimate of the bytes that a batch of these windows needs at most."""
    return float(np.prod(window)) * width * BYTES_PER_PIXEL_AND_WIDTH * batch


def choose_batch(
    wanted: int | Literal["auto"],
    window: Sequence[int],
    width: int,
    device: str,
    memory_bytes: float,
) -> int:
    """The number of windows per batch: as given, or what fits in a third of the memory (1..16).

    Args:
        device: kind of device, "cpu" or "cuda".
    """
    if wanted != "auto":
        return wanted
    per_tile = memory_needed(window, width, 1)
    # Batches of more pixels are not faster: four million on a GPU, one million on a CPU.
    pixels = 1 << 22 if device == "cuda" else 1 << 20
    enough = max(1, pixels // int(np.prod(window)))
    return int(max(1, min(memory_bytes / 3 / per_tile, 16, enough)))


def auto_tile(
    shape: Sequence[int], footprints: Footprints, width: int, memory_bytes: float
) -> tuple[int, ...]:
    """The window size per axis that needs the least computation. A window needs at most a third of
    the memory and has at most ``LARGEST_WINDOW`` pixels (or the fewest that the halo allows)."""
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
    """The largest window per axis for an image of this spatial shape, according to the section."""
    if section.tile != "auto":
        tile = section.tile
        return [tile] * len(shape) if isinstance(tile, int) else list(tile)
    if section.blend == "gaussian":
        return list(blended_tile(shape, footprints, _fitting(len(shape), width, memory_bytes)))
    return list(auto_tile(shape, footprints, width, memory_bytes))


def layout(
    section: PredictSection, tile: Sequence[int], shape: Sequence[int], footprints: Footprints
) -> WindowPlan:
    """Windows of at most ``tile`` pixels: with exact cores, or overlapping for blending."""
    if section.blend == "gaussian":
        return blended_plan(shape, tile, footprints, section.overlap)
    return plan(shape, tile, footprints)
