"""Crowded, touching nuclei as in widefield fluorescence microscopy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from unet.data.synthetic.optics import (
    Field,
    Ids,
    camera,
    clean_instances,
    illumination,
    smooth_noise,
)

COVERAGE = 0.3  # share of the field that nuclei cover, if there is room
BRIGHTEST = 10.0  # times the dimmest nucleus
DEFOCUS = (0.9, 1.7, 2.8)  # sigma in pixels: in focus, a little off, well off


@dataclass(frozen=True)
class Nucleus:
    """An ellipse with a wavy outline; lengths in pixels, angles in radians."""

    centre: tuple[float, float]
    major: float
    minor: float
    angle: float
    waves: NDArray[np.float64]  # [order, (cosine, sine)], orders 2, 3, ...

    def radius(self, direction: Field) -> Field:
        """Distance from the centre to the outline along `direction` (any shape)."""
        turned = direction - self.angle
        ellipse = (
            self.major
            * self.minor
            / np.hypot(self.minor * np.cos(turned), self.major * np.sin(turned))
        )
        wavy = np.ones_like(turned)
        for order, (cosine, sine) in enumerate(self.waves, start=2):
            wavy += cosine * np.cos(order * turned) + sine * np.sin(order * turned)
        return np.asarray(ellipse * wavy)


def nuclei(
    rng: np.random.Generator, size: tuple[int, int]
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """One field: image uint16 [Y, X] and instance ids uint16 [Y, X], 0 = background.

    Brightness varies tenfold between nuclei; about half of them touch a neighbour without a gap.
    """
    ids, level = _populate(rng, size)
    light = _fluorescence(rng, ids, level)
    return _acquire(rng, light), ids.astype(np.uint16)


def _populate(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Ids, Field]:
    """Instance ids [Y, X] and relative distance to its centre [Y, X], 1 at the outline."""
    ids = np.zeros(size, dtype=np.int64)
    level = np.full(size, np.inf)
    placed: list[Nucleus] = []
    attempts = max(30, size[0] * size[1] // 350)
    for _ in range(attempts):
        if placed and np.count_nonzero(ids) > COVERAGE * ids.size:
            break
        nucleus = _draw(rng, size, placed)
        box, own = _level(nucleus, size)
        body = own < 1
        if not body.any() or np.count_nonzero(ids[box][body]) > 0.1 * np.count_nonzero(body):
            continue
        placed.append(nucleus)
        # Where nuclei overlap, a pixel goes to the one it is deeper in, which gives flat contacts.
        won = body & (own < level[box])
        ids[box][won] = len(placed)
        level[box][won] = own[won]
    clean = clean_instances(ids, min_pixels=12)
    return clean, np.where(clean > 0, level, np.inf)


def _draw(rng: np.random.Generator, size: tuple[int, int], placed: list[Nucleus]) -> Nucleus:
    """A nucleus at a random place, or pressed against one of those already placed."""
    minor = rng.uniform(7.5, 11.5)
    major = minor * rng.uniform(1.05, 1.7)
    waves = rng.normal(0, 1, (4, 2)) * np.array([0.035, 0.03, 0.02, 0.012])[:, None]
    centre = rng.uniform(0, 1, 2) * size
    nucleus = Nucleus((centre[0], centre[1]), major, minor, rng.uniform(0, np.pi), waves)
    if not placed or rng.random() < 0.4:
        return nucleus
    other = placed[int(rng.integers(len(placed)))]
    direction = np.array([rng.uniform(0, 2 * np.pi)])
    reach = other.radius(direction)[0] + nucleus.radius(direction + np.pi)[0]
    reach *= rng.uniform(0.86, 0.97)
    y = other.centre[0] + reach * np.sin(direction[0])
    x = other.centre[1] + reach * np.cos(direction[0])
    return Nucleus((y, x), major, minor, nucleus.angle, waves)


def _level(nucleus: Nucleus, size: tuple[int, int]) -> tuple[tuple[slice, slice], Field]:
    """The window of a nucleus and, in it, the distance to its centre relative to its outline."""
    reach = int(1.4 * nucleus.major) + 2
    low = np.clip(np.array(nucleus.centre, dtype=int) - reach, 0, size)
    high = np.clip(np.array(nucleus.centre, dtype=int) + reach + 1, 0, size)
    box = (slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1])))
    y, x = np.mgrid[box]
    dy, dx = y - nucleus.centre[0], x - nucleus.centre[1]
    return box, np.hypot(dy, dx) / nucleus.radius(np.arctan2(dy, dx))


def _fluorescence(rng: np.random.Generator, ids: Ids, level: Field) -> Field:
    """Expected light [Y, X] after the optics, 1 = the middle of the dimmest nucleus."""
    size = (ids.shape[0], ids.shape[1])
    count = int(ids.max())
    brightness = np.append(0.0, np.exp(rng.uniform(0, np.log(BRIGHTEST), count)))
    layer = np.append(0, rng.choice(len(DEFOCUS), count, p=(0.55, 0.3, 0.15)))
    # Light is summed through the thickness of an ellipsoid, plus a constant for its steep flank.
    thickness = np.where(ids > 0, 0.4 + 0.6 * np.sqrt(np.clip(1 - level**2, 0, 1)), 0.0)
    light = np.zeros(size)
    chromatin = _chromatin(rng, size)
    for number, sigma in enumerate(DEFOCUS):
        sharp = thickness * brightness[ids] * chromatin * (layer[ids] == number)
        light += ndimage.gaussian_filter(sharp, sigma)
    haze = 0.09 * ndimage.gaussian_filter(light, 7) + 0.04 * ndimage.gaussian_filter(light, 20)
    return np.asarray(light + haze + _background(rng, size))


def _chromatin(rng: np.random.Generator, size: tuple[int, int]) -> Field:
    """Relative DNA density [Y, X], mean about 1: grain, bright chromocentres, dark nucleoli."""
    grain = 1 + 0.10 * smooth_noise(rng, size, 1.2) + 0.10 * smooth_noise(rng, size, 3)
    centres = 0.5 * np.clip(smooth_noise(rng, size, 1.4) - 1.6, 0, 1)
    nucleoli = 0.45 * np.clip(smooth_noise(rng, size, 2.0) - 1.3, 0, 1)
    return np.asarray(np.clip(grain + centres - nucleoli, 0.3, None))


def _background(rng: np.random.Generator, size: tuple[int, int]) -> Field:
    """Autofluorescence [Y, X]: medium, cytoplasm in slow patches, a little debris out of focus."""
    cytoplasm = np.clip(
        0.2 * smooth_noise(rng, size, 14) + 0.1 * smooth_noise(rng, size, 4), 0, None
    )
    debris = np.zeros(size)
    for _ in range(rng.poisson(size[0] * size[1] / 11000)):
        debris[int(rng.integers(size[0])), int(rng.integers(size[1]))] = rng.uniform(1.5, 5)
    medium = rng.uniform(0.2, 0.5)
    return np.asarray(medium + cytoplasm + ndimage.gaussian_filter(debris, 1.3))


def _acquire(rng: np.random.Generator, light: Field) -> NDArray[np.uint16]:
    """sCMOS camera: uneven illumination, exposure, shot and read noise, offset of 100 [Y, X]."""
    shading = illumination(rng, (light.shape[0], light.shape[1]), rng.uniform(0.25, 0.5))
    exposure = rng.uniform(22, 60)  # photo-electrons in the middle of the dimmest nucleus
    return camera(rng, light * shading * exposure, rng.uniform(1.8, 2.4), 100, 2.0)
