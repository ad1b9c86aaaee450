"""Scores a pair of label arrays of any origin, without a store, a config or a training.

The numbers are those of the evaluate stage: the same families of metrics compute them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from unet.config.heads import IGNORE
from unet.config.sections import EvaluateSection
from unet.data.blocks import ArraySource, grid_of
from unet.data.connected_components import ConnectedComponents
from unet.data.label_maps import instance_maps, semantic_classes
from unet.errors import ArgumentError, UserError
from unet.evaluation.blockwise import ScoredPair, ZarrArray
from unet.evaluation.families import MASK_FAMILIES
from unet.evaluation.fold import score_image
from unet.evaluation.mask_scoring import MaskScoring, whole
from unet.evaluation.metrics.rows import Score

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("image", "class", "metric", "value")
# Pixels of an image up to which its converted labels are in memory (10 bytes per pixel of a pair);
# those of larger images are in temporary files.
IN_MEMORY = 1 << 24
# Side of a block of a larger image, and the bytes that decoding it may take.
BLOCK = 2048
ALLOWED = 1 << 29


def evaluate(
    predicted: Any,
    truth: Any,
    *,
    task: str = "instances",
    classes: Mapping[str, int] | None = None,
    ignore: int | None = None,
    metrics: str | Sequence[str] | None = None,
    pixel_size_um: float | Sequence[float] | None = None,
    binary: str | None = None,
    boundary_tolerance: str = "2 px",
    unlabelled: str = "background",
    threads: int = 1,
    image: str = "image",
) -> pd.DataFrame:
    """Scores predicted labels against true ones: masks of any tool, in bounded memory.

    Args:
        predicted, truth: labels [(Z,) Y, X] of the same shape: NumPy, dask or zarr, whole numbers.
        task, classes, ignore, metrics, binary, boundary_tolerance, unlabelled: see
            :class:`MaskScoring`.
        pixel_size_um: micrometres per pixel, one number or one per axis; None: distances in pixels.
        threads: for the blocks of large images.
        image: its name in the table.

    Returns:
        one row per class and metric: image, class, metric, value (docs/metrics.md), as in
        ``metrics.csv``; NaN where a metric is not defined.

    Raises:
        UserError: shapes differ, values are no labels, or the options do not fit together.
        ArgumentError: an option has a wrong value.
    """
    import pandas as pd

    if (threads := whole("threads", threads)) < 1:
        raise ArgumentError(f"threads: got {threads}; write a whole number above 0")
    scoring = MaskScoring(task, classes, ignore, metrics, binary, boundary_tolerance, unlabelled)
    with opened(scoring, predicted, truth, pixel_size_um, threads, image) as pair:
        rows = [(image, *score[:3]) for score in scores(scoring, pair, threads)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"value": np.float64})


def scores(scoring: MaskScoring, pair: ScoredPair, threads: int = 1) -> list[Score]:
    """All scores of an opened pair, in the order of the families."""
    if scoring.section.boundary_tolerance.endswith("um") and pair.pixel_size_um is None:
        raise UserError(
            f"{pair.image}: boundary_tolerance is {scoring.section.boundary_tolerance}, but the "
            "pixel size is unknown; give the pixel size, or write a distance in px"
        )
    fold = _Single(pair, scoring, threads)
    wanted = [make for name, make in MASK_FAMILIES.items() if name in scoring.section.metrics]
    scorers = [scorer for make in wanted if (scorer := make(fold)) is not None]
    return score_image(pair, scorers, fold)


@dataclass(frozen=True, eq=False)
class _Single:
    """One pair of arrays in the form of :class:`unet.evaluation.fold.Scored`."""

    pair: ScoredPair
    scoring: MaskScoring
    threads: int
    block: int | None = None

    @property
    def settings(self) -> EvaluateSection:
        return self.scoring.section

    @property
    def task(self) -> str:
        return self.scoring.task

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.scoring.class_names

    @property
    def scratch(self) -> Path:
        return Path(gettempdir())

    def ids(self, part: str) -> list[str]:
        return [self.pair.image] if part == "test" else []

    def open(self, image: str) -> ScoredPair:
        return self.pair

    def threads_within(self) -> int:
        return self.threads


@contextmanager
def opened(
    scoring: MaskScoring,
    predicted: Any,
    truth: Any,
    pixel_size_um: float | Sequence[float] | None = None,
    threads: int = 1,
    image: str = "image",
) -> Iterator[ScoredPair]:
    """Class indices and ids of a pair of label arrays, as long as the context lasts.

    Args:
        predicted: None stands for a mask without any object (task semantic: all background).

    Raises:
        UserError: as :func:`evaluate`.
    """
    shape = _checked_shape(truth, "truth", image)
    if predicted is not None:
        found = _checked_shape(predicted, "predicted", image)
        if found != shape:
            raise UserError(f"{image}: predicted labels of shape {found}, true ones of {shape}")
    spacing = _spacing(pixel_size_um, len(shape), image)
    with _new_group(shape) as group:
        args = (scoring, shape, threads, image)
        truth_maps = _converted(group, truth, "truth", *args)
        pred_maps = _converted(group, predicted, "predicted", *args)
        yield ScoredPair(
            *(image, truth_maps[0], pred_maps[0], truth_maps[1], pred_maps[1]),
            *(None, scoring.class_names, spacing, scoring.unlabelled == "ignore"),
        )


def _checked_shape(array: Any, side: str, image: str) -> tuple[int, ...]:
    shape, dtype = getattr(array, "shape", None), getattr(array, "dtype", None)
    if shape is None or dtype is None:
        raise UserError(
            f"{image}: {side} is {type(array).__name__}; give an array (NumPy, dask, zarr)"
        )
    if len(shape) not in (2, 3) or 0 in shape:
        raise UserError(
            f"{image}: {side} labels of shape {tuple(shape)}; give one array [Y, X] or [Z, Y, X] "
            "per image"
        )
    if np.dtype(dtype).kind not in "biuf":
        raise UserError(f"{image}: {side} labels of type {dtype}; give whole numbers")
    return tuple(int(n) for n in shape)


def _spacing(
    pixel_size_um: float | Sequence[float] | None, axes: int, image: str
) -> tuple[float, ...] | None:
    if pixel_size_um is None:
        return None
    wanted = f"give one number above 0, or {axes} (one per axis)"
    listed = isinstance(pixel_size_um, list | tuple | np.ndarray)
    listed = listed and getattr(pixel_size_um, "ndim", 1) > 0  # a number can be an array, too
    sizes: list[Any] = list(pixel_size_um) if listed else [pixel_size_um] * axes  # type: ignore[arg-type]
    try:
        found = tuple(math.nan if isinstance(n, str | bool | np.bool_) else float(n) for n in sizes)
    except (TypeError, ValueError, OverflowError):
        found = ()
    if len(found) != axes or not all(0 < size < math.inf for size in found):
        raise ArgumentError(f"pixel_size_um: got {pixel_size_um!r} for {image}; {wanted}")
    return found


@contextmanager
def _new_group(shape: tuple[int, ...]) -> Iterator[zarr.Group]:
    if math.prod(shape) <= IN_MEMORY:
        yield zarr.open_group({}, mode="w", zarr_format=3)
        return
    with TemporaryDirectory(prefix=".labels-", suffix=".tmp") as folder:
        yield zarr.open_group(str(Path(folder) / "pair.zarr"), mode="w", zarr_format=3)


def _converted(
    group: zarr.Group,
    labels: Any,
    side: str,
    scoring: MaskScoring,
    shape: tuple[int, ...],
    threads: int,
    image: str,
) -> tuple[ZarrArray, ZarrArray | None]:
    """Class indices and, for task instances, ids, in arrays of their own."""
    in_memory = math.prod(shape) <= IN_MEMORY
    block = shape if in_memory else grid_of(shape, BLOCK).block
    block = tuple(min(b, n) for b, n in zip(block, shape, strict=True))

    def new(name: str, dtype: str) -> Any:
        return group.create_array(
            f"{side}-{name}", shape=shape, dtype=dtype, chunks=block, fill_value=0,
            compressors=None if in_memory else "auto",
        )  # fmt: skip

    classes = new("classes", "uint8")
    ids = new("ids", "uint32") if scoring.task == "instances" else None
    if labels is None:  # the arrays are 0 where nothing is written
        return classes, ids
    split = scoring.binary in (side, "both")
    numbering = ConnectedComponents(shape) if split else None
    for region, values in _regions(labels, block, threads):
        try:
            found, numbers = _maps(scoring, values, side, split)
        except UserError as error:
            raise UserError(f"{image}: {side}: {error}") from None
        classes[region] = found
        if ids is not None:
            ids[region] = numbers if numbering is None else numbering.add(region, numbers > 0)
    if numbering is not None:
        numbering.settle(ids)
    return classes, ids


def _regions(labels: Any, block: tuple[int, ...], threads: int) -> Iterator[Any]:
    import dask.array as da

    if not hasattr(labels, "compute"):
        wrap: Any = da.from_array
        labels = wrap(labels, name=False)
    source = ArraySource(labels, block, ALLOWED, threads)
    source.load()
    yield from source.regions()


def _maps(scoring: MaskScoring, values: Any, side: str, split: bool) -> tuple[Any, Any]:
    """Class indices and ids of a block. Only the truth has pixels to ignore, because a predicted
    object may well have that number."""
    if values.dtype == np.bool_:
        if scoring.task == "instances" and not split:
            raise UserError(
                f"a mask of True and False has no ids of objects; write binary: {side} (or both) "
                "to number its connected components"
            )
        values = values.astype(np.uint8)
    ignore = scoring.ignore if side == "truth" else None
    sparse = side == "truth" and scoring.unlabelled == "ignore"
    if scoring.classes is None:
        return instance_maps(values, ignore, unlabelled=IGNORE if sparse else 0)
    return semantic_classes(values, dict(scoring.classes), ignore, sparse=sparse), None
