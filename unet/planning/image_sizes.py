"""Sizes of a dataset's images, as far as they are known while a run is planned: from the table of
an earlier stage, or from the bytes of the raw files. Loads neither torch nor dask."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from unet.data.raw_changes import stamp
from unet.tables import csv_rows

# Number of characters of a table, and of raw files, that are read for an estimate.
HEAD = 1 << 18
SAMPLE = 20


@dataclass(frozen=True)
class Images:
    """Sizes of a dataset's images.

    Attributes:
        count: number of images.
        channels: most channels of an image.
        pixels: pixels of all images together.
        largest: pixels of the largest image.
        slice: pixels of the largest Y X slice.
    """

    count: int = 0
    channels: int = 1
    pixels: float = 0.0
    largest: int = 0
    slice: int = 0


def images_of(table: str | Path) -> Images:
    """The sizes from ``manifest.csv`` or ``prepared.json``.

    Only the first part of a long table is read, and extrapolated to the rest, so that planning is
    as fast for a million images as for ten.

    Raises:
        FileNotFoundError: the table does not exist yet (Snakemake asks again when it does).
    """
    status = os.stat(table)  # noqa: PTH116 - the name goes into the error
    return _images_of(str(table), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4096)
def _images_of(table: str, _time: int, size: int) -> Images:
    with open(table, encoding="utf-8") as handle:  # noqa: PTH123 - the name goes into the error
        head = handle.read(HEAD)
    shapes = (_from_manifest if table.endswith(".csv") else _from_sentinel)(head)
    if not shapes:
        return Images()
    share = max(1.0, size / len(head.encode()))
    spatial = [math.prod(shape[1:]) for shape in shapes]
    return Images(
        count=math.ceil(len(shapes) * share),
        channels=max(shape[0] for shape in shapes),
        pixels=sum(spatial) * share,
        largest=max(spatial),
        slice=max(math.prod(shape[-2:]) for shape in shapes),
    )


def _from_manifest(head: str) -> list[list[int]]:
    if len(head) == HEAD:  # the last row may be incomplete
        head = head.rpartition("\n")[0]
    rows = csv_rows(head)
    return [json.loads(row["shape"]) for row in rows if row["status"] == "ok" and row["shape"]]


def _from_sentinel(head: str) -> list[list[int]]:
    found = re.findall(r'"shape": \[([\d,\s]+)\]', head)
    return [[int(n) for n in text.split(",")] for text in found]


def raw_images(files: Sequence[Path]) -> Images:
    """An estimate before the files are read: a byte counts as a pixel. Checks a sample of the
    files if there are many."""
    some = files[:: max(1, len(files) // SAMPLE)]
    sizes = [max(0, stamp(path)[0]) for path in some]
    if not sizes:
        return Images()
    mean = sum(sizes) / len(sizes)
    return Images(len(files), 1, mean * len(files), max(sizes), max(sizes))
