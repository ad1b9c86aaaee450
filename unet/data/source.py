"""Where a dataset's raw files are, pairs of image and label, and the sheet that lists them."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from unet.data.formats import stem
from unet.data.names import Found, find, fixed_part, match, relative, safe_id
from unet.data.warned import Warn, unheard
from unet.errors import UserError

log = logging.getLogger(__name__)

# Layouts whose "labels" are a name, not a place.
NO_LABEL_PATHS = ("ctc", "ome-zarr")


@dataclass(frozen=True)
class Source:
    """Where the raw files are, as the config says it.

    Attributes:
        root: folder that the manifest's paths are relative to.
        images: folder, glob or sheet (.csv); absolute or relative to ``root``.
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
    ) -> Source:
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
        return path if path.suffix.lower() == ".csv" else None


@dataclass(frozen=True)
class Pair:
    """One image (or one stack of images) and its label.

    Attributes:
        id: see :func:`unet.data.names.safe_id`.
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


def labels_by_image(source: Source, images: list[Found]) -> Mapping[Path, Path]:
    """Labels by image, with a word about the labels that no image has."""
    if source.labels is None or not source.labelled:
        return {}
    pairs, lonely = match(images, find(source.labels, source.root, "labels"))
    if lonely:
        names = ", ".join(p.name for p in lonely[:3]) + (", ..." if len(lonely) > 3 else "")
        source.warn(f"{len(lonely)} labels belong to no image and are left out: {names}")
    return pairs


def read_sheet(source: Source, sheet: Path) -> list[Pair]:
    """The rows of a sheet; its paths are relative to the sheet's folder."""
    try:
        with sheet.open(newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{sheet}: cannot be read as CSV in UTF-8 ({error})") from None
    if not rows or "image" not in rows[0]:
        there = ", ".join(map(str, rows[0])) if rows else "no row"
        raise UserError(f"{sheet}: a column 'image' is needed (found: {there})")
    if source.labels is not None and "label" in rows[0]:
        raise UserError("labels: the sheet names the labels in its column 'label'; drop this key")
    pairs = []
    for number, row in enumerate(rows, start=2):
        columns = {k: (v or "").strip() for k, v in row.items() if isinstance(k, str)}
        if not columns["image"]:
            raise UserError(f"{sheet}: line {number} names no image")
        image = sheet.parent / columns["image"]
        label = sheet.parent / columns["label"] if columns.get("label") else None
        name = columns.get("id") or stem(image)
        pairs.append(Pair(safe_id(name), image, label, columns=columns))
    if source.labels is not None and source.labelled:
        images = [Found(p.image, stem(p.image)) for p in pairs]
        labels = labels_by_image(source, images)
        pairs = [Pair(p.id, p.image, labels.get(p.image), columns=p.columns) for p in pairs]
    return pairs
