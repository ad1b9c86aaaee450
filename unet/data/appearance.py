"""What images look like to a network: intensities, polarity and texture, as a few numbers each.

Measured on the normalised image, on the pixel grid that the network sees, in a bounded sample of
windows. A model file has the numbers of (a sample of) its training images, so that images that it
is applied to can be compared with them (:mod:`unet.prediction.drift`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.data.store import Prepared

# Windows per image and their side: enough for stable numbers, 1 MB of pixels per channel at most.
WINDOWS, SIDE = 4, 256
# Sections of a volume that windows are taken from.
SECTIONS = 3
# Channels measured, training images sampled, and voxels of labels read per image.
CHANNELS, SAMPLED = 3, 64
LABEL_SIDES = {2: (1024, 1024), 3: (32, 256, 256)}
# Percentiles of the intensities.
PERCENTS = (5, 25, 50, 75, 95)
# Octaves of the texture, from neighbouring pixels to structures of 16 to 32 pixels.
OCTAVES = 5
# Shares of the variance below this are alike: none.
LEAST_SHARE = 1e-3
# Percentiles of the sizes of training objects.
SIZE_PERCENTS = (5, 50, 95)


@dataclass(frozen=True)
class Appearance:
    """What one image looks like, each value a list per channel (at most three).

    Attributes:
        levels: [C][5], percentiles 5, 25, 50, 75 and 95 of the normalised intensities.
        polarity: [C], -1 to 1: where the median lies between percentiles 1 and 99. Above 0 for
            bright structures on dark ground, below 0 for dark ones on bright ground.
        texture: [C][5], log10 of the share of the variance at scales of 1, 2, 4, 8 and 16 pixels;
            None where the image is too small or of a single value.
        pixel_size_um: of the file, None = unknown.
        largest: largest value of the file, None = unknown.
    """

    levels: tuple[tuple[float, ...], ...]
    polarity: tuple[float, ...]
    texture: tuple[tuple[float | None, ...], ...]
    pixel_size_um: tuple[float, ...] | None = None
    largest: float | None = None


@dataclass(frozen=True)
class TrainingAppearance:
    """What the training images look like.

    Attributes:
        images: of a sample of the images, evenly spread over their ids.
        sizes: percentiles 5, 50 and 95 of the sizes of their objects, in pixels (voxels) of the
            network's grid; None for task semantic, or if no object was seen whole.
    """

    images: tuple[Appearance, ...]
    sizes: tuple[float, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, floats with 5 digits."""
        made: dict[str, Any] = _rounded(asdict(self))
        return made

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrainingAppearance:
        """What :meth:`to_json` gave.

        Raises:
            ValueError: the value is something else.
        """
        from pydantic import TypeAdapter

        return TypeAdapter(TrainingAppearance).validate_python(value)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def appearance(store: Prepared, image: str) -> Appearance:
    """Measures one prepared image, on the grid of the network.

    Raises:
        UserError: the store has no such image.
    """
    array, attrs = store.image(image), store.attrs(image)
    windows = [
        np.asarray(array[(slice(0, CHANNELS), *where)], np.float32)
        for where in _windows(array.shape[1:])
    ]
    largest = attrs.get("statistics", {}).get("max")
    size = attrs.get("pixel_size_um")
    return measured(
        windows,
        None if size is None else tuple(float(step) for step in size),
        None if not largest else float(max(largest)),
    )


