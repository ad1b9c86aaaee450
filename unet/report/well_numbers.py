"""Numbers of each well of a plate: what was found in its images, from the table of objects, and the
mean scores of its images."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from unet.data.records import ImageRecord
from unet.evaluation.metrics.rows import NAN, MetricRow
from unet.report.score_tables import MeanScore
from unet.tables import table_chunks, write_table

# Measures of objects whose mean over the objects of a well is given.
MEASURES = ("area_px", "area_um2", "volume_px", "volume_um3")
INTENSITY = "mean_intensity_c"
# Rows and columns of the usual plates, of 96, 384 and 1536 wells.
PLATES = ((8, 12), (16, 24), (32, 48))
KEYS = ("plate", "well", "row", "column")


@dataclass(frozen=True)
class Well:
    """A well and its images.

    Attributes:
        row, column: as in the names of the files: ``A`` and ``1``.
        images: ids of those that were tested or predicted.
        values: name of a number -> its value; NaN: unknown.
    """

    plate: str
    well: str
    row: str
    column: str
    images: tuple[str, ...]
    values: dict[str, float] = field(default_factory=dict)


def wells_of(records: Iterable[ImageRecord], images: Iterable[str]) -> list[Well]:
    """The wells that have at least one of these images, by plate, row and column."""
    known, found = set(images), dict[tuple[str, str, str, str], list[str]]()
    for record in records:
        if record.well is not None and record.id in known:
            plate, well, row, column = (record.well.get(name, "") for name in KEYS)
            found.setdefault((plate, well, row, column), []).append(record.id)
    wells = [Well(*key, tuple(sorted(ids))) for key, ids in found.items()]
    return sorted(wells, key=lambda w: (w.plate, place(w.row), place(w.column)))


def place(text: str) -> tuple[int, str]:
    """The number of a row or column from 1: of A and 1 it is 1, of AA it is 27. Other texts come
    after all of them."""
    if text.isascii() and text.isdecimal():
        return int(text), ""
    if text.isascii() and text.isalpha() and len(text) < 3:
        number = 0
        for letter in text.upper():
            number = 26 * number + ord(letter) - ord("A") + 1
        return number, ""
    return PLATES[-1][1] + 1, text


def plate_shape(wells: Iterable[Well]) -> tuple[int, int]:
    """Rows and columns of the smallest usual plate that has room for these wells."""
    ends = [(place(well.row)[0], place(well.column)[0]) for well in wells]
    rows, columns = (max(side, default=1) for side in zip(*ends, strict=True))
    usual = (size for size in PLATES if rows <= size[0] and columns <= size[1])
    return next(usual, (rows, columns))


def with_objects(
    wells: Sequence[Well], objects: Mapping[Path, Collection[str]], task: str
) -> list[Well]:
    """The wells with what was found in their images.

    For task instances: the number of objects, their number per image, and the means of their sizes
    and intensities. For task semantic: the share of each class in the pixels.

    Args:
        objects: tables of objects, with the images that count in each.

    Raises:
        UserError: a table cannot be read.
    """
    every = {image: number for number, well in enumerate(wells) for image in well.images}
    sums = [
        _sums(path, {image: every[image] for image in images if image in every}, task)
        for path, images in objects.items()
    ]
    summed = pd.concat(sums).groupby(level=0).sum(min_count=1) if sums else pd.DataFrame()
    found = []
    for number, well in enumerate(wells):
        known = summed[summed.index == number].to_dict("records")
        row = {str(name): float(value) for name, value in known[0].items()} if known else {}
        values = _shares(row) if task == "semantic" else _means(row, len(well.images))
        found.append(Well(*_keys(well), well.images, {**well.values, **values}))
    return found


def _keys(well: Well) -> tuple[str, str, str, str]:
    return well.plate, well.well, well.row, well.column


def _sums(path: Path, wells: Mapping[str, int], task: str) -> pd.DataFrame:
    """The sums of each well, by its number: of the sizes of each class, or of the measures, with
    the number of the objects that have each."""
    with path.open(encoding="utf-8", newline="") as handle:
        header = next(csv.reader(handle), [])
    numbers = [n for n in header if n in MEASURES or n.startswith(INTENSITY)]
    size = next((name for name in numbers if name.endswith("_px")), "area_px")
    parts = []
    for rows in table_chunks(path, "stitch", ["image", "class", *numbers], numbers):
        at = rows["image"].map(wells)
        rows, at = rows[at.notna()], at[at.notna()].astype(int)
        if task == "semantic":
            parts.append(rows.groupby([at, rows["class"]])[size].sum().unstack())
            continue
        known = rows[numbers].notna().groupby(at).sum().add_prefix("n ")
        count = rows.groupby(at).size().rename("objects").to_frame()
        parts.append(pd.concat([count, rows.groupby(at)[numbers].sum(), known], axis=1))
    return pd.concat(parts).groupby(level=0).sum(min_count=1)


def _shares(sums: Mapping[str, float]) -> dict[str, float]:
    # A class that occurs in no image of the well has no sum.
    known = {name: 0.0 if math.isnan(size) else size for name, size in sums.items()}
    total = sum(known.values())
    return {f"share_{name}": size / total for name, size in known.items() if total}


def _means(sums: Mapping[str, float], images: int) -> dict[str, float]:
    count = sums.get("objects", 0.0)
    means = {
        f"{name}_mean": sums[name] / number if (number := sums[f"n {name}"]) else NAN
        for name in sums
        if f"n {name}" in sums
    }
    return {"objects": count, "objects_per_image": count / images, **means}


def with_scores(
    wells: Sequence[Well], metrics: Iterable[MetricRow], model: str, scores: Sequence[MeanScore]
) -> list[Well]:
    """The wells with the mean scores of their images, by the scores' labels."""
    every = {image: number for number, well in enumerate(wells) for image in well.images}
    found: dict[tuple[int, str], list[float]] = {}
    labels = {(s.metric, s.class_): s.label for s in scores}
    for row in metrics:
        label = labels.get((row.metric, row.class_)) or labels.get((row.metric, "*"))
        if label and row.model == model and row.image in every and not math.isnan(row.value):
            found.setdefault((every[row.image], label), []).append(row.value)
    made = []
    for number, well in enumerate(wells):
        own = {s.label: found.get((number, s.label), []) for s in scores}
        means = {label: sum(each) / len(each) if each else NAN for label, each in own.items()}
        made.append(Well(*_keys(well), well.images, {**well.values, **means}))
    return made


def write_wells(path: Path, models: Mapping[str, Sequence[Well]]) -> None:
    """Writes ``wells.csv``: a row per model and well.

    Args:
        models: model -> its wells; the name "" is not written (for a single model).
    """
    named = set(models) != {""}
    numbers = list(dict.fromkeys(n for wells in models.values() for w in wells for n in w.values))
    several = any(well.plate for wells in models.values() for well in wells)
    keys = KEYS if several else KEYS[1:]
    rows = [
        [*([model] if named else []), *(getattr(well, key) for key in keys), len(well.images),
         *(_cell(well.values.get(name, NAN)) for name in numbers)]
        for model, wells in models.items()
        for well in wells
    ]  # fmt: skip
    write_table(path, [*(["model"] if named else []), *keys, "images", *numbers], rows)


def _cell(value: float) -> float | int:
    return value if math.isnan(value) or value != int(value) else int(value)
