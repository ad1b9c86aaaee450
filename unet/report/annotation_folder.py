"""Writes the folder that a person annotates: crops, labels to start from, tables and the page."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.errors import UserError
from unet.export.annotation_files import write_crop_outlines, write_labels, write_pixels
from unet.files import replacing
from unet.io.axes import LazyImage
from unet.paths import NAME
from unet.prediction.annotation.ranked_crops import RankedCrop, Ranking
from unet.prediction.annotation.unlabelled_images import QUALITY, UnlabelledImages
from unet.report.annotation_page import (
    SHOWN,
    CropCard,
    CropRow,
    annotation_page,
    crop_card,
    doubt_text,
    picture_side,
)
from unet.tables import write_table

log = logging.getLogger("unet")

# Folds of the split that the README proposes, if there are as many groups.
FOLDS = 5


@dataclass(frozen=True, eq=False)
class AnnotationFolder:
    """What to write.

    Attributes:
        whole: whether each crop is a whole image, whose files then have the image's id.
        about: further facts for the page: ``method`` and ``seed``.
    """

    images: UnlabelledImages
    ranking: Ranking
    whole: bool
    about: Mapping[str, Any]

    def write(self, folder: Path) -> str:
        """Writes all files, or, after an error, none; returns the part for a config.

        Memory holds one crop at a time, and the pictures of the page.

        Raises:
            UserError: the folder has files, or an image cannot be read.
        """
        check_empty(folder)
        snippet = self.config_text(folder)
        with replacing(folder) as temporary:
            temporary.unlink()
            temporary.mkdir()
            self._fill(temporary, snippet)
        return snippet

    def name(self, one: RankedCrop) -> str:
        """Of the files of a crop: the image's id and the crop's first pixel."""
        if self.whole:
            return one.crop.image
        letters = "zyx"[-len(one.crop.place) :]
        first = zip(letters, one.crop.place, strict=True)
        return "_".join([one.crop.image, *(f"{axis}{s.start:04d}" for axis, s in first)])

    @property
    def doubt_words(self) -> str:
        """Which kind of doubt was used, in sentences."""
        chosen = list(dict.fromkeys(one.crop.image for one in self.ranking.crops))
        known = sum(self.images.doubt_from(image) == QUALITY for image in chosen)
        return doubt_text(known, len(chosen))

    @property
    def cautions_words(self) -> str:
        """Where cautions about masks come from, or that nothing is known."""
        source = self.images.cautions.source
        if source:
            return f"Images unlike the training images are named, if there are any (from {source})."
        return (
            "Not known: whether images are unlike the training images (no quality.csv, or from "
            "models of an early version)."
        )

    def _row(self, one: RankedCrop) -> CropRow:
        image = one.crop.image
        row = CropRow.of(one, self.name(one))
        return replace(
            row, doubt_from=self.images.doubt_from(image), caution=self.images.cautions.of(image)
        )

    @property
    def _outlined(self) -> bool:
        """Outlines are for objects in planes."""
        flat = all(len(one.crop.place) == 2 for one in self.ranking.crops)
        return flat and self.images.task == "instances"

    def _fill(self, folder: Path, snippet: str) -> None:
        crops = self.ranking.crops
        rows = {one.rank: self._row(one) for one in crops}
        side, cards = picture_side(len(crops)), list[CropCard]()
        opened, last = None, ""
        # Crops of one image follow each other, so that each file is opened once.
        for one in sorted(crops, key=lambda c: c.crop.image):
            if opened is None or one.crop.image != last:
                opened, last = self.images.open(one.crop.image), one.crop.image
            pixels, labels = self._write_crop(folder, one, opened)
            if one.rank <= SHOWN:
                row = rows[one.rank]
                cards.append(crop_card(row, pixels, labels, self.images.task, side))
        self._tables(folder, rows)
        (folder / "README.txt").write_text(self._readme(snippet), encoding="utf-8")
        page = annotation_page(
            [rows[one.rank] for one in crops],
            sorted(cards, key=lambda card: card.row.rank),
            self.images.task,
            list(self.images.classes or ()),
            name=self.images.name,
            model=self.images.model,
            possible=self.ranking.possible,
            snippet=snippet,
            warnings=self.ranking.warnings,
            outlines=self._outlined,
            doubt=self.doubt_words,
            cautions=self.cautions_words,
            **self.about,
        )
        (folder / "index.html").write_text(page, encoding="utf-8")

    def _write_crop(
        self, folder: Path, one: RankedCrop, opened: LazyImage
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Writes a crop's files; returns its pixels, and its ids or class indices."""
        name, place = self.name(one), one.crop.place
        size = self.images.records[one.crop.image].pixel_size_um
        pixels = np.asarray(opened.array[(slice(None), *place)])
        write_pixels(folder / "images" / f"{name}.tif", pixels, opened.channel_names, size)
        found, classes = self.images.predicted(one.crop.image, place), self.images.classes
        target = folder / "labels" / f"{name}.tif"
        if classes is None:
            write_labels(target, found, size, ids=True)
        else:
            write_labels(target, np.array(list(classes.values()))[found], size, ids=False)
        if self._outlined:
            places = (folder / "geojson" / f"{name}.geojson", folder / "rois" / f"{name}.zip")
            write_crop_outlines(*places, name, found, "foreground")
        return pixels, found

    def _tables(self, folder: Path, rows: Mapping[int, CropRow]) -> None:
        crops = self.ranking.crops
        axes = "zyx"[-len(crops[0].crop.place) :] if crops else "yx"
        sizes = [{"z": "depth", "y": "height", "x": "width"}[axis] for axis in axes]
        columns = [
            *("rank", "crop", "image", "group", *axes, *sizes),
            *("doubt", "diversity", "foreground", "objects", "method", "why"),
            *("doubt_from", "caution"),
        ]
        table = [
            [
                *(one.rank, rows[one.rank].name, one.crop.image, one.crop.group),
                *(s.start for s in one.crop.place),
                *(s.stop - s.start for s in one.crop.place),
                *(one.crop.doubt, _cell(one.choice.distance), rows[one.rank].foreground),
                *(one.crop.facts.objects, self.about["method"], one.choice.why),
                *(rows[one.rank].doubt_from, rows[one.rank].caution),
            ]
            for one in crops
        ]
        write_table(folder / "annotate.csv", columns, table, 6)
        sheet = [
            [f"images/{row.name}.tif", f"labels/{row.name}.tif", row.group or row.image]
            for row in rows.values()
        ]
        write_table(folder / "sheet.csv", ["image", "label", "group"], sheet)

    def config_text(self, folder: Path) -> str:
        """The part of a config that reads the folder as a dataset."""
        classes, channels = self.images.classes, self.images.channels
        groups = {one.crop.group or one.crop.image for one in self.ranking.crops}
        name = self.images.name if NAME.fullmatch(self.images.name) else "images"
        lines = ["datasets:", f"  {name[:54]}-annotated:"]
        lines.append(f"    images: {_quoted(str((folder / 'sheet.csv').absolute()))}")
        lines.append(f"    task: {self.images.task}")
        if classes is not None:
            pairs = ", ".join(f"{_quoted(key)}: {value}" for key, value in classes.items())
            lines.append(f"    classes: {{{pairs}}}")
        if channels is not None:
            lines.append(f"    channels: [{', '.join(_quoted(c) for c in channels)}]")
        if len(groups) >= FOLDS:
            lines.append(f"    split: {{folds: {FOLDS}}}")
        return "\n".join(lines) + "\n"

    def _readme(self, snippet: str) -> str:
        chosen = {one.crop.image for one in self.ranking.crops}
        outlined = "geojson/, rois/  the same outlines for QuPath and for Fiji's ROI Manager\n"
        return README.format(
            name=self.images.name,
            model=self.images.model,
            count=len(self.ranking.crops),
            outlines=outlined if self._outlined else "",
            snippet="".join(f"    {line}\n" for line in snippet.splitlines()),
            cautions=CAUTIONS if any(self.images.cautions.of(image) for image in chosen) else "",
            advice="" if self.about["method"] == "random" else ADVICE,
        )


