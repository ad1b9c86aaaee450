"""The layers of a network, as one list. Torch-free.

``unet.models`` builds each network from its list. Everything that the pipeline needs to know about
a network before it runs is computed from the same list: parameters and FLOP (here), accepted sizes
and receptive field (``geometry.py``), memory of a training step (``unet/training/auto/memory.py``).

The output of a layer is called a map. Layers are listed in the order in which they run. Each names
the layers whose maps it takes, so that skip connections and shortcuts are ordinary entries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from unet.config.layer_list import Axes, Interval, Layer, LayerKind, LayerList, Layers
from unet.config.presets import AnyArchitecture, Architecture, WindowArchitecture
from unet.config.resnet import resnet_layers

__all__ = [
    "Axes", "Interval", "Layer", "LayerKind", "Layers", "flop", "layers_of", "map_shapes",
    "parameters", "window_layers",
]  # fmt: skip


def _norm(net: LayerList, arch: Architecture, name: str, x: int) -> int:
    if arch.norm == "none":
        return x
    groups = 0 if arch.norm == "batch" else arch.groups_of(net.layers[x].outputs)
    return net.add("norm", name, x, groups=groups, value=arch.norm_eps)


def _shortcut(net: LayerList, arch: Architecture, name: str, x: int, width: int) -> int:
    """The shortcut around a block: the map itself, or a 1x1 convolution if channels differ."""
    if net.layers[x].outputs == width:
        return x
    if arch.norm == "none":
        return net.add("conv", f"{name}.shortcut", x, outputs=width)
    x = net.add("conv", f"{name}.shortcut.0", x, outputs=width, bias=False)
    return _norm(net, arch, f"{name}.shortcut.1", x)


def _block(
    net: LayerList, arch: Architecture, name: str, x: int, level: int, convs: int, residual: bool
) -> int:
    """Convolutions of a level, each with its activation and normalisation."""
    width, kernel, y = arch.widths[level], arch.kernel(level), x
    padding = tuple(k // 2 if arch.padding == "same" else 0 for k in kernel)
    for i in range(convs):
        y = net.add("conv", f"{name}.convs.{i}", y, outputs=width, kernel=kernel, padding=padding)
        if arch.order == "norm-act":
            y = _norm(net, arch, f"{name}.norms.{i}", y)
        if residual and i == convs - 1:
            # The sum is before the block's last activation (He et al. 2016).
            y = net.add("add", f"{name}.sum", y, _shortcut(net, arch, name, x, width))
        slope = 0.01 if arch.activation == "leaky_relu" else 0.0
        y = net.add("activation", f"{name}.activation", y, value=slope)
        if arch.order == "act-norm":
            y = _norm(net, arch, f"{name}.norms.{i}", y)
    return y


def _blocks(net: LayerList, arch: Architecture, name: str, x: int, level: int) -> int:
    """The blocks of a level of the contracting path, or of the bridge."""
    number = arch.blocks_of(level)
    for i in range(number):
        part = f"{name}.{i}" if number > 1 else name
        x = _block(net, arch, part, x, level, arch.convs, arch.residual)
    return x


def _dropout(net: LayerList, probability: float, x: int) -> int:
    return net.add("dropout", "dropout", x, value=probability) if probability else x


def _up(net: LayerList, arch: Architecture, name: str, x: int, level: int) -> int:
    width, factor = arch.widths[level], arch.pool(level)
    if arch.up == "transposed":
        return net.add("up", f"{name}.layers.0", x, outputs=width, scale=factor)
    x = net.add("conv", f"{name}.layers.0", x, outputs=width)
    return net.add("enlarge", f"{name}.layers.1", x, scale=factor)


def _gate(net: LayerList, name: str, up: int, skip: int) -> int:
    """An additive attention gate: the skip, weighted by a number in (0, 1) per pixel."""
    width = net.layers[skip].outputs
    inner = max(1, width // 2)
    signal = net.add("conv", f"{name}.signal", up, outputs=inner)
    # The other convolution's bias is enough for the sum.
    features = net.add("conv", f"{name}.features", skip, outputs=inner, bias=False)
    x = net.add("add", f"{name}.sum", signal, features)
    x = net.add("activation", f"{name}.activation", x)
    x = net.add("conv", f"{name}.score", x, outputs=1)
    x = net.add("sigmoid", f"{name}.sigmoid", x)
    return net.add("multiply", f"{name}.product", x, skip, outputs=width)


def _unet(arch: Architecture, channels: int, classes: int) -> Layers:
    if arch.depth < 1:
        raise ValueError(f"depth: got {arch.depth}, needs 1 or more")
    net, x, skips = LayerList(arch.dims, channels), 0, []
    for level in range(arch.depth):
        x = _blocks(net, arch, f"down.{level}", x, level)
        if level == arch.depth - 1:
            # As in the published network: at the end of the contracting path, on two levels.
            x = _dropout(net, arch.dropout, x)
        skips.append(x)
        x = net.add("pool", f"pool.{level}", x, kernel=arch.pool(level), stride=arch.pool(level))
    x = _dropout(net, arch.dropout, _blocks(net, arch, "bridge", x, arch.depth))
    for n, level in enumerate(reversed(range(arch.depth))):
        x = _up(net, arch, f"up.{n}", x, level)
        skip = _gate(net, f"gates.{n}", x, skips[level]) if arch.attention else skips[level]
        x = net.add("join", f"expand.{n}.join", x, skip)
        plain = arch.decoder_convs
        given = (arch.convs, arch.residual) if plain is None else (plain, False)
        x = _block(net, arch, f"expand.{n}", x, level, *given)
        if level in arch.supervised:
            net.add("head", f"heads.{level}", x, outputs=classes, training_only=level > 0)
    return tuple(net.layers)


def window_layers(
    arch: WindowArchitecture, channels: int, classes: int, dense: bool = True
) -> Layers:
    """Layers of a sliding-window classifier. ``dense``: as they run over an image, with poolings of
    stride 1 and dilated layers after them; otherwise as published, for a single window."""
    net, x, step, pool = LayerList(arch.dims, channels), 0, 1, (arch.pool,) * arch.dims
    for i, (maps, size) in enumerate(arch.stages):
        kernel = (size,) * arch.dims
        x = net.add("conv", f"convs.{i}", x, outputs=maps, kernel=kernel, dilation=step)
        stride = (1,) * arch.dims if dense else pool
        # Pooling before the activation gives the same result with a quarter of the work.
        x = net.add("pool", f"pool.{i}", x, kernel=pool, stride=stride, dilation=step)
        x = net.add("activation", f"activation.{i}", x)
        step *= arch.pool if dense else 1
    # Fully connected layers, written as convolutions so that they can slide over the image: the
    # first one covers the remaining window, the others one pixel.
    kernel = (arch.sizes[-1],) * arch.dims
    for i, neurons in enumerate(arch.hidden):
        x = net.add("conv", f"full.{i}", x, outputs=neurons, kernel=kernel, dilation=step)
        x = net.add("activation", f"activation.full.{i}", x)
        kernel, step = (1,) * arch.dims, 1
    x = _dropout(net, arch.dropout, x)
    net.add("head", f"full.{len(arch.hidden)}", x, outputs=classes, kernel=kernel, dilation=step)
    return tuple(net.layers)


# The layers of each kind of network. To add one, add a line.
_LISTED: dict[str, Callable[[Any, int, int], Layers]] = {
    "unet": _unet,
    "window": window_layers,
    "resnet": resnet_layers,
}


@lru_cache(maxsize=256)
def layers_of(arch: AnyArchitecture, channels: int = 1, classes: int = 1) -> Layers:
    """All layers of a network, from the image to the class scores of the finest level."""
    return _LISTED[arch.kind](arch, channels, classes)


def parameters(layers: Layers) -> int:
    """Number of trainable parameters."""
    return sum(layer.parameters for layer in layers)


def map_shapes(layers: Layers, shape: Sequence[int]) -> list[Axes]:
    """Spatial shape of each layer's map, for an image of this spatial shape."""
    found = [tuple(shape)]
    for layer in layers[1:]:
        source = found[layer.sources[0]]
        found.append(tuple(layer.size(n, axis)[0] for axis, n in enumerate(source)))
    return found


def flop(layers: Layers, shape: Sequence[int], training: bool = False) -> int:
    """FLOP of the convolutions in a forward pass of one image; a multiplication with an addition
    counts as two."""
    return sum(
        2 * layer.products * math.prod(size)
        for layer, size in zip(layers, map_shapes(layers, shape), strict=True)
        if training or not layer.training_only
    )
