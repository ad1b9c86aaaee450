"""One segmented image against its labels, read from the stores block by block.

Tables of blocks add up, so an image is counted without ever being held whole, and the result does
not depend on the blocks. The exception is `cell_slices`, which gives whole 2D slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray

from unet.data.store import Prepared
from unet.data.streaming import Slices, blocks
from unet.errors import UserError
from unet.evaluation.contingency import Contingency, contingency, merge
from unet.evaluation.pixel import IGNORE, confusion
from unet.prediction.blocks import ordered
from unet.prediction.segmentation import Segmentation

ZarrArray: TypeAlias = "zarr.Array[Any]"
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Pair:
    """The arrays of one image, opened lazily, all of the same spatial shape (Z,) Y, X.

    Attributes:
        truth, pred: class index, uint8; 255 in ``truth`` = ignore.
        truth_ids, pred_ids: instance ids, uint32, 0 = background; None for task semantic.
        probabilities: [C, (Z,) Y, X], float16 or float32.
        head: names of the C classes.
    """

    image: str
    truth: ZarrArray
    pred: ZarrArray
    truth_ids: ZarrArray | None
    pred_ids: ZarrArray | None
    probabilities: ZarrArray
    head: tuple[str, ...]

    def regions(self, block: int | None = None) -> list[Slices]:
        """Blocks that cover the image once: ``block`` pixels a side, or the shards (else chunks)
        of the predicted classes."""
        if block is not None:
            return list(blocks(self.pred.shape, (block,) * self.pred.ndim))
        return list(blocks(self.pred.shape, self.pred.shards or self.pred.chunks))


def open_pair(prepared: Prepared, segmentation: Segmentation, image: str, task: str) -> Pair:
    """Opens one image's arrays.

    Raises:
        UserError: the image has no labels, not those of this task, or they differ in shape.
    """
    where = f"{prepared.path / image}"
    truth, pred = prepared.classes(image), segmentation.classes(image)
    if truth is None:
        raise UserError(
            f"{where}: has no labels, but image {image} is to be evaluated; give it a label file "
            "and run the manifest and prepare stages"
        )
    truth_ids = pred_ids = None
    if task == "instances":
        truth_ids, pred_ids = prepared.instances(image), segmentation.instances(image)
        for ids, stage in ((truth_ids, "prepare"), (pred_ids, "stitch")):
            if ids is None:
                raise UserError(
                    f"image {image}: the {stage} stage made no instances of it, which task "
                    f"instances needs; run the {stage} stage again"
                )
    if truth.shape != pred.shape:
        raise UserError(
            f"{where}: labels of shape {truth.shape}, but the segmentation has {pred.shape}; run "
            "the predict and stitch stages again"
        )
    head = tuple(segmentation.attrs(image)["head"])
    probabilities = segmentation.probabilities(image)
    return Pair(image, truth, pred, truth_ids, pred_ids, probabilities, head)


def confusion_of(
    pair: Pair, num_classes: int, threads: int = 1, block: int | None = None
) -> NDArray[np.int64]:
    """Confusion matrix of the image's classes, int64 [K, K]; ignored pixels left out."""

    def one(region: Slices) -> NDArray[np.int64]:
        return confusion(_read(pair.truth, region), _read(pair.pred, region), num_classes)

    zero = np.zeros((num_classes, num_classes), np.int64)
    return sum(_each(one, pair, threads, block), zero)


def contingency_of(pair: Pair, threads: int = 1, block: int | None = None) -> Contingency:
    """Table of the image's true and predicted ids; ignored pixels left out, so an object that
    lies in such pixels alone does not count.

    Raises ValueError for an image of task semantic.
    """
    truth_ids, pred_ids = pair.truth_ids, pair.pred_ids
    if truth_ids is None or pred_ids is None:
        raise ValueError(f"image {pair.image} has no instances")

    def one(region: Slices) -> Contingency:
        valid = _read(pair.truth, region) != IGNORE
        return contingency(_read(truth_ids, region), _read(pred_ids, region), valid)

    return merge(_each(one, pair, threads, block))


def cell_slices(
    pair: Pair, name: str, class_names: Sequence[str]
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.float32]]]:
    """Per Z (once for a 2D image) where class ``name`` truly is, bool [Y, X], ignored pixels
    False, and its probability, float32 [Y, X]. A whole slice is in memory at a time.

    Where the head lacks the second of two classes (as that with the border classes lacks
    "foreground"), it is all but the head's background.

    Raises:
        UserError: the class cannot be told from the head's classes.
    """
    index = class_names.index(name)
    known = name in pair.head
    if not known and not (len(class_names) == 2 and index == 1 and "background" in pair.head):
        raise UserError(
            f"image {pair.image}: evaluate.topology_class is {name!r}, but the model predicts "
            f"{', '.join(pair.head)}; name one of these that the labels have too"
        )
    channel = pair.head.index(name if known else "background")
    depths: list[tuple[int, ...]] = [(z,) for z in range(pair.truth.shape[0])]
    for z in depths if pair.truth.ndim == 3 else [()]:
        truth = _read(pair.truth, z) == index
        p = _read(pair.probabilities, (channel, *z)).astype(np.float32)
        yield truth, p if known else 1 - p


def _each(
    function: Callable[[Slices], R], pair: Pair, threads: int, block: int | None
) -> Iterator[R]:
    return ordered(function, pair.regions(block), threads)


def _read(array: ZarrArray, where: tuple[int | slice, ...]) -> NDArray[Any]:
    # () would be a whole array too, but of zarr it asks for a scalar.
    return np.asarray(array[where] if where else array[:])
