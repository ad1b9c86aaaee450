"""How much memory a training step takes, derived from the layers. Torch-free.

What the backward pass needs is kept from the forward pass, tensor by tensor: of each convolution
its input, of each normalisation its input, of each activation its output, of each pooling the
places of the maxima. To that come the gradients of the widest level, which exist while all of it is
still there, the weights with their gradients and the optimizer's averages, and what the libraries
take for themselves. ``benchmarks/step_memory.py`` holds the result against real steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from unet.config.presets import Architecture

Kind = Literal["cpu", "cuda"]
Shape = tuple[int, ...]

# Tensors of one value per pixel and class that loss and scores keep (float32).
LOSS_TENSORS = 8
# Copies of all weights in float32, by the bytes of a convolution's value: they, their gradients,
# the optimizer's (at most) two averages, what the update works in; and autocast's copies of both.
WEIGHT_COPIES = {4: 5.0, 2: 6.5}
# Bytes that libraries take whatever the network: thread buffers, kernels, allocator pages.
OVERHEAD = {"cpu": 6e7, "cuda": 1e9}
# What the allocators waste, and the convolutions' scratch memory, as a share of the rest.
MEMORY_SLACK = {"cpu": 1.35, "cuda": 1.25}


@dataclass(frozen=True)
class Numerics:
    """What a value takes.

    Attributes:
        device: kind of device.
        precision: float32, tf32 or bfloat16 (autocast: weights stay float32).
    """

    device: Kind = "cpu"
    precision: str = "float32"

    @property
    def conv(self) -> int:
        """Bytes of a value that goes into or comes out of a convolution."""
        return 2 if self.precision == "bfloat16" else 4

    def wide_pooling(self, dims: int) -> bool:
        """Whether the CPU's autocast computes the poolings in float32: those of volumes."""
        return self.device == "cpu" and self.conv == 2 and dims == 3

    def normed(self, arch: Architecture, channels: int) -> int:
        """Bytes kept per value of a normalisation's input: one over groups of channels works on a
        float32 copy of what bfloat16 convolutions give."""
        grouped = arch.norm == "group" and arch.groups_of(channels) < channels
        return 4 if grouped else self.conv


@dataclass(frozen=True)
class _Layer:
    """Convolution ``inputs`` to ``outputs`` channels with a kernel of so many pixels."""

    inputs: int
    outputs: int
    kernel: int
    bias: bool = True
    norm: bool = False

    @property
    def parameters(self) -> int:
        extra = (1 if self.bias else 0) + (2 if self.norm else 0)
        return self.inputs * self.outputs * self.kernel + extra * self.outputs


def _layers(arch: Architecture, channels: int, outputs: int) -> Iterator[_Layer]:
    """All layers with weights."""
    normed = arch.norm != "none"
    widths = arch.widths

    def block(inputs: int, level: int) -> Iterator[_Layer]:
        kernel, width = math.prod(arch.kernel(level)), widths[level]
        for n in (inputs, *[width] * (arch.convs - 1)):
            yield _Layer(n, width, kernel, norm=normed)
        if arch.residual and inputs != width:
            yield _Layer(inputs, width, 1, bias=not normed, norm=normed)

    for level in range(arch.depth + 1):
        yield from block(channels if level == 0 else widths[level - 1], level)
    for level in range(arch.depth):
        kernel = math.prod(arch.pool(level)) if arch.up == "transposed" else 1
        yield _Layer(widths[level + 1], widths[level], kernel)
        yield from block(2 * widths[level], level)
    for level in arch.supervised:
        yield _Layer(widths[level], outputs, 1)


def parameters(arch: Architecture, channels: int, outputs: int) -> int:
    """Number of weights that training changes."""
    return sum(layer.parameters for layer in _layers(arch, channels, outputs))


