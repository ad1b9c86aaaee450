"""Estimates the memory of a training step from the layers. Torch-free.

The forward pass keeps tensors for the backward pass: the input of each convolution and
normalisation, the output of each activation, the positions of the maxima of each pooling. In
addition there are the gradients of the finest level, while all of these are still in memory; the
weights with their gradients and the optimizer's averages; and the memory of the libraries.
``benchmarks/step_memory.py`` compares the estimate with real steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

from unet.config.layers import Layer, Layers, layers_of, map_shapes, parameters
from unet.config.presets import AnyUNet

Kind = Literal["cpu", "cuda"]

# Number of float32 tensors with one value per pixel and class that loss and scores keep.
LOSS_TENSORS = 8
# Number of float32 copies of all weights, by the bytes of a convolution's value: the weights, their
# gradients, the optimizer's averages (at most two), scratch memory of the update; with 2 bytes also
# autocast's copies of weights and gradients.
WEIGHT_COPIES = {4: 5.0, 2: 6.5}
# Bytes that libraries take for any network: thread buffers, kernels, allocator pages.
OVERHEAD = {"cpu": 6e7, "cuda": 1e9}
# Factor for the allocators' waste and the convolutions' scratch memory.
MEMORY_SLACK = {"cpu": 1.35, "cuda": 1.25}


@dataclass(frozen=True)
class Numerics:
    """The number format, which determines the bytes per value.

    Attributes:
        device: kind of device.
        precision: float32, tf32 or bfloat16 (autocast: weights stay float32).
    """

    device: Kind = "cpu"
    precision: str = "float32"

    @property
    def conv(self) -> int:
        """Bytes per value of a convolution's input and output."""
        return 2 if self.precision == "bfloat16" else 4

    def wide_pooling(self, dims: int) -> bool:
        """Whether poolings are in float32 under autocast: on the CPU, in 3D."""
        return self.device == "cpu" and self.conv == 2 and dims == 3

    def normed(self, norm: Layer | None) -> int:
        """Bytes kept per value of a norm's input; group normalisation makes a float32 copy of
        bfloat16 inputs."""
        return 4 if norm is not None and 0 < norm.groups < norm.outputs else self.conv


def kept_bytes(layers: Layers, patch: Sequence[int], numerics: Numerics) -> float:
    """Bytes that the network's forward pass on one sample keeps for the backward pass.

    Args:
        layers: of the network.
        patch: input size per spatial axis.
        numerics: bytes per value.
    """
    shapes = map_shapes(layers, patch)
    values = [layer.outputs * math.prod(n) for layer, n in zip(layers, shapes, strict=True)]
    widths = [4]  # bytes of a value of each map
    maps: dict[int, float] = {}
    more = 0.0

    def keep(place: int, width: int) -> float:
        """Records that a map is kept; returns the bytes of its copy if it has another width."""
        if width == widths[place]:
            maps[place] = width * values[place]
            return 0.0
        return width * values[place]

    for place, layer in enumerate(layers[1:], 1):
        source, width = layer.sources[0], max(widths[n] for n in layer.sources)
        match layer.kind:
            case "conv" | "up" | "head":
                more += keep(source, numerics.conv)
                width = numerics.conv
            case "norm":
                more += keep(source, max(width, numerics.normed(layer)))
            case "activation":  # in place
                maps[place] = width * values[place]
            case "sigmoid":
                maps[place] = width * values[place]
            case "multiply":  # both factors, as they are
                for factor in layer.sources:
                    more += keep(factor, widths[factor])
            case "pool":
                width = 4 if numerics.wide_pooling(len(patch)) else width
                # The positions of the maxima, as int64.
                more += keep(source, width) + 8 * values[place]
            case "dropout":
                # The mask: bytes on a GPU, factors on the CPU.
                more += (width if numerics.device == "cpu" else 1) * values[place]
            case "image" | "enlarge" | "join" | "add":
                pass
            case _:
                assert_never(layer.kind)
        widths.append(width)
    return sum(maps.values()) + more


def activation_bytes(layers: Layers, patch: Sequence[int], numerics: Numerics) -> float:
    """Bytes that one sample's forward pass keeps, with augmentation and loss; see kept_bytes."""
    shapes = zip(layers, map_shapes(layers, patch), strict=True)
    scores = sum(la.outputs * math.prod(shape) for la, shape in shapes if la.kind == "head")
    # The image, the augmented image; class indices as int64.
    given = math.prod(patch) * (layers[0].outputs * 2 * 4 + 2 * 8)
    return kept_bytes(layers, patch, numerics) + given + LOSS_TENSORS * 4 * scores


def transient_bytes(layers: Layers, patch: Sequence[int], numerics: Numerics) -> float:
    """Bytes of one sample's gradients that are in memory at once, at the finest level, where they
    are largest: those of a convolution's output and input (at most the joined maps, twice as wide)
    and of the skip connection; more if maps are enlarged after their convolution. Instance
    normalisation computes sample by sample and joins the results; group normalisation uses float32
    copies of its input and gradient."""
    finest = [layer for layer in layers if layer.level == 0]
    norm = next((layer for layer in finest if layer.kind == "norm"), None)
    tensors = 5.5 if any(layer.kind == "enlarge" for layer in finest) else 3.5
    value = tensors * numerics.normed(norm)
    if norm is not None and norm.groups == norm.outputs:
        value += 8 * numerics.conv
    elif norm is not None and norm.groups:
        value += 4 * 4
    return value * layers[1].outputs * math.prod(patch)


def step_bytes(
    arch: AnyUNet,
    channels: int,
    outputs: int,
    patch: Sequence[int],
    batch: int,
    numerics: Numerics,
) -> float:
    """Peak memory of a training step in bytes, beyond the idle program; a cautious estimate.

    Args:
        batch: number of samples on one device.
    """
    layers = layers_of(arch, channels, outputs)
    sample = activation_bytes(layers, patch, numerics) + transient_bytes(layers, patch, numerics)
    weights = 4 * WEIGHT_COPIES[numerics.conv] * parameters(layers)
    return MEMORY_SLACK[numerics.device] * (batch * sample + weights) + OVERHEAD[numerics.device]
