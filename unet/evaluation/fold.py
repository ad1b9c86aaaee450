"""A model's fold with its labels, and one image of it: the input of the families of metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from unet.config.sections import EvaluateSection
from unet.data.blocks import Progress, ordered
from unet.data.store import Prepared
from unet.evaluation.blockwise import ScoredPair, open_pair
from unet.evaluation.metrics.rows import Score
from unet.evaluation.scan import Part, Totals, scanned
from unet.paths import fold_name
from unet.prediction.stitch.segmentation import Segmentation

R = TypeVar("R")
# Images whose results may wait for a slower one before them.
AHEAD = 256
# Opened images that stay open, about 15 kB each: opening takes as long as scoring a small image.
OPEN = 1000


class Scored(Protocol):
    """What the families that compare maps and objects need: a fold, or a pair of arrays."""

    @property
    def settings(self) -> EvaluateSection: ...

    @property
    def task(self) -> str: ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the class index."""

    @property
    def block(self) -> int | None:
        """Side of the blocks in pixels, None = the arrays' own shards or chunks."""

    @property
    def scratch(self) -> Path:
        """An existing folder for temporary files."""

    def ids(self, part: str) -> list[str]:
        """The images of a part, "test" or "val"."""

    def open(self, image: str) -> ScoredPair: ...

    def threads_within(self) -> int:
        """Threads for the blocks of one image."""


@dataclass(frozen=True, eq=False)
class Fold:
    """One fold's segmentation with its labels, and how to score it.

    Attributes:
        parts: image id -> "test" or "val", sorted by id.
        class_names: in the order of the class index.
        threads: for all images together.
        block: side of the blocks in pixels, None = the store's shards.
        thresholds: (class, name of the metric that contains it) -> threshold chosen on the model's
            training dataset; for images of another dataset, which has no validation images.
    """

    number: int
    prepared: Prepared
    segmentation: Segmentation
    parts: Mapping[str, str]
    settings: EvaluateSection
    task: str
    class_names: tuple[str, ...]
    threads: int
    block: int | None
    thresholds: Mapping[tuple[str, str], float] = field(default_factory=dict)
    _opened: dict[str, ScoredPair] = field(default_factory=dict, init=False)

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"fold {fold_name(self.number)}"

    @property
    def scratch(self) -> Path:
        return self.segmentation.path

    def ids(self, part: str) -> list[str]:
        return [image for image, image_part in self.parts.items() if image_part == part]

    def open(self, image: str) -> ScoredPair:
        if (found := self._opened.get(image)) is None:
            found = open_pair(self.prepared, self.segmentation, image, self.task)
            if len(self._opened) < OPEN:
                self._opened[image] = found
        return found

    def each(self, function: Callable[[ScoredPair], R], part: str) -> list[R]:
        """Applies ``function`` to each image of a part, in threads; results in the order of ids."""
        return list(self.one_by_one(function, part))

    def one_by_one(self, function: Callable[[ScoredPair], R], part: str) -> Iterator[R]:
        """Like `each`, but yields a result as soon as those before it are there."""
        ids = self.ids(part)
        progress = Progress(f"{self.name}, {part} images", len(ids), self._bytes(ids))

        def one(image: str) -> R:
            pair = self.open(image)
            result = function(pair)
            progress.advance(pair.truth.nbytes, images=1)
            return result

        # A slow image delays few others.
        return ordered(one, ids, max(1, min(self.threads, len(ids))), ahead=AHEAD)

    def threads_within(self) -> int:
        """Threads left for each image's blocks when there are fewer test images than threads."""
        return max(1, self.threads // max(1, len(self.ids("test"))))

    def _bytes(self, ids: Iterable[str]) -> int:
        return sum(self.segmentation.classes(image).nbytes for image in ids)


@dataclass(frozen=True, eq=False)
class Case:
    """An image to score, with the totals of its blocks."""

    pair: ScoredPair
    totals: Totals


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores images by a family of metrics.

    Attributes:
        score: the rows of one image.
        parts: what it needs in ``totals``; families share a part that is the same object.
    """

    score: Callable[[Case], list[Score]]
    parts: tuple[Part[Any, Any], ...] = ()


def score_image(pair: ScoredPair, scorers: Sequence[Scorer], fold: Scored) -> list[Score]:
    """All scores of an image, in the order of the families; its blocks are read once."""
    parts = [part for scorer in scorers for part in scorer.parts]
    with scanned(pair, parts, fold.threads_within(), fold.block, fold.scratch) as totals:
        case = Case(pair, totals)
        return [score for scorer in scorers for score in scorer.score(case)]
