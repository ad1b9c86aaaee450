"""Tiles of which a declared intensity says that they hold nothing (``predict.skip``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.config.heads import classes_among
from unet.config.sections import SkipSection
from unet.data import normalize
from unet.errors import UserError


@dataclass(frozen=True)
class Skipper:
    """Tells empty windows, and what is predicted there.

    Attributes:
        channel: that is looked at.
        limit: its intensity beyond which a pixel is empty, normalised as the prepared image is.
        darker: whether empty is what lies below the limit, not above it.
        share: of a window's pixels that must be empty.
        background: index of the class that empty tiles are.
    """

    channel: int
    limit: float
    darker: bool
    share: float
    background: int

    def empty(self, window: NDArray[np.float32]) -> bool:
        """Whether a normalised window [C, (Z,) Y, X], its halo and mirrored parts included, holds
        nothing. What was no number in the file counts as normalised 0."""
        pixels = window[self.channel]
        beyond = pixels < self.limit if self.darker else pixels > self.limit
        return bool(np.count_nonzero(beyond) >= self.share * pixels.size)

    def fill(self, head: Sequence[str]) -> NDArray[np.float32]:
        """What is stored for each pixel of an empty tile, float32 [K]: 1 for the background, 0 for
        all other channels of the head."""
        values = np.zeros(len(head), np.float32)
        values[self.background] = 1
        return values


def skipper(
    section: SkipSection | None,
    head: Sequence[str],
    statistics: Mapping[str, Any],
    normalization: Mapping[str, Any],
) -> Skipper | None:
    """The rule for one image; None where nothing is skipped.

    Args:
        section: the config's ``predict.skip``.
        head: names of the network's channels.
        statistics: of the prepared image (:func:`unet.data.normalize.describe`): the intensity of
            the file is normalised by them as its pixels were.
        normalization: the store's section ``normalize``.

    Raises:
        UserError: the image has no such channel, the head no such class, or it is not known how
            the image was normalised.
    """
    if section is None:
        return None
    classes = tuple(head)[: classes_among(tuple(head))]
    if section.fill is not None and section.fill not in classes:
        raise UserError(
            f"predict.skip.fill: no class {section.fill!r}; there are: {', '.join(classes)}"
        )
    method = str(normalization.get("method"))
    if method not in normalize.NORMALIZE_METHODS or not {"shift", "scale"} <= set(statistics):
        raise UserError(
            f"predict.skip: intensities of the image files cannot be compared with images that "
            f"were normalised by {method!r}; leave predict.skip out, or prepare the images anew"
        )
    channels = len(statistics["shift"])
    if section.channel >= channels:
        raise UserError(
            f"predict.skip.channel: got {section.channel}, but the images have {channels} "
            f"channel(s); write a number below {channels}"
        )
    return Skipper(
        channel=section.channel,
        limit=_normalized(section, channels, statistics),
        darker=section.darker_than is not None,
        share=section.share,
        background=0 if section.fill is None else classes.index(section.fill),
    )


def _normalized(section: SkipSection, channels: int, statistics: Mapping[str, Any]) -> float:
    """The limit as a pixel of that value is in the prepared image. The scale is above 0, so what
    was darker is still."""
    darker = section.darker_than is not None
    value = section.darker_than if section.darker_than is not None else section.brighter_than
    pixel = np.full((channels, 1), value, np.float64)
    pixels = [pixel]
    # Images of narrow integers are normalised in float32, others in float64: whichever it was, a
    # pixel at the limit shall not be beyond it.
    whole = np.trunc(pixel[0, 0])
    if whole == pixel[0, 0] and (narrow := np.min_scalar_type(int(whole))).itemsize <= 2:
        pixels.append(pixel.astype(narrow))
    limits = [float(normalize.apply(p, dict(statistics))[section.channel, 0]) for p in pixels]
    return min(limits) if darker else max(limits)
