"""The table of objects: size, position, extent and intensity of each, from sums over blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.data.tiling import Slices

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sums:
    """What is summed of each label of a part of an image; sums of parts that do not overlap add.

    Attributes:
        labels: int64 [L], sorted, without 0.
        size: int64 [L], pixels.
        positions: int64 [L, D], sums of the coordinates along the spatial axes.
        low, high: int64 [L, D], first and last pixel along each axis.
        intensity: float64 [L, C], sums of each channel.
    """

    labels: Ints
    size: Ints
    positions: Ints
    low: Ints
    high: Ints
    intensity: Floats


def sums(labels: NDArray[Any], image: NDArray[Any], region: Slices) -> Sums:
    """Sums of one block.

    Args:
        labels: integer ids [(Z,) Y, X], 0 = none.
        image: [C, (Z,) Y, X], same spatial shape.
        region: where the block lies in the image.

    Raises:
        ValueError: labels and image differ in shape.
    """
    if image.shape[1:] != labels.shape:
        raise ValueError(f"labels {labels.shape} do not fit an image {image.shape}")
    flat = labels.reshape(-1)
    width = labels.shape[-1]
    change = flat[1:] != flat[:-1]
    # A run never goes on into the next row: then its pixels differ in x alone.
    change[width - 1 :: width] = True
    starts = np.concatenate([[0], np.flatnonzero(change) + 1])
    lengths = np.diff(starts, append=flat.size)
    ids = flat[starts]
    channels = image.reshape(len(image), -1).astype(np.float64)
    intensity = np.add.reduceat(channels, starts, axis=1).T
    some = ids > 0
    first = np.stack(np.unravel_index(starts[some], labels.shape), axis=1)
    first = first + [s.start for s in region]
    count = lengths[some]
    last = first.copy()
    last[:, -1] += count - 1
    # Of a run, the coordinates but x are the same; those of x sum to n * (first + last) / 2.
    positions = first * count[:, None]
    positions[:, -1] = (first[:, -1] + last[:, -1]) * count // 2
    return _grouped(ids[some].astype(np.int64), count, positions, first, last, intensity[some])


def add(parts: Iterable[Sums], dims: int, channels: int) -> Sums:
    """The sums of all parts together; of none: an empty table of so many axes and channels."""
    empty = np.empty((0, dims), np.int64)
    none = Sums(empty[:, 0], empty[:, 0], empty, empty, empty, np.empty((0, channels)))
    found = [none, *parts]
    return _grouped(
        np.concatenate([part.labels for part in found]),
        np.concatenate([part.size for part in found]),
        np.concatenate([part.positions for part in found]),
        np.concatenate([part.low for part in found]),
        np.concatenate([part.high for part in found]),
        np.concatenate([part.intensity for part in found]),
    )


def columns(dims: int, channels: int) -> list[str]:
    """The table's header for images of so many spatial axes and channels.

    Pixel coordinates count from 0 at the centre of the first pixel; a bounding box ends before
    its last coordinate. Columns in micrometres are empty where the pixel size is unknown.
    """
    axes = "zyx"[-dims:]
    size = ["area_px", "area_um2"] if dims == 2 else ["volume_px", "volume_um3"]
    return [
        "image",
        "label",
        "class",
        *size,
        *(f"centroid_{a}_px" for a in axes),
        *(f"centroid_{a}_um" for a in axes),
        *(f"bbox_{a}0" for a in axes),
        *(f"bbox_{a}1" for a in axes),
        *(f"mean_intensity_c{c}" for c in range(channels)),
    ]


def rows(
    image: str,
    found: Sums,
    names: Iterable[tuple[int, int, str]],
    pixel_size_um: Sequence[float] | None,
) -> Iterator[list[str]]:
    """The cells of :func:`columns`, row by row.

    Args:
        names: of each row, the label to look up in ``found``, the label to write, and the class.
            A label that is not found has size 0 and else empty cells.
    """
    unit = float(np.prod(pixel_size_um)) if pixel_size_um else 0.0
    dims, channels = found.low.shape[1], found.intensity.shape[1]
    for label, written, name in names:
        i = int(np.searchsorted(found.labels, label))
        there = i < len(found.labels) and found.labels[i] == label
        size = int(found.size[i]) if there else 0
        area = f"{size * unit:.6g}" if pixel_size_um else ""
        cells = [image, str(written), name, str(size), area]
        if not there:
            yield cells + [""] * (4 * dims + channels)
            continue
        centre = [p / size for p in found.positions[i].tolist()]
        microns = [f"{c * s:.6g}" for c, s in zip(centre, pixel_size_um or (), strict=False)]
        cells += [f"{c:.3f}" for c in centre] + (microns or [""] * dims)
        cells += [str(v) for v in found.low[i].tolist()]
        cells += [str(v + 1) for v in found.high[i].tolist()]
        yield cells + [f"{v / size:.6g}" for v in found.intensity[i].tolist()]


def _grouped(
    ids: Ints, size: Ints, positions: Ints, low: Ints, high: Ints, intensity: Floats
) -> Sums:
    labels, at = np.unique(ids, return_inverse=True)
    order = np.argsort(at, kind="stable")
    starts = np.searchsorted(at[order], np.arange(len(labels)))
    if not len(labels):
        return Sums(labels, size, positions, low, high, intensity)
    return Sums(
        labels,
        np.add.reduceat(size[order], starts),
        np.add.reduceat(positions[order], starts),
        np.minimum.reduceat(low[order], starts),
        np.maximum.reduceat(high[order], starts),
        np.add.reduceat(intensity[order], starts),
    )
