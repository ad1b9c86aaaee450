"""Chooses crops to annotate: at random, by doubt, or by doubt and diversity. Pure: no files.

All methods are aware of the foreground: a crop takes part if it has enough of it. Drawing at random
among such crops is the baseline that methods of active learning hardly beat on microscopy and
medical images (nnActive, arXiv:2511.19183), so every result should be compared with it.

Doubt and diversity together are a greedy k-centre (core-set: Sener & Savarese, arXiv:1708.00489)
in which each crop's distance to the nearest chosen one is multiplied by its doubt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from unet.data.tiling import Slices
from unet.prediction.annotation.crop_facts import CropFacts

Method = Literal["doubt", "random", "doubt-alone"]
METHODS: tuple[Method, ...] = get_args(Method)
# Enough foreground: this share of what a typical crop with any foreground has.
ENOUGH = 0.1
# Weight of a crop without any doubt; above 0, so that diversity alone decides among such crops.
LEAST_DOUBT = 1e-6

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A crop that could be annotated.

    Attributes:
        image, group: where it is from; "" = no group.
        place: slices along (Z,) Y, X.
        doubt: 0 to 1.
    """

    image: str
    group: str
    place: Slices
    facts: CropFacts
    doubt: float


@dataclass(frozen=True, eq=False)
class Choice:
    """A chosen crop.

    Attributes:
        number: index of the candidate.
        distance: to the most similar crop chosen before it; None if there is none, or similarity
            did not matter.
        enough: whether it has enough foreground.
        why: the reason in words.
    """

    number: int
    distance: float | None
    enough: bool
    why: str


def with_enough(candidates: Sequence[Candidate]) -> NDArray[np.intp]:
    """Indices of the candidates that have enough foreground, sorted."""
    sizes = np.array([one.facts.foreground for one in candidates], np.int64)
    some = sizes[sizes > 0]
    if not len(some):
        return np.empty(0, np.intp)
    return np.flatnonzero(sizes >= max(1.0, ENOUGH * float(np.median(some))))


def choose(
    candidates: Sequence[Candidate],
    number: int,
    method: Method,
    seed: int,
    features: Floats | None = None,
) -> list[Choice]:
    """The crops to annotate, in this order; fewer than ``number`` if there are no more.

    Crops with too little foreground follow the others, those with most of it first.

    Args:
        candidates: crops that do not overlap.
        seed: decides what is drawn at random, and between equal crops.
        features: [N, D] of the candidates with enough foreground (:func:`with_enough`), in the
            same order; needed for method doubt.

    Raises:
        ValueError: the features do not fit the candidates.
    """
    enough = with_enough(candidates)
    if method == "doubt" and (features is None or len(features) != len(enough)):
        raise ValueError(f"method doubt needs the features of {len(enough)} candidates")
    order = np.random.default_rng(seed).permutation(len(enough))
    if method == "random":
        drawn = enough[order[:number]]
        why = f"drawn at random among {len(enough)} crops with enough foreground"
        found = [Choice(int(k), None, True, why) for k in drawn]
    else:
        some = [candidates[k] for k in enough[order]]
        vectors = None if method == "doubt-alone" or features is None else features[order]
        found = [
            Choice(int(enough[order[k]]), distance, True, _why(some, k, distance))
            for k, distance in _greedy(some, number, vectors)
        ]
    return [*found, *_rest(candidates, enough, number - len(found))]


def _greedy(
    candidates: Sequence[Candidate], number: int, vectors: Floats | None
) -> Iterator[tuple[int, float | None]]:
    """Index of each choice, and its distance to the nearest earlier one.

    Groups take turns, and no image gives more than twice its share unless the others have no crop
    left.
    """
    images = [one.image for one in candidates]
    groups = [one.group for one in candidates]
    weights = np.maximum([one.doubt for one in candidates], LEAST_DOUBT)
    most = max(1, -(-2 * number // max(1, len(set(images)))))
    taken, turns = Counter[str](), Counter[str]()
    left = np.ones(len(candidates), np.bool_)
    nearest = np.full(len(candidates), np.inf)
    for _ in range(min(number, len(candidates))):
        allowed = left & np.array([taken[image] < most for image in images])
        if not allowed.any():
            allowed = left.copy()
        fewest = min(turns[groups[k]] for k in np.flatnonzero(allowed))
        allowed &= np.array([turns[group] == fewest for group in groups])
        # The first choice, and all of them without vectors, are by doubt alone.
        known = vectors is not None and bool(np.isfinite(nearest).all())
        scores = weights * nearest if known else weights
        best = int(np.argmax(np.where(allowed, scores, -1.0)))
        yield best, float(nearest[best]) if known else None
        left[best] = False
        taken[images[best]] += 1
        turns[groups[best]] += 1
        if vectors is not None:
            nearest = np.minimum(nearest, np.linalg.norm(vectors - vectors[best], axis=1))


def _why(candidates: Sequence[Candidate], number: int, distance: float | None) -> str:
    own = candidates[number].doubt
    place = 1 + sum(one.doubt > own for one in candidates)
    text = f"doubt {own:.3f} (number {place} of {len(candidates)} by doubt)"
    if distance is not None:
        text += f"; distance {distance:.2f} to the most similar crop chosen before"
    return text


def _rest(candidates: Sequence[Candidate], enough: NDArray[np.intp], number: int) -> list[Choice]:
    """Crops with too little foreground, most first, because nothing else is left."""
    if number < 1:
        return []
    known = set(enough.tolist())
    others = [k for k in range(len(candidates)) if k not in known]
    others.sort(key=lambda k: -candidates[k].facts.foreground)
    found = []
    for k in others[:number]:
        what = "little" if candidates[k].facts.foreground else "no"
        found.append(Choice(k, None, False, f"{what} predicted foreground: nothing else was left"))
    return found
