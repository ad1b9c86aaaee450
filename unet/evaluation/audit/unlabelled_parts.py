"""Parts of predicted objects that lack a label although the rest has one.

A model often joins two objects that touch. If the label of one of them is missing, the predicted
object is covered by the other one's label; what is left over looks like an object of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.data.blocks import grid_of, ordered
from unet.data.tiling import Slices
from unet.evaluation.audit.object_overlaps import BLOCK, Ints, Objects, foreground
from unet.evaluation.blockwise import ScoredPair
from unet.export.object_sums import Sums, add, read_around, sums
from unet.prediction.objects.components import components
from unet.prediction.objects.temporary_arrays import scratch

# Pixels (along axes and diagonals) that the outline of a prediction may lie outside its label.
NEAR = 2
# Smallest part in pixels.
SMALLEST = 9


@dataclass(frozen=True, eq=False)
class UnlabelledParts:
    """Parts of an image's predicted objects.

    Attributes:
        objects: the parts, as objects.
        of: int64 [N], id of the predicted object.
        compact: float64 [N], 0 to 1: 1 for a square or cube, near 0 for a thin line.
    """

    objects: Objects
    of: Ints
    compact: NDArray[np.float64]


def unlabelled_parts(
    pair: ScoredPair, labelled: Ints, folder: Path, threads: int = 1, block: int = BLOCK
) -> UnlabelledParts:
    """The parts of the predicted objects ``labelled`` (ids) that lie beyond all labels.

    Args:
        folder: for temporary files of an image of several blocks.
    """
    pred_ids, shape = pair.pred_ids, tuple(pair.truth.shape)
    if pred_ids is None:
        raise ValueError(f"image {pair.image} has no instances")
    grid = grid_of(shape, block)

    def read(region: Slices) -> NDArray[np.bool_]:
        return np.isin(np.asarray(pred_ids[region]), labelled) & _beyond(pair, region)

    with scratch(folder, grid) as temporary:
        found = components(
            read, grid, temporary, connectivity="face", min_size=SMALLEST, threads=threads
        )

        def keys(region: Slices) -> NDArray[np.int64]:
            part = found.read(region).astype(np.int64)
            return np.where(part > 0, part << 32 | np.asarray(pred_ids[region]).astype(np.int64), 0)

        def one(region: Slices) -> Sums:
            return sums(read_around(keys, shape, region), foreground(pair, region)[None], region)

        every = add(ordered(one, grid.regions(), threads), len(shape), 1)
    at = np.flatnonzero(every.size >= SMALLEST)
    size, low, high = every.size[at], every.low[at], every.high[at] + 1
    parts = Objects(
        every.labels[at], size, np.zeros(len(at)), every.total[at, 0] / size,
        every.positions[at] / size[:, None], low, high,
        ((low == 0) | (high == np.array(shape))).any(axis=1),
    )  # fmt: skip
    compact = _compact(size, every.faces[at, : len(shape)])
    return UnlabelledParts(parts, every.labels[at] & 0xFFFFFFFF, compact)


def _beyond(pair: ScoredPair, region: Slices) -> NDArray[np.bool_]:
    """Pixels of a block that lie more than `NEAR` pixels from labels and from ignored pixels."""
    from scipy import ndimage

    shape = pair.truth.shape
    wide = tuple(
        slice(max(0, s.start - NEAR), min(size, s.stop + NEAR))
        for s, size in zip(region, shape, strict=True)
    )
    inner = tuple(
        slice(s.start - w.start, s.stop - w.start) for s, w in zip(region, wide, strict=True)
    )
    truth: Any = np.asarray(pair.truth[wide])
    # Ignored pixels are not 0 either.
    labelled = truth != 0
    around = np.ones((1 + 2 * NEAR,) * truth.ndim, bool)
    return np.asarray(~ndimage.binary_dilation(labelled, around)[inner])


def _compact(size: Ints, faces: Ints) -> NDArray[np.float64]:
    """Surface of a square or cube of this size, as a share of the part's own, squared."""
    dims = faces.shape[1]
    least = 2 * dims * size.astype(np.float64) ** ((dims - 1) / dims)
    return np.asarray(np.minimum(1.0, least / np.maximum(1, faces.sum(axis=1))) ** 2, np.float64)
