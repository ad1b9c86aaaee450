"""The arrays of one segmented image and its labels, opened lazily, and its slices for metrics that
need whole ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import zarr
from numpy.typing import NDArray

from unet.config.heads import IGNORE
from unet.data.store import Prepared
from unet.errors import UserError
from unet.evaluation.metrics.isbi2012 import Slice
from unet.prediction.stitch.segmentation import Segmentation

ZarrArray: TypeAlias = "zarr.Array[Any]"


@dataclass(frozen=True, eq=False)
class ScoredPair:
    """The arrays of one image, opened lazily, all of the same spatial shape (Z,) Y, X.

    Attributes:
        truth, pred: class index, uint8; 255 in ``truth`` = ignore.
        truth_ids, pred_ids: instance ids, uint32, 0 = background; None for task semantic.
        probabilities: [C, (Z,) Y, X], float16 or float32; None for masks without them.
        head: names of the C classes.
        pixel_size_um: per spatial axis, None = unknown.
        sparse: whether ignored pixels of the truth are pixels that nobody labelled, so that objects
            may lie there.
    """

    image: str
    truth: ZarrArray
    pred: ZarrArray
    truth_ids: ZarrArray | None
    pred_ids: ZarrArray | None
    probabilities: ZarrArray | None
    head: tuple[str, ...]
    pixel_size_um: tuple[float, ...] | None = None
    sparse: bool = False


def open_pair(prepared: Prepared, segmentation: Segmentation, image: str, task: str) -> ScoredPair:
    """Opens one image's arrays.

    Raises:
        UserError: the image has no labels, or none for this task, or their shape differs.
    """
    where = f"{prepared.path / image}"
    truth, pred = prepared.classes(image), segmentation.classes(image)
    if truth is None:
        raise UserError(
            f"{where}: has no labels, so image {image} cannot be evaluated; give it a label file "
            "and run the manifest and prepare stages"
        )
    truth_ids = pred_ids = None
    if task == "instances":
        truth_ids, pred_ids = prepared.instances(image), segmentation.instances(image)
        for ids, stage in ((truth_ids, "prepare"), (pred_ids, "stitch")):
            if ids is None:
                raise UserError(
                    f"image {image}: the {stage} stage made no instances, but task instances "
                    f"needs them; run the {stage} stage again"
                )
    if truth.shape != pred.shape:
        raise UserError(
            f"{where}: labels of shape {truth.shape}, but the segmentation has {pred.shape}; run "
            "the predict and stitch stages again"
        )
    attrs = segmentation.attrs(image)
    size = attrs.get("pixel_size_um")
    return ScoredPair(
        image,
        truth,
        pred,
        truth_ids,
        pred_ids,
        segmentation.probabilities(image) if segmentation.has_probabilities(image) else None,
        tuple(attrs["head"]),
        tuple(float(length) for length in size) if size else None,
        prepared.sparse(image),
    )


def cell_slices(pair: ScoredPair, name: str, class_names: Sequence[str]) -> Iterator[Slice]:
    """For each Z (once for a 2D image): the true pixels of class ``name`` and its probability,
    float32. One whole slice is in memory at a time.

    If the head lacks the second of two classes (heads with border classes lack "foreground"), its
    probability is 1 - p[background].

    Raises:
        UserError: the class does not follow from the head's channels.
    """
    channel, inverted = channel_of(pair, name, class_names, "evaluate.topology_class")
    depths: list[tuple[int, ...]] = [(z,) for z in range(pair.truth.shape[0])]
    for z in depths if pair.truth.ndim == 3 else [()]:
        truth = read(pair.truth, z)
        p = probability_of(pair, channel, inverted, z).astype(np.float32)
        yield Slice(truth == class_names.index(name), p, truth != IGNORE)


def channel_of(
    pair: ScoredPair, name: str, class_names: Sequence[str], what: str
) -> tuple[int, bool]:
    """Channel with the probability of a class, and whether to take 1 minus that channel."""
    if name in pair.head:
        return pair.head.index(name), False
    if len(class_names) == 2 and name == class_names[1] and "background" in pair.head:
        return pair.head.index("background"), True
    raise UserError(
        f"image {pair.image}: {what} is {name!r}, but the model predicts "
        f"{', '.join(pair.head)}; name one of these that the labels have too"
    )


def probability_of(
    pair: ScoredPair, channel: int, inverted: bool, where: tuple[int | slice, ...]
) -> NDArray[Any]:
    """Probability of a class in a part of the image; see `channel_of`."""
    if pair.probabilities is None:
        raise ValueError(f"image {pair.image} has no probabilities")
    p = read(pair.probabilities, (channel, *where))
    return 1 - p.astype(np.float32) if inverted else p


def read(array: ZarrArray, where: tuple[int | slice, ...]) -> NDArray[Any]:
    """A part of an array."""
    # With (), zarr would return a scalar instead of the whole array.
    return np.asarray(array[where] if where else array[:])
