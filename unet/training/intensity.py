"""The intensity operations of augmentation, on samples [n, C, (Z,) Y, X].

To add one, write a function, and add a line to ``OPERATIONS`` and a field to
:class:`unet.config.sections.AugmentSection`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Size of a pixel per spatial axis, in units of the finest axis.
Spacing = Sequence[float]
# What an operation needs: made on the CPU, used on the device.
Values = Sequence[Tensor]


@dataclass(frozen=True)
class Operation:
    """An intensity operation.

    Attributes:
        prepare: from uniform numbers [n] in [0, 1), the setting, shape (Z,) Y, X and spacing of the
            patch: what ``change`` needs, on the CPU.
        change: gives new samples from samples, these tensors on the samples' device, and a seed per
            sample.
    """

    prepare: Callable[[Tensor, float, Sequence[int], Spacing], list[Tensor]]
    change: Callable[[Tensor, Values, Sequence[int]], Tensor]


def _amount(of: Callable[[Tensor, float], Tensor]) -> Callable[..., list[Tensor]]:
    """Prepares an operation that needs one number per sample."""

    def prepare(u: Tensor, high: float, shape: Sequence[int], spacing: Spacing) -> list[Tensor]:
        return [of(u, high).view(-1, *[1] * (len(shape) + 1))]

    return prepare


def _mean(images: Tensor) -> Tensor:
    return images.mean(list(range(2, images.ndim)), keepdim=True)


def _deviation(images: Tensor) -> Tensor:
    # torch.std takes several times longer than this on the CPU.
    return _mean((images - _mean(images)).square_()).sqrt_()


def _gamma(images: Tensor, values: Values, seeds: Sequence[int]) -> Tensor:
    axes = list(range(2, images.ndim))
    low, high = images.amin(axes, keepdim=True), images.amax(axes, keepdim=True)
    extent = high - low
    # 0 / 1 for a constant image, which has no range: it stays unchanged.
    unit = (images - low).div_(extent + (extent == 0)).clamp_(0, 1)
    return unit.pow_(values[0]).mul_(extent).add_(low)


def _contrast(images: Tensor, values: Values, seeds: Sequence[int]) -> Tensor:
    mean = _mean(images)
    return (images - mean).mul_(values[0]).add_(mean)


def _brightness(images: Tensor, values: Values, seeds: Sequence[int]) -> Tensor:
    return images + values[0] * _deviation(images)


def _noise(images: Tensor, values: Values, seeds: Sequence[int]) -> Tensor:
    # A generator for each sample, so that its noise does not depend on the other samples.
    normal = torch.empty_like(images)
    for sample, seed in zip(normal, seeds, strict=True):
        sample.normal_(generator=torch.Generator(images.device).manual_seed(seed))
    return normal.mul_(values[0] * _deviation(images)).add_(images)


def _kernels(u: Tensor, high: float, shape: Sequence[int], spacing: Spacing) -> list[Tensor]:
    """For each axis: the kernels [n, 1, ..., offsets] of a Gaussian with each sample's own sigma in
    pixels of the finest axis, cut at 3 sigma, and the places [size + 2 radius] to read, mirrored at
    the edge."""
    found = []
    for size, step in zip(shape, spacing, strict=True):
        sigma = (u * high).view(-1, *[1] * (len(shape) + 1)) / step
        # Each sample's kernel has its own radius and is normalised in float64, so that the result
        # does not depend on the other samples.
        reach = (3 * sigma).ceil()
        radius = int(reach.max())
        offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
        kernel = (-0.5 * (offsets / sigma.double().clamp_min(1e-3)) ** 2).exp()
        kernel = kernel * (offsets.abs() <= reach)
        mirrored = torch.arange(-radius, size + radius).abs().remainder(max(2 * (size - 1), 1))
        mirrored = (size - 1) - (mirrored - (size - 1)).abs()
        found += [(kernel / kernel.sum(-1, keepdim=True)).float(), mirrored]
    return found


def _blur(images: Tensor, values: Values, seeds: Sequence[int]) -> Tensor:
    """Gaussian blur along each axis.

    A sum of shifted images instead of a convolution: as fast at these sizes, and always float32,
    while convolutions on a GPU may use TF32.
    """
    axes = range(2, images.ndim)
    for axis, kernel, mirrored in zip(axes, values[::2], values[1::2], strict=True):
        size = images.shape[axis]
        padded = images.index_select(axis, mirrored)
        total = torch.zeros_like(images)
        for i in range(kernel.shape[-1]):
            total.addcmul_(padded.narrow(axis, i, size), kernel[..., i : i + 1])
        images = total
    return images


# By the name of the setting, in the order in which they are applied.
OPERATIONS = {
    "blur_px": Operation(_kernels, _blur),
    "gamma": Operation(_amount(lambda u, high: ((2 * u - 1) * math.log1p(high)).exp()), _gamma),
    "contrast": Operation(_amount(lambda u, high: 1 + (2 * u - 1) * high), _contrast),
    "brightness": Operation(_amount(lambda u, high: (2 * u - 1) * high), _brightness),
    "noise": Operation(_amount(lambda u, high: u * high), _noise),
}
