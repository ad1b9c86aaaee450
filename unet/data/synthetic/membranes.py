"""Neuropil as in serial-section electron microscopy: packed cells, dark membranes, organelles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from unet.data.synthetic.optics import (
    Field,
    Ids,
    camera,
    illumination,
    signed_distance,
    smooth_noise,
)

INSIDE, MEMBRANE = 255, 0  # the polarity of the ISBI 2012 challenge


def membranes(
    rng: np.random.Generator, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One section: image uint8 [Y, X] and class map uint8 [Y, X], 255 inside a cell, 0 = membrane.

    Membranes are about 4 to 7 pixels wide, more where three cells meet. Mitochondria, vesicles and
    densities at synapses are as dark as membranes and belong to the inside of a cell.
    """
    cells = _tessellate(rng, size)
    inside = _inside(rng, cells)
    edge = signed_distance(inside)
    tone = _cytoplasm(rng, cells)
    _add_vesicles(rng, tone, edge)
    _add_mitochondria(rng, tone, edge)
    _add_densities(rng, tone, edge)
    tone = _add_membranes(rng, tone, edge)
    image = _acquire(rng, tone)
    return image, np.where(inside, INSIDE, MEMBRANE).astype(np.uint8)


def _tessellate(rng: np.random.Generator, size: tuple[int, int]) -> Ids:
    """Ids of cells without gaps [Y, X]: a power diagram of discs, some of them merged, warped."""
    centres, radii = _pack_discs(rng, size)
    # A power diagram is a nearest-neighbour search once each site is lifted by sqrt(max w - w).
    lift = np.sqrt(radii.max() ** 2 - radii**2)
    tree = cKDTree(np.column_stack([centres, lift]))
    points = np.stack(np.meshgrid(*(np.arange(n, dtype=float) for n in size), indexing="ij"))
    for amplitude, scale in ((8.0, 26.0), (1.5, 6.0)):
        points += amplitude * np.stack([smooth_noise(rng, size, scale) for _ in range(2)])
    query = np.column_stack([points[0].ravel(), points[1].ravel(), np.zeros(points[0].size)])
    group = np.arange(len(radii))
    for site in rng.permutation(len(radii))[: len(radii) // 4]:  # bent and branched processes
        neighbour = tree.query(np.append(centres[site], lift[site]), k=2)[1][-1]
        group[group == group[site]] = group[min(neighbour, len(radii) - 1)]
    nearest = np.asarray(tree.query(query)[1]).reshape(size)
    return np.asarray(group[nearest], dtype=np.int64)


def _pack_discs(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Field, Field]:
    """Centres [N, 2] and radii [N] in pixels of discs that hardly overlap, large ones first."""
    margin = 60
    area = (size[0] + 2 * margin) * (size[1] + 2 * margin)
    attempts = max(60, area // 110)
    # A few trunks among many thin axons: each size class covers about the same area.
    radii = np.sort(8 * (52 / 8) ** (rng.random(attempts) ** 2.5))[::-1]
    centres = rng.uniform(-margin, np.array(size) + margin, (attempts, 2))
    kept: list[int] = []
    for i in range(attempts):
        gap = np.hypot(*(centres[kept] - centres[i]).T)
        if np.all(gap > 0.88 * (radii[kept] + radii[i])):
            kept.append(i)
    return centres[kept], radii[kept]


def _inside(rng: np.random.Generator, cells: Ids) -> NDArray[np.bool_]:
    """Mask of the cells without membranes [Y, X]; the width of membranes varies along them."""
    border = np.zeros(cells.shape, dtype=bool)
    for axis in (0, 1):
        one, other = np.moveaxis(border, axis, 0), np.moveaxis(cells, axis, 0)
        change = other[1:] != other[:-1]
        one[1:] |= change
        one[:-1] |= change
    if not border.any():  # a tiny image within one cell needs a membrane, too
        border[cells.shape[0] // 2] = True
    distance = ndimage.distance_transform_edt(~border) + 0.5
    half_width = np.clip(2.1 + 0.4 * smooth_noise(rng, cells.shape, 14), 1.5, 3.0)
    inside = distance > half_width
    # Opening with a disc rounds the corners of cells, like surface tension.
    radius = 2.5
    core = signed_distance(inside) > radius
    if not core.any():
        return np.asarray(inside)
    return np.asarray(inside & (ndimage.distance_transform_edt(~core) <= radius))


def _cytoplasm(rng: np.random.Generator, cells: Ids) -> Field:
    """Brightness of the ground substance [Y, X]: 0 black, 1 white; each cell has its own tone."""
    tone = rng.normal(0.74, 0.045, int(cells.max()) + 1)[cells]
    for amplitude, scale in ((0.05, 1.3), (0.045, 3.0), (0.03, 10.0)):
        tone = tone + amplitude * smooth_noise(rng, cells.shape, scale)
    return np.asarray(tone)


def _window(centre: NDArray[np.int64], radius: int, size: tuple[int, ...]) -> tuple[slice, slice]:
    low = np.maximum(centre - radius, 0)
    high = np.minimum(centre + radius + 1, size)
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))


def _add_vesicles(rng: np.random.Generator, tone: Field, edge: Field) -> None:
    """Vesicles and microtubules, in place: clusters of rings and dots of 2 to 4 pixels radius."""
    crowd = np.exp(1.2 * smooth_noise(rng, tone.shape, 12)) * (edge > 4.5)
    if not crowd.any():
        return
    wanted = tone.size // 260
    flat = rng.choice(tone.size, wanted, p=(crowd / crowd.sum()).ravel())
    for centre in np.column_stack(np.unravel_index(flat, tone.shape)):
        box = _window(centre, 7, tone.shape)
        y, x = np.ogrid[box]
        distance = np.hypot(y - centre[0] - rng.uniform(-0.5, 0.5), x - centre[1])
        radius = rng.uniform(0.0, 3.2)
        ring = np.exp(-(((distance - radius) / 0.9) ** 2))
        tone[box] -= rng.uniform(0.15, 0.42) * ring


def _add_mitochondria(rng: np.random.Generator, tone: Field, edge: Field) -> None:
    """Mitochondria, in place: dark matrix, darker envelope, cristae; never across a membrane."""
    rooms = np.argwhere(edge > 10)
    if not len(rooms):
        return
    wanted = rng.poisson(tone.size / 8000)
    ripple = 2.0 * smooth_noise(rng, tone.shape, 7)
    free = edge > 2.5
    for centre in rooms[rng.integers(0, len(rooms), 4 * wanted)]:
        minor = min(edge[tuple(centre)] - 3, rng.uniform(7, 13))
        major = minor * rng.uniform(1.0, 2.3)
        box = _window(centre, int(major) + 6, tone.shape)
        y, x = np.ogrid[box]
        angle = rng.uniform(0, np.pi)
        along = (y - centre[0]) * np.sin(angle) + (x - centre[1]) * np.cos(angle)
        across = (x - centre[1]) * np.sin(angle) - (y - centre[0]) * np.cos(angle)
        depth = (1 - np.hypot(along / major, across / minor)) * minor + 0.4 * ripple[box]
        body = depth > 0
        if not body.any() or not free[box][body].all():
            continue
        free[box] &= depth < -1.5
        wave = np.sin(
            (along + rng.normal(0, 0.8) * across + 1.2 * ripple[box]) * rng.uniform(1, 1.4)
        )
        matrix = rng.uniform(0.34, 0.48) + rng.uniform(0.02, 0.12) * wave
        envelope = 0.24 * np.exp(-(((depth - 1.2) / 1.1) ** 2))
        cover = np.clip(depth + 0.5, 0, 1)
        tone[box] = (1 - cover) * tone[box] + cover * (matrix - envelope)
        wanted -= 1
        if wanted <= 0:
            return


def _add_densities(rng: np.random.Generator, tone: Field, edge: Field) -> None:
    """Dark material next to membranes, in place: as at synapses; it belongs to the cell."""
    sites = np.argwhere((edge > 0.5) & (edge < 3))
    if not len(sites):
        return
    for centre in sites[rng.integers(0, len(sites), rng.poisson(tone.size / 9000))]:
        box = _window(centre, 14, tone.shape)
        y, x = np.ogrid[box]
        spread = rng.uniform(2.0, 4.0)
        blob = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * spread**2))
        tone[box] -= rng.uniform(0.15, 0.3) * blob


