"""A dataset's raw files: where they are, which label belongs to which image, and sheets."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from unet.data.dataset_warnings import Warn, ignore_warning
from unet.data.file_names import (
    Found,
    common_ending,
    composed,
    find,
    paired_by_name,
    relative,
    safe_id,
    warn_of_label_names,
)
from unet.data.globs import fixed_part
from unet.data.sheets import read_rows
from unet.errors import UserError
from unet.files import is_pattern, is_sheet
from unet.io.array_paths import split_inside, with_inside
from unet.io.formats import OF_MANY_IMAGES, stem

log = logging.getLogger(__name__)

# Layouts in which the key labels is a name, not a path; unless images are named by a pattern.
NO_LABEL_PATHS = ("ctc", "ome-zarr", "plate")


@dataclass(frozen=True)
class RawSource:
    """The location of the raw files, from the config.

    Attributes:
        root: folder that the manifest's paths are relative to.
        images: folder, glob, pattern, plate (.zarr) or sheet (.csv, .tsv); absolute or relative to
            ``root``.
        labels: the same for labels; for CTC "GT" or "ST", for OME-Zarr the label's name.
        layout: key of LAYOUTS.
        labelled: whether to look for labels.
        required: whether images need a label (if ``labelled``).
        warn: receives warnings about the files as a whole, such as unread files. While a run is
            planned, warnings are dropped; the manifest stage gives them later.
    """

    root: Path
    images: str
    labels: str | None = None
    layout: str = "folders"
    labelled: bool = True
    required: bool = True
    # Not part of the dataset's identity, which the planning compares.
    warn: Warn = field(default=ignore_warning, repr=False, compare=False)

    @classmethod
    def below(
        cls,
        base: Path,
        images: str,
        labels: str | None = None,
        layout: str = "folders",
        labelled: bool = True,
    ) -> RawSource:
        """A source whose ``root`` is the deepest folder that contains all files, so that the
        manifest's paths are short and stay the same if that folder moves.

        Args:
            base: folder that the config's relative paths are relative to.
        """
        wheres = [base / Path(images).expanduser()]
        if labels is not None and (layout not in NO_LABEL_PATHS or is_pattern(images)):
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
        image, label: paths; an image's may stand for one file per channel
            (:mod:`unet.io.channel_files`).
        stack: whether each page of the files is an image.
        group: from the layout itself, such as the sequence of a time series.
        columns: all columns of the sheet.
    """

    id: str
    image: Path
    label: Path | None = None
    stack: bool = False
    group: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


def with_labels(source: RawSource, images: list[Found]) -> tuple[list[Found], Mapping[Path, Path]]:
    """The images without the label files among them, and the label of each image that has one.

    Raises:
        UserError: a file is both image and label, or no label is named like an image.
    """
    labels: list[Found] = []
    if source.labels is not None and source.labelled:
        if (one := of_many_images(source)) is not None:
            return images, {item.path: one for item in images}
        labels = find(source.labels, source.root, "labels", source.warn, labels=True)
        images, labels = _without_overlap(source, images, labels)
    warn_of_label_names(images, "images", source.warn)
    if not labels:
        return images, {}
    if source.layout == "stack" and len(images) == len(labels) == 1:
        return images, {images[0].path: labels[0].path}
    pairs, lonely = paired_by_name(images, labels)
    if lonely:
        names = ", ".join(p.name for p in lonely[:3]) + (", ..." if len(lonely) > 3 else "")
        source.warn(f"{len(lonely)} labels match no image and are left out: {names}")
    return images, pairs


def of_many_images(source: RawSource) -> Path | None:
    """The file that ``labels`` names, if its format may hold the labels of many images. Which of
    them it holds is seen when they are read."""
    where = source.root / Path(source.labels or "").expanduser()
    many = where.suffix.lower() in OF_MANY_IMAGES and where.is_file()
    return where if many else None


def _without_overlap(
    source: RawSource, images: list[Found], labels: list[Found]
) -> tuple[list[Found], list[Found]]:
    """Resolves files that match both ``images`` and ``labels``: the narrower pattern gets them."""
    both = {item.path for item in images} & {item.path for item in labels}
    if not both:
        return images, labels
    first, number = min(both).name, len(both)
    if number == len(labels) < len(images):
        source.warn(f"images: {number} files are labels, such as {first}, not images")
        return [item for item in images if item.path not in both], labels
    if number == len(images) < len(labels):
        source.warn(f"labels: {number} files are images, such as {first}, not labels")
        return images, [item for item in labels if item.path not in both]
    advice = "write two folders, or globs that tell them apart"
    if ending := common_ending(images):
        where = min(both).with_name(f"*{ending}{min(both).suffix}")
        advice = f"write labels: {relative(where, source.root)}"
    raise UserError(f"labels: {number} files are both image and label, such as {first}; {advice}")


def read_sheet(source: RawSource, sheet: Path) -> list[RawPair]:
    """The rows of a sheet; its paths are relative to the sheet's folder."""
    rows = read_rows(sheet, source.warn)
    if not rows:
        raise UserError(f"{sheet}: no rows below the column names")
    if source.labels is not None and "label" in rows[0][1]:
        raise UserError("labels: the sheet names the labels in its column 'label'; drop this key")
    pairs = [_pair_of_row(sheet, number, columns) for number, columns in rows]
    if source.labels is not None and source.labelled:
        images = [Found(p.image, stem(p.image)) for p in pairs]
        kept, labels = with_labels(source, images)
        places = {item.path for item in kept}
        return [replace(p, label=labels.get(p.image)) for p in pairs if p.image in places]
    both = {pair.image for pair in pairs} & {pair.label for pair in pairs}
    if both:
        raise UserError(f"{sheet}: {min(filter(None, both)).name} is both image and label")
    return pairs


def _pair_of_row(sheet: Path, number: int, columns: Mapping[str, str]) -> RawPair:
    if not columns["image"]:
        raise UserError(f"{sheet}: line {number} has no image")
    image = _existing_spelling(sheet.parent / columns["image"])
    label = _existing_spelling(sheet.parent / columns["label"]) if columns.get("label") else None
    return RawPair(safe_id(columns.get("id") or stem(image)), image, label, columns=columns)


def _existing_spelling(path: Path) -> Path:
    """The path as it exists on disk: accents in file names can be stored in two ways, as on macOS
    or as elsewhere."""
    file, inside = split_inside(path)
    if inside:
        return with_inside(_existing_spelling(file), inside)
    text = str(path)
    if text.isascii() or path.exists():
        return path
    for other in (composed(text), unicodedata.normalize("NFD", text)):
        if Path(other).exists():
            return Path(other)
    return path
