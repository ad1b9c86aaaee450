"""Plants mistakes in labels, with a fixed seed, and notes where: for benchmarks/audit.py."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Labels = NDArray[Any]
# Share of the objects that get each kind of mistake, and pixels that a shifted one moves.
SHARE, MOVE = 0.05, 3
KINDS = ("dropped", "added", "merged", "shifted")
# Radius of a place whose class is changed, in pixels.
RADIUS = 9


@dataclass(frozen=True)
class Planted:
    """A mistake: its kind and the box (end excluded) of the pixels that changed."""

    image: str
    kind: str
    low: tuple[int, ...]
    high: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def plant(labels: dict[str, Labels], task: str, seed: int) -> list[Planted]:
    """Changes the labels in place, and returns what was planted; at the end two labels of the same
    shape are exchanged, whose mistakes are not counted one by one."""
    rng = np.random.default_rng(seed)
    pair = _pair(labels, rng)
    places = [
        (name, int(k))
        for name, ids in sorted(labels.items())
        if name not in pair
        for k in (_ids(ids) if task == "instances" else range(6))
    ]
    rng.shuffle(places)
    each = max(1, round(SHARE * len(places)))
    found: list[Planted] = []
    change = _instances if task == "instances" else _classes
    kinds = [kind for kind in KINDS if task == "instances" or kind != "merged"]
    for kind in kinds:
        done = 0
        while places and done < each:
            name, k = places.pop()
            before = labels[name].copy()
            if change(labels[name], k, kind, rng):
                found.append(_noted(name, kind, before != labels[name]))
                done += 1
            else:
                labels[name] = before
    if pair:
        one, other = pair
        labels[one], labels[other] = labels[other], labels[one]
        found += [
            Planted(n, "exchanged", (0,) * labels[n].ndim, labels[n].shape) for n in (one, other)
        ]
    return found


def _ids(ids: Labels) -> Any:
    return np.unique(ids[ids > 0])


def _pair(labels: dict[str, Labels], rng: np.random.Generator) -> tuple[str, ...]:
    names = rng.permutation(sorted(labels)).tolist()
    for k, one in enumerate(names):
        for other in names[k + 1 :]:
            if labels[one].shape == labels[other].shape:
                return one, other
    return ()


def _noted(name: str, kind: str, changed: NDArray[np.bool_]) -> Planted:
    at = np.argwhere(changed)
    low, high = at.min(axis=0).tolist(), (at.max(axis=0) + 1).tolist()
    return Planted(name, kind, tuple(low), tuple(high))


def _instances(ids: Labels, k: int, kind: str, rng: np.random.Generator) -> bool:
    """Changes object ``k``; False if that is not possible."""
    mask = ids == k
    if not mask.any():
        return False
    if kind == "dropped":
        ids[mask] = 0
        return True
    if kind == "merged":
        near = ids[ndimage.binary_dilation(mask, iterations=2) & ~mask]
        near = near[near > 0]
        if near.size:
            ids[ids == np.bincount(near.astype(np.int64)).argmax()] = k
        return bool(near.size)
    if kind == "shifted":
        step = [0] * ids.ndim
        step[int(rng.integers(ids.ndim - 2, ids.ndim))] = MOVE * int(rng.choice([-1, 1]))
        ids[mask] = 0
        moved = ndimage.shift(mask.astype(np.uint8), step, order=0) > 0
        ids[moved & (ids == 0)] = k
        return bool((ids == k).sum() > 0.5 * mask.sum())
    return _added(ids, mask, rng)


def _added(ids: Labels, mask: NDArray[np.bool_], rng: np.random.Generator) -> bool:
    """Copies an object to a free place."""
    at = np.argwhere(mask)
    size = at.max(axis=0) + 1 - at.min(axis=0)
    if any(s >= n for s, n in zip(size, ids.shape, strict=True)):
        return False
    for _ in range(200):
        corner = [int(rng.integers(0, n - s)) for n, s in zip(ids.shape, size, strict=True)]
        place = tuple((at - at.min(axis=0) + corner).T)
        if not ids[place].any():
            ids[place] = ids.max() + 1
            return True
    return False


def _classes(classes: Labels, k: int, kind: str, rng: np.random.Generator) -> bool:
    """Changes a round place of a class map."""
    values = np.unique(classes)
    if len(values) < 2:
        return False
    counts = [int(np.count_nonzero(classes == value)) for value in values]
    common, rare = values[int(np.argmax(counts))], values[int(np.argmin(counts))]
    inside = np.argwhere(classes == rare)
    middle = inside[int(rng.integers(len(inside)))]
    grid = np.indices(classes.shape)
    far = sum((axis - m) ** 2 for axis, m in zip(grid, middle, strict=True))
    disc = far <= RADIUS**2
    if kind == "dropped":
        classes[disc] = common
    elif kind == "shifted":
        moved = np.roll(classes, MOVE, -1)
        classes[disc] = moved[disc]
    else:
        # A stroke of the rare class where there is none.
        free = ndimage.binary_erosion(classes == common, iterations=5)
        places = np.argwhere(free)
        if not len(places):
            return False
        middle = places[int(rng.integers(len(places)))]
        near = tuple(slice(max(0, m - 2), m + 3) for m in middle[:-1])
        row = (*near, slice(max(0, middle[-1] - RADIUS), middle[-1] + RADIUS))
        classes[row] = rare
    return True
