"""Makes each pixel's value bit for bit the same, whatever the size of the window and the batch.

On the CPU, in channels-last layout and 2D, the order in which PyTorch's convolutions add does not
depend on the image's size. There are three exceptions. `softmax` and `sigmoid` compute the last few
values of an array with another exponential function than the rest, and the two may differ in the
last bit. And a single small input (at most 20 480 numbers) is convolved by other code than larger
inputs and batches, and may be added up in another order.

In 3D, oneDNN also chooses among its kernels by the size of the input. There, results differ by
rounding: about 1e-6 of the largest score.

The number of threads must not matter either, since a job, its shards and the workers of a cluster
may have different numbers. With one thread, PyTorch computes 1x1 convolutions by other code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Windows of at most this many numbers are never computed alone. PyTorch's limit (Convolution.cpp,
# use_mkldnn) is ten times lower, but applies at each level of a network, and the maps shrink.
SMALL = 200_000
# PyTorch's limit: it does not use oneDNN for a single input of at most this many numbers.
ALONE = 20_480


def softmax(scores: Tensor) -> Tensor:
    """Softmax over the channels of scores [N, K, *S], each pixel by the same operations."""
    powers = torch.exp(scores - scores.amax(dim=1, keepdim=True))
    # Channel by channel: the order of the sum does not depend on the array's layout.
    total = powers[:, 0]
    for k in range(1, powers.shape[1]):
        total = total + powers[:, k]
    return powers / total[:, None]


def sigmoid(scores: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), each pixel by the same operations."""
    return 1 / (1 + torch.exp(-scores))


def activate(scores: Tensor, classes: int) -> Tensor:
    """Probabilities from scores [N, K, *S]: softmax over the first ``classes`` channels, sigmoid
    for each of the others."""
    if classes == scores.shape[1]:
        return softmax(scores)
    return torch.cat([softmax(scores[:, :classes]), sigmoid(scores[:, classes:])], dim=1)


def never_alone(batch: Tensor) -> Tensor:
    """The batch [N, C, *S]; if it is a single small window, the same window twice."""
    if len(batch) > 1 or batch.numel() > SMALL or batch.device.type != "cpu":
        return batch
    return torch.cat([batch, batch])


class _AsWithThreads(TorchFunctionMode):
    """Computes 1x1 convolutions by oneDNN if PyTorch (Convolution.cpp, use_mkldnn) would do so with
    more than one thread."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in (torch.conv2d, torch.conv3d) and not kwargs and len(args) == 7:
            x, weight, bias, stride, padding, dilation, groups = args
            single = tuple(weight.shape[-2:]) == (1, 1) and groups == 1
            if single and (len(x) > 1 or x.numel() > ALONE):
                return torch.ops.aten.mkldnn_convolution(
                    x, weight, bias, padding, stride, dilation, groups
                )
        return func(*args, **(kwargs or {}))


def any_threads(x: Tensor) -> AbstractContextManager[object]:
    """The context to compute float32 windows x in, so that the number of threads has no effect."""
    if x.device.type != "cpu" or torch.get_num_threads() > 1 or not torch.backends.mkldnn.enabled:
        return nullcontext()
    return _AsWithThreads()
