"""A network of ours as the listed network that packages carry (:mod:`unet.models.zoo_network`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unet.config.geometry import Footprint, footprint
from unet.config.heads import classes_among
from unet.config.layers import Layers, layers_of, map_shapes
from unet.models.model_file import ModelFile
from unet.models.zoo_network import ListedNetwork


@dataclass(frozen=True)
class Sizes:
    """What other programs must know of an axis to tile without seams; in pixels.

    Attributes:
        halo: at each side of an output, not to be kept; a multiple of ``step``.
        least: the smallest accepted size, with the halo.
        step: accepted sizes are ``least`` plus multiples of this.
        skip: pixels at the start that an unpadded network does not see. With them, its windows
            start on the same grid as ours.
    """

    halo: int
    least: int
    step: int
    skip: int

    @classmethod
    def of(cls, fp: Footprint) -> Sizes:
        """The sizes along an axis.

        Our windows of an unpadded network begin ``margin`` pixels before their core, at a core on
        the grid, and have ``remainder`` pixels more than a multiple of the grid. Other programs
        shift windows by their size without twice the halo. So the halo is made a multiple of the
        grid, and the network cuts what is too much off the start.
        """
        if not fp.margin:
            return cls(fp.halo, max(2 * fp.halo + fp.grid, fp.smallest), fp.grid, 0)
        skip = (fp.remainder - 2 * fp.margin) % fp.grid
        halo = fp.margin + skip
        least = max(2 * halo + fp.grid, fp.smallest + skip)
        return cls(halo, least + (2 * halo - least) % fp.grid, fp.grid, skip)

    def fit(self, size: int) -> int:
        """The smallest accepted size that is not below ``size``."""
        return max(size, self.least) + (self.least - max(size, self.least)) % self.step


def sizes_of(model: ModelFile) -> tuple[Sizes, ...]:
    """The sizes per spatial axis ((Z) Y X)."""
    return tuple(Sizes.of(fp) for fp in footprint(model.architecture))


def network_arguments(model: ModelFile) -> dict[str, Any]:
    """The arguments of the listed network, as plain values."""
    layers = layers_of(model.architecture, model.in_channels, len(model.head))
    fps, sizes = footprint(model.architecture), sizes_of(model)
    unpadded = any(fp.margin for fp in fps)
    output = max(
        i for i, layer in enumerate(layers) if layer.kind == "head" and not layer.training_only
    )
    return {
        "layers": _plain(layers, tuple(fp.smallest for fp in fps)),
        "output": output,
        "softmax": classes_among(model.head),
        "skip": [size.skip for size in sizes],
        "margin": [size.halo if unpadded else 0 for size in sizes],
    }


def _plain(layers: Layers, smallest: tuple[int, ...]) -> list[dict[str, Any]]:
    # What is cut off a map depends on the layers alone, not on the image: any size tells.
    shapes, found = map_shapes(layers, smallest), []
    for layer in layers:
        first = shapes[layer.sources[0]] if layer.sources else ()
        crops = [
            [(a - b) // 2 for a, b in zip(shapes[source], first, strict=True)]
            for source in layer.sources
        ]
        found.append(
            {
                "kind": layer.kind, "name": layer.name, "sources": list(layer.sources),
                "crops": crops, "inputs": layer.inputs, "outputs": layer.outputs,
                "kernel": list(layer.kernel), "stride": list(layer.stride),
                "padding": list(layer.padding), "scale": list(layer.scale),
                "dilation": layer.dilation, "bias": layer.bias, "groups": layer.groups,
                "value": layer.value, "training_only": layer.training_only,
            }
        )  # fmt: skip
    return found


def listed_network(model: ModelFile) -> ListedNetwork:
    """The listed network with the model's weights, in evaluation mode."""
    network = ListedNetwork(**network_arguments(model))
    network.load_state_dict(model.weights)
    return network.eval()
