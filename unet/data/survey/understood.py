"""What the manifest and the splits stage would make of a dataset, without writing anything."""

from __future__ import annotations

import glob
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from unet.config.data_settings import ManifestSettings, SplitsSettings
from unet.config.run import Config
from unet.data.file_names import find, glob_paths, unread_kinds
from unet.data.layouts import find_pairs
from unet.data.manifest import build_manifest
from unet.data.raw_files import RawPair, RawSource
from unet.data.records import ImageRecord, SplitRecord
from unet.data.split_checks import check_learnable, part_warnings
from unet.data.splits import groups_of, make_splits
from unet.errors import UserError


@dataclass
class Understood:
    """A dataset's files, images and splits.

    Attributes:
        records, splits: as the stages would write them; ``splits`` is empty if there are none.
        lines: warnings of the stages about the dataset as a whole.
        stops: messages of the errors that the stages would raise.
        labels_alone: label files without an image.
        unread: ending of files that were not read -> their number.
    """

    records: Sequence[ImageRecord] = ()
    splits: Sequence[SplitRecord] = ()
    lines: list[str] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    labels_alone: tuple[str, ...] = ()
    unread: dict[str, int] = field(default_factory=dict)

    @property
    def usable(self) -> list[ImageRecord]:
        return [record for record in self.records if record.status == "ok"]


def understand(
    config: Config,
    dataset: str,
    source: RawSource,
    threads: int,
    records: Sequence[ImageRecord] | None = None,
    splits: Sequence[SplitRecord] | None = None,
) -> Understood:
    """Lists and decodes the files, and draws the splits, unless they are given."""
    found = Understood(unread=unread_files(source))
    noted = replace(source, warn=found.lines.append)
    pairs = None
    with _noting(found.stops):
        if records is None:
            with _quiet():
                found.records = _records(config, dataset, noted, threads)
            pairs = find_pairs(source)
        else:
            found.records = records
            pairs = find_pairs(noted)
    if pairs is not None:
        found.labels_alone = _labels_alone(source, pairs)
    if not config.origins_for(dataset) and found.usable:
        _split(config, dataset, found, splits)
    return found


def _records(
    config: Config, dataset: str, source: RawSource, threads: int
) -> Sequence[ImageRecord]:
    # All bad images are wanted, not the first.
    settings = ManifestSettings.of(config, dataset).model_copy(update={"strict": False})
    return build_manifest(source, settings, threads, refuse=False)


def _split(
    config: Config, dataset: str, found: Understood, splits: Sequence[SplitRecord] | None
) -> None:
    settings = SplitsSettings.of(config, dataset)
    split = settings.split
    with _noting(found.stops), _quiet():
        if splits is None:
            splits = make_splits(found.records, split, settings.seed)
        found.splits = splits
        found.lines += check_learnable(splits, found.usable, split.number)
    if found.splits:
        found.lines += part_warnings(found.splits, groups_of(found.usable), split)


@contextmanager
def _noting(stops: list[str]) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        stops.append(str(error))


@contextmanager
def _quiet() -> Iterator[None]:
    """Drops the stages' log lines: each of them becomes a finding."""
    log = logging.getLogger("unet.data")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _labels_alone(source: RawSource, pairs: Sequence[RawPair]) -> tuple[str, ...]:
    """Names of label files that belong to no image."""
    if source.labels is None or not source.labelled or source.layout not in ("folders", "stack"):
        return ()
    used = {pair.label for pair in pairs} | {pair.image for pair in pairs}
    try:
        labels = find(source.labels, source.root, "labels", labels=True)
    except UserError:
        return ()  # the stage's message is already among the stops
    return tuple(item.path.name for item in labels if item.path not in used)


def unread_files(source: RawSource) -> dict[str, int]:
    """Ending of files that may be images but are not read -> their number."""
    paths: set[Path] = set()
    labels = source.labels if source.labelled and source.layout in ("folders", "stack") else None
    for pattern in filter(None, (None if source.sheet else source.images, labels)):
        where = source.root / Path(pattern).expanduser()
        if where.is_dir() and where.suffix.lower() != ".zarr":
            paths.update(where.iterdir())
        elif glob.has_magic(str(where)) and not where.exists():
            paths.update(glob_paths(where)[1])
    kinds: Counter[str] = unread_kinds(paths)
    return dict(sorted(kinds.items()))
