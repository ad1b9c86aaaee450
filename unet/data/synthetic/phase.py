"""Adherent cells as in Zernike phase contrast: halo, shade-off, granules, rounded mitotic cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from unet.data.synthetic.optics import (
    Field,
    Ids,
    camera,
    clean_instances,
    illumination,
    signed_distance,
    smooth_noise,
)

COVERAGE = 0.3  # share of the field that cells cover, if there is room
RING_AMPLITUDE = 0.6  # amplitude of the undiffracted light behind the phase plate
# In pixels: the finite ring also shifts light that is diffracted by less than 1 / these.
RING_BLURS = (3.5, 13.0)

Mask = NDArray[np.bool_]


def phase(
    rng: np.random.Generator, size: tuple[int, int]
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """One field: image uint16 [Y, X] and instance ids uint16 [Y, X], 0 = background.

    Flat spindle or star-shaped cells, darker than the background and with a halo, and some rounded,
    bright cells in mitosis, which are labelled, too. Debris is not labelled.
    """
    ids, rounded = _populate(rng, size)
    shift = _phase_shift(rng, ids, rounded)
    light = phase_contrast(shift, RING_AMPLITUDE, RING_BLURS)
    return _acquire(rng, light), ids.astype(np.uint16)


def phase_contrast(shift: Field, ring_amplitude: float, ring_blurs: tuple[float, ...]) -> Field:
    """Relative intensity [Y, X] of a phase object under positive phase contrast, background 1.

    `shift` [Y, X] is the phase delay in radians. The ring retards and dims the undiffracted wave
    and, being of finite width, whatever the object diffracts by small angles: the low-pass part L
    of u = exp(i shift). Then I = |u - L - i a L|^2 / a^2 (after Yin, Kanade, Chen, "Understanding
    the phase contrast optics to restore artifact-free microscopy images for segmentation", Medical
    Image Analysis 16, 2012). For small shifts I = 1 - 2 (shift - lowpass(shift)) / a: dark objects
    with a bright halo outside and shading-off inside. L is the mean of Gaussian low-passes with
    the sigmas `ring_blurs`, in pixels.
    """
    real, imaginary = np.cos(shift), np.sin(shift)
    low_real = _lowpass(real, ring_blurs)
    low_imaginary = _lowpass(imaginary, ring_blurs)
    out_real = real - low_real + ring_amplitude * low_imaginary
    out_imaginary = imaginary - low_imaginary - ring_amplitude * low_real
    return np.asarray((out_real**2 + out_imaginary**2) / ring_amplitude**2)


def _lowpass(wave: Field, blurs: tuple[float, ...]) -> Field:
    """The mean of Gaussian low-passes [Y, X], as a ring has a spread function with wide tails."""
    passes = [ndimage.gaussian_filter(wave, blur, mode="nearest") for blur in blurs]
    return np.asarray(np.mean(passes, axis=0))


def _populate(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Ids, NDArray[np.bool_]]:
    """Instance ids [Y, X], and for each id (0 included) whether that cell is rounded up."""
    ids = np.zeros(size, dtype=np.int64)
    rounded: list[bool] = [False]
    for _ in range(max(30, size[0] * size[1] // 700)):
        if len(rounded) > 1 and np.count_nonzero(ids) > COVERAGE * ids.size:
            break
        is_round = bool(rng.random() < 0.15)
        centre = rng.uniform(0, 1, 2) * size
        if ids[int(centre[0]), int(centre[1])]:
            continue
        box, body = _disc(rng, centre, size) if is_round else _spread_cell(rng, centre, size)
        taken = body & (ids[box] > 0)
        if not body.any() or taken.sum() > (0 if is_round else 0.12) * body.sum():
            continue
        ids[box][body & ~taken] = len(rounded)
        rounded.append(is_round)
    clean = clean_instances(ids, min_pixels=40)
    flags = np.zeros(int(clean.max()) + 1, dtype=bool)
    flags[clean[clean > 0]] = np.array(rounded)[ids[clean > 0]]
    return clean, flags


def _box(low: Field, high: Field, size: tuple[int, int]) -> tuple[slice, slice]:
    start = [int(np.clip(np.floor(v), 0, n)) for v, n in zip(low, size, strict=True)]
    stop = [int(np.clip(np.ceil(v) + 1, 0, n)) for v, n in zip(high, size, strict=True)]
    return slice(start[0], stop[0]), slice(start[1], stop[1])


def _disc(
    rng: np.random.Generator, centre: Field, size: tuple[int, int]
) -> tuple[tuple[slice, slice], Mask]:
    """Window and mask of a rounded cell."""
    radius, stretch, angle = rng.uniform(8, 12), rng.uniform(1, 1.15), rng.uniform(0, np.pi)
    box = _box(centre - 15, centre + 15, size)
    y, x = np.mgrid[box]
    dy, dx = y - centre[0], x - centre[1]
    along, across = dy * np.sin(angle) + dx * np.cos(angle), dx * np.sin(angle) - dy * np.cos(angle)
    return box, np.hypot(along / stretch, across * stretch) < radius


def _spread_cell(
    rng: np.random.Generator, centre: Field, size: tuple[int, int]
) -> tuple[tuple[slice, slice], Mask]:
    """Window and mask of an adherent cell: two to four tapering, bent arms from one body."""
    body_radius = rng.uniform(9, 16)
    arms = int(rng.choice([2, 3, 4], p=[0.6, 0.28, 0.12]))
    first = rng.uniform(0, 2 * np.pi)
    spots, radii = [], []
    for arm in range(arms):
        angle = first + 2 * np.pi * arm / arms + rng.normal(0, 0.25)
        length, bend = rng.uniform(26, 66) * (2 / arms) ** 0.5, rng.normal(0, 0.25)
        t = np.linspace(0, 1, max(8, int(length / 2.5)))[:, None]
        forward = np.array([[np.sin(angle), np.cos(angle)]])
        sideways = forward[:, ::-1] * [[-1, 1]]
        spots.append(centre + length * (t * forward + bend * t**2 * sideways))
        tip, taper = rng.uniform(2.5, 5.5), rng.uniform(0.8, 1.5)
        radii.append(tip + (body_radius - tip) * (1 - t[:, 0]) ** taper)
    points, widths = np.concatenate(spots), np.concatenate(radii)
    box = _box(points.min(0) - body_radius - 8, points.max(0) + body_radius + 8, size)
    y, x = np.mgrid[box]
    depth = np.full(y.shape, -np.inf)
    for (point_y, point_x), width in zip(points, widths, strict=True):
        np.maximum(depth, width - np.hypot(y - point_y, x - point_x), out=depth)
    ruffled = depth + 1.3 * smooth_noise(rng, (y.shape[0], y.shape[1]), 6)
    # Smoothing fills the notches between arms, like a taut membrane.
    return box, ndimage.gaussian_filter((ruffled > 0).astype(float), 2.0, mode="nearest") > 0.5


def _phase_shift(rng: np.random.Generator, ids: Ids, rounded: NDArray[np.bool_]) -> Field:
    """Phase delay in radians [Y, X]: thickness of each cell, its nucleus and granules, debris."""
    size = (ids.shape[0], ids.shape[1])
    shift = 0.015 * smooth_noise(rng, size, 2.5) + 0.03 * smooth_noise(rng, size, 12)
    grains = np.clip(smooth_noise(rng, size, 1.1) - 1.1, 0, 1.5)
    vacuoles = np.clip(smooth_noise(rng, size, 1.5) - 1.9, 0, 1.5)
    grain_crowd = np.clip(0.6 + 0.6 * smooth_noise(rng, size, 9), 0, 2)
    texture = 0.42 * grains * grain_crowd - 0.3 * vacuoles
    texture += 0.035 * smooth_noise(rng, size, 2.2)
    for instance, box in enumerate(ndimage.find_objects(ids), start=1):
        body = ids[box] == instance
        padded = np.pad(body, 1)
        depth = np.maximum(signed_distance(padded)[1:-1, 1:-1], 0)
        draw = _rounded_shift if rounded[instance] else _adherent_shift
        shift[box] += np.where(body, draw(rng, depth, texture[box]), 0.0)
    debris = np.clip(smooth_noise(rng, size, 1.3) - 2.6, 0, 1.0) * (ids == 0)
    return np.asarray(shift + 0.6 * debris)


def _rounded_shift(rng: np.random.Generator, depth: Field, texture: Field) -> Field:
    """A ball [Y, X], thick enough for its middle to look bright."""
    radius = max(float(depth.max()), 1.0)
    ball = np.sqrt(np.clip(1 - (1 - depth / radius) ** 2, 0, 1))
    return np.asarray(rng.uniform(2.9, 3.6) * ball + 0.5 * texture)


def _adherent_shift(rng: np.random.Generator, depth: Field, texture: Field) -> Field:
    """A flat cell [Y, X] that rises steeply at its rim, with a nucleus at its thickest place."""
    height = rng.uniform(0.13, 0.5)
    flat = height * (0.45 * (1 - np.exp(-depth / 1.2)) + 0.55 * (1 - np.exp(-depth / 7)))
    middle = np.unravel_index(int(depth.argmax()), depth.shape)
    y, x = np.ogrid[: depth.shape[0], : depth.shape[1]]
    angle, reach = rng.uniform(0, np.pi), max(float(depth.max()) * 0.62, 1.5)
    dy, dx = y - middle[0], x - middle[1]
    along, across = dy * np.sin(angle) + dx * np.cos(angle), dx * np.sin(angle) - dy * np.cos(angle)
    level = np.hypot(along / 1.25, across) / reach
    nucleus = 0.05 / (1 + np.exp(np.clip((level - 1) * 12, -40, 40)))
    nucleus += 0.08 * np.exp(-(((level - 1) * reach / 0.8) ** 2))  # its envelope
    for spot_y, spot_x in rng.uniform(-0.55, 0.55, (int(rng.integers(1, 4)), 2)) * reach:
        nucleus += 0.16 * np.exp(-((dy - spot_y) ** 2 + (dx - spot_x) ** 2) / 2)  # a nucleolus
    grainy = texture * np.clip(depth / 4, 0, 1) * np.clip(level - 0.6, 0.2, 1)
    return np.asarray(flat + nucleus + grainy)


def _acquire(rng: np.random.Generator, light: Field) -> NDArray[np.uint16]:
    """Objective and sCMOS camera: blur, uneven illumination, noise, 16 bits [Y, X]."""
    blurred = ndimage.gaussian_filter(light, rng.uniform(0.8, 1.1))
    shading = illumination(rng, (light.shape[0], light.shape[1]), rng.uniform(0.2, 0.45))
    exposure = rng.uniform(180, 450)  # photo-electrons per pixel of background
    gain = rng.uniform(9000, 14000) / exposure
    return camera(rng, blurred * shading * exposure, gain, 400, 3.0)
