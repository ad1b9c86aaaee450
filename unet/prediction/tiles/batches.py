"""Which tiles go through the network together: planned once, the same for every resumed run.

A batch contains windows of one shape, from one image or from several small ones. The batches depend
only on the images and not on what is already done: a processor may round differently when it
computes another number of windows at once, and a run that was killed and resumed must give exactly
the same bytes as one that was not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from unet.data.tiling import WindowPlan

# Image id and number of the tile.
Batch = tuple[tuple[str, int], ...]


@dataclass(frozen=True, eq=False)
class Planned:
    """An image to predict.

    Attributes:
        image: id.
        part: why it is predicted, test or val.
        key: hash of everything that determines its tiles.
        plan: its windows.
        batch: largest number of its windows that go through the network together.
        attrs: attributes to store with its tiles.
    """

    image: str
    part: str
    key: str
    plan: WindowPlan
    batch: int
    attrs: dict[str, Any]

    @property
    def pixels(self) -> int:
        """Pixels of the image."""
        return int(np.prod(self.plan.shape))

    @property
    def computed(self) -> int:
        """Pixels that go through the network."""
        return int(np.prod(self.plan.window)) * len(self.plan.tiles)

    def stored_bytes(self, classes: int, itemsize: int) -> int:
        """Bytes of its tiles before compression, an upper limit."""
        return int(np.prod(self.plan.core)) * len(self.plan.tiles) * classes * itemsize

    def entry(self, skipped: int = 0) -> dict[str, Any]:
        """Its entry in the sentinel.

        Args:
            skipped: number of tiles that were skipped as empty.
        """
        return {
            "key": self.key,
            "shape": list(self.plan.shape),
            "part": self.part,
            "tiles": len(self.plan.tiles),
            "skipped": skipped,
        }


def batches(images: Iterable[Planned]) -> Iterator[Batch]:
    """All tiles of all images, in order, as batches."""
    waiting: list[tuple[str, int]] = []
    window: tuple[int, ...] = ()
    network: Any = None
    most = 1
    for image in images:
        # In an ensemble, each validation image is predicted by one network.
        alike = image.plan.window == window and image.attrs.get("network") == network
        if waiting and not alike:
            yield tuple(waiting)
            waiting = []
        window, network, most = image.plan.window, image.attrs.get("network"), image.batch
        for tile in image.plan.tiles:
            waiting.append((image.image, tile.index))
            if len(waiting) >= most:
                yield tuple(waiting)
                waiting = []
    if waiting:
        yield tuple(waiting)


def shard_of(items: Iterable[Batch], index: int, count: int) -> Iterator[Batch]:
    """Every ``count``-th batch from ``index`` on, so that each image is shared out evenly."""
    for number, batch in enumerate(items):
        if number % count == index:
            yield batch
