"""Reads the tables of the details stage for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unet.paths import Paths
from unet.tables import read_table

if TYPE_CHECKING:
    import pandas as pd

_MATCHES = ("image", "kind", "iou", "true_px", "pred_px", "pixel_um")
_CONFUSION = ("image", "true_class", "pred_class", "pixels")
_THRESHOLDS = ("image", "class", "threshold", "positives", "negatives")


@dataclass(frozen=True, eq=False)
class Details:
    """The tables of one model, with numbers as float64.

    Attributes:
        matches: a row per object; empty for task semantic.
        confusion: pixels per image and pair of classes.
        thresholds: pixels per image, class and bin of its probability.
    """

    matches: pd.DataFrame
    confusion: pd.DataFrame
    thresholds: pd.DataFrame

    @property
    def images(self) -> list[str]:
        """The ids of the images that were compared, sorted."""
        return sorted({*self.confusion["image"], *self.matches["image"]})


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
                read_table(matches, "details", _MATCHES, ("iou", "true_px", "pred_px", "pixel_um")),
                read_table(confusion, "details", _CONFUSION, ("pixels",)),
                read_table(
                    thresholds, "details", _THRESHOLDS, ("threshold", "positives", "negatives")
                ),
            )
    return found
