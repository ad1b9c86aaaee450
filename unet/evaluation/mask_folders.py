"""Scores folders of masks against true ones: every pair of files, for one or several methods."""

from __future__ import annotations

import filecmp
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.data.blocks import ordered
from unet.data.inspection import Neighbours, like_image
from unet.data.mask_contents import LOOKED_AT, shared_values
from unet.data.mask_pairs import MaskPair
from unet.errors import UserError, how_many
from unet.evaluation.arrays import IN_MEMORY, opened, scores
from unet.evaluation.blockwise import ScoredPair
from unet.evaluation.mask_scoring import MaskScoring
from unet.evaluation.metrics.rows import MetricRow, Score
from unet.files import file_sha256
from unet.io.images import open_label

log = logging.getLogger(__name__)

Array = NDArray[Any]


@dataclass(frozen=True)
class MaskFiles:
    """How to read the files.

    Attributes:
        axes: of files that do not declare theirs, None = as declared.
        pixel_size_um: micrometres, one number or one per axis; None = as in the true mask's file,
            else the predicted one's.
    """

    axes: str | None = None
    pixel_size_um: float | Sequence[float] | None = None


@dataclass(frozen=True)
class Method:
    """Predicted masks of one method, and what happened to them.

    Attributes:
        name: in tables.
        source: as the user wrote it.
        pairs: with a predicted mask, or counted as empty.
        missing: images without a predicted mask.
        extra: predicted masks without a true one.
        left_out: image -> why it could not be scored.
    """

    name: str
    source: str
    pairs: tuple[MaskPair, ...]
    missing: tuple[str, ...] = ()
    extra: tuple[Path, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def opened_files(
    pair: MaskPair, scoring: MaskScoring, files: MaskFiles, threads: int = 1
) -> Iterator[ScoredPair]:
    """The maps of a pair of files, as long as the context lasts.

    Raises:
        UserError: a file cannot be read, has no labels, or their shapes differ.
    """
    truth = open_label(pair.truth, axes=files.axes)
    size, predicted = truth.pixel_size_um, None
    if pair.predicted is not None:
        label = open_label(pair.predicted, axes=files.axes)
        if label.shape != truth.shape:
            raise UserError(
                f"{pair.predicted} is {_size(label.shape)}, but {pair.truth} is "
                f"{_size(truth.shape)}; both need the same pixels"
            )
        size, predicted = size or label.pixel_size_um, label.array
    size_um = size if files.pixel_size_um is None else files.pixel_size_um
    with opened(scoring, predicted, truth.array, size_um, threads, pair.image) as maps:
        yield maps


def _size(shape: tuple[int, ...]) -> str:
    return f"{' x '.join(map(str, shape))} ({'ZYX'[-len(shape) :]})"


def score_method(
    method: Method,
    scoring: MaskScoring,
    files: MaskFiles,
    groups: Mapping[str, str],
    dataset: str,
    threads: int = 1,
) -> tuple[list[MetricRow], dict[str, str]]:
    """All scores of a method's pairs, in their order.

    Args:
        groups: image -> group.
        dataset: name of the true masks in the table.

    Returns:
        the rows, and image -> reason of each pair that could not be scored.

    Raises:
        UserError: none of the pairs could be scored.
    """
    within = max(1, threads // max(1, len(method.pairs)))

    def one(pair: MaskPair) -> list[Score] | UserError:
        try:
            with opened_files(pair, scoring, files, within) as maps:
                return scores(scoring, maps, within)
        except UserError as error:
            return error

    rows: list[MetricRow] = []
    left_out: dict[str, str] = {}
    total, what = len(method.pairs), f"{method.name}: images scored"
    found = ordered(one, method.pairs, threads, ahead=16, what=what, total=total)
    for pair, result in zip(method.pairs, found, strict=True):
        if isinstance(result, UserError):
            left_out[pair.image] = str(result)
            continue
        where = (dataset, method.name, 0, pair.image, groups.get(pair.image, ""))
        rows += [MetricRow(*where, *score) for score in result]
    if len(left_out) == total:
        first = next(iter(left_out.values()), "there is no pair")
        others = f" (and {total - 1} more could not be scored)" if total > 1 else ""
        raise UserError(f"{first}{others}")
    return rows, left_out


def grouping(expression: str | None, images: Sequence[str]) -> dict[str, str]:
    """Image -> group: what the regular expression's one group matches in the image's name.

    Raises:
        UserError: it is no regular expression with one group, or does not match an image.
    """
    if expression is None:
        return {}
    try:
        compiled = re.compile(expression)
    except re.error as error:
        raise UserError(f"--group: {expression!r} is not a regular expression ({error})") from None
    if compiled.groups != 1:
        raise UserError(
            f"--group: {expression!r} must have one group in brackets, such as (plate\\d+)"
        )
    found = {}
    for image in images:
        match = compiled.search(image)
        if match is None:
            raise UserError(f"--group: {expression!r} is not found in the name {image}")
        found[image] = match[1] or ""
    return found


def copies(method: Method) -> list[str]:
    """A line if predicted masks are the true ones themselves, or all are exact copies of them."""
    pairs = [(pair.truth, pair.predicted) for pair in method.pairs if pair.predicted is not None]
    same = [truth for truth, predicted in pairs if _is_same(truth, predicted)]
    if same:
        return [
            f"{method.name}: the same file is the predicted and the true mask in {len(same)} of "
            f"{how_many(len(pairs), 'pair')} (such as {same[0]}), so a perfect score says nothing; "
            "look at both paths"
        ]
    # all() stops at the first pair that differs, so other masks are not read twice.
    if pairs and all(_is_copy(truth, predicted) for truth, predicted in pairs):
        return [
            f"{method.name}: {how_many(len(pairs), 'predicted mask')}, all with exactly the "
            f"content of the true ones (such as {pairs[0][1]} and {pairs[0][0]}): are these copies "
            "of the truth?"
        ]
    return []


def _is_same(one: Path, two: Path) -> bool:
    with suppress(OSError):  # scoring it says why
        return one.samefile(two)
    return False


def _is_copy(one: Path, two: Path) -> bool:
    """Whether two files, or all files in two folders, have the same content."""
    with suppress(OSError, UserError):
        if one.is_dir() or two.is_dir():
            return one.is_dir() and two.is_dir() and file_sha256(one) == file_sha256(two)
        return filecmp.cmp(one, two, shallow=False)
    return False


def doubts(method: Method, scoring: MaskScoring, files: MaskFiles) -> list[str]:
    """A line if values look like those of images, or like classes or foreground, not like ids of
    objects: all masks share very few values, and each value is in several separate pieces."""
    if scoring.task != "instances":
        return []
    sides: dict[str, tuple[str, Callable[[MaskPair], Path | None]]] = {
        "truth": ("the true masks", lambda pair: pair.truth),
        "predicted": (f"the masks of {method.name}", lambda pair: pair.predicted),
    }
    lines: list[str] = []
    names, doubtful, values = [], [], set[int]()
    for side, (name, path_of) in sides.items():
        if scoring.binary in (side, "both"):
            continue
        paths = [path for pair in method.pairs if (path := path_of(pair)) is not None]
        if are_images(_readable(paths, files.axes)):
            lines.append(
                f"{name} look like images: neighbouring pixels are hardly ever equal, as they are "
                "inside objects; give the folder with the masks"
            )
            continue
        if found := shared_values(_readable(paths, files.axes), scoring.ignore):
            names.append(name)
            doubtful.append(side)
            values |= set(found)
    if not doubtful:
        return lines
    listed = ", ".join(map(str, sorted(values)))
    classes = ",".join(
        f"{'cell' if len(values) == 1 else f'class{k}'}={value}"
        for k, value in enumerate(sorted(values), start=1)
    )
    return [
        *lines,
        f"{' and '.join(names)} hold only the value{'s' if len(values) > 1 else ''} {listed} "
        "besides 0, in many separate pieces: are these no ids of objects? For foreground write "
        f"--binary {doubtful[0] if len(doubtful) == 1 else 'both'} (connected pieces are the "
        f"objects), for classes write --classes background=0,{classes}",
    ]


def _readable(paths: Sequence[Path], axes: str | None) -> Iterator[Array]:
    """Some of the masks, one at a time; nothing more after one that is too large to look at."""
    for path in paths[:LOOKED_AT]:
        try:
            label = open_label(path, axes=axes)
            if np.prod(label.shape, dtype=np.int64) > IN_MEMORY:
                return
            yield label.array.compute(scheduler="synchronous")
        except UserError:
            continue  # scoring it says why


def are_images(masks: Iterable[Array]) -> bool:
    """Whether the values of all these masks vary as in an image."""
    found = []
    for mask in masks:
        neighbours = Neighbours()
        neighbours.add(mask)
        found.append(like_image(len(np.unique(mask)), neighbours))
    return bool(found) and all(found)
