"""Augmentation of whole batches, on whatever device they lie.

Geometry: flips and right-angle rotations are exact index operations. Free rotation, scaling and
elastic deformation are composed into one sampling grid, so every tensor is interpolated at most
once: images and maps linearly, labels by looking up the nearest pixel, all mirrored at the
edge. Volumes are rotated in the YX plane only, since their sections mostly lie further apart than
their pixels; scale and deformation go along all axes. Lengths are in pixels of the finest axis:
along a coarser one they are fewer pixels.

Intensity: blur, gamma, contrast, brightness, noise, in that order (the order of the optics,
the camera's response and its noise).

What happens to a sample is drawn on the CPU from the caller's generator, always the same number of
draws in the same order: CPU and GPU get the same parameters, and to switch one operation on does
not change what the others do. Only the noise itself is drawn on the device, by a generator seeded
from the caller's (noise made on the CPU would keep a GPU waiting). So the output is a function of
the generator's state, the noise also of the kind of device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unet.config.sections import AugmentSection
from unet.training.intensity import AMOUNTS, OPERATIONS
from unet.training.warp import (
    FLIP_X,
    FLIP_Y,
    FLIP_Z,
    QUARTER_TURNS,
    apply_symmetries,
    displacement,
    gentle,
    put,
    sampler_grid,
    similarity,
    take,
    warp_images,
    warp_labels,
)

# Integer types without full support in torch (uint32 can neither be flipped nor gathered
# everywhere) travel as the signed type of the same size.
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


_SYMMETRIES = ("flip_z", "flip_y", "flip_x", "quarter_turns")
_WARPS = ("rotate_deg", "scale", "elastic_px")
_INTENSITIES = ("blur_px", "gamma", "contrast", "brightness", "noise")


@dataclass(frozen=True)
class _Draw:
    """The random numbers of one batch, on the CPU; [N] in [0, 1) per operation."""

    chance: dict[str, Tensor]  # whether an operation happens
    value: dict[str, Tensor]  # how much of it
    nodes: Tensor  # [N, 2 or 3 (x, y, z), (G,) G, G], standard normal
    seeds: list[int]  # of each sample's noise

    @classmethod
    def from_generator(cls, n: int, grid: int, dims: int, generator: torch.Generator) -> _Draw:
        names = _SYMMETRIES + _WARPS + _INTENSITIES
        chance, value = torch.rand(2, len(names), n, generator=generator)
        seeds = torch.randint(2**62, (n,), generator=generator).tolist()
        nodes = torch.randn(n, dims, *[grid] * dims, generator=generator)
        return cls(
            dict(zip(names, chance, strict=True)),
            dict(zip(names, value, strict=True)),
            nodes,
            seeds,
        )

    def of(self, rows: slice) -> _Draw:
        """The numbers of some samples of the batch."""
        return _Draw(
            {name: values[rows] for name, values in self.chance.items()},
            {name: values[rows] for name, values in self.value.items()},
            self.nodes[rows],
            self.seeds[rows],
        )


class Augment:
    """Random changes to a batch that keep its labels true; 0 or False = off.

    Args:
        settings: flip mirrors each spatial axis with probability 1/2, rotate90 rotates by 0, 90,
            180 or 270 degrees in the YX plane (0 or 180 if Y != X). The rest happens per sample,
            with geometric_probability or intensity_probability:

            - rotate_deg: angle uniform in +-rotate_deg, in the YX plane.
            - scale: magnification uniform in [1 - scale, 1 + scale].
            - elastic_px: standard deviation of the displacement vectors' components in px
              (Ronneberger et al. 2015: 10), on elastic_grid nodes per axis (there: 3) at the
              corners of the patch and evenly between, interpolated cubically; in volumes less
              where the nodes are near each other (see `unet.training.warp.gentle`).
            - gamma: exponent log-uniform in [1 / (1 + gamma), 1 + gamma], on the min-max range.
            - contrast: factor uniform in [1 - contrast, 1 + contrast] around the mean.
            - brightness: shift uniform in +-brightness, in standard deviations.
            - noise: Gaussian, its sd uniform in [0, noise], in standard deviations of the image.
            - blur_px: Gaussian, its sigma uniform in [0, blur_px] px.

            Ranges, means and standard deviations are those of the patch, per sample and channel.
        spacing: size of a pixel per spatial axis in units of the finest axis (None = all 1).
    """

    def __init__(self, settings: AugmentSection, spacing: tuple[float, ...] | None = None) -> None:
        self.settings, self.spacing = settings, spacing

    @torch.no_grad()
    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        maps: Tensor | None,
        generator: torch.Generator,
        part: tuple[slice, int] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Augmented images, labels and maps; the inputs are left as they are.

        Args:
            images: [N, C, (Z,) Y, X] float32.
            labels: [N, L, (Z,) Y, X] of any integer type, such as classes and instance ids.
            maps: [N, M, (Z,) Y, X] float32 or None, such as weights; they move along, their values
                are not changed.
            generator: on the CPU; the only source of randomness.
            part: (rows, size) if the tensors hold only these rows of a batch of that size: they
                come out as they would with the others beside them.

        Returns:
            Tensors of the same shapes and types; an input itself where nothing happened to it.

        Raises:
            ValueError: shapes or types that do not fit.
        """
        _check(images, labels, maps, self.spacing)
        # A product in bfloat16 would misplace the samples.
        with torch.autocast(images.device.type, enabled=False):
            rows, size = (slice(None), len(images)) if part is None else part
            grid, dims = self.settings.elastic_grid, images.ndim - 2
            draw = _Draw.from_generator(size, grid, dims, generator).of(rows)
            return self._augment(images, labels, maps, draw)

    def _augment(
        self, images: Tensor, labels: Tensor, maps: Tensor | None, draw: _Draw
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        if images.numel() == 0:
            return images, labels, maps
        dtype = labels.dtype
        labels = labels.view(_SIGNED.get(dtype, dtype))
        codes = _symmetry_codes(draw, self.settings, images.shape)
        if codes.any():
            images = apply_symmetries(images, codes)
            labels = apply_symmetries(labels, codes)
            maps = None if maps is None else apply_symmetries(maps, codes)
        shape, settings = images.shape[2:], self.settings
        spacing = self.spacing or (1.0,) * len(shape)
        rows, grid = _sampling_grid(draw, settings, shape, spacing, images.device)
        if grid is not None:
            labels = put(labels, rows, warp_labels(take(labels, rows), grid))
            images = put(images, rows, warp_images(take(images, rows), grid))
            if maps is not None:
                maps = put(maps, rows, warp_images(take(maps, rows), grid))
        images = _change_intensities(images, draw, settings, spacing)
        return images, labels.view(dtype), maps


def _check(
    images: Tensor, labels: Tensor, maps: Tensor | None, spacing: Sequence[float] | None
) -> None:
    if images.ndim not in (4, 5) or images.dtype != torch.float32:
        raise ValueError(
            f"images: got {tuple(images.shape)} {images.dtype}, needs [N, C, (Z,) Y, X] float32"
        )
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels: got {labels.dtype}, needs an integer type")
    if maps is not None and maps.dtype != torch.float32:
        raise ValueError(f"maps: got {maps.dtype}, needs float32")
    for name, tensor in (("labels", labels), ("maps", maps)):
        if tensor is not None and (
            tensor.ndim != images.ndim
            or len(tensor) != len(images)
            or tensor.shape[2:] != images.shape[2:]
        ):
            raise ValueError(
                f"{name}: got shape {tuple(tensor.shape)}, images have {tuple(images.shape)}"
            )
    if spacing is not None and (len(spacing) != images.ndim - 2 or min(spacing) <= 0):
        raise ValueError(
            f"spacing: got {spacing}, needs {images.ndim - 2} positive numbers for images of "
            f"shape {tuple(images.shape)}"
        )


# Flips and right-angle rotations -----------------------------------------------------------------


def _symmetry_codes(draw: _Draw, settings: AugmentSection, shape: torch.Size) -> Tensor:
    """[N] int64 code of each sample's symmetry."""
    codes = torch.zeros(shape[0], dtype=torch.int64)
    if settings.rotate90:
        turns = (draw.value["quarter_turns"] * 4).long()
        if shape[-1] != shape[-2]:
            turns = turns // 2 * 2  # a quarter turn would change the shape
        codes = QUARTER_TURNS[turns]
    if settings.flip:
        codes = codes ^ FLIP_Y * (draw.chance["flip_y"] < 0.5)
        codes = codes ^ FLIP_X * (draw.chance["flip_x"] < 0.5)
        if len(shape) == 5:
            codes = codes ^ FLIP_Z * (draw.chance["flip_z"] < 0.5)
    return codes


# Rotation, scale, elastic deformation ------------------------------------------------------------


def _sampling_grid(
    draw: _Draw,
    settings: AugmentSection,
    shape: Sequence[int],
    spacing: Sequence[float],
    device: torch.device,
) -> tuple[Tensor, Tensor | None]:
    """Where to read for each output pixel, for the samples `rows` [n]; None if there are none.

    Rotation and scale go about the centre of the patch, then the elastic displacement is added.
    """
    happens = {name: _happens(name, draw, settings) for name in _WARPS}
    rows = torch.stack(list(happens.values())).any(0).nonzero().squeeze(1)
    if len(rows) == 0:
        return rows, None
    angle = math.radians(settings.rotate_deg) * (2 * draw.value["rotate_deg"] - 1)
    angle = torch.where(happens["rotate_deg"], angle, 0.0)[rows]
    zoom = 1 + settings.scale * (2 * draw.value["scale"] - 1)
    zoom = torch.where(happens["scale"], zoom, 1.0)[rows]
    points = similarity(shape, spacing, angle, zoom, device)
    if happens["elastic_px"].any():
        elastic = gentle(settings.elastic_px, settings.elastic_grid, shape, spacing)
        bent = happens["elastic_px"].view(-1, *[1] * (draw.nodes.ndim - 1))
        nodes = elastic * draw.nodes * bent
        points += displacement(nodes[rows].to(device), shape, spacing)
    return rows.to(device), sampler_grid(points)


# Intensity ---------------------------------------------------------------------------------------


def _change_intensities(
    images: Tensor, draw: _Draw, settings: AugmentSection, spacing: Sequence[float]
) -> Tensor:
    for name in _INTENSITIES:
        rows = _happens(name, draw, settings).nonzero().squeeze(1)
        if len(rows) == 0:
            continue
        amount = AMOUNTS[name](draw.value[name][rows], getattr(settings, name))
        amount = amount.view(-1, *[1] * (images.ndim - 1))
        seeds = [draw.seeds[row] for row in rows.tolist()]
        rows = rows.to(images.device)
        changed = OPERATIONS[name](take(images, rows), amount, seeds, spacing)
        images = put(images, rows, changed)
    return images


def _happens(name: str, draw: _Draw, settings: AugmentSection) -> Tensor:
    """[N] bool: whether the operation happens to the sample."""
    if getattr(settings, name) == 0:
        return torch.zeros_like(draw.chance[name], dtype=torch.bool)
    geometric = name in _WARPS
    probability = settings.geometric_probability if geometric else settings.intensity_probability
    return draw.chance[name] < probability
