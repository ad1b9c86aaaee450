"""Recognises empty tiles by an intensity limit (``predict.skip``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.config.heads import classes_among
from unet.config.sections import SkipSection
from unet.data import normalize
from unet.errors import UserError, how_many


@dataclass(frozen=True)
class Skipper:
    """Recognises empty windows, and gives their prediction.

    Attributes:
        channel: the channel to check.
        limit: intensity beyond which a pixel is empty, normalised like the prepared image.
        darker: whether pixels below the limit are empty; if not, those above it.
        share: share of a window's pixels that must be empty.
        background: index of the class to predict in empty tiles.
    """

    channel: int
    limit: float
    darker: bool
    share: float
    background: int

    def empty(self, window: NDArray[np.float32]) -> bool:
        """Whether a normalised window [C, (Z,) Y, X] is empty, including its halo and mirrored
        parts. Pixels that were NaN in the file count as a normalised 0."""
        pixels = window[self.channel]
        beyond = pixels < self.limit if self.darker else pixels > self.limit
        return bool(np.count_nonzero(beyond) >= self.share * pixels.size)

    def fill(self, head: Sequence[str]) -> NDArray[np.float32]:
        """The values to store for each pixel of an empty tile, float32 [K]: 1 for the background,
        0 for all other channels of the head."""
        values = np.zeros(len(head), np.float32)
        values[self.background] = 1
        return values


def skipper(
    section: SkipSection | None,
    head: Sequence[str],
    statistics: Mapping[str, Any],
    normalization: Mapping[str, Any],
) -> Skipper | None:
    """The rule for one image; None if nothing is skipped.

    Args:
        section: the config's ``predict.skip``.
        head: names of the network's channels.
        statistics: statistics of the prepared image (:func:`unet.data.normalize.describe`), to
            normalise the limit in the same way as the pixels.
        normalization: the store's section ``normalize``.

    Raises:
        UserError: the image has no such channel, the head has no such class, or it is unknown how
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
            f"were normalised by {method!r}; remove predict.skip, or prepare the images again"
        )
    channels = len(statistics["shift"])
    if section.channel >= channels:
        raise UserError(
            f"predict.skip.channel: got {section.channel}, but the images have "
            f"{how_many(channels, 'channel')}; write a number below {channels}"
        )
    return Skipper(
        channel=section.channel,
        limit=_normalized(section, channels, statistics),
        darker=section.darker_than is not None,
        share=section.share,
        background=0 if section.fill is None else classes.index(section.fill),
    )


def _normalized(section: SkipSection, channels: int, statistics: Mapping[str, Any]) -> float:
    """The limit, normalised like a pixel with this value. The scale is above 0, so darker pixels
    stay darker."""
    darker = section.darker_than is not None
    value = section.darker_than if section.darker_than is not None else section.brighter_than
    pixel = np.full((channels, 1), value, np.float64)
    pixels = [pixel]
    # Images of narrow integers are normalised in float32, others in float64. In either case a pixel
    # exactly at the limit must not be beyond it.
    whole = np.trunc(pixel[0, 0])
    if whole == pixel[0, 0] and (narrow := np.min_scalar_type(int(whole))).itemsize <= 2:
        pixels.append(pixel.astype(narrow))
    limits = [float(normalize.apply(p, dict(statistics))[section.channel, 0]) for p in pixels]
    return min(limits) if darker else max(limits)
