"""Reads the tables of the details stage for the report.

They have a row per object, or several per image, so they are summed up while they are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unet.evaluation.object_pairs import FALSE, MATCHED, MISSED
from unet.paths import Paths
from unet.tables import table_chunks

if TYPE_CHECKING:
    import pandas as pd

_MATCH_NUMBERS = ("iou", "true_px", "pred_px", "pixel_um")
_MATCHES = ("image", "kind", *_MATCH_NUMBERS)
_CONFUSION = ("image", "true_class", "pred_class", "pixels")
_THRESHOLD_NUMBERS = ("threshold", "positives", "negatives")
_THRESHOLDS = ("image", "class", *_THRESHOLD_NUMBERS)


@dataclass(frozen=True, eq=False)
class ObjectTable:
    """The objects of a model, summed up. Its memory grows with the number of images and of
    different sizes, not of objects: N pixels hold objects of at most sqrt(2 N) different sizes.

    Attributes:
        counts: image -> ``true``, ``pred``: int64, its numbers of objects; images with any.
        sizes: a row per pixel size and object size: ``pixel_um`` (area or volume of a pixel; NaN:
            unknown), ``px``; int64 numbers of ``true`` objects, those ``found``, and ``pred`` ones
            of this size; ``iou``, the sum over the found ones.
    """

    counts: pd.DataFrame
    sizes: pd.DataFrame


def summed(matches: Iterable[pd.DataFrame]) -> ObjectTable:
    """Sums up the rows of ``matches.csv``, given in one or more pieces."""
    import pandas as pd

    counts: list[pd.DataFrame] = []
    sizes: list[pd.DataFrame] = []
    for piece in matches:
        kind, where = piece["kind"], piece[["image", "pixel_um"]]
        found = kind == MATCHED
        iou = piece["iou"].where(found, 0.0)
        true = where.assign(px=piece["true_px"], true=1, found=found.astype(int), iou=iou, pred=0)
        pred = where.assign(px=piece["pred_px"], true=0, found=0, iou=0.0, pred=1)
        rows = pd.concat([true[found | (kind == MISSED)], pred[found | (kind == FALSE)]])
        counts = [_added([*counts, rows[["image", "true", "pred"]]], ["image"])]
        sizes = [_added([*sizes, rows.drop(columns="image")], ["pixel_um", "px"])]
    return ObjectTable(counts[0].set_index("image"), sizes[0])


def _added(tables: Sequence[pd.DataFrame], by: list[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat(tables).groupby(by, dropna=False, as_index=False).sum()


@dataclass(frozen=True, eq=False)
class ConfusionTable:
    """The confusion of classes by a model, summed over the images.

    Attributes:
        pixels: a row per ``true_class`` and ``pred_class`` that occur: their ``pixels``.
        images: ids of the images.
    """

    pixels: pd.DataFrame
    images: frozenset[str]


@dataclass(frozen=True, eq=False)
class ThresholdTable:
    """The probabilities of a model, summed over the images.

    Attributes:
        bins: a row per ``class`` and ``threshold`` that occur: pixels that are of the class
            (``positives``) and that are not (``negatives``).
        images: class -> number of images with pixels of the class.
    """

    bins: pd.DataFrame
    images: Mapping[str, int]


def summed_confusion(pieces: Iterable[pd.DataFrame]) -> ConfusionTable:
    """Sums up the rows of ``confusion.csv``, given in one or more pieces."""
    tables: list[pd.DataFrame] = []
    images: set[str] = set()
    for piece in pieces:
        images.update(piece["image"])
        by = ["true_class", "pred_class"]
        tables = [_added([*tables, piece[[*by, "pixels"]]], by)]
    return ConfusionTable(tables[0], frozenset(images))


def summed_thresholds(pieces: Iterable[pd.DataFrame]) -> ThresholdTable:
    """Sums up the rows of ``thresholds.csv``, given in one or more pieces."""
    tables: list[pd.DataFrame] = []
    images: set[tuple[str, str]] = set()
    for piece in pieces:
        own = piece[piece["positives"] > 0]
        images.update(zip(own["class"], own["image"], strict=True))
        tables = [_added([*tables, piece.drop(columns="image")], ["class", "threshold"])]
    return ThresholdTable(tables[0], Counter(name for name, _ in images))


@dataclass(frozen=True, eq=False)
class Details:
    """The tables of one model, summed up. Their memory grows with the number of images, not of
    objects or pixels.

    Attributes:
        objects: none for task semantic.
    """

    objects: ObjectTable
    confusion: ConfusionTable
    thresholds: ThresholdTable

    @property
    def images(self) -> list[str]:
        """The ids of the images that were compared, sorted."""
        return sorted({*self.confusion.images, *self.objects.counts.index})


def read_details(paths: Paths, dataset: str, models: Sequence[str]) -> dict[str, Details]:
    """Model -> its tables; models without them (results of an earlier version) are left out.

    Raises:
        UserError: a table is damaged, or has no such columns.
    """
    found = {}
    for model in models:
        tables = paths.details(dataset, model)
        if all(table.is_file() for table in tables):
            matches, confusion, thresholds = tables
            found[model] = Details(
                summed(table_chunks(matches, "details", _MATCHES, _MATCH_NUMBERS)),
                summed_confusion(table_chunks(confusion, "details", _CONFUSION, ("pixels",))),
                summed_thresholds(
                    table_chunks(thresholds, "details", _THRESHOLDS, _THRESHOLD_NUMBERS)
                ),
            )
    return found
