"""What keeps a pixel's value the same, to the bit, in windows and batches of any size.

On the CPU, in channels-last layout and 2D, PyTorch's convolutions add in an order of their own that
does not depend on the image's size. Three things besides do not keep to it. `softmax` and `sigmoid`
treat the last few values of an array by another exponential function than the rest, one unit in the
last place apart. And one small input alone (of at most 20 480 numbers) is convolved by other code
than larger ones and batches, which may add in another order. (In 3D oneDNN chooses among its
kernels by the size as well; there results differ by rounding, some 1e-6.)

Nor may the number of threads matter: a job, its shards and the workers of a cluster have different
ones. PyTorch computes 1x1 convolutions by other code where there is one thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Numbers in a window up to which it is not computed alone. PyTorch's own limit (Convolution.cpp,
# use_mkldnn) is ten times lower, but counts at each level of a network; those below are smaller.
SMALL = 200_000
# PyTorch's limit itself: a single input of at most so many numbers is not for oneDNN.
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
    """Scores [N, K, *S] as probabilities: a softmax over the first ``classes`` channels, a sigmoid
    on each other one."""
    if classes == scores.shape[1]:
        return softmax(scores)
    return torch.cat([softmax(scores[:, :classes]), sigmoid(scores[:, classes:])], dim=1)


def never_alone(batch: Tensor) -> Tensor:
    """The batch [N, C, *S]; a small window that is alone in it comes back twice."""
    if len(batch) > 1 or batch.numel() > SMALL or batch.device.type != "cpu":
        return batch
    return torch.cat([batch, batch])


class _AsWithThreads(TorchFunctionMode):
    """Gives 1x1 convolutions to oneDNN where PyTorch (Convolution.cpp, use_mkldnn) would do so if
    it had more than one thread."""

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
    """The context in which float32 windows x are computed as by any number of threads."""
    if x.device.type != "cpu" or torch.get_num_threads() > 1 or not torch.backends.mkldnn.enabled:
        return nullcontext()
    return _AsWithThreads()
