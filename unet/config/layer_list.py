"""A layer of a network, and a list of them under construction; see :mod:`unet.config.layers`.
Torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

# image: the input. up: transposed convolution. enlarge: nearest neighbour. join: concatenation.
# add: sum. multiply: product of a map of one channel with each channel of another map. head: the
# convolution that outputs class scores. Maps for join, add or multiply are cropped around their
# centres to the size of the first one.
LayerKind = Literal[
    "image", "conv", "norm", "activation", "sigmoid", "pool", "up", "enlarge", "join", "add",
    "multiply", "dropout", "head",
]  # fmt: skip
Axes = tuple[int, ...]
Interval = tuple[int, int]


@dataclass(frozen=True)
class Layer:
    """One layer. Values with a number per axis are in the order (Z) Y X.

    Attributes:
        kind: what it does.
        name: name of its module in the network, as in the state dict (for layers without a module:
            the name it would have).
        sources: indices in the list of the layers whose maps it takes.
        inputs, outputs: numbers of channels.
        level: number of poolings minus number of upsamplings from the image to its output.
        kernel, stride, padding: in pixels of its input.
        scale: factor by which it enlarges its input.
        dilation: distance in pixels between neighbouring kernel elements.
        bias: whether a convolution has a bias.
        groups: number of channel groups over which a norm computes statistics, per sample; 0 =
            per channel, over the whole batch.
        value: the constant that a norm adds to the variance, an activation's slope below 0, or the
            probability of dropout.
        training_only: its scores are used only in training (deep supervision).
    """

    kind: LayerKind
    name: str
    sources: tuple[int, ...]
    inputs: int
    outputs: int
    level: int
    kernel: Axes
    stride: Axes
    padding: Axes
    scale: Axes
    dilation: int = 1
    bias: bool = True
    groups: int = 0
    value: float = 0.0
    training_only: bool = False

    @property
    def products(self) -> int:
        """Multiplications per pixel of the output."""
        if self.kind not in ("conv", "up", "head"):
            return 0
        return self.inputs * self.outputs * math.prod(self.kernel)

    @property
    def parameters(self) -> int:
        """Number of trainable parameters."""
        if self.kind == "norm":
            return 2 * self.outputs
        bias = self.outputs if self.products and self.bias else 0
        return self.products * math.prod(self.scale) + bias

    def size(self, n: int, axis: int) -> tuple[int, int]:
        """Output size along an axis for an input of ``n`` pixels, and unused input pixels."""
        free = n + 2 * self.padding[axis] - self.dilation * (self.kernel[axis] - 1) - 1
        steps, rest = divmod(free, self.stride[axis])
        return (steps + 1) * self.scale[axis], rest

    def reach(self, interval: Interval, axis: int) -> Interval:
        """Input pixels [a, b) that these output pixels depend on."""
        (a, b), scale = interval, self.scale[axis]
        a, b = a // scale, -(-b // scale)
        first = a * self.stride[axis] - self.padding[axis]
        last = (b - 1) * self.stride[axis] - self.padding[axis]
        return first, last + self.dilation * (self.kernel[axis] - 1) + 1


Layers = tuple[Layer, ...]


class LayerList:
    """A list of layers under construction; layers are referred to by their index."""

    def __init__(self, dims: int, channels: int) -> None:
        one, zero = (1,) * dims, (0,) * dims
        self.layers = [Layer("image", "", (), channels, channels, 0, one, one, zero, one)]

    def add(
        self, kind: LayerKind, name: str, *sources: int, outputs: int | None = None, **values: Any
    ) -> int:
        """Adds a layer and returns its index; channels (by default) and level follow from its
        sources."""
        taken = [self.layers[source] for source in sources]
        inputs = sum(t.outputs for t in taken) if kind == "join" else taken[0].outputs
        down = kind == "pool" or max(values.get("stride", (1,))) > 1
        step = down - (kind in ("up", "enlarge"))
        layer = replace(
            self.layers[0], kind=kind, name=name, sources=sources, inputs=inputs,
            outputs=inputs if outputs is None else outputs, level=taken[0].level + step, **values,
        )  # fmt: skip
        self.layers.append(layer)
        return len(self.layers) - 1
