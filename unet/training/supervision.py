"""The loss of one output, or of outputs at several resolutions (deep supervision)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from unet.models.network import center_crop
from unet.training.losses import Loss


def supervised_loss(
    loss: Loss,
    outputs: Sequence[Tensor],
    labels: Tensor,
    maps: Mapping[str, Tensor],
    strides: Sequence[Sequence[int]],
) -> Tensor:
    """The loss of a network's output, or the weighted mean over its outputs.

    Deep supervision (Lee et al. 2015, arXiv:1409.5185) as in nnU-Net: each output is compared with
    the labels at its resolution, and has half the weight of the next finer one. The weights add up
    to one.

    Args:
        outputs: scores [N, K, *S], the finest first.
        labels: [N, 1, *I] int64, at the resolution of the input, I >= S.
        maps: by name, each [N, M, *I].
        strides: pixels of the input per pixel of each output, per axis.
    """
    weights = [0.5**i for i in range(len(outputs))]
    total = 0.0 * outputs[0].sum()
    for weight, scores, steps in zip(weights, outputs, strides, strict=True):
        target = _at(labels, scores.shape[2:], steps)[:, 0]
        at_level = {name: _at(values, scores.shape[2:], steps) for name, values in maps.items()}
        total = total + weight / sum(weights) * loss(scores, target, at_level)
    return total


def _at(values: Tensor, shape: Sequence[int], steps: Sequence[int]) -> Tensor:
    """Crops [N, M, *I] to the area of an output of this shape, and keeps one pixel per step."""
    cut = center_crop(values, [n * step for n, step in zip(shape, steps, strict=True)])
    for axis, step in enumerate(steps, start=2):
        cut = cut[(slice(None),) * axis + (slice(step // 2, None, step),)]
    return cut
