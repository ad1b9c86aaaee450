"""Shared by all generated images: random fields, illumination, camera, clean-up of instances."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Field = NDArray[np.float64]
Ids = NDArray[np.int64]


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], scale: float) -> Field:
    """A Gaussian random field, float64 [Y, X], mean 0 and variance 1 in expectation.

    `scale` is the sigma in pixels of the Gaussian that smooths white noise. The variance comes from
    the filter, not from the sample, so a small image is not stretched to the full range.
    """
    # The transform wraps around, so a wider grid keeps opposite edges of the image independent.
    grid = tuple(fft.next_fast_len(n + int(3 * scale) + 1, real=True) for n in size)
    frequency_y, frequency_x = np.fft.fftfreq(grid[0]), np.fft.rfftfreq(grid[1])
    response = np.outer(
        np.exp(-2 * (np.pi * scale * frequency_y) ** 2),
        np.exp(-2 * (np.pi * scale * frequency_x) ** 2),
    )
    kernel = fft.irfft2(response, s=grid)
    white = fft.rfft2(rng.standard_normal(grid))
    field: Field = fft.irfft2(white * response, s=grid) / np.sqrt(np.sum(kernel**2))
    return field[: size[0], : size[1]]


def illumination(rng: np.random.Generator, size: tuple[int, int], strength: float) -> Field:
    """Relative light over the field of view, float64 [Y, X], mean 1, always above 0.2.

    A parabolic fall-off around an off-centre optical axis, a tilt and slow fluctuations. `strength`
    is roughly the relative loss from the axis to the far corner.
    """
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij")
    axis_y, axis_x = rng.uniform(-0.4, 0.4, 2)
    tilt_y, tilt_x = rng.normal(0, 0.15, 2)
    light = 1 - strength * ((y - axis_y) ** 2 + (x - axis_x) ** 2) / 2
    light += strength * (tilt_y * y + tilt_x * x)
    light += 0.1 * strength * smooth_noise(rng, size, max(size) / 6)
    light = np.maximum(light, 0.25)
    return np.asarray(light / light.mean())


def camera(
    rng: np.random.Generator,
    photons: Field,
    gain: float,
    offset: float,
    read_noise: float,
    bits: int = 16,
) -> NDArray[np.uint16]:
    """Converts expected photo-electrons [Y, X] to grey values uint16 [Y, X] in 0..2^bits - 1.

    Shot noise (Poisson), read noise (Gaussian), gain, offset. Variance of a grey value:
    gain^2 * (photons + read_noise^2), plus 1/12 for rounding. `read_noise` is in electrons, `gain`
    in grey values per electron, `offset` in grey values.
    """
    electrons = rng.poisson(np.maximum(photons, 0)) + rng.normal(0, read_noise, photons.shape)
    return np.clip(np.rint(gain * electrons + offset), 0, 2**bits - 1).astype(np.uint16)


def signed_distance(mask: NDArray[np.bool_]) -> Field:
    """Distance to the edge of a mask [Y, X] in pixels: positive inside, negative outside."""
    if mask.all() or not mask.any():
        return np.full(mask.shape, float(max(mask.shape)) * (1 if mask.any() else -1))
    inner = ndimage.distance_transform_edt(mask)
    outer = ndimage.distance_transform_edt(~mask)
    return np.asarray(np.where(mask, inner - 0.5, 0.5 - outer))


def clean_instances(ids: Ids, min_pixels: int) -> Ids:
    """Keeps the largest 4-connected part of each instance, drops small ones; ids 1..N [Y, X]."""
    clean = np.zeros_like(ids)
    count = 0
    for instance, box in enumerate(ndimage.find_objects(ids), start=1):
        if box is None:
            continue
        parts, number = ndimage.label(ids[box] == instance)
        areas = np.bincount(parts.ravel())[1:] if number else np.zeros(1)
        if areas.max() < min_pixels:
            continue
        count += 1
        clean[box][parts == 1 + int(areas.argmax())] = count
    return clean