def measured(
    windows: Sequence[NDArray[np.float32]],
    pixel_size_um: tuple[float, ...] | None = None,
    largest: float | None = None,
) -> Appearance:
    """The appearance of an image from windows [C, Y, X] of it."""
    levels, polarity, texture = [], [], []
    for c in range(len(windows[0])):
        values = np.concatenate([window[c].ravel() for window in windows])
        low, *found, high = (float(v) for v in np.percentile(values, [1, *PERCENTS, 99]))
        levels.append(tuple(found))
        middle = found[len(found) // 2]
        polarity.append((high + low - 2 * middle) / (high - low) if high > low else 0.0)
        texture.append(_texture([window[c] for window in windows]))
    return Appearance(tuple(levels), tuple(polarity), tuple(texture), pixel_size_um, largest)


def _texture(planes: Sequence[NDArray[np.float32]]) -> tuple[float | None, ...]:
    """log10 of the share of the variance that is lost when 2 x 2 pixels become their mean, octave
    by octave (the Haar wavelet's energies: the variance of an image is their sum)."""
    energy, total = np.zeros(OCTAVES), 0.0
    octaves = OCTAVES
    for plane in planes:
        pixels = plane.astype(np.float64)
        total += float(pixels.var())
        for octave in range(OCTAVES):
            height, width = (n // 2 * 2 for n in pixels.shape)
            if min(height, width) < 4:
                octaves = min(octaves, octave)
                break
            pixels = pixels[:height, :width]
            coarse = pixels.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
            energy[octave] += max(0.0, float(pixels.var() - coarse.var()))
            pixels = coarse
    if total <= 0:
        return (None,) * OCTAVES
    shares = np.log10(np.maximum(energy / total, LEAST_SHARE))
    return tuple(float(share) if k < octaves else None for k, share in enumerate(shares))


def _windows(shape: Sequence[int]) -> Iterator[tuple[int | slice, ...]]:
    """Windows spread over an image ((Z,) Y, X): the corners of its middle, in some sections."""
    *depth, height, width = shape
    planes: list[tuple[int, ...]] = [()]
    if depth:
        planes = [((2 * k + 1) * depth[0] // (2 * SECTIONS),) for k in range(SECTIONS)]
    each = max(1, WINDOWS // len(planes)) if depth else WINDOWS
    places = [(k // 2, k % 2) for k in range(each)] if each > 1 else [(0, 0)]
    for plane in dict.fromkeys(planes):
        corners = dict.fromkeys(
            (_start(height, row, each), _start(width, column, each)) for row, column in places
        )
        for y, x in corners:
            yield (*plane, slice(y, y + SIDE), slice(x, x + SIDE))


def _start(size: int, place: int, each: int) -> int:
    """First pixel of a window: at a quarter and three quarters of the size, or in the middle."""
    middle = size * (2 * place + 1) // 4 if each > 1 else size // 2
    return max(0, min(middle - SIDE // 2, size - SIDE))


def training_appearance(store: Prepared, ids: Sequence[str]) -> TrainingAppearance:
    """Measures a sample of the training images, the same ones in every run.

    Raises:
        UserError: the store lacks an image.
    """
    chosen = sampled(sorted(ids), SAMPLED)
    sizes = [size for image in chosen for size in _object_sizes(store, image)]
    found = np.percentile(sizes, SIZE_PERCENTS) if sizes else None
    return TrainingAppearance(
        tuple(appearance(store, image) for image in chosen),
        None if found is None else tuple(float(value) for value in found),
    )


def sampled(ids: Sequence[str], most: int) -> list[str]:
    """At most ``most`` of the ids, evenly spread."""
    if len(ids) <= most:
        return list(ids)
    return [ids[k * len(ids) // most] for k in range(most)]


def _object_sizes(store: Prepared, image: str) -> list[int]:
    """Sizes of the objects that lie wholly in the middle part of the labels."""
    labels = store.instances(image)
    if labels is None:
        return []
    sides = LABEL_SIDES[labels.ndim]
    starts = [max(0, (n - side) // 2) for n, side in zip(labels.shape, sides, strict=True)]
    where = tuple(slice(a, a + side) for a, side in zip(starts, sides, strict=True))
    part = np.asarray(labels[where])
    cut = np.unique(
        np.concatenate([np.take(part, [0, -1], axis=axis).ravel() for axis in range(part.ndim)])
    )
    found, counts = np.unique(part, return_counts=True)
    return [int(n) for n in counts[(found > 0) & ~np.isin(found, cut)]]
