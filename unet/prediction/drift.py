"""Tells which images are unlike those that a network was trained on.

An image is compared with the training images by some numbers about its intensities, its polarity
and its texture (:mod:`unet.data.appearance`). It is unlike them if its distance to the nearest one
is clearly larger than theirs to each other (the idea of nearest-neighbour novelty detection: Tax &
Duin 2000, doi:10.1109/ICPR.2000.906164). So the training images' own spread decides, and a set of
several kinds of images needs no common centre.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.data.appearance import (
    LEAST_SHARE,
    OCTAVES,
    PERCENTS,
    Appearance,
    TrainingAppearance,
    appearance,
    training_appearance,
)
from unet.data.dataset_warnings import grouped
from unet.data.records import ids_of, read_splits
from unet.data.store import Prepared
from unet.errors import UserError
from unet.models.model_file import ModelFile
from unet.paths import Paths

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]

# Smallest spread of each number that counts: of levels (in units of the training images' contrast),
# polarity and texture (log10 of a share). Closer values look the same to people, too.
_SPREADS = (*(0.1,) * len(PERCENTS), 0.15, *(0.15,) * OCTAVES)
_POLARITY = len(PERCENTS)
_MEDIAN = PERCENTS.index(50)
_FINEST = _POLARITY + 1
# This share of the training images' distances to their nearest neighbours is taken as usual, and an
# image is unlike them at a larger multiple: 1.3, and more with few training images, whose spread is
# hardly known. Chosen on real images: at most 3 % of held-out images of a set of 6 to 60 images are
# named, and nearly all of other kinds of microscopy.
_USUAL, _LEAST = 90, 0.5
_MULTIPLE, _MORE = 1.3, 4.0
# With the training's statistics alone: smallest and largest contrast that is not named.
_CONTRASTS = (1 / 8, 8.0)
# And the smallest brightest level, as a share of the training's contrast.
_DARKEST = 1 / 64

ADVICE = (
    "the result may be poor: look at it; if the pixel size or the channel is wrong, give "
    "--pixel-size or --channels; otherwise train a model on images like these"
)


def unlike(image: Appearance, training: TrainingAppearance) -> list[str]:
    """How an image differs from the training images, in words; [] if it is like them."""
    return drift(image, training)[1]


def drift(image: Appearance, training: TrainingAppearance) -> tuple[float, list[str]]:
    """How unlike the training images an image is: its distance to the nearest one, 1 = the largest
    that is usual; and how it differs, in words, if it is more than that.

    Returns:
        (the largest of all channels, all their reasons); (NaN, []) if no training image has as many
        channels.
    """
    same = [known for known in training.images if len(known.levels) == len(image.levels)]
    if not same:
        return math.nan, []
    farthest, reasons = 0.0, []
    for channel in range(len(image.levels)):
        distance, found = _drift_of_channel(image, same, channel)
        where = f"channel {channel}: " if len(image.levels) > 1 else ""
        farthest = max(farthest, distance)
        reasons += [f"{where}{reason}" for reason in found]
    return farthest, reasons


def _drift_of_channel(
    image: Appearance, training: Sequence[Appearance], channel: int
) -> tuple[float, list[str]]:
    known = np.array([_numbers(one, channel) for one in training])
    own = _numbers(image, channel)
    # Levels in units of the contrast that the training images have.
    contrast = float(np.median(known[:, _POLARITY - 1] - known[:, 0])) or 1.0
    known[:, :_POLARITY] /= contrast
    own[:_POLARITY] /= contrast
    low, high = np.percentile(known, [16, 84], axis=0)
    spread = np.maximum((high - low) / 2, _SPREADS)
    between = _distances(known / spread, known / spread)
    np.fill_diagonal(between, np.inf)
    nearest = between.min(axis=1)
    usual = float(np.percentile(nearest, _USUAL)) if len(known) > 1 else 0.0
    limit = max(usual, _LEAST) * (_MULTIPLE + _MORE / len(known))
    distance = float(_distances(own[None] / spread, known / spread).min())
    return distance / limit, [] if distance <= limit else _reasons(own, known, spread, contrast)


def _numbers(image: Appearance, channel: int) -> Floats:
    least = float(np.log10(LEAST_SHARE))
    texture = [least if share is None else share for share in image.texture[channel]]
    return np.array([*image.levels[channel], image.polarity[channel], *texture], np.float64)


def _distances(one: Floats, other: Floats) -> Floats:
    """Root mean square of the differences: [N, M] of [N, D] and [M, D]."""
    return np.asarray(np.sqrt(((one[:, None] - other[None]) ** 2).mean(axis=-1)))


def _reasons(own: Floats, known: Floats, spread: Floats, contrast: float) -> list[str]:
    """Up to two differences that people can see, the largest first."""
    low, high = known.min(axis=0), known.max(axis=0)
    beyond = np.maximum(np.maximum(low - own, own - high), 0) / spread
    found: list[tuple[float, str]] = []
    polarity = own[_POLARITY]
    usual = float(np.median(known[:, _POLARITY]))
    if beyond[_POLARITY] > 0 and polarity * usual < 0:
        kinds = ("dark structures on bright ground", "bright structures on dark ground")
        mine = kinds[int(polarity > 0)]
        theirs = kinds[int(usual > 0)]
        found.append((np.inf, f"{mine}, but the training images have {theirs}"))
    if beyond[:_POLARITY].max() > 0:
        values = (own[_MEDIAN], low[_MEDIAN], high[_MEDIAN])
        median, least, most = (f"{value * contrast:.2f}" for value in values)
        text = "its intensities are distributed differently"
        if not float(least) <= float(median) <= float(most):
            text += f" (normalised median {median}, of the training images {least} to {most})"
        found.append((float(beyond[:_POLARITY].max()), text))
    if beyond[_FINEST:].max() > 0:
        # Shares add up to 1: more noise means less of everything else, but noise is what one sees.
        finest = own[_FINEST] > high[_FINEST] and beyond[_FINEST] > 1
        k = _FINEST if finest else _FINEST + int(beyond[_FINEST:].argmax())
        found.append((float(beyond[k]), _texture_reason(k - _FINEST, own[k], low[k], high[k])))
    found.sort(key=lambda item: -item[0])
    return [text for _, text in found[:2]] or [
        "no training image has both its brightness and its texture"
    ]


def _texture_reason(octave: int, own: float, low: float, high: float) -> str:
    mine, least, most = (f"{100 * 10**value:.2g}" for value in (own, low, high))
    if octave == 0:
        kind = "finer structures or more noise" if own > high else "smoother or more blurred"
    else:
        kind = "more" if own > high else "less"
        kind += f" structure of about {2**octave} to {2 ** (octave + 1)} pixels"
    if float(least) <= float(mine) <= float(most):
        return kind  # rounded numbers would seem to say otherwise
    return f"{kind} ({mine} % of its variance, of the training images {least} to {most} %)"


def unlike_statistics(image: Appearance, normalize: Mapping[str, Any]) -> list[str]:
    """The same with nothing but the statistics of the training images, which a model file has if
    they normalise all images (``scope: dataset``); [] without them."""
    statistics = normalize.get("statistics") or {}
    reasons = []
    for channel, levels in enumerate(image.levels):
        try:
            low, high, shift, scale = (
                float(statistics[name][channel]) for name in ("low", "high", "shift", "scale")
            )
        except (KeyError, IndexError, TypeError):
            return []
        low, high = (low - shift) / scale, (high - shift) / scale
        usual = high - low
        if usual <= 0:
            continue
        least, most = levels[0], levels[-1]
        where = f"channel {channel}: " if len(image.levels) > 1 else ""
        if most < low - usual or least > high + usual:
            reasons.append(f"{where}its values lie outside of those of the training images")
        elif (most - least) / usual > _CONTRASTS[1]:
            reasons.append(f"{where}far more contrast than the training images")
        elif most < low + usual * _DARKEST:
            reasons.append(f"{where}far darker than the training images")
        elif _most_contrast(levels, image.polarity[channel]) / usual < _CONTRASTS[0]:
            reasons.append(f"{where}far less contrast than the training images")
    return reasons


def _most_contrast(levels: Sequence[float], polarity: float) -> float:
    """At least the difference of percentiles 5 and 95. If objects cover less than 5 % of an image,
    these are background; but polarity says where the median lies between percentiles 1 and 99, so
    it gives a lower limit for the difference of those."""
    least, median, most = levels[0], levels[_MEDIAN], levels[-1]
    below, above = (median - least) * 2, (most - median) * 2
    limits = [
        part / share for part, share in ((below, 1 - polarity), (above, 1 + polarity)) if share > 0
    ]
    return max(most - least, *limits)


def known_training(models: Mapping[Path, ModelFile]) -> TrainingAppearance | None:
    """What the training images of some networks looked like: from the model files; for files of an
    older version, from the prepared images of the run whose results they are in; else None."""
    found = [known for model in models.values() if (known := _from_model(model)) is not None]
    runs: dict[Path, list[str]] = {}
    for path, model in models.items():
        if model.appearance is None:
            runs.setdefault(path.parent.parent.parent, []).append(path.parent.name)
    found += [known for run, folds in runs.items() if (known := _from_run(run, folds)) is not None]
    if not found:
        return None
    # Folds share images; each one counts once.
    images = tuple(dict.fromkeys(image for one in found for image in one.images))
    return TrainingAppearance(images, next((one.sizes for one in found if one.sizes), None))


def _from_model(model: ModelFile) -> TrainingAppearance | None:
    if model.appearance is None:
        return None
    try:
        return TrainingAppearance.from_json(model.appearance)
    except ValueError as error:
        log.info("the model's facts about its training images are unusable (%s)", error)
        return None


def _from_run(folder: Path, folds: Sequence[str]) -> TrainingAppearance | None:
    """From the prepared images that these folds (``fold-<k>``) of a dataset were trained on.

    Args:
        folder: ``<output>/<dataset>``, or any other folder.
    """
    paths, dataset = Paths(folder.parent), folder.name
    splits, store = paths.splits(dataset), paths.prepared(dataset)
    if not splits.is_file() or not store.is_dir():
        return None
    names = [fold.removeprefix("fold-") for fold in folds]
    try:
        rows = read_splits(splits)
        numbers = [int(name) for name in names if name.isdecimal()]
        used = {image for k in numbers for image in ids_of(rows, k, "train")}
        return training_appearance(Prepared(store), sorted(used)) if used else None
    except (UserError, OSError, ValueError) as error:
        log.info("%s: the training images there cannot be compared (%s)", folder, error)
        return None


@dataclass(frozen=True)
class Comparison:
    """What a network was trained on, to compare images with.

    Attributes:
        training: appearance of the training images; None = unknown.
        normalize: the model's normalisation.
        pixel_size_um: the model's, None = unknown.
    """

    training: TrainingAppearance | None
    normalize: Mapping[str, Any]
    pixel_size_um: Sequence[float] | None

    @classmethod
    def of(cls, models: Mapping[Path, ModelFile]) -> Comparison:
        """From the model files of an ensemble, at least one."""
        first = next(iter(models.values()))
        return cls(known_training(models), first.normalize, first.pixel_size_um)

    @property
    def sizes(self) -> tuple[float, ...] | None:
        """Percentiles 5, 50 and 95 of the sizes of the training objects; None = unknown."""
        return None if self.training is None else self.training.sizes

    def unlike(self, image: Appearance) -> list[str]:
        """How an image differs from the training images, in words; [] if it is like them."""
        return self.drift(image)[1]

    def drift(self, image: Appearance) -> tuple[float, list[str]]:
        """The same with a number, see :func:`drift`; NaN if only the statistics of the training
        images are known."""
        if self.training is not None:
            return drift(image, self.training)
        return math.nan, unlike_statistics(image, self.normalize)

    def unlike_images(self, store: Prepared, ids: Iterable[str]) -> dict[str, list[str]]:
        """The images that differ from the training images, and how.

        Args:
            store: the images as the network sees them.
        """
        found = {image: self.unlike(appearance(store, image)) for image in ids}
        return {image: reasons for image, reasons in found.items() if reasons}


def unlike_warnings(
    found: Mapping[str, Sequence[str]], total: int, advice: str = ADVICE
) -> list[str]:
    """One line for all images that differ in the same way, with what to try.

    Args:
        found: image id -> how it differs.
        total: number of all images.
        advice: what to try.
    """
    lines = grouped((image, "; ".join(reasons)) for image, reasons in found.items())
    if not lines:
        return []
    many = f"{len(found)} of {total} images are" if total > 1 else "the image is"
    if len(found) == 1 and total > 1:
        many = f"1 of {total} images is"
    return [
        f"{many} unlike the training images; {advice}",
        *(f"unlike the training images: {line}" for line in lines),
    ]
