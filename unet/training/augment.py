"""Augmentation of whole batches, on whatever device they lie.

Geometry: flips and right-angle rotations are exact index operations. Free rotation, scaling and
elastic deformation are composed into one sampling grid, so every tensor is interpolated at most
once: images and weights bilinearly, labels by looking up the nearest pixel, all mirrored at the
edge. Intensity: blur, gamma, contrast, brightness, noise, in that order (the order of the optics,
the camera's response and its noise).

What happens to a sample is drawn on the CPU from the caller's generator, always the same number of
draws in the same order: CPU and GPU get the same parameters, and to switch one operation on does
not change what the others do. Only the noise itself is drawn on the device, by a generator seeded
from the caller's (noise made on the CPU would keep a GPU waiting). So the output is a function of
the generator's state, the noise also of the kind of device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unet.training.intensity import AMOUNTS, OPERATIONS

# Integer types without full support in torch (uint32 can neither be flipped nor gathered
# everywhere) travel as the signed type of the same size.
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


@dataclass(frozen=True)
class AugmentSettings:
    """What to do and how much of it; 0 or False = off. Raises ValueError if out of range.

    Attributes:
        flip: mirror each spatial axis with probability 1/2.
        rotate90: rotate by 0, 90, 180 or 270 degrees in the YX plane (0 or 180 if Y != X).
        rotate_deg: free rotation, angle uniform in +-rotate_deg.
        scale: magnification uniform in [1 - scale, 1 + scale].
        elastic_px: standard deviation of the displacement vectors' components in px
            (Ronneberger et al. 2015: 10).
        elastic_grid: nodes per axis of the coarse grid of displacements (there: 3), at the corners
            of the patch and evenly between, interpolated bicubically.
        geometric_probability: of rotate_deg, scale and elastic_px, each per sample.
        gamma: exponent log-uniform in [1 / (1 + gamma), 1 + gamma], on the min-max range.
        contrast: factor uniform in [1 - contrast, 1 + contrast] around the mean.
        brightness: shift uniform in +-brightness, in standard deviations.
        noise: Gaussian, its sd uniform in [0, noise], in standard deviations of the image.
        blur_px: Gaussian, its sigma uniform in [0, blur_px] px.
        intensity_probability: of gamma, contrast, brightness, noise and blur_px, each per sample.

    Ranges, means and standard deviations are those of the patch, per sample and channel; the drawn
    numbers are per sample.
    """

    flip: bool = True
    rotate90: bool = True
    rotate_deg: float = 0.0
    scale: float = 0.0
    elastic_px: float = 0.0
    elastic_grid: int = 3
    geometric_probability: float = 0.5
    gamma: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    noise: float = 0.0
    blur_px: float = 0.0
    intensity_probability: float = 0.5

    def __post_init__(self) -> None:
        amounts = ("rotate_deg", "elastic_px", "gamma", "brightness", "noise", "blur_px")
        for name in (*amounts, "scale", "contrast"):
            value = getattr(self, name)
            high = 1.0 if name in ("scale", "contrast") else math.inf
            if not 0 <= value < high:
                raise ValueError(f"{name}: got {value}, needs >= 0 and < {high}")
        for name in ("geometric_probability", "intensity_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, needs 0 to 1")
        if self.elastic_grid < 2:
            raise ValueError(f"elastic_grid: got {self.elastic_grid}, needs >= 2")


_SYMMETRIES = ("flip_z", "flip_y", "flip_x", "quarter_turns")
_WARPS = ("rotate_deg", "scale", "elastic_px")
_INTENSITIES = ("blur_px", "gamma", "contrast", "brightness", "noise")


@dataclass(frozen=True)
class _Draw:
    """The random numbers of one batch, on the CPU; [N] in [0, 1) per operation."""

    chance: dict[str, Tensor]  # whether an operation happens
    value: dict[str, Tensor]  # how much of it
    nodes: Tensor  # [N, 2 (x, y), G, G], standard normal
    seed: int  # of the noise

    @classmethod
    def from_generator(cls, n: int, grid: int, generator: torch.Generator) -> _Draw:
        names = _SYMMETRIES + _WARPS + _INTENSITIES
        chance, value = torch.rand(2, len(names), n, generator=generator)
        seed = int(torch.randint(2**62, (), generator=generator))
        nodes = torch.randn(n, 2, grid, grid, generator=generator)
        return cls(
            dict(zip(names, chance, strict=True)), dict(zip(names, value, strict=True)), nodes, seed
        )


class Augment:
    """Random changes to a batch that keep its labels true; see `AugmentSettings`."""

    def __init__(self, settings: AugmentSettings) -> None:
        self.settings = settings

    @torch.no_grad()
    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        weights: Tensor | None,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Augmented images, labels and weights; the inputs are left as they are.

        Args:
            images: [N, C, Y, X] float32. [N, C, Z, Y, X] can be flipped, rotated by right angles in
                the YX plane, and changed in intensity other than by blur.
            labels: [N, L, (Z,) Y, X] of any integer type, such as classes and instance ids.
            weights: [N, 1, (Z,) Y, X] float32 or None; moves along, its values are not changed.
            generator: on the CPU; the only source of randomness.

        Returns:
            Tensors of the same shapes and types; an input itself where nothing happened to it.

        Raises:
            ValueError: shapes or types that do not fit, or 5-D images with an operation that is
                2D only.
        """
        _check(images, labels, weights, self.settings)
        # A product in bfloat16 would misplace the samples.
        with torch.autocast(images.device.type, enabled=False):
            return self._augment(images, labels, weights, generator)

    def _augment(
        self, images: Tensor, labels: Tensor, weights: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        draw = _Draw.from_generator(len(images), self.settings.elastic_grid, generator)
        if images.numel() == 0:
            return images, labels, weights
        dtype = labels.dtype
        labels = labels.view(_SIGNED.get(dtype, dtype))
        codes = _symmetry_codes(draw, self.settings, images.shape)
        if codes.any():
            images = _apply_symmetries(images, codes)
            labels = _apply_symmetries(labels, codes)
            weights = None if weights is None else _apply_symmetries(weights, codes)
        rows, grid = _sampling_grid(draw, self.settings, images)
        if grid is not None:
            labels = _put(labels, rows, _warp_labels(_take(labels, rows), grid))
            images = _put(images, rows, _warp_images(_take(images, rows), grid))
            if weights is not None:
                weights = _put(weights, rows, _warp_images(_take(weights, rows), grid))
        return _change_intensities(images, draw, self.settings), labels.view(dtype), weights


def _check(
    images: Tensor, labels: Tensor, weights: Tensor | None, settings: AugmentSettings
) -> None:
    if images.ndim not in (4, 5) or images.dtype != torch.float32:
        raise ValueError(
            f"images: got {tuple(images.shape)} {images.dtype}, needs [N, C, (Z,) Y, X] float32"
        )
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels: got {labels.dtype}, needs an integer type")
    if weights is not None and weights.dtype != torch.float32:
        raise ValueError(f"weights: got {weights.dtype}, needs float32")
    for name, tensor in (("labels", labels), ("weights", weights)):
        if tensor is not None and (
            tensor.ndim != images.ndim
            or len(tensor) != len(images)
            or tensor.shape[2:] != images.shape[2:]
        ):
            raise ValueError(
                f"{name}: got shape {tuple(tensor.shape)}, images have {tuple(images.shape)}"
            )
    planar = [name for name in (*_WARPS, "blur_px") if getattr(settings, name) > 0]
    if images.ndim == 5 and planar:
        raise ValueError(f"3D augmentation: {', '.join(planar)} works on 2D images only, set to 0")


def _take(tensor: Tensor, rows: Tensor) -> Tensor:
    """Samples of a batch; no copy if all of them (`rows` is increasing)."""
    return tensor if len(rows) == len(tensor) else tensor[rows]


def _put(tensor: Tensor, rows: Tensor, values: Tensor) -> Tensor:
    """A batch with some samples replaced; never in place."""
    return values if len(rows) == len(tensor) else tensor.index_copy(0, rows, values)


# Flips and right-angle rotations -----------------------------------------------------------------

# A symmetry of the square is a transposition or none, then flips: bits of a code.
_TRANSPOSE, _FLIP_Y, _FLIP_X, _FLIP_Z = 1, 2, 4, 8
# numpy.rot90 by 0 to 3 quarter turns, in those terms. Flips that follow are added by XOR.
_QUARTER_TURNS = torch.tensor([0, _TRANSPOSE | _FLIP_Y, _FLIP_Y | _FLIP_X, _TRANSPOSE | _FLIP_X])


def _symmetry_codes(draw: _Draw, settings: AugmentSettings, shape: torch.Size) -> Tensor:
    """[N] int64 code of each sample's symmetry."""
    codes = torch.zeros(shape[0], dtype=torch.int64)
    if settings.rotate90:
        turns = (draw.value["quarter_turns"] * 4).long()
        if shape[-1] != shape[-2]:
            turns = turns // 2 * 2  # a quarter turn would change the shape
        codes = _QUARTER_TURNS[turns]
    if settings.flip:
        codes = codes ^ _FLIP_Y * (draw.chance["flip_y"] < 0.5)
        codes = codes ^ _FLIP_X * (draw.chance["flip_x"] < 0.5)
        if len(shape) == 5:
            codes = codes ^ _FLIP_Z * (draw.chance["flip_z"] < 0.5)
    return codes


def _apply_symmetries(tensor: Tensor, codes: Tensor) -> Tensor:
    """A new tensor; one step per symmetry that occurs, however large the batch."""
    result = torch.empty_like(tensor)
    for code in sorted(set(codes.tolist())):
        rows = (codes == code).nonzero().squeeze(1).to(tensor.device)
        part = _take(tensor, rows)
        if code & _TRANSPOSE:
            part = part.transpose(-1, -2)
        axes = ((_FLIP_Y, -2), (_FLIP_X, -1), (_FLIP_Z, -3))
        result[rows] = part.flip([axis for bit, axis in axes if code & bit])
    return result


# Rotation, scale, elastic deformation ------------------------------------------------------------


def _sampling_grid(
    draw: _Draw, settings: AugmentSettings, images: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Where to read for each output pixel: [n, Y, X, 2 (x, y)], for the samples `rows` [n].

    In the coordinates of `grid_sample`: -1 to 1 from the centre of the first pixel to that of the
    last. Rotation and scale go about the centre of the patch, then the elastic displacement is
    added. None if there are no rows.
    """
    happens = {name: _happens(name, draw, settings) for name in _WARPS}
    rows = torch.stack(list(happens.values())).any(0).nonzero().squeeze(1)
    if len(rows) == 0:
        return rows, None
    height, width = images.shape[-2:]
    angle = math.radians(settings.rotate_deg) * (2 * draw.value["rotate_deg"] - 1)
    angle = torch.where(happens["rotate_deg"], angle, 0.0)[rows]
    zoom = 1 + settings.scale * (2 * draw.value["scale"] - 1)
    zoom = torch.where(happens["scale"], zoom, 1.0)[rows]
    nodes = settings.elastic_px * draw.nodes * happens["elastic_px"].view(-1, 1, 1, 1)
    cosine, sine = angle.cos() / zoom, angle.sin() / zoom
    matrix = torch.stack([cosine, sine, -sine, cosine], 1).view(-1, 2, 2, 1, 1)
    # From px to the sampler's unit here, on the few numbers, rather than on the finished grid.
    unit = torch.tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)]).view(2, 1, 1)
    matrix = (matrix * unit.unsqueeze(1)).to(images.device)
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    points = matrix[:, :, 0] * x + matrix[:, :, 1] * y.view(-1, 1)
    if happens["elastic_px"].any():
        points += _upsample((nodes[rows] * unit).to(images.device), height, width)
    return rows.to(images.device), points.permute(0, 2, 3, 1)


def _upsample(nodes: Tensor, height: int, width: int) -> Tensor:
    """[n, 2, G, G] values at nodes to [n, 2, Y, X], bicubic, through the nodes."""
    grid = nodes.shape[-1]
    # Bicubic interpolation is separable and linear: interpolating the unit vectors gives a matrix
    # per axis, and two small products replace 16 reads per pixel.
    basis = torch.eye(grid, device=nodes.device).view(1, grid, grid, 1)

    def matrix(size: int) -> Tensor:
        columns = F.interpolate(basis, size=(size, 1), mode="bicubic", align_corners=True)
        return columns.view(grid, size)

    return matrix(height).T @ (nodes @ matrix(width))


def _warp_images(images: Tensor, grid: Tensor) -> Tensor:
    """[n, C, Y, X] float32 read bilinearly at a grid [n, Y, X, 2], mirrored at the edge."""
    return F.grid_sample(images, grid, "bilinear", "reflection", align_corners=True)


def _warp_labels(labels: Tensor, grid: Tensor) -> Tensor:
    """[n, L, Y, X] read at the nearest pixel to a grid [n, Y, X, 2], mirrored at the edge.

    Row and column numbers go through the sampler, which is float32, not the labels: ids above 2^24
    would come out changed.
    """
    n, channels, height, width = labels.shape
    index = torch.empty(2, height, width, device=labels.device)
    index[0] = torch.arange(height, device=labels.device).view(-1, 1)
    index[1] = torch.arange(width, device=labels.device)
    index = index.expand(n, 2, height, width)
    near = F.grid_sample(index, grid, "nearest", "reflection", align_corners=True).long()
    flat = (near[:, 0] * width + near[:, 1]).view(n, 1, -1).expand(n, channels, -1)
    return labels.flatten(2).gather(2, flat).view(labels.shape)


# Intensity ---------------------------------------------------------------------------------------


def _change_intensities(images: Tensor, draw: _Draw, settings: AugmentSettings) -> Tensor:
    generator = torch.Generator(images.device).manual_seed(draw.seed)
    for name in _INTENSITIES:
        rows = _happens(name, draw, settings).nonzero().squeeze(1)
        if len(rows) == 0:
            continue
        amount = AMOUNTS[name](draw.value[name][rows], getattr(settings, name))
        amount = amount.view(-1, *[1] * (images.ndim - 1))
        rows = rows.to(images.device)
        changed = OPERATIONS[name](_take(images, rows), amount, generator)
        images = _put(images, rows, changed)
    return images


def _happens(name: str, draw: _Draw, settings: AugmentSettings) -> Tensor:
    """[N] bool: whether the operation happens to the sample."""
    if getattr(settings, name) == 0:
        return torch.zeros_like(draw.chance[name], dtype=torch.bool)
    geometric = name in _WARPS
    probability = settings.geometric_probability if geometric else settings.intensity_probability
    return draw.chance[name] < probability
