"""The crops of unlabelled images in the order in which to annotate them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from unet.data.blocks import LOG_SECONDS
from unet.errors import UserError, how_many
from unet.prediction.annotation.choose_crops import (
    Candidate,
    Choice,
    Method,
    choose,
    with_enough,
)
from unet.prediction.annotation.crop_facts import crop_facts
from unet.prediction.annotation.crop_features import Floats, comparable, crop_features
from unet.prediction.annotation.crop_places import crop_places
from unet.prediction.annotation.unlabelled_images import UnlabelledImages

log = logging.getLogger(__name__)

# Crops that are compared with each other; of more, the most doubtful ones.
COMPARED = 5000


@dataclass(frozen=True, eq=False)
class RankedCrop:
    """A chosen crop: where it is and why it was chosen. ``rank`` counts from 1."""

    rank: int
    crop: Candidate
    choice: Choice


@dataclass(frozen=True, eq=False)
class Ranking:
    """What was chosen.

    Attributes:
        crops: in their order.
        possible: number of crops there are.
        warnings: one line each.
    """

    crops: Sequence[RankedCrop]
    possible: int
    warnings: Sequence[str]


def rank_crops(
    images: UnlabelledImages, number: int, side: Sequence[int], method: Method, seed: int
) -> Ranking:
    """Chooses crops. Images are read one at a time, and only by method doubt.

    Args:
        number: of crops.
        side: of a crop in pixels, one number or one per axis ((Z,) Y, X); 0 = the whole image.

    Raises:
        UserError: an image cannot be read, or ``side`` does not fit the images.
    """
    every = candidates_of(images, side)
    possible = len(every)
    every = _fewer(every, number) if method == "doubt" else every
    features = _features(images, every) if method == "doubt" else None
    found = choose(every, number, method, seed, features)
    crops = [RankedCrop(rank, every[c.number], c) for rank, c in enumerate(found, 1)]
    cautions = images.cautions.warnings([one.crop.image for one in crops])
    return Ranking(crops, possible, [*cautions, *_warnings(crops, number)])


def candidates_of(images: UnlabelledImages, side: Sequence[int]) -> list[Candidate]:
    """All crops of all images, with what was predicted in them."""
    found: list[Candidate] = []
    say = _progress("doubts", len(images.records))
    for image, record in images.records.items():
        own = []
        for place in crop_places(record.shape[1:], sides(side, len(record.shape) - 1)):
            facts = crop_facts(images.segmentation, image, place)
            own.append(Candidate(image, record.group, place, facts, facts.doubt))
        found += own if images.doubts is None else shared_out(own, images.doubts)
        say()
    return found


def sides(side: Sequence[int], axes: int) -> tuple[int, ...]:
    """The size of a crop along each axis; a single number counts for all axes.

    Raises:
        UserError: the numbers do not fit the images.
    """
    if len(side) not in (1, axes):
        raise UserError(
            f"--crops: got {len(side)} numbers, but the images have {axes} axes; write one number, "
            f"or {axes} ({'Z,Y,X' if axes == 3 else 'Y,X'})"
        )
    return tuple(side) * (axes if len(side) == 1 else 1)


def shared_out(crops: Sequence[Candidate], doubts: Mapping[str, float]) -> list[Candidate]:
    """The crops of one image with its doubt from ``quality.csv``: the most doubtful crop gets all
    of it, the others in proportion to their own doubt. An image without a row keeps its own."""
    if not crops or crops[0].image not in doubts:
        return list(crops)
    most = max(one.facts.doubt for one in crops)
    whole = doubts[crops[0].image]
    return [
        replace(one, doubt=whole * one.facts.doubt / most if most > 0 else 0.0) for one in crops
    ]


def _fewer(every: Sequence[Candidate], number: int) -> list[Candidate]:
    """The most doubtful crops only, if there are too many to compare; sorted as before."""
    most = max(COMPARED, number)
    if len(every) <= most:
        return list(every)
    order = np.argsort([-one.doubt for one in every], kind="stable")[:most]
    log.info("compares the %d most doubtful of %d crops", most, len(every))
    return [every[k] for k in np.sort(order)]


def _features(images: UnlabelledImages, every: Sequence[Candidate]) -> Floats:
    enough = with_enough(every)
    say = _progress("looks", len(enough))
    found, opened, name = [], None, ""
    for k in enough:
        one = every[k]
        # Crops of an image follow each other, so each file is opened once.
        if opened is None or one.image != name:
            opened, name = images.open(one.image), one.image
        found.append(crop_features(opened.array, one.place, one.facts))
        say()
    return comparable(found)


def _progress(what: str, total: int) -> Callable[[], None]:
    """A function to call after each item; it logs a line every few seconds."""
    done, last = 0, time.monotonic()

    def step() -> None:
        nonlocal done, last
        done += 1
        if time.monotonic() - last >= LOG_SECONDS:
            last = time.monotonic()
            log.info("%s: %d of %d", what, done, total)

    return step


def _warnings(crops: Sequence[RankedCrop], number: int) -> list[str]:
    lines = []
    if len(crops) < number:
        there = "is only 1 crop" if len(crops) == 1 else f"are only {len(crops)} crops"
        lines.append(f"-n {number}: there {there}; give more images or smaller --crops to get more")
    without = sum(not one.choice.enough for one in crops)
    if without:
        lines.append(
            f"{how_many(without, 'crop')} of {len(crops)} with little or no predicted foreground: "
            "nothing else was left; use a smaller -n to leave them out"
        )
    return lines
