"""One image's predicted channels, read region by region under the names of its head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unet.data.tiling import Slices
from unet.prediction.objects.components import Mask, ReadMask

# Reads a region [(Z,) Y, X] of a channel, given its index. The result depends on nothing else.
ReadClass = Callable[[int, Slices], NDArray[np.float32]]
ReadMap = Callable[[Slices], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Probabilities:
    """The channels of one image.

    Attributes:
        read_class: returns a region of a channel; called from several threads.
        head: names of the channels, including "background".
    """

    read_class: ReadClass
    head: tuple[str, ...]

    def channel(self, name: str) -> ReadMap:
        """A function that reads the channel with this name."""
        index = self.head.index(name)
        return lambda region: self.read_class(index, region)

    def foreground(self, above: float) -> ReadMask:
        """A function that reads the mask 1 - p[background] > above."""
        background = self.channel("background")

        def read(region: Slices) -> Mask:
            return 1 - background(region) > above

        return read
