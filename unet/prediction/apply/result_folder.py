"""The output folder of a prediction: what it holds, and whether that was made by this command."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from unet import provenance
from unet.data.records import WELL_KEYS
from unet.errors import UserError
from unet.files import locked, read_json, remove
from unet.prediction.apply.chosen_settings import OUTLINES

# The page and the sheet of pictures.
PAGES = ("index.html", "overview.png")
# The sheet of the images, which a run writes first into its work folder, and its first columns.
SHEET, SHEET_COLUMNS = "images.csv", ["id", "image"]
# A copy of an image that is no file.
IMAGE = "image.zarr"
# All that a run, also of an earlier version, writes into its work folder.
WORK_FILES = (
    SHEET, "lock", IMAGE, "inputs.json*", "manifest-*", "prepared.*", "segmentation.json",
    "tiles.*", "warnings.*.json", ".*",
)  # fmt: skip


@dataclass(frozen=True)
class Output:
    """The paths of all results, below one folder."""

    folder: Path

    @property
    def segmentation(self) -> Path:
        return self.folder / "segmentation.zarr"

    @property
    def masks(self) -> Path:
        return self.folder / "masks"

    @property
    def objects(self) -> Path:
        return self.folder / "objects.csv"

    @property
    def results(self) -> tuple[Path, ...]:
        return (self.segmentation, self.masks, self.objects)

    @property
    def outlines(self) -> tuple[Path, ...]:
        """Written only on request."""
        return tuple(self.folder / name for name in OUTLINES)

    @property
    def tables_metadata(self) -> tuple[Path, ...]:
        """Written next to tables."""
        return (provenance.sidecar(self.objects),)

    @property
    def wells(self) -> Path:
        """The numbers of each well; only for images of plates."""
        return self.folder / "wells.csv"

    @property
    def pages(self) -> tuple[Path, ...]:
        """To look at the results; written unless they are not wanted."""
        return tuple(self.folder / name for name in PAGES)

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.csv"

    @property
    def done(self) -> Path:
        """Written last: marks the results as complete, and says what they were made from."""
        return self.folder / "predict.json"

    @property
    def work(self) -> Path:
        """Intermediate files, from which a stopped run continues."""
        return self.folder / "work"

    @property
    def store(self) -> Path:
        """The prepared images."""
        return self.work / "prepared.zarr"

    @contextmanager
    def locked(self, another: str = "choose another folder with -o") -> Iterator[None]:
        """Creates the work folder and locks it for this run. If the run fails before it has
        computed anything, the folders are as they were before.

        Args:
            another: what to write to get another output folder.

        Raises:
            UserError: another run uses it, or the folder contains results of something else.
        """
        finished = self._is_finished()
        half = self._has_own_work(finished)
        if os.path.lexists(self.work) and not half:
            raise UserError(
                f"{self.work}: already exists and is not a work folder of this command, which "
                f"removes it at the end; {another}"
            )
        written = (*self.results, *self.tables_metadata, *self.outlines, *self.pages, self.wells)
        existing = [p for p in (*written, self.manifest, self.done) if os.path.lexists(p)]
        if existing and not finished and not half:
            raise UserError(
                f"{existing[0]}: already exists and was not made by this command; {another}"
            )
        made = not os.path.lexists(self.folder)
        try:
            with locked(self.work / "lock", "predicting here"):
                try:
                    yield
                except BaseException:
                    self._remove_inputs()
                    raise
        finally:
            # Only what is empty is removed.
            with suppress(OSError):
                self.work.rmdir()
                if made:
                    self.folder.rmdir()

    def _remove_inputs(self) -> None:
        """Removes what a run writes before it computes, if there is nothing else."""
        names = {path.name for path in self.work.iterdir()} if self.work.is_dir() else set()
        if names <= {SHEET, IMAGE, "lock"}:
            for name in (SHEET, IMAGE):
                remove(self.work / name)

    def _is_finished(self) -> bool:
        """Whether the folder has a `predict.json` of this command."""
        try:
            done = read_json(self.done)
        except (OSError, UserError):
            return False
        return isinstance(done, dict) and {"key", "models"} <= set(done)

    def _has_own_work(self, finished: bool) -> bool:
        """Whether all in the work folder was written by a run: users have folders of this name.

        Args:
            finished: there are results; then a run may have been stopped while it removed files.
        """
        if not self.work.is_dir():
            return False
        names = {path.name for path in self.work.iterdir()}
        if not all(any(fnmatchcase(name, known) for known in WORK_FILES) for name in names):
            return False
        if SHEET in names:
            return _is_own_sheet(self.work / SHEET)
        # Without the sheet nothing else was written yet.
        return finished or names <= {"lock"}

    def reopen(self) -> None:
        """Removes what says that the results are complete, the pages that show them, and the table
        of wells: call it before results are replaced."""
        for path in (self.done, *self.pages, self.wells):
            remove(path)

    def is_done(self, key: str) -> bool:
        """Whether the folder contains all results of a task with this key."""
        if not self.done.is_file() or not all(path.exists() for path in self.results):
            return False
        return bool(read_json(self.done).get("key") == key)


def _is_own_sheet(path: Path) -> bool:
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            header = next(csv.reader(handle), [])
    except (OSError, ValueError, csv.Error):
        return False
    # For images of plates the sheet says where they are, too.
    first, more = header[: len(SHEET_COLUMNS)], header[len(SHEET_COLUMNS) :]
    return first == SHEET_COLUMNS and more == [k for k in WELL_KEYS if k in more]