README = """\
{count} crops of {name}, predicted by {model}.

images/          the crops, with the values of your files
labels/          the model's own masks of the same crops: correct these files
{outlines}annotate.csv     rank, place and reason of each crop
sheet.csv        the images, their labels, and the image or group that each is from
index.html       the same to look at

1. Correct labels/*.tif in the order of annotate.csv: with napari, or any tool that saves labels as
   TIFF under the same name. Remove the rows of crops that you did not look at from sheet.csv.
{cautions}2. Name the sheet in a config (correct its path if you moved the folder):

{snippet}
3. Run: unet check CONFIG, then unet run CONFIG.
{advice}"""

CAUTIONS = """\
   Some masks are no help (annotate.csv, column caution): draw new ones there, or leave these images
   out.
"""

ADVICE = """
These crops were chosen because they are hard or unusual. Train on them, but do not take scores on
them for scores on all your images: test on images that were drawn at random. Crops drawn at random
(--method random) are a baseline that is hard to beat: see docs/annotate.md.
"""


def check_empty(folder: Path) -> None:
    """Refuses a folder with files in it.

    Raises:
        UserError: it has some, or is a file.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        what = "is not empty" if folder.is_dir() else "is a file"
        raise UserError(f"{folder}: {what}; choose another folder with -o")


def _cell(value: float | None) -> float | str:
    return "" if value is None else value


def _quoted(value: object) -> str:
    """A value as YAML."""
    import yaml

    text: str = yaml.safe_dump(value, allow_unicode=True, width=10**9, default_flow_style=True)
    return text.removesuffix("...\n").strip()
