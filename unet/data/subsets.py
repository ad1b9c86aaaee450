"""Shares of the training images, nested: a smaller share is contained in a larger one."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence


def subset_of(
    ids: Sequence[str], groups: Mapping[str, str], share: float, seed: int, fold: int
) -> list[str]:
    """Sorted ids of about this share of the images, but at least one image (or group).

    The groups are put in an order that depends only on the seed, the fold and their names, and the
    first ones are taken: those whose number of images is closest to the share (of two that are as
    close, the smaller). So a smaller share is contained in a larger one, and a new image does not
    reorder the others.

    Args:
        ids: the training images of the fold.
        groups: image -> its group; "" or no entry for an image that is its own group.
        share: above 0, at most 1 (all images).

    Raises:
        ValueError: a share that is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share}")
    if share == 1 or not ids:
        return sorted(ids)
    members: dict[str, list[str]] = defaultdict(list)
    for image in ids:
        # Ids contain no spaces, so such a group never gets the name of another one.
        members[groups.get(image) or f" {image}"].append(image)
    order = sorted(members, key=lambda group: _place(group, seed, fold))
    taken: list[str] = []
    best: list[str] = []
    for group in order:
        taken = taken + members[group]
        if best and abs(len(taken) - share * len(ids)) >= abs(len(best) - share * len(ids)):
            break
        best = taken
    return sorted(best)


def _place(group: str, seed: int, fold: int) -> str:
    return hashlib.sha256(f"{seed}/{fold}/subset/{group}".encode()).hexdigest()
