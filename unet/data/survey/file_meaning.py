"""Finds out what the axes of a dataset's files mean: planes, pages, channels or sections.

A file declares its axes or not. If it does not, its label helps: a label of one plane means that
the pages are channels; numbers that continue from page to page mean sections of a volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unet.data.raw_files import RawPair
from unet.errors import UserError
from unet.io.images import open_image, open_label, page_count

# With fewer volumes there is none left to validate or test.
LEAST_IMAGES = 3
# Files whose headers are read to count the pages.
MOST_COUNTED = 200
# Of the pixels that are in an object on a page, this share has the same number on the next page.
SAME_NUMBER = 0.5


@dataclass(frozen=True)
class FileMeaning:
    """What the files hold.

    Attributes:
        dims: spatial axes of an image, 2 or 3.
        stack: each page is an image of its own.
        axes: for the config; None: the files declare them.
        images: number of labelled images; with ``stack``, of pages.
        seen, checks: as in :class:`unet.data.survey.label_meaning.Meaning`.
        alternative: keys of the config for the other reading.
    """

    dims: int
    stack: bool
    axes: str | None
    images: int
    seen: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    alternative: str = ""


def meaning_of_files(pairs: Sequence[RawPair], *, stack: bool = False) -> FileMeaning:
    """What the files of these pairs hold.

    Args:
        stack: it is known that each page is an image.

    Raises:
        UserError: the first image or its label cannot be read.
    """
    labelled = [pair for pair in pairs if pair.label is not None]
    if stack or any(pair.stack for pair in labelled):
        return _stack(labelled, "pages are read as separate images", "")
    errors: list[UserError] = []
    for pair in labelled[:5]:
        try:
            return _of(pair, labelled)
        except UserError as error:
            errors.append(error)
    raise errors[0] if errors else UserError("no image with a label")


def _of(pair: RawPair, labelled: Sequence[RawPair]) -> FileMeaning:
    declared = True
    try:
        image = open_image(pair.image)
    except UserError:
        declared = False
        # If this fails, the file cannot be read for another reason, which the error gives.
        image = open_image(pair.image, axes="ZYX")
    sizes = " x ".join(map(str, image.shape[1:]))
    channels = f", {image.shape[0]} channels" if image.shape[0] > 1 else ""
    seen = f"images of type {image.dtype}, the first one has {sizes} pixels{channels}"
    if len(image.shape) == 3:
        return FileMeaning(2, False, None, len(labelled), (seen,))
    if not declared and _planes(pair) == 2:
        text = f"{image.shape[1]} pages without declared axes, but a label of one plane: channels"
        return FileMeaning(2, False, "CYX", len(labelled), (seen, text))
    volume = declared or _continues(pair)
    if volume and len(labelled) >= LEAST_IMAGES:
        axes = None if declared else "ZYX"
        checks = () if declared else (
            "the pages are read as sections of a volume, since numbers continue from page to page",
        )  # fmt: skip
        return FileMeaning(3, False, axes, len(labelled), (seen,), checks, "layout: stack")
    if volume:
        text = (
            f"{len(labelled)} labelled volume{'s' if len(labelled) > 1 else ''}, but one each is "
            "needed to train, validate and test: the planes are read as separate images (2D); for "
            "3D label more volumes, or cut this one into blocks, a file each"
        )
    else:
        text = (
            "pages without declared axes are read as separate images; if they are the sections of "
            "a volume, write axes: ZYX instead, and dims: 3 under the model"
        )
    found = _stack(labelled, text, "axes: ZYX")
    return FileMeaning(2, True, None, found.images, (seen, *found.seen), found.checks, "axes: ZYX")


def _planes(pair: RawPair) -> int:
    """Spatial axes of a label whose file may not declare them."""
    if pair.label is None:
        return 0
    try:
        return len(open_label(pair.label).shape)
    except UserError:
        return 3


def _continues(pair: RawPair) -> bool:
    """Whether objects keep their number from page to page, as in a volume."""
    if pair.label is None:
        return False
    label = open_label(pair.label, axes="ZYX")
    middle = label.shape[0] // 2
    two: npt.NDArray[Any] = np.asarray(
        label.array[middle - 1 : middle + 1].compute(scheduler="synchronous")
    )
    one, other = two
    both = (one != 0) & (other != 0)
    numbers = np.unique(one[both])
    return len(numbers) > 1 and float((one[both] == other[both]).mean()) > SAME_NUMBER


def _stack(labelled: Sequence[RawPair], check: str, alternative: str) -> FileMeaning:
    counted = labelled[:MOST_COUNTED]
    pages = sum(page_count(pair.image) for pair in counted)
    pages = pages * len(labelled) // max(1, len(counted))
    seen = f"{pages} pages in {len(labelled)} file{'s' if len(labelled) > 1 else ''}"
    return FileMeaning(2, True, None, pages, (seen,), (check,), alternative)
