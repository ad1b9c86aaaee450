"""Links from an image of the gallery to the files with its results."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from unet.report.dataset_results import DatasetResults
from unet.report.gallery.tested_images import TestedImage

Lines = tuple[int, int]


@dataclass(frozen=True)
class FileLink:
    """A link; ``href`` is relative to the folder of the dataset."""

    text: str
    href: str


class CardFiles:
    """Finds the files of the given images, and the lines of these in tables."""

    def __init__(self, data: DatasetResults, images: Sequence[TestedImage]) -> None:
        self.data = data
        self.root = data.paths.dataset(data.dataset)
        self.metrics = _lines_of_metrics(data)
        wanted = {image.id for image in images}
        folds = {(m, fold) for image in images for m, fold in image.folds.items()}
        self.objects = {
            (model, fold): _lines_of_objects(
                data.paths.objects(data.dataset, data.model_path(model), fold), wanted
            )
            for model, fold in folds
        }

    def links(self, image: TestedImage, model: str) -> list[FileLink]:
        """Mask, rows of scores, rows of objects: those that exist."""
        fold, where = image.folds[model], (self.data.dataset, self.data.model_path(model))
        mask = self.data.paths.masks(*where, fold) / f"{image.id}.tif"
        found = [FileLink("mask", self._href(mask))] if mask.is_file() else []
        tables = (
            ("metrics.csv", self.data.paths.metrics(*where), self.metrics.get((model, image.id))),
            (
                "objects.csv",
                self.data.paths.objects(*where, fold),
                self.objects[model, fold].get(image.id),
            ),
        )
        for name, path, lines in tables:
            if lines is not None:
                several = f"lines {lines[0]}–{lines[1]}"
                place = several if lines[1] > lines[0] else f"line {lines[0]}"
                found.append(FileLink(f"{name}, {place}", self._href(path)))
        return found

    def _href(self, path: Path) -> str:
        return quote(path.relative_to(self.root).as_posix())


def _lines_of_metrics(data: DatasetResults) -> dict[tuple[str, str], Lines]:
    """(model, image) -> its first and last line in the model's file; line 1 is the header."""
    found: dict[tuple[str, str], Lines] = {}
    number: dict[str, int] = {}
    for row in data.metrics:
        line = number[row.model] = number.get(row.model, 1) + 1
        first, _ = found.get((row.model, row.image), (line, line))
        found[row.model, row.image] = (first, line)
    return found


def _lines_of_objects(path: Path, wanted: set[str]) -> dict[str, Lines]:
    """Image -> its first and last line in a table of objects, which is read line by line."""
    found: dict[str, Lines] = {}
    for line, image in _first_cells(path):
        if image in wanted:
            found[image] = (found.get(image, (line, line))[0], line)
    return found


def _first_cells(path: Path) -> Iterator[tuple[int, str]]:
    """(line, image) of the rows of a table; none if it is missing."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", newline="") as handle:
        rows = csv.reader(handle)
        column = {name: k for k, name in enumerate(next(rows, []))}.get("image", 0)
        for line, row in enumerate(rows, start=2):
            if row:
                yield line, row[column]