class _Walk:
    """Counts what is kept, in bytes per sample, on the way through the network."""

    def __init__(self, arch: Architecture, numerics: Numerics) -> None:
        self.arch, self.conv = arch, numerics.conv
        self.numerics = numerics
        self.wide_pooling = numerics.wide_pooling(arch.dims)
        self.kept = 0.0

    def copies(self, inputs: int, level: int, wide: bool) -> int:
        """How often a block's input is kept in the convolutions' precision: where it is wider, the
        shortcut's convolution takes a copy of its own."""
        return 2 if wide and self.arch.residual and inputs != self.arch.widths[level] else 1

    def block(self, inputs: int, level: int, shape: Shape) -> Shape:
        """A level's convolutions; what they put out counts as kept, their input does not."""
        arch, width = self.arch, self.arch.widths[level]
        for last in (*[False] * (arch.convs - 1), True):
            if arch.padding == "valid":
                kernel = arch.kernel(level)
                shape = tuple(n - k + 1 for n, k in zip(shape, kernel, strict=True))
            values = width * math.prod(shape)
            if arch.norm == "none":
                self.kept += self.conv * values
            else:
                self.kept += (self.numerics.normed(arch, width) + self.conv) * values
            if last and arch.residual and inputs != width and arch.norm != "none":
                # The shortcut's convolution, as the input of its normalisation.
                self.kept += self.numerics.normed(arch, width) * values
        return shape

    def down(self, level: int, shape: Shape) -> Shape:
        width = self.arch.widths[level]
        if self.wide_pooling:
            self.kept += 4 * width * math.prod(shape)
        shape = tuple(n // p for n, p in zip(shape, self.arch.pool(level), strict=True))
        copies = self.copies(width, level + 1, self.wide_pooling)
        # The maxima, and where they were (int64).
        self.kept += (copies * self.conv + 8) * width * math.prod(shape)
        return shape

    def up(self, level: int, shape: Shape) -> Shape:
        shape = tuple(n * p for n, p in zip(shape, self.arch.pool(level), strict=True))
        width = 2 * self.arch.widths[level]
        # What comes up and the skip connection, side by side.
        self.kept += self.conv * width * math.prod(shape)
        return shape


def activation_bytes(
    arch: Architecture, channels: int, outputs: int, patch: Sequence[int], numerics: Numerics
) -> float:
    """What one sample's forward pass keeps for the backward pass, the loss included.

    Args:
        arch: the layers.
        channels, outputs: C of the images, K of the scores.
        patch: input size per spatial axis.
    """
    walk = _Walk(arch, numerics)
    shape = tuple(patch)
    copies = walk.copies(channels, 0, walk.conv == 2)
    # The image, what augmentation made of it, and its cast; class indices as int64.
    walk.kept += math.prod(shape) * (channels * (4 + 4 + copies * walk.conv) + 2 * 8)
    inputs, scored = channels, 0
    for level in range(arch.depth):
        shape = walk.block(inputs, level, shape)
        inputs = arch.widths[level]
        shape = walk.down(level, shape)
    shape = walk.block(inputs, arch.depth, shape)
    for level in reversed(range(arch.depth)):
        shape = walk.up(level, shape)
        shape = walk.block(2 * arch.widths[level], level, shape)
        if level in arch.supervised:
            scored += math.prod(shape)
    return walk.kept + LOSS_TENSORS * 4 * outputs * scored


def transient_bytes(arch: Architecture, patch: Sequence[int], numerics: Numerics) -> float:
    """Gradients of one sample that are there at once, at the finest level, where they are largest:
    of a convolution's output and of its input (at most the joined maps, twice as wide), and of the
    skip connection; more where maps are enlarged after their convolution. Instance
    normalisation goes sample by sample and joins the results, group normalisation works on float32
    copies of its input and gradient."""
    tensors = 3.5 if arch.up == "transposed" else 5.5
    value = tensors * numerics.normed(arch, arch.widths[0])
    if arch.norm == "instance":
        value += 8 * numerics.conv
    elif arch.norm == "group":
        value += 4 * 4
    return value * arch.widths[0] * math.prod(patch)


def step_bytes(
    arch: Architecture,
    channels: int,
    outputs: int,
    patch: Sequence[int],
    batch: int,
    numerics: Numerics,
) -> float:
    """Peak memory of a training step beyond that of the idle program, in bytes; on the safe side.

    Args:
        batch: samples at once on one device.
    """
    sample = activation_bytes(arch, channels, outputs, patch, numerics)
    sample += transient_bytes(arch, patch, numerics)
    weights = 4 * WEIGHT_COPIES[numerics.conv] * parameters(arch, channels, outputs)
    return MEMORY_SLACK[numerics.device] * (batch * sample + weights) + OVERHEAD[numerics.device]
