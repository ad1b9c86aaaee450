"""The split stage: images keep their part of the split from one run to the next."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from unet.config.data_settings import SplitsSettings
from unet.data.dataset_warnings import write_warnings
from unet.data.records import PARTS, SPLIT_COLUMNS, ImageRecord, Part, SplitRecord, write_splits
from unet.data.split_checks import check_learnable, part_warnings
from unet.data.splits import groups_of, make_splits
from unet.files import digest
from unet.tables import csv_rows, write_table

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeptParts:
    """Parts of images from earlier runs.

    Attributes:
        rows: of all images that ever existed.
        since: image -> when it got its part, "" if an older version did not store it.
    """

    rows: Sequence[SplitRecord] = ()
    since: Mapping[str, str] = field(default_factory=dict)


def read_kept(path: Path, key: str) -> KeptParts:
    """The parts that were kept under the same ``key``, if any."""
    try:
        first, _, table = path.read_bytes().decode().partition("\n")
        if first.strip() != f"# {key}":
            return KeptParts()
        rows = csv_rows(table)
        return KeptParts(
            [SplitRecord(r["image"], int(r["fold"]), _part(r["part"])) for r in rows],
            {r["image"]: r.get("since", "") for r in rows},
        )
    except FileNotFoundError:
        return KeptParts()
    except (KeyError, ValueError, TypeError):
        log.warning("%s: damaged, the splits are drawn again", path)
        return KeptParts()


def _part(text: str) -> Part:
    if text not in PARTS:
        raise ValueError(f"no part {text!r}")
    return text


def write_kept(
    path: Path, key: str, rows: Sequence[SplitRecord], kept: KeptParts, now: str
) -> None:
    """Keeps the parts of all images, even of missing ones, since they may come back."""
    there = {row.image for row in rows}
    everything = [*rows, *(row for row in kept.rows if row.image not in there)]
    cells = ((r.image, r.fold, r.part, kept.since.get(r.image, now)) for r in everything)
    write_table(path, (*SPLIT_COLUMNS, "since"), cells, comment=f"# {key}")


def splits_stage(
    records: Sequence[ImageRecord],
    settings: SplitsSettings,
    splits: Path,
    memory: Path,
    warnings: Path,
    now: str | None = None,
) -> None:
    """Writes ``splits.csv``, keeping the parts that ``memory`` holds, and the stage's warnings.

    Args:
        now: date and time; given only in tests.
    """
    now = time.strftime("%Y-%m-%d %H:%M:%S") if now is None else now
    split = settings.split
    # Parts are kept only for these settings: a different split starts from scratch.
    key = digest(settings.to_json())
    kept = read_kept(memory, key)
    rows = make_splits(records, split, settings.seed, kept.rows)
    usable = [record for record in records if record.status == "ok"]
    lines = check_learnable(rows, usable, split.number)
    lines += part_warnings(rows, groups_of(usable), split)
    moved = _moved(rows, kept)
    if moved:
        lines.append(
            f"{len(moved)} images, such as {moved[0]}, are in another part than in earlier runs: "
            "the kept parts would have left a part empty, or groups have changed"
        )
    kept = replace(kept, since={k: v for k, v in kept.since.items() if k not in moved})
    notice = from_earlier_runs(rows, kept)
    write_kept(memory, key, rows, kept, now)
    write_warnings(warnings, lines, **({"remembered": notice} if notice else {}))
    write_splits(splits, rows)
    for fold in range(split.number):
        count = Counter(row.part for row in rows if row.fold == fold)
        log.info("fold %d: %s", fold, ", ".join(f"{count[part]} {part}" for part in PARTS))
    if notice:
        log.info("split: %s", notice)


def _moved(rows: Sequence[SplitRecord], kept: KeptParts) -> list[str]:
    """Images whose part has changed."""
    parts = {(row.image, row.fold): row.part for row in kept.rows}
    return sorted({r.image for r in rows if parts.get((r.image, r.fold), r.part) != r.part})


def from_earlier_runs(rows: Sequence[SplitRecord], kept: KeptParts) -> str:
    """How much of a split comes from earlier runs; "" for a new split.

    Args:
        kept: without the dates of images whose part has changed.
    """
    there = {row.image for row in rows}
    if not there & kept.since.keys():
        return ""
    first = min(kept.since.values())
    added = sum(kept.since.get(image, "later") > first for image in there)
    away = len(kept.since.keys() - there)
    when = f"since {first[:10]}" if first else "from runs of an older version"
    return (
        f"remembered {when}; {added} images added and {away} removed since "
        "(to draw it again from today's images, use split.redraw)"
    )
