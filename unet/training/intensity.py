"""The intensity operations of augmentation, on samples [n, C, (Z,) Y, X].

To add one, write a function, and add a line to ``AMOUNTS``, one to ``OPERATIONS`` and a field to
:class:`unet.config.sections.AugmentSection`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# Size of a pixel per spatial axis, in units of the finest axis.
Spacing = Sequence[float]
# The amount of an operation from a uniform number in [0, 1) and the setting. Amounts [n, 1, ...]
# are on the CPU, where reading them does not wait for a GPU.
AMOUNTS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "blur_px": lambda u, high: u * high,
    "gamma": lambda u, high: ((2 * u - 1) * math.log1p(high)).exp(),
    "contrast": lambda u, high: 1 + (2 * u - 1) * high,
    "brightness": lambda u, high: (2 * u - 1) * high,
    "noise": lambda u, high: u * high,
}


def _mean(images: Tensor) -> Tensor:
    return images.mean(list(range(2, images.ndim)), keepdim=True)


def _deviation(images: Tensor) -> Tensor:
    # torch.std takes several times longer than this on the CPU.
    return _mean((images - _mean(images)).square_()).sqrt_()


def _gamma(images: Tensor, exponent: Tensor, seeds: Sequence[int], spacing: Spacing) -> Tensor:
    axes = list(range(2, images.ndim))
    low, high = images.amin(axes, keepdim=True), images.amax(axes, keepdim=True)
    extent = high - low
    # 0 / 1 for a constant image, which has no range: it stays unchanged.
    unit = (images - low).div_(torch.where(extent > 0, extent, 1)).clamp_(0, 1)
    return unit.pow_(exponent.to(images.device)).mul_(extent).add_(low)


def _contrast(images: Tensor, factor: Tensor, seeds: Sequence[int], spacing: Spacing) -> Tensor:
    mean = _mean(images)
    return (images - mean).mul_(factor.to(images.device)).add_(mean)


def _brightness(images: Tensor, shift: Tensor, seeds: Sequence[int], spacing: Spacing) -> Tensor:
    return images + shift.to(images.device) * _deviation(images)


def _noise(images: Tensor, amount: Tensor, seeds: Sequence[int], spacing: Spacing) -> Tensor:
    # A generator for each sample, so that its noise does not depend on the other samples.
    normal = torch.empty_like(images)
    for sample, seed in zip(normal, seeds, strict=True):
        sample.normal_(generator=torch.Generator(images.device).manual_seed(seed))
    return normal.mul_(amount.to(images.device) * _deviation(images)).add_(images)


def _blur(images: Tensor, sigma: Tensor, seeds: Sequence[int], spacing: Spacing) -> Tensor:
    """Gaussian blur with each sample's own sigma [n, 1, ...] in pixels of the finest axis, cut at
    3 sigma, mirrored at the edge.

    A sum of shifted images instead of a convolution: as fast at these sizes, and always float32,
    while convolutions on a GPU may use TF32.
    """
    for axis, step in zip(range(-len(spacing), 0), spacing, strict=True):
        images = _blurred(images, sigma / step, axis)
    return images


def _blurred(images: Tensor, sigma: Tensor, axis: int) -> Tensor:
    """Images blurred along one axis."""
    # Each sample's kernel has its own radius and is normalised in float64, so that the result does
    # not depend on the other samples.
    reach = (3 * sigma).ceil()
    radius = int(reach.max())
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = (-0.5 * (offsets / sigma.double().clamp_min(1e-3)) ** 2).exp()
    kernel = kernel * (offsets.abs() <= reach)
    kernel = (kernel / kernel.sum(-1, keepdim=True)).float().to(images.device)  # [n, 1, .., offset]
    size = images.shape[axis]
    mirrored = torch.arange(-radius, size + radius, device=images.device)
    mirrored = mirrored.abs().remainder(max(2 * (size - 1), 1))
    mirrored = (size - 1) - (mirrored - (size - 1)).abs()
    padded = images.index_select(axis, mirrored)
    total = torch.zeros_like(images)
    for i in range(2 * radius + 1):
        total.addcmul_(padded.narrow(axis, i, size), kernel[..., i : i + 1])
    return total


OPERATIONS: dict[str, Callable[[Tensor, Tensor, Sequence[int], Spacing], Tensor]] = {
    "blur_px": _blur,
    "gamma": _gamma,
    "contrast": _contrast,
    "brightness": _brightness,
    "noise": _noise,
}
