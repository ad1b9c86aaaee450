"""Crowded, touching nuclei in a volume, as in confocal or light-sheet fluorescence microscopy.

Sections are `Z_STEP` times as far apart as pixels, and the resolution along Z is lower. Lengths are
in pixels of Y and X; positions of voxels are converted to them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from unet.data.synthetic.optics import Field, Ids, camera, clean_instances

Z_STEP = 3.0  # distance of sections in pixels
COVERAGE = 0.28  # share of the volume that nuclei cover, if there is room
PRESSED = 0.6  # share of the nuclei that are placed against another one
BRIGHTEST = 5.0  # times the dimmest nucleus
LATERAL, AXIAL = 1.1, 3.6  # sigma of the optics in pixels
MIN_VOXELS = 20


@dataclass(frozen=True)
class Ellipsoid:
    """A nucleus: `centre` [3] in pixels (z, y, x), `shape` [3, 3] maps it to the unit ball."""

    centre: Field
    shape: Field
    reach: float  # its longest semi-axis


def sections(size: tuple[int, int]) -> int:
    """Number of sections of a volume of this size (Y, X): about as deep as wide."""
    return max(8, round(min(size) / Z_STEP))


def nuclei3d(
    rng: np.random.Generator, size: tuple[int, int]
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """One volume: image uint16 [Z, Y, X] and instance ids uint16 [Z, Y, X], 0 = background.

    Most nuclei touch a neighbour, many of them along Z. The tissue absorbs light, so deep sections
    are dimmer.
    """
    shape = (sections(size), *size)
    ids = _populate(rng, shape)
    return _acquire(rng, _fluorescence(rng, ids)), ids.astype(np.uint16)


def _populate(rng: np.random.Generator, shape: tuple[int, int, int]) -> Ids:
    """Instance ids [Z, Y, X]."""
    ids = np.zeros(shape, dtype=np.int64)
    level = np.full(shape, np.inf)
    # Dents and bumps in the outlines of nuclei.
    bumps = 1 + 0.07 * _noise(rng, shape, 5.0)
    placed: list[Ellipsoid] = []
    covered = 0
    for _ in range(max(60, ids.size // 150)):
        if placed and covered > COVERAGE * ids.size:
            break
        nucleus = _draw(rng, shape, placed)
        middle = np.floor(nucleus.centre / (Z_STEP, 1, 1)).astype(int)
        if (middle >= 0).all() and (middle < shape).all() and ids[tuple(middle)]:
            continue
        box, own = _level(nucleus, shape)
        own = own * bumps[box]
        body = own < 1
        if not body.any() or np.count_nonzero(ids[box][body]) > 0.12 * np.count_nonzero(body):
            continue
        placed.append(nucleus)
        # Where nuclei overlap, a voxel goes to the one it is deeper in, which gives flat contacts.
        won = body & (own < level[box])
        covered += int(np.count_nonzero(won & (ids[box] == 0)))
        ids[box][won] = len(placed)
        level[box][won] = own[won]
    return clean_instances(ids, min_pixels=MIN_VOXELS)


def _draw(
    rng: np.random.Generator, shape: tuple[int, int, int], placed: list[Ellipsoid]
) -> Ellipsoid:
    """A nucleus at a random place, or pressed against one of those already placed."""
    axes = rng.uniform(6.0, 8.5) * np.array([1.0, rng.uniform(1.0, 1.3), rng.uniform(1.0, 1.3)])
    turn = Rotation.from_quat(rng.normal(size=4)).as_matrix()
    matrix = turn / axes @ turn.T
    centre = rng.uniform(0, 1, 3) * shape * np.array([Z_STEP, 1, 1])
    if placed and rng.random() < PRESSED:
        other = placed[int(rng.integers(len(placed)))]
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        reach = sum(1 / float(np.linalg.norm(m @ direction)) for m in (other.shape, matrix))
        centre = other.centre + reach * rng.uniform(0.86, 0.98) * direction
    return Ellipsoid(np.asarray(centre), np.asarray(matrix), float(axes.max()))


def _level(nucleus: Ellipsoid, shape: tuple[int, int, int]) -> tuple[tuple[slice, ...], Field]:
    """The window of a nucleus and, in it, the distance to its centre relative to its outline."""
    steps = np.array([Z_STEP, 1, 1])
    reach = 1.4 * nucleus.reach
    low = np.clip(np.floor((nucleus.centre - reach) / steps), 0, shape).astype(int)
    high = np.clip(np.ceil((nucleus.centre + reach) / steps) + 1, 0, shape).astype(int)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    places = np.moveaxis(np.mgrid[box], 0, -1) * steps - nucleus.centre
    return box, np.asarray(np.linalg.norm(places @ nucleus.shape, axis=-1))


def _fluorescence(rng: np.random.Generator, ids: Ids) -> Field:
    """Expected light [Z, Y, X] after the optics, 1 = the middle of the dimmest nucleus."""
    count = int(ids.max())
    brightness = np.append(0.0, np.exp(rng.uniform(0, np.log(BRIGHTEST), count)))
    chromatin = 1 + 0.12 * _noise(rng, ids.shape, 1.5) + 0.1 * _noise(rng, ids.shape, 3.0)
    light = brightness[ids] * np.clip(chromatin, 0.4, None)
    lost = np.exp(-np.arange(len(ids)) * rng.uniform(0.2, 0.8) / len(ids))
    sharp = ndimage.gaussian_filter(light * lost[:, None, None], _voxels(LATERAL, AXIAL))
    haze = 0.12 * ndimage.gaussian_filter(sharp, _voxels(6.0, 12.0))
    return np.asarray(sharp + haze + rng.uniform(0.1, 0.3))


def _acquire(rng: np.random.Generator, light: Field) -> NDArray[np.uint16]:
    """Camera: exposure, shot and read noise, an offset of 100 [Z, Y, X]."""
    exposure = rng.uniform(12, 35)  # photo-electrons in the middle of the dimmest nucleus
    return camera(rng, light * exposure, rng.uniform(1.8, 2.4), 100, 2.0)


def _noise(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> Field:
    """A Gaussian random field [Z, Y, X] of standard deviation 1, smooth over `scale` pixels."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape), _voxels(scale, scale))
    return np.asarray(field / field.std())


def _voxels(lateral: float, axial: float) -> tuple[float, float, float]:
    return (axial / Z_STEP, lateral, lateral)
