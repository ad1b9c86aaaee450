"""The methods that turn probabilities into objects, by their name in the config
(``stitch.method``).

To add a method, write a file with one function of the signature `Segment`, a line in `METHODS`,
and one in `unet.config.choices.METHOD_TABLE` that describes it and names the head it needs.
"""

from __future__ import annotations

from collections.abc import Callable

from unet.config.choices import METHOD_TABLE
from unet.config.heads import HEADS
from unet.config.sections import StitchSection
from unet.data.blocks import Grid
from unet.errors import UserError
from unet.prediction.objects.components import LabelArray, components
from unet.prediction.objects.grow import segment_grow
from unet.prediction.objects.probabilities import Probabilities, ReadClass
from unet.prediction.objects.temporary_arrays import Scratch
from unet.prediction.objects.watershed import segment_watershed

# The image's channels, its blocks, temporary arrays, settings, threshold, threads.
Segment = Callable[[Probabilities, Grid, Scratch, StitchSection, float, int], LabelArray]


def segment(
    read: ReadClass,
    grid: Grid,
    scratch: Scratch,
    head: tuple[str, ...],
    section: StitchSection,
    threshold: float,
    threads: int = 1,
) -> LabelArray:
    """Objects of one image from the channels that a network predicted, by ``section.method``.

    Every method drops objects below ``min_size`` pixels at the end, and its result does not depend
    on the blocks or the threads.

    Args:
        read: returns a region [(Z,) Y, X] of a channel; called from several threads.
        head: names of the channels: "background" and those that the method needs.

    Raises:
        UserError: the head lacks a channel that the method needs.
    """
    needed = METHOD_TABLE[section.method].head
    channels = HEADS[needed].channels if needed else None
    missing = [name for name in channels or ("background",) if name not in head]
    if missing:
        raise UserError(
            f"stitch.method: {section.method} needs {', '.join(missing)}, but the model predicts "
            f"{', '.join(head)}; train a model with head: {needed or 'classes'}, or write another "
            "method"
        )
    probabilities = Probabilities(read, head)
    return METHODS[section.method](probabilities, grid, scratch, section, threshold, threads)


def segment_components(
    probabilities: Probabilities,
    grid: Grid,
    scratch: Scratch,
    section: StitchSection,
    threshold: float,
    threads: int,
) -> LabelArray:
    """Connected components of 1 - p[background] > threshold, with holes filled."""
    return components(
        probabilities.foreground(threshold),
        grid,
        scratch,
        connectivity=section.connectivity,
        min_size=section.min_size,
        fill_holes=section.fill_holes,
        threads=threads,
    )


METHODS: dict[str, Segment] = {
    "components": segment_components,
    "grow": segment_grow,
    "watershed": segment_watershed,
}
