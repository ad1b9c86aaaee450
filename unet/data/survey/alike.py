"""Finds images of a dataset that look alike: the same pixels, near-duplicates (also turned or
mirrored), and crops of one field that continue each other at an edge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from unet.data.records import ImageRecord, SplitRecord
from unet.data.survey.facts import Alike
from unet.data.survey.measure import Measured

Matrix = NDArray[np.float64]

# Near-duplicates: correlation of the thumbnails, and of their details (without the shading that
# all images of a microscope share).
NEAR, NEAR_DETAILS = 0.95, 0.9
_DETAILS_SIGMA = 4.0
# Neighbours: the step between the two border lines, relative to that between the lines of one
# image, is small, and unrelated lines would differ by much more. (Mean squares.)
STEP, UNRELATED = 2.5, 6.0
# Largest number of pairs that are listed; those in different parts come first.
MOST_PAIRS = 300


def alike_images(
    found: Sequence[Measured], records: Sequence[ImageRecord], splits: Sequence[SplitRecord]
) -> tuple[Alike, ...]:
    """Pairs of images that look alike.

    Args:
        found: the measured images; others are compared by their files' content only.
        records: all usable images.
    """
    kinds: dict[tuple[str, str], str] = {}
    for finder in (_same_files(records), _same_pixels(found), _near(found), _neighbours(found)):
        for one, other, kind in finder:
            kinds.setdefault((min(one, other), max(one, other)), kind)
    parts: dict[str, dict[int, str]] = {}
    for row in splits:
        parts.setdefault(row.image, {})[row.fold] = row.part

    def leaks(one: str, other: str) -> bool:
        a, b = parts.get(one, {}), parts.get(other, {})
        return any(a[fold] != b[fold] for fold in a.keys() & b.keys())

    pairs = [Alike(a, b, kind, leaks(a, b)) for (a, b), kind in kinds.items()]  # type: ignore[arg-type]
    pairs.sort(key=lambda pair: (not pair.leak, pair.one, pair.other))
    return tuple(pairs[:MOST_PAIRS])


Pairs = Iterator[tuple[str, str, str]]


def _equal(keys: Sequence[tuple[str, object]]) -> Pairs:
    """Each image with the first one that has the same key."""
    first: dict[object, str] = {}
    for name, key in keys:
        other = first.setdefault(key, name)
        if other != name:
            yield other, name, "same"


def _same_files(records: Sequence[ImageRecord]) -> Pairs:
    return _equal([(r.id, (r.sha256, r.page)) for r in records if r.sha256])


def _same_pixels(found: Sequence[Measured]) -> Pairs:
    return _equal([(m.record.id, m.pixels.digest) for m in found if m.pixels.digest])


def correlations(thumbnails: NDArray[np.float32]) -> tuple[Matrix, Matrix]:
    """Correlation [n, n] of thumbnails [n, Y, X], and that of their details.

    Each image is compared with the other in all eight orientations; the one in which the details
    agree best counts.
    """
    details = _details(thumbnails)
    plain, fine = _unit(thumbnails), _unit(details)
    whole = np.full((len(plain), len(plain)), -1.0)
    best = whole.copy()
    for mirrored in (False, True):
        for turns in range(4):
            turned = [
                np.rot90(stack[:, :, ::-1] if mirrored else stack, turns, axes=(1, 2))
                for stack in (thumbnails, details)
            ]
            agree = fine @ _unit(turned[1]).T
            better = agree > best
            whole[better] = (plain @ _unit(turned[0]).T)[better]
            best[better] = agree[better]
    return whole, best


def _details(thumbnails: NDArray[np.float32]) -> NDArray[np.float32]:
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(thumbnails, (0, _DETAILS_SIGMA, _DETAILS_SIGMA))
    return np.asarray(thumbnails - smooth)


def _unit(stack: NDArray[np.float32]) -> Matrix:
    """Each image as a row with mean 0 and length 1 (0 if it has a single value)."""
    rows = stack.reshape(len(stack), -1).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)


def _near(found: Sequence[Measured]) -> Pairs:
    if len(found) < 2:
        return
    whole, fine = correlations(np.stack([m.pixels.thumbnail for m in found]))
    close = np.triu((whole >= NEAR) & (fine >= NEAR_DETAILS), 1)
    for one, other in np.argwhere(close):
        yield found[one].record.id, found[other].record.id, "near"


def follow_each_other(found: Sequence[Measured]) -> tuple[float, float]:
    """Median correlation of the thumbnails' details: of images whose ids follow each other, and of
    all pairs. (0, 0) for fewer than 5 images."""
    if len(found) < 5:
        return 0.0, 0.0
    ordered = sorted(found, key=lambda m: m.record.id)
    fine = _unit(_details(np.stack([m.pixels.thumbnail for m in ordered])))
    agree = fine @ fine.T
    return float(np.median(np.diag(agree, 1))), float(
        np.median(agree[np.triu_indices(len(fine), 1)])
    )


def _neighbours(found: Sequence[Measured]) -> Pairs:
    """Pairs of which one continues the other at its right or bottom edge."""
    for before, after in (("right", "left"), ("bottom", "top")):
        sizes: dict[int, list[Measured]] = {}
        for member in found:
            if member.borders is not None:
                sizes.setdefault(getattr(member.borders, before).shape[1], []).append(member)
        for members in sizes.values():
            if len(members) < 2:
                continue
            ones, others = (
                np.stack([getattr(m.borders, side) for m in members]).astype(np.float64)
                for side in (before, after)
            )
            for i, j in np.argwhere(continued(ones, others)):
                if i != j:
                    yield members[i].record.id, members[j].record.id, "neighbours"


def continued(ones: Matrix, others: Matrix) -> NDArray[np.bool_]:
    """Whether each of ``ones`` goes on in each of ``others``: [n, n].

    Args:
        ones, others: [n, 2, length], the outermost line first.
    """
    length = ones.shape[2]
    first, second = ones[:, 0], others[:, 0]
    square = (first**2).sum(1)[:, None] + (second**2).sum(1)[None]
    step = np.maximum(square - 2 * first @ second.T, 0) / length
    inside = [np.square(lines[:, 0] - lines[:, 1]).mean(axis=1) for lines in (ones, others)]
    usual = (inside[0][:, None] + inside[1][None]) / 2
    # The mean square difference of two lines that have nothing to do with each other.
    apart = first.var(axis=1)[:, None] + second.var(axis=1)[None]
    apart = apart + np.square(first.mean(axis=1)[:, None] - second.mean(axis=1)[None])
    return np.asarray(
        (usual > 0) & (step < STEP * usual) & (apart > UNRELATED * np.maximum(step, usual))
    )