def _add_membranes(rng: np.random.Generator, tone: Field, edge: Field) -> Field:
    """Draws membranes over the rest [Y, X]; membranes cut at an angle are smeared."""
    sharp = 1 / (1 + np.exp(np.clip(edge / 0.55, -40, 40)))
    smeared = ndimage.gaussian_filter(sharp, 2.2)
    oblique = np.clip(smooth_noise(rng, edge.shape, 16) - 0.8, 0, 0.9)
    cover = (1 - oblique) * sharp + oblique * np.minimum(1.3 * smeared, 1)
    stain = (
        0.24 + 0.05 * smooth_noise(rng, edge.shape, 12) + 0.05 * smooth_noise(rng, edge.shape, 1.5)
    )
    return np.asarray((1 - cover) * tone + cover * np.clip(stain, 0.08, 0.45))


def _acquire(rng: np.random.Generator, tone: Field) -> NDArray[np.uint8]:
    """Electron optics and detector: blur, uneven brightness and contrast, noise, 8 bits [Y, X]."""
    blurred = ndimage.gaussian_filter(tone, rng.uniform(0.7, 1.0))
    shading = illumination(rng, (tone.shape[0], tone.shape[1]), rng.uniform(0.1, 0.35))
    contrast = rng.uniform(0.75, 1.05)
    signal = np.clip(0.55 + contrast * (blurred - 0.55), 0.02, None) * shading
    dose = rng.uniform(80, 180)  # electrons per pixel at white
    gain = rng.uniform(205, 245) / dose
    image = camera(rng, signal * dose, gain, rng.uniform(-10, 10), 1.5, bits=8)
    return image.astype(np.uint8)
