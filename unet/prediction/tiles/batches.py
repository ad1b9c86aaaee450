"""Which tiles go through the network together: planned once, the same for every run that goes on.

A batch holds windows of one shape, of one image or of several small ones. The batches follow from
the images alone and not from what is done already: a processor may round differently when it
computes another number of windows at once, and a run that was killed and goes on is to end with the
very bytes of one that was not.
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
    """An image that is to be predicted.

    Attributes:
        image: id.
        part: why it is predicted, test or val.
        key: hash of all that determines its tiles.
        plan: its windows.
        batch: the most of its windows that go through the network together.
        attrs: what is noted beside its tiles.
    """

    image: str
    part: str
    key: str
    plan: WindowPlan
    batch: int
    attrs: dict[str, Any]

    @property
    def pixels(self) -> int:
        """Of the image."""
        return int(np.prod(self.plan.shape))

    @property
    def computed(self) -> int:
        """Pixels that go through the network."""
        return int(np.prod(self.plan.window)) * len(self.plan.tiles)

    def stored_bytes(self, classes: int, itemsize: int) -> int:
        """Bytes of its tiles before they are compressed, of which there will be fewer."""
        return int(np.prod(self.plan.core)) * len(self.plan.tiles) * classes * itemsize

    def entry(self, skipped: int = 0) -> dict[str, Any]:
        """What the sentinel says of it.

        Args:
            skipped: number of tiles that were found to be empty.
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
        # An ensemble's validation images are predicted by one network each.
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
    """Every ``count``-th batch from ``index`` on: equal work for all, in each image."""
    for number, batch in enumerate(items):
        if number % count == index:
            yield batch
