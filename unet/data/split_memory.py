"""The split stage: parts of images, kept from one run to the next."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unet.data.records import ImageRecord, Part, SplitRecord, write_splits
from unet.data.splits import PARTS, make_splits
from unet.files import digest, replacing
from unet.sections import SplitSection
from unet.told import told

log = logging.getLogger(__name__)


def settings_digest(split: SplitSection, seed: int, version: int) -> str:
    """What kept parts are only good for: another way to split starts anew."""
    how = told("splits", split, without={"run"})
    return digest({"split": how, "seed": seed, "version": version})


def read_kept(path: Path, key: str) -> list[SplitRecord]:
    """Parts that were kept under the same ``key``; none where there are none."""
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            if handle.readline().strip() != f"# {key}":
                return []
            rows = list(csv.DictReader(handle))
            return [SplitRecord(r["image"], int(r["fold"]), _part(r["part"])) for r in rows]
    except FileNotFoundError:
        return []
    except (KeyError, ValueError, TypeError):
        log.warning("%s: damaged, the splits are drawn anew", path)
        return []


def _part(text: str) -> Part:
    if text not in PARTS:
        raise ValueError(f"no part {text!r}")
    return text


def write_kept(
    path: Path, key: str, rows: Sequence[SplitRecord], kept: Sequence[SplitRecord]
) -> None:
    """Keeps the parts of all images, also of those that are away now: they may come back."""
    there = {row.image for row in rows}
    everything = [*rows, *(row for row in kept if row.image not in there)]
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as handle,
    ):
        handle.write(f"# {key}\n")
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["image", "fold", "part"])
        writer.writerows((row.image, row.fold, row.part) for row in everything)


def splits_stage(
    records: Sequence[ImageRecord], settings: Mapping[str, Any], splits: Path, memory: Path
) -> None:
    """Writes ``splits.csv``, keeping the parts that ``memory`` holds.

    Args:
        settings: version, split, seed.
    """
    split, seed = SplitSection.model_validate(settings["split"]), int(settings["seed"])
    key = settings_digest(split, seed, int(settings["version"]))
    kept = read_kept(memory, key)
    rows = make_splits(records, split, seed, kept)
    write_kept(memory, key, rows, kept)
    write_splits(splits, rows)
    for fold in range(split.number):
        count = Counter(row.part for row in rows if row.fold == fold)
        log.info("fold %d: %s", fold, ", ".join(f"{count[part]} {part}" for part in PARTS))
