"""Training on joined datasets: how often a patch comes from each, and their common score."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)

# Name and weight of each joined dataset, in the order of the config; none for a plain dataset.
Balance = Sequence[tuple[str, float]]


def parted(
    items: Sequence[T], id_of: Callable[[T], str], images: Mapping[str, Any], balance: Balance
) -> dict[str, list[T]]:
    """Dataset -> its items, in the order of the config; all under "" for a plain dataset.

    Args:
        items: images, or what has an image's id.
        images: the entries of the prepared images' sentinel.
    """
    if not balance:
        return {"": list(items)}
    found: dict[str, list[T]] = {name: [] for name, _ in balance}
    for item in items:
        found[images[id_of(item)]["dataset"]].append(item)
    return found


def pixel_weights(areas: Mapping[str, Sequence[float]], balance: Balance) -> list[float]:
    """The weight of a pixel of each image, such that the datasets as a whole get their weights.

    A dataset with weight w and A pixels in all gives each of its pixels w / A. A patch's image is
    drawn in proportion to weight times pixels: so first the dataset is drawn (by w), then the image
    in it (by its pixels). A dataset without images takes no part.

    Args:
        areas: dataset -> pixels of each of its images, as :func:`parted` gives them.

    Returns:
        one weight per image, in the same order.
    """
    weights = dict(balance)
    return [weights.get(name, 1.0) / sum(pixels) for name, pixels in areas.items() for _ in pixels]


def common_score(found: Mapping[str, tuple[float, float]], balance: Balance) -> tuple[float, float]:
    """Loss and score over all datasets: their means, with the datasets' weights. So the weights of
    the network are not chosen by the largest dataset alone.

    Args:
        found: dataset -> loss and score; NaN (no labelled pixel) is left out.
    """
    if not balance:
        return next(iter(found.values()))
    texts = [f"{name} {score:.4f}" for name, (_, score) in found.items()]
    log.info("validation score by dataset: %s", ", ".join(texts))
    weights = dict(balance)
    means = []
    for at in range(2):
        values = [(weights[n], pair[at]) for n, pair in found.items() if not math.isnan(pair[at])]
        total = sum(weight for weight, _ in values)
        means.append(sum(w * value for w, value in values) / total if values else math.nan)
    return means[0], means[1]
