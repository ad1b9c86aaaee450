"""One pass over the blocks of an image, in which each array is read once for all that needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from unet.config.heads import IGNORE
from unet.data.blocks import Grid, Index, ordered, within
from unet.evaluation.blockwise import ScoredPair, read

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Scan:
    """A pass.

    Attributes:
        threads: for the blocks.
        margin: pixels around a block that its labels are read with.
        folder: for temporary files; None for an image of one block, whose results are in memory.
    """

    pair: ScoredPair
    grid: Grid
    threads: int
    margin: int
    folder: Path | None


class Block:
    """A block of an image. Its labels are read when they are first needed, and kept."""

    def __init__(self, scan: Scan, index: Index) -> None:
        self.scan, self.pair, self.index = scan, scan.pair, index
        self.region = scan.grid.region(index)
        margin = scan.margin
        self._wide = tuple(slice(max(0, s.start - margin), s.stop + margin) for s in self.region)
        # Its own pixels in an array that was read with the margin.
        self.inner = within(self.region, self._wide)
        self._read: dict[str, NDArray[Any]] = {}

    def wide(self, name: str) -> NDArray[Any]:
        """Labels of the pair with the margin of the pass, cut at the image's border."""
        if name not in self._read:
            array = getattr(self.pair, name)
            if array is None:
                raise ValueError(f"image {self.pair.image} has no {name}")
            self._read[name] = read(array, self._wide)
        return self._read[name]

    def labels(self, name: str) -> NDArray[Any]:
        """``truth``, ``pred``, ``truth_ids`` or ``pred_ids`` of the pair in the block."""
        return self.wide(name)[self.inner]

    @cached_property
    def wide_valid(self) -> NDArray[np.bool_]:
        """False where the truth is to be ignored, with the margin."""
        found: NDArray[np.bool_] = self.wide("truth") != IGNORE
        return found

    @property
    def valid(self) -> NDArray[np.bool_]:
        """False where the truth is to be ignored."""
        return self.wide_valid[self.inner]


@dataclass(frozen=True, eq=False)
class Part(Generic[R, T]):
    """Something to compute from the blocks.

    Attributes:
        of: from one block.
        total: from the results of all blocks, in raster order. It does not depend on the blocks.
        margin: pixels around a block that it needs; such results can be in temporary files.
    """

    of: Callable[[Block], R]
    total: Callable[[Scan, list[R]], T]
    margin: int = 0


class Totals:
    """The totals of the parts of a pass."""

    def __init__(self, found: dict[Part[Any, Any], Any]) -> None:
        self._found = found

    def __getitem__(self, part: Part[Any, T]) -> T:
        total: T = self._found[part]
        return total


@contextmanager
def scanned(
    pair: ScoredPair,
    parts: Sequence[Part[Any, Any]],
    threads: int = 1,
    block: int | None = None,
    beside: Path | None = None,
) -> Iterator[Totals]:
    """Computes all parts in one pass.

    Args:
        block: side of the blocks in pixels, None = the shards (else chunks) of the predicted
            classes.
        beside: where the folder for temporary files is, which exists as long as the context lasts.
            None: the system's folder for temporary files.
    """
    parts = list(dict.fromkeys(parts))
    if not parts:
        yield Totals({})
        return
    shape = pair.pred.shape
    unit = (block,) * len(shape) if block is not None else pair.pred.shards or pair.pred.chunks
    grid = Grid(tuple(shape), tuple(min(u, n) for u, n in zip(unit, shape, strict=True)))
    margin = max(part.margin for part in parts)
    with ExitStack() as stack:
        folder = None
        if margin and len(grid) > 1:
            where = beside or Path(gettempdir())
            temporary = TemporaryDirectory(prefix=".outlines-", suffix=".tmp", dir=where)
            folder = Path(stack.enter_context(temporary))
        scan = Scan(pair, grid, threads, margin, folder)

        def one(index: Index) -> list[Any]:
            here = Block(scan, index)
            return [part.of(here) for part in parts]

        blocks = ordered(one, grid, threads, what=f"image {pair.image}: blocks", total=len(grid))
        columns = zip(parts, zip(*blocks, strict=True), strict=True)
        yield Totals({part: part.total(scan, list(found)) for part, found in columns})
