"""Finds out what the values in label files mean, from a sample of them.

Objects with numbers, a binary mask, or classes: the decision follows from the values and from how
many pieces each has. What is not certain is said (:attr:`Meaning.checks`), never hidden.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from unet.data.label_statistics import MIN_REGION
from unet.data.raw_files import RawPair
from unet.errors import UserError
from unet.io.images import open_image, open_label, page_count

Array = npt.NDArray[Any]
Kind = Literal["instances", "binary", "semantic"]

# Labels to read, and pixels of each: a window in the middle of larger ones.
SAMPLED_LABELS, SAMPLED_PIXELS = 12, 1 << 22
# Labels with more values number objects.
MOST_CLASSES = 20
# This share of the labels must have a value for it to be a class; of the values to be scattered.
SHARED, SCATTERED = 0.5, 0.5
# A mask with this many pieces in most images shows separate objects.
SEPARATE = 2
# The usual value for "do not know" beside few others.
UNKNOWN = 255
SPARSE, COVERED = 0.02, 0.9
NUMBERED_TO = 50  # numbers whose pieces are counted, per label


@dataclass(frozen=True)
class SeenValue:
    """A value in the sampled labels.

    Attributes:
        share: of the pixels, 0 to 1.
        intensity: mean of the first channel of the images.
        labels: number of sampled labels that have it.
    """

    share: float
    intensity: float
    labels: int


@dataclass(frozen=True)
class Meaning:
    """What the labels mean.

    Attributes:
        kind: numbered objects, a binary mask of separate objects, or classes.
        classes: name -> value, for kind semantic.
        ignore: value of pixels that are not labelled, if one looks like it.
        seen: what was seen, a line each.
        checks: what a person should confirm, a line each.
        alternative: kind that the labels could be as well.
    """

    kind: Kind
    classes: Mapping[str, int] = field(default_factory=dict)
    ignore: int | None = None
    seen: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    alternative: Kind | None = None


@dataclass
class _Sample:
    """Sums over the sampled labels."""

    labels: int = 0
    pixels: int = 0
    counts: Counter[int] = field(default_factory=Counter)
    intensity: dict[int, float] = field(default_factory=dict)
    images: Counter[int] = field(default_factory=Counter)
    # Per label: pieces of everything that is not 0, distinct numbers, numbers in several pieces.
    pieces: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    scattered: list[int] = field(default_factory=list)
    checked: list[int] = field(default_factory=list)

    def add(self, label: Array, image: Array) -> None:
        """Both [(Z,) Y, X]."""
        values, where, counts = np.unique(label, return_inverse=True, return_counts=True)
        sums = np.bincount(where.ravel(), image.ravel().astype(np.float64))
        self.labels += 1
        self.pixels += label.size
        for value, count, total in zip(values.tolist(), counts.tolist(), sums, strict=True):
            self.counts[value] += count
            self.intensity[value] = self.intensity.get(value, 0.0) + float(total)
            self.images[value] += 1
        self.pieces.append(_pieces(label != 0))
        pieces = _pieces_of_each(where.reshape(label.shape), len(values))
        of_numbers = pieces[values != 0]
        self.numbers.append(len(of_numbers))
        checked = of_numbers[:NUMBERED_TO]
        self.checked.append(len(checked))
        self.scattered.append(int((checked > 1).sum()))

    def shared(self, values: Iterable[int]) -> int:
        """How many of these values are in most labels."""
        return sum(self.images[value] >= SHARED * self.labels for value in values)

    def values(self) -> dict[int, SeenValue]:
        return {
            value: SeenValue(count / self.pixels, self.intensity[value] / count, self.images[value])
            for value, count in sorted(self.counts.items())
        }


def _pieces(mask: Array) -> int:
    """Connected pieces (corners count) of at least ``MIN_REGION`` pixels."""
    labelled, _ = ndimage.label(mask, np.ones((3,) * mask.ndim))
    return int((np.bincount(labelled.ravel())[1:] >= MIN_REGION).sum())


def _pieces_of_each(places: Array, number: int) -> npt.NDArray[np.int64]:
    """The number of such pieces of each value, in one pass.

    Args:
        places: [(Z,) Y, X], which of the values each pixel has, from 0.
        number: of values.
    """
    from skimage import measure

    label_of: Any = measure.label
    regions = label_of(places, background=-1, connectivity=places.ndim)
    owner = np.zeros(int(regions.max(initial=0)) + 1, np.int64)
    owner[regions] = places
    large = np.bincount(regions.ravel(), minlength=len(owner)) >= MIN_REGION
    large[0] = False
    return np.bincount(owner[large], minlength=number)


def meaning_of(
    pairs: Sequence[RawPair], axes: str | None = None, *, stack: bool = False
) -> Meaning:
    """What the labels of these pairs mean.

    Args:
        pairs: with or without labels; a few evenly spaced ones with a label are read.
        axes: as for :func:`unet.io.images.open_label`.
        stack: each page is an image.

    Raises:
        UserError: none of the sampled labels can be read; the first one's reason.
    """
    labelled = [pair for pair in pairs if pair.label is not None]
    if any(_mask_folder(pair) for pair in labelled):
        return Meaning("instances", seen=("labels: a mask file per object",))
    sample, first = _Sample(), None
    for pair, page in _chosen(labelled, axes, stack):
        try:
            sample.add(*_read(pair, axes, page))
        except UserError as error:
            first = first or error
    if not sample.labels:
        raise first or UserError("no label to look at")
    return _decided(sample)


def _chosen(
    labelled: Sequence[RawPair], axes: str | None, stack: bool
) -> list[tuple[RawPair, int | None]]:
    """Evenly spaced images; of stacks, evenly spaced pages of some files."""
    number = min(len(labelled), SAMPLED_LABELS)
    chosen = [labelled[int((i + 0.5) * len(labelled) / number)] for i in range(number)]
    if not stack:
        return [(pair, None) for pair in chosen]
    each = -(-SAMPLED_LABELS // number)
    found: list[tuple[RawPair, int | None]] = []
    for pair in chosen:
        pages = page_count(pair.image, axes=axes)
        some = min(each, pages)
        found += [(pair, int((i + 0.5) * pages / some)) for i in range(some)]
    return found


def _mask_folder(pair: RawPair) -> bool:
    label = pair.label
    return label is not None and label.is_dir() and label.name == "masks"


def _read(pair: RawPair, axes: str | None, page: int | None) -> tuple[Array, Array]:
    """A label and its image's first channel: whole, or a window in the middle of large ones."""
    if pair.label is None:
        raise ValueError(f"{pair.id} has no label")
    label = open_label(pair.label, axes=axes, page=page)
    image = open_image(pair.image, axes=axes, page=page)
    if label.shape != image.shape[1:]:
        raise UserError(f"{pair.label}: {label.shape} pixels, but its image has {image.shape[1:]}")
    shrink = min(1.0, (SAMPLED_PIXELS / math.prod(label.shape)) ** (1 / len(label.shape)))
    sizes = [max(1, int(n * shrink)) for n in label.shape]
    window = tuple(
        slice((n - size) // 2, (n - size) // 2 + size)
        for n, size in zip(label.shape, sizes, strict=True)
    )
    return (
        np.asarray(label.array[window].compute(scheduler="synchronous")),
        np.asarray(image.array[(0, *window)].compute(scheduler="synchronous")),
    )


# The decision


def _decided(sample: _Sample) -> Meaning:
    values = sample.values()
    ignore = _ignored(values, sample)
    meant = {value: seen for value, seen in values.items() if value != ignore}
    foreground = [value for value in meant if value != 0]
    seen = _described(values, sample.labels)
    checks = [] if ignore is None else [f"value {ignore} looks like 'not labelled': ignored"]
    if not foreground:
        checks.append("the labels that were read hold no object: label some, then run this again")
        return Meaning("instances", ignore=ignore, seen=seen, checks=tuple(checks))
    if len(foreground) == 1:
        return _two_values(sample, meant, ignore, seen, checks)
    if len(meant) <= MOST_CLASSES and _like_classes(sample, meant):
        checks.append(
            "which value is the background? the first class counts as background; give the "
            "classes their names"
        )
        alternative: Kind | None = "instances"
        classes = _names(meant)
        return Meaning("semantic", classes, ignore, seen, tuple(checks), alternative)
    alternative = None
    if len(meant) <= MOST_CLASSES and sample.shared(meant) == len(meant):
        checks.append("few numbers, which most labels share: if they are classes, switch below")
        alternative = "semantic"
    checks += _odd_shares(meant)
    seen = (_numbers(values, sample.labels),)
    return Meaning("instances", _names(meant), ignore, seen, tuple(checks), alternative)


def _two_values(
    sample: _Sample,
    meant: Mapping[int, SeenValue],
    ignore: int | None,
    seen: tuple[str, ...],
    checks: list[str],
) -> Meaning:
    """A binary mask: of separate objects, or of two classes."""
    share = sum(value.share for number, value in meant.items() if number != 0)
    middle = sorted(sample.pieces)[len(sample.pieces) // 2]
    classes = _names(meant)
    if share <= 0.5 and middle >= SEPARATE:
        checks.append(
            f"a mask of one value in {middle} separate pieces (median): each piece is read as an "
            "object; if you want an area and no objects, switch below"
        )
        return Meaning("binary", classes, ignore, seen, tuple(checks), "semantic")
    checks.append(
        "two values: which one is the background? the first class counts as background, and the "
        "mean intensities above tell them apart"
    )
    return Meaning("semantic", classes, ignore, seen, tuple(checks), "binary")


def _ignored(values: Mapping[int, SeenValue], sample: _Sample) -> int | None:
    """A value that stands for "do not know": negative, or 255 beside small ones."""
    negative = [value for value in values if value < 0]
    if negative:
        return negative[0]
    others = [value for value in values if value != UNKNOWN]
    small = len(others) >= 2 and max(others) < MOST_CLASSES
    return UNKNOWN if UNKNOWN in values and small else None


def _like_classes(sample: _Sample, meant: Mapping[int, SeenValue]) -> bool:
    """Whether numbers come in several pieces, and most labels share them."""
    checked = sum(sample.checked)
    scattered = checked > 0 and sum(sample.scattered) >= SCATTERED * checked
    return scattered and 2 * sample.shared(meant) >= len(meant)


def _names(meant: Mapping[int, SeenValue]) -> dict[str, int]:
    """Names for classes; a 0 on most of the pixels is called background."""
    if not meant or len(meant) > MOST_CLASSES:
        return {}
    values = sorted({0, *meant} if len(meant) == 1 else meant)
    names = {f"value_{value}": value for value in values}
    if values[0] == 0 and 0 in meant and meant[0].share >= 0.5:
        other = {"foreground": values[1]} if len(values) == 2 else dict(list(names.items())[1:])
        return {"background": 0, **other}
    return names


def _described(values: Mapping[int, SeenValue], labels: int) -> tuple[str, ...]:
    """The values, with share and mean intensity: which one is the background shows at a glance."""
    if len(values) > MOST_CLASSES:
        return (_numbers(values, labels),)
    lines = [
        f"value {value}: {seen.share:.1%} of the pixels, mean intensity {seen.intensity:.4g}, in "
        f"{seen.labels} of {labels} labels"
        for value, seen in values.items()
    ]
    return (f"{_read_labels(labels)}:", *lines)


def _numbers(values: Mapping[int, SeenValue], labels: int) -> str:
    numbers = [value for value in values if value != 0]
    zero = values[0].share if 0 in values else 0.0
    return (
        f"{_read_labels(labels)}: numbers {min(numbers)} to {max(numbers)}, 0 on {zero:.1%} of "
        "the pixels"
    )


def _read_labels(number: int) -> str:
    return f"{number} label{'' if number == 1 else 's'} read"


def _odd_shares(meant: Mapping[int, SeenValue]) -> list[str]:
    zero = meant[0].share if 0 in meant else 0.0
    if zero > 1 - SPARSE:
        return [
            f"objects cover only {1 - zero:.2%} of the pixels: if 0 means 'not labelled' for some "
            "of them, the network learns to miss objects"
        ]
    if zero < 1 - COVERED:
        return [f"objects cover {1 - zero:.0%} of the pixels: are images and labels swapped?"]
    return []
