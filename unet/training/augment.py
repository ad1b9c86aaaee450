"""Augmentation of whole batches, on the device that they are on.

Geometry: flips and right-angle rotations are exact index operations. Free rotation, scaling and
elastic deformation are combined in one sampling grid, so that each tensor is interpolated at most
once: images and maps linearly, labels from the nearest pixel, all mirrored at the edge. Volumes are
rotated in the YX plane only, because sections are usually further apart than pixels; scaling and
deformation act along all axes. Lengths are in pixels of the finest axis: along a coarser axis, they
are fewer pixels.

Intensity: blur, gamma, contrast, brightness, noise, in this order (the order of the optics, the
camera's response and its noise). Last, whole channels may be left out.

All parameters are drawn on the CPU from the caller's generator: always the same number of draws in
the same order. So CPU and GPU use the same parameters, and enabling one operation does not change
the others. What a channel dropout draws comes from a seed of the sample. Only the noise itself is
drawn on the device, from a generator seeded by the caller's (noise drawn on the CPU would keep a
GPU waiting). The output therefore depends only on the generator's state and, for the noise, on the
kind of device.

Everything is decided when the plan is made, on the CPU: which samples change, and by what numbers.
Applying it only computes on the device: no copy, and no waiting for a result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unet.config.sections import AugmentSection
from unet.models.transfer import Parcel
from unet.training.intensity import OPERATIONS
from unet.training.warp import (
    FLIP_X,
    FLIP_Y,
    FLIP_Z,
    QUARTER_TURNS,
    elastic_sd,
    in_sampler_unit,
    put,
    read_pixels,
    sampler_grid,
    similarity,
    similarity_matrix,
    symmetry_index,
    symmetry_strides,
    take,
    upsample,
    upsampling,
    warp_images,
    warp_labels,
)

# Some integer types lack full support in torch (uint32 cannot be flipped or gathered everywhere).
# They are processed as the signed type of the same size.
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


_SYMMETRIES = ("flip_z", "flip_y", "flip_x", "quarter_turns")
_WARPS = ("rotate_deg", "scale", "elastic_px")
_INTENSITIES = tuple(OPERATIONS)


@dataclass(frozen=True)
class _Draw:
    """The random numbers of one batch, on the CPU; [N] in [0, 1) per operation."""

    chance: dict[str, Tensor]  # decides whether an operation is applied
    value: dict[str, Tensor]  # how strongly
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

    def select(self, rows: slice) -> _Draw:
        """The numbers of some samples of the batch."""
        return _Draw(
            {name: values[rows] for name, values in self.chance.items()},
            {name: values[rows] for name, values in self.value.items()},
            self.nodes[rows],
            self.seeds[rows],
        )


@dataclass(frozen=True)
class AugmentPlan:
    """What happens to a batch.

    Attributes:
        tensors: by operation and part (``gamma/rows``), on the CPU; an operation that happens to no
            sample has none.
        seeds: of the noise of each sample that gets some.
    """

    tensors: Mapping[str, Tensor]
    seeds: Sequence[int]


class Augment:
    """Random changes to a batch that keep its labels valid; 0 or False switches an operation off.

    Args:
        settings: flip mirrors each spatial axis with probability 1/2, rotate90 rotates by 0, 90,
            180 or 270 degrees in the YX plane (0 or 180 if Y != X). The others are applied to each
            sample with geometric_probability or intensity_probability:

            - rotate_deg: angle uniform in +-rotate_deg, in the YX plane.
            - scale: magnification uniform in [1 - scale, 1 + scale].
            - elastic_px: standard deviation of the displacement vectors' components in px
              (Ronneberger et al. 2015: 10), on elastic_grid nodes per axis (Ronneberger et al.: 3),
              evenly spaced from corner to corner of the patch, interpolated cubically. In volumes
              it is limited if nodes are close together (`unet.training.warp.elastic_sd`).
            - gamma: exponent log-uniform in [1 / (1 + gamma), 1 + gamma], on the min-max range.
            - contrast: factor uniform in [1 - contrast, 1 + contrast] around the mean.
            - brightness: shift uniform in +-brightness, in standard deviations.
            - noise: Gaussian, its sd uniform in [0, noise], in standard deviations of the image.
            - blur_px: Gaussian, its sigma uniform in [0, blur_px] px.

            channel_dropout sets each channel to 0 with this probability, but at least one stays. A
            normalised image whose channel is blank has the same 0.

            Ranges, means and standard deviations are those of the patch, per sample and channel.
        spacing: size of a pixel per spatial axis in units of the finest axis (None = all 1).
    """

    def __init__(self, settings: AugmentSection, spacing: tuple[float, ...] | None = None) -> None:
        self.settings, self.spacing = settings, spacing

    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        maps: Tensor | None,
        generator: torch.Generator,
        part: tuple[slice, int] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Augmented images, labels and maps: :meth:`plan`, then :meth:`apply`."""
        _check(images, labels, maps, self.spacing)
        plan = self.plan(images.shape, generator, part)
        return self.apply(
            images, labels, maps, Parcel(plan.tensors, images.device).opened(), plan.seeds
        )

    @torch.no_grad()
    def plan(
        self,
        shape: Sequence[int],
        generator: torch.Generator,
        part: tuple[slice, int] | None = None,
    ) -> AugmentPlan:
        """Draws what happens to a batch.

        Args:
            shape: [N, C, (Z,) Y, X] of the images.
            generator: on the CPU; the only source of randomness.
            part: (rows, size) if the images are only these rows of a batch of this size; the
                result for them is the same as in the whole batch.
        """
        rows, size = (slice(None), shape[0]) if part is None else part
        draw = _Draw.from_generator(
            size, self.settings.elastic_grid, len(shape) - 2, generator
        ).select(rows)
        tensors: dict[str, Tensor] = {}
        if math.prod(shape):
            spacing = self.spacing or (1.0,) * (len(shape) - 2)
            codes = _symmetry_codes(draw, self.settings, shape)
            if codes.any():
                tensors["symmetry"] = symmetry_strides(codes, shape[2:])
            tensors |= _warp_plan(draw, self.settings, shape[2:], spacing)
            tensors |= _intensity_plan(draw, self.settings, shape[2:], spacing)
            tensors |= _dropout_plan(draw.seeds, shape, self.settings.channel_dropout)
        noisy = tensors.get("noise/rows", torch.tensor([], dtype=torch.int64)).tolist()
        return AugmentPlan(tensors, [draw.seeds[row] for row in noisy])

    @torch.no_grad()
    def apply(
        self,
        images: Tensor,
        labels: Tensor,
        maps: Tensor | None,
        plan: Mapping[str, Tensor],
        seeds: Sequence[int],
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Augmented images, labels and maps; the inputs are not changed.

        Args:
            images: [N, C, (Z,) Y, X] float32.
            labels: [N, L, (Z,) Y, X] of any integer type, such as classes and instance ids.
            maps: [N, M, (Z,) Y, X] float32 or None, such as weights; moved like the images, with
                unchanged values.
            plan: the tensors of a plan, on the images' device. Others are ignored.
            seeds: of the plan.

        Returns:
            Tensors of the same shapes and types; the input itself if nothing was changed.

        Raises:
            ValueError: shapes or types do not fit.
        """
        _check(images, labels, maps, self.spacing)
        dtype = labels.dtype
        labels = labels.view(_SIGNED.get(dtype, dtype))
        # bfloat16 is too coarse for coordinates.
        with torch.autocast(images.device.type, enabled=False):
            if "symmetry" in plan:
                index = symmetry_index(plan["symmetry"], images.shape[2:])
                images, labels = read_pixels(images, index), read_pixels(labels, index)
                maps = None if maps is None else read_pixels(maps, index)
            if "warp/rows" in plan:
                rows, grid = plan["warp/rows"], _sampling_grid(plan, images.shape[2:])
                labels = put(labels, rows, warp_labels(take(labels, rows), grid))
                images = put(images, rows, warp_images(take(images, rows), grid))
                if maps is not None:
                    maps = put(maps, rows, warp_images(take(maps, rows), grid))
            images = _change_intensities(images, plan, seeds)
            if "channels" in plan:
                images = images * plan["channels"]
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


def _symmetry_codes(draw: _Draw, settings: AugmentSection, shape: Sequence[int]) -> Tensor:
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


def _warp_plan(
    draw: _Draw, settings: AugmentSection, shape: Sequence[int], spacing: Sequence[float]
) -> dict[str, Tensor]:
    """The samples to warp, as rows [n], and how; empty if n is 0.

    Rotation and scaling are about the centre of the patch; the elastic displacement is added.
    """
    happens = {name: _happens(name, draw, settings) for name in _WARPS}
    rows = torch.stack(list(happens.values())).any(0).nonzero().squeeze(1)
    if len(rows) == 0:
        return {}
    angle = math.radians(settings.rotate_deg) * (2 * draw.value["rotate_deg"] - 1)
    angle = torch.where(happens["rotate_deg"], angle, 0.0)[rows]
    zoom = 1 + settings.scale * (2 * draw.value["scale"] - 1)
    zoom = torch.where(happens["scale"], zoom, 1.0)[rows]
    found = {"warp/rows": rows, "warp/matrix": similarity_matrix(shape, spacing, angle, zoom)}
    if happens["elastic_px"].any():
        elastic = elastic_sd(settings.elastic_px, settings.elastic_grid, shape, spacing)
        deformed = happens["elastic_px"].view(-1, *[1] * (draw.nodes.ndim - 1))
        nodes = (elastic * draw.nodes * deformed)[rows]
        found["warp/nodes"] = in_sampler_unit(nodes, shape, spacing)
        matrices = upsampling(settings.elastic_grid, shape)
        found |= {f"warp/axis {i}": matrix for i, matrix in enumerate(matrices)}
    return found


def _sampling_grid(plan: Mapping[str, Tensor], shape: Sequence[int]) -> Tensor:
    """Where to read for each output pixel of the warped samples."""
    points = similarity(plan["warp/matrix"], shape)
    if "warp/nodes" in plan:
        matrices = [plan[f"warp/axis {i}"] for i in range(len(shape))]
        points += upsample(plan["warp/nodes"], matrices)
    return sampler_grid(points)


# Intensity ---------------------------------------------------------------------------------------


def _intensity_plan(
    draw: _Draw, settings: AugmentSection, shape: Sequence[int], spacing: Sequence[float]
) -> dict[str, Tensor]:
    found = {}
    for name, operation in OPERATIONS.items():
        rows = _happens(name, draw, settings).nonzero().squeeze(1)
        if len(rows) == 0:
            continue
        high = getattr(settings, name)
        values = operation.prepare(draw.value[name][rows], high, shape, spacing)
        found[f"{name}/rows"] = rows
        found |= {f"{name}/{i}": value for i, value in enumerate(values)}
    return found


def _change_intensities(images: Tensor, plan: Mapping[str, Tensor], seeds: Sequence[int]) -> Tensor:
    for name, operation in OPERATIONS.items():
        if f"{name}/rows" in plan:
            rows, *values = (t for key, t in plan.items() if key.startswith(f"{name}/"))
            changed = operation.change(take(images, rows), values, seeds)
            images = put(images, rows, changed)
    return images


def _dropout_plan(
    seeds: Sequence[int], shape: Sequence[int], probability: float
) -> dict[str, Tensor]:
    """Sets each channel of images [N, C, ...] to 0 with this probability, but never all of a
    sample."""
    channels = shape[1]
    if probability == 0 or channels == 1:
        return {}
    kept = torch.empty(len(seeds), channels, dtype=torch.bool)
    for row, seed in enumerate(seeds):
        # Another seed than the noise's, so that the two are independent.
        generator = torch.Generator().manual_seed(seed + 1)
        kept[row] = torch.rand(channels, generator=generator) >= probability
        if not kept[row].any():
            kept[row, torch.randint(channels, (), generator=generator)] = True
    return {} if kept.all() else {"channels": kept.view(*kept.shape, *[1] * (len(shape) - 2))}


def _happens(name: str, draw: _Draw, settings: AugmentSection) -> Tensor:
    """[N] bool: whether the operation is applied to each sample."""
    if getattr(settings, name) == 0:
        return torch.zeros_like(draw.chance[name], dtype=torch.bool)
    geometric = name in _WARPS
    probability = settings.geometric_probability if geometric else settings.intensity_probability
    return draw.chance[name] < probability
