"""Where a dataset's raw files are, pairs of image and label, and the sheet that lists them."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from unet.data.dataset_warnings import Warn, unheard
from unet.data.file_names import (
    Found,
    common_ending,
    composed,
    find,
    fixed_part,
    like_labels,
    paired_by_name,
    relative,
    safe_id,
)
from unet.data.sheets import read_rows
from unet.errors import UserError
from unet.files import is_sheet
from unet.io.formats import stem

log = logging.getLogger(__name__)

# Layouts whose "labels" are a name, not a place.
NO_LABEL_PATHS = ("ctc", "ome-zarr", "plate")


@dataclass(frozen=True)
class RawSource:
    """Where the raw files are, as the config says it.

    Attributes:
        root: folder that the manifest's paths are relative to.
        images: folder, glob, plate (.zarr) or sheet (.csv, .tsv); absolute or relative to ``root``.
        labels: the same for labels; for CTC "GT" or "ST", for OME-Zarr the label's name.
        layout: key of LAYOUTS.
        labelled: whether labels are looked for.
        required: whether images without one are of no use (where labels are looked for).
        warn: told what looks wrong with the files as a whole, such as some that are not read. When
            a run is planned nobody listens: the manifest stage says it.
    """

    root: Path
    images: str
    labels: str | None = None
    layout: str = "folders"
    labelled: bool = True
    required: bool = True
    # No part of what the dataset is, which the planning compares.
    warn: Warn = field(default=unheard, repr=False, compare=False)

    @classmethod
    def below(
        cls,
        base: Path,
        images: str,
        labels: str | None = None,
        layout: str = "folders",
        labelled: bool = True,
    ) -> RawSource:
        """The same with the deepest folder that holds all files as ``root``, so that the
        manifest's paths are short and stay as they are when that folder moves.

        Args:
            base: what relative paths of the config are relative to.
        """
        wheres = [base / Path(images).expanduser()]
        if labels is not None and layout not in NO_LABEL_PATHS:
            wheres.append(base / Path(labels).expanduser())
        tops = [str(fixed_part(where).absolute()) for where in wheres]
        root = Path(os.path.commonpath(tops))
        return cls(
            root,
            relative(wheres[0], root),
            relative(wheres[1], root) if len(wheres) > 1 else labels,
            layout,
            labelled,
        )

    @property
    def sheet(self) -> Path | None:
        path = self.root / Path(self.images).expanduser()
        return path if is_sheet(path.name) else None


@dataclass(frozen=True)
class RawPair:
    """One image (or one stack of images) and its label.

    Attributes:
        id: see :func:`unet.data.file_names.safe_id`.
        image, label: paths; ``case_????.tif`` stands for one file per channel.
        stack: whether each page of the files is an image.
        group: what the layout itself groups by, such as the sequence of a time series.
        columns: what the sheet says beside.
    """

    id: str
    image: Path
    label: Path | None = None
    stack: bool = False
    group: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


def with_labels(source: RawSource, images: list[Found]) -> tuple[list[Found], Mapping[Path, Path]]:
    """The images that are no labels themselves, and the label of each that has one.

    Raises:
        UserError: a file is both, or no label has the name of an image.
    """
    labels: list[Found] = []
    if source.labels is not None and source.labelled:
        labels = find(source.labels, source.root, "labels", source.warn)
        images, labels = _apart(source, images, labels)
    like_labels(images, "images", source.warn)
    if not labels:
        return images, {}
    if source.layout == "stack" and len(images) == len(labels) == 1:
        return images, {images[0].path: labels[0].path}
    pairs, lonely = paired_by_name(images, labels)
    if lonely:
        names = ", ".join(p.name for p in lonely[:3]) + (", ..." if len(lonely) > 3 else "")
        source.warn(f"{len(lonely)} labels belong to no image and are left out: {names}")
    return images, pairs


def _apart(
    source: RawSource, images: list[Found], labels: list[Found]
) -> tuple[list[Found], list[Found]]:
    """Images and labels without the files that the other of the two means more narrowly."""
    both = {item.path for item in images} & {item.path for item in labels}
    if not both:
        return images, labels
    first, number = min(both).name, len(both)
    if number == len(labels) < len(images):
        source.warn(f"images: {number} files are labels, such as {first}, and no images")
        return [item for item in images if item.path not in both], labels
    if number == len(images) < len(labels):
        source.warn(f"labels: {number} files are images, such as {first}, and no labels")
        return images, [item for item in labels if item.path not in both]
    advice = "write two folders, or globs that tell them apart"
    if ending := common_ending(images):
        advice = f"write labels: {min(both).with_name(f'*{ending}{min(both).suffix}')}"
    raise UserError(f"labels: {number} files are both image and label, such as {first}; {advice}")


def read_sheet(source: RawSource, sheet: Path) -> list[RawPair]:
    """The rows of a sheet; its paths are relative to the sheet's folder."""
    rows = read_rows(sheet, source.warn)
    if not rows:
        raise UserError(f"{sheet}: no row below the names of the columns")
    if source.labels is not None and "label" in rows[0][1]:
        raise UserError("labels: the sheet names the labels in its column 'label'; drop this key")
    pairs = [_of_row(sheet, number, columns) for number, columns in rows]
    if source.labels is not None and source.labelled:
        images = [Found(p.image, stem(p.image)) for p in pairs]
        kept, labels = with_labels(source, images)
        places = {item.path for item in kept}
        return [replace(p, label=labels.get(p.image)) for p in pairs if p.image in places]
    both = {pair.image for pair in pairs} & {pair.label for pair in pairs}
    if both:
        raise UserError(f"{sheet}: {min(filter(None, both)).name} is both image and label")
    return pairs


def _of_row(sheet: Path, number: int, columns: Mapping[str, str]) -> RawPair:
    if not columns["image"]:
        raise UserError(f"{sheet}: line {number} names no image")
    image = _there(sheet.parent / columns["image"])
    label = _there(sheet.parent / columns["label"]) if columns.get("label") else None
    return RawPair(safe_id(columns.get("id") or stem(image)), image, label, columns=columns)


def _there(path: Path) -> Path:
    """The path, or the one of a file that is there and whose name has its accents stored in the
    other of two ways: that of macOS, or that of all others."""
    text = str(path)
    if text.isascii() or path.exists():
        return path
    for other in (composed(text), unicodedata.normalize("NFD", text)):
        if Path(other).exists():
            return Path(other)
    return path
