"""How much memory a training step takes, derived from the layers. Torch-free.

What the backward pass needs is kept from the forward pass, tensor by tensor: of each convolution
its input, of each normalisation its input, of each activation its output, of each pooling the
places of the maxima. To that come the gradients of the widest level, which exist while all of it is
still there, the weights with their gradients and the optimizer's averages, and what the libraries
take for themselves. ``benchmarks/step_memory.py`` holds the result against real steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

from unet.config.layers import Layer, Layers, layers_of, map_shapes, parameters
from unet.config.presets import Architecture

Kind = Literal["cpu", "cuda"]

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

    def normed(self, norm: Layer | None) -> int:
        """Bytes kept per value of a norm's input: one over groups of channels works on a float32
        copy of what bfloat16 convolutions give."""
        return 4 if norm is not None and 0 < norm.groups < norm.outputs else self.conv


def kept_bytes(layers: Layers, patch: Sequence[int], numerics: Numerics) -> float:
    """What the network's forward pass on one sample keeps for the backward pass.

    Args:
        layers: of the network.
        patch: input size per spatial axis.
        numerics: what a value takes.
    """
    shapes = map_shapes(layers, patch)
    values = [layer.outputs * math.prod(n) for layer, n in zip(layers, shapes, strict=True)]
    widths = [4]  # bytes of a value of each map
    maps: dict[int, float] = {}
    more = 0.0

    def keep(place: int, width: int) -> float:
        """Keeps a map, once, or a copy of it in another precision; bytes of the copy."""
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
            case "pool":
                width = 4 if numerics.wide_pooling(len(patch)) else width
                # Where the maxima were, as int64.
                more += keep(source, width) + 8 * values[place]
            case "dropout":
                # Which values it kept: a GPU as bytes, the CPU as factors.
                more += (width if numerics.device == "cpu" else 1) * values[place]
            case "image" | "enlarge" | "join" | "add":
                pass
            case _:
                assert_never(layer.kind)
        widths.append(width)
    return sum(maps.values()) + more


def activation_bytes(layers: Layers, patch: Sequence[int], numerics: Numerics) -> float:
    """What one sample's forward pass keeps, augmentation and loss included; see kept_bytes."""
    shapes = zip(layers, map_shapes(layers, patch), strict=True)
    scores = sum(la.outputs * math.prod(shape) for la, shape in shapes if la.kind == "head")
    # The image, what augmentation made of it; class indices as int64.
    given = math.prod(patch) * (layers[0].outputs * 2 * 4 + 2 * 8)
    return kept_bytes(layers, patch, numerics) + given + LOSS_TENSORS * 4 * scores


def transient_bytes(layers: Layers, patch: Sequence[int], numerics: Numerics) -> float:
    """Gradients of one sample that are there at once, at the finest level, where they are largest:
    of a convolution's output and of its input (at most the joined maps, twice as wide), and of the
    skip connection; more where maps are enlarged after their convolution. Instance
    normalisation goes sample by sample and joins the results, group normalisation works on float32
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
    layers = layers_of(arch, channels, outputs)
    sample = activation_bytes(layers, patch, numerics) + transient_bytes(layers, patch, numerics)
    weights = 4 * WEIGHT_COPIES[numerics.conv] * parameters(layers)
    return MEMORY_SLACK[numerics.device] * (batch * sample + weights) + OVERHEAD[numerics.device]
