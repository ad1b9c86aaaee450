"""Reads images, and the tables of a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unet.api.arguments import checked_channels
from unet.errors import ArgumentError
from unet.io.axes import DaskArray
from unet.io.images import open_image

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Image:
    """An image file, not yet read. ``numpy.asarray(image)`` reads it; ``Model.predict`` takes it
    with its axes and pixel size.

    Attributes:
        array: dask array, C (Z) Y X, in the type of the file.
        axes: "CYX" or "CZYX".
        pixel_size_um: micrometres along (Z) Y X; None if the file does not declare it.
        channel_names: "" for a channel without a name.
        path: the file.
        warnings: what looks wrong in the file.
    """

    array: DaskArray
    axes: str
    pixel_size_um: tuple[float, ...] | None
    channel_names: tuple[str, ...]
    path: Path
    warnings: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return tuple(int(n) for n in self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        found: np.dtype[Any] = np.dtype(self.array.dtype)
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.array.compute(), dtype)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.shape))
        pixel = "pixel size unknown"
        if self.pixel_size_um is not None:
            pixel = " x ".join(f"{value:g}" for value in self.pixel_size_um) + " um per pixel"
        names = ", ".join(filter(None, self.channel_names))
        channels = f", channels {names}" if names else ""
        return f"<Image {self.path.name}: {self.axes} {size}, {self.dtype}, {pixel}{channels}>"


def read_image(
    path: str | os.PathLike[str],
    axes: str | None = None,
    *,
    channels: Sequence[int | str] | None = None,
    page: int | None = None,
) -> Image:
    """Opens an image file of any format in docs/data.md. Pixels are read when they are needed.

    Args:
        axes: meaning of the file's axes in their order (C, Z, Y, X; S = separate images), if the
            file does not declare it or is wrong.
        channels: which to take, by number from 0 or by name; None = all.
        page: which image of a stack, from 0.

    Raises:
        UserError: the file cannot be read, or its axes are not declared.

    Example:
        >>> image = read_image("cells.tif")
        >>> image
        <Image cells.tif: CYX 1 x 96 x 128, uint16, 0.5 x 0.5 um per pixel>
        >>> np.asarray(image).shape
        (1, 96, 128)
    """
    file = Path(path)
    found = open_image(file, axes=axes, channels=checked_channels(channels), page=page)
    return Image(
        found.array,
        found.axes,
        found.pixel_size_um,
        found.channel_names,
        file,
        (*found.warnings, *found.size_warnings),
    )


def read_report(path: str | os.PathLike[str], scores: str = "means") -> pd.DataFrame:
    """The scores of a run, one row per dataset, model, class and metric.

    Args:
        path: the results folder of a run, the folder of a dataset in it, or a file: ``report.csv``
            (for images: ``metrics.csv``).
        scores: "means", over the test images of all folds; or "images", the score of each image.

    Returns:
        means: dataset, model, class, metric, mean, low, high (95 % interval), n (images), pooled,
        best, difference, difference_low, difference_high, clear, p, units, far. images: dataset,
        model, fold, image, group, class, metric, value, weight. docs/pipeline.md explains them,
        docs/metrics.md the metrics. NaN: not defined.

    Raises:
        UserError: there is no such table.

    Example:
        >>> report = read_report("results")
        >>> report.loc[report.metric == "ap_0.50", "mean"].tolist()
        [0.5]
        >>> each = read_report("results", "images")
        >>> each.groupby(["model", "metric"]).value.median()
        Series([], Name: value, dtype: float64)
    """
    import pandas as pd

    from unet.report.tidy_tables import read_scores, score_files

    if scores not in ("means", "images"):
        raise ArgumentError(f"scores: got {scores!r}; write 'means' or 'images'")
    files = score_files(Path(path), each_image=scores == "images")
    return pd.concat([read_scores(file) for file in files], ignore_index=True)
