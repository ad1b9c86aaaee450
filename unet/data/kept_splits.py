"""The split stage: parts of images, kept from one run to the next."""

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
from unet.data.split_checks import check_learnable, degenerate
from unet.data.splits import groups_of, make_splits
from unet.files import digest
from unet.tables import csv_rows, write_table

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """Parts of images as they were drawn before.

    Attributes:
        rows: of all images that there ever were.
        since: image -> when it got its part, "" where an older version did not note it.
    """

    rows: Sequence[SplitRecord] = ()
    since: Mapping[str, str] = field(default_factory=dict)


def read_kept(path: Path, key: str) -> Kept:
    """Parts that were kept under the same ``key``; none where there are none."""
    try:
        first, _, table = path.read_bytes().decode().partition("\n")
        if first.strip() != f"# {key}":
            return Kept()
        rows = csv_rows(table)
        return Kept(
            [SplitRecord(r["image"], int(r["fold"]), _part(r["part"])) for r in rows],
            {r["image"]: r.get("since", "") for r in rows},
        )
    except FileNotFoundError:
        return Kept()
    except (KeyError, ValueError, TypeError):
        log.warning("%s: damaged, the splits are drawn again", path)
        return Kept()


def _part(text: str) -> Part:
    if text not in PARTS:
        raise ValueError(f"no part {text!r}")
    return text


def write_kept(path: Path, key: str, rows: Sequence[SplitRecord], kept: Kept, now: str) -> None:
    """Keeps the parts of all images, also of those that are away now: they may come back."""
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
        now: date and time, for tests.
    """
    now = time.strftime("%Y-%m-%d %H:%M:%S") if now is None else now
    split = settings.split
    # Parts are kept for these settings only: another way to split starts from nothing.
    key = digest(settings.to_json())
    kept = read_kept(memory, key)
    rows = make_splits(records, split, settings.seed, kept.rows)
    usable = [record for record in records if record.status == "ok"]
    lines = check_learnable(rows, usable, split.number)
    lines += degenerate(rows, groups_of(usable), split)
    moved = _moved(rows, kept)
    if moved:
        lines.append(
            f"{len(moved)} images, such as {moved[0]}, got another part than in earlier runs: "
            "those that kept theirs left a part empty, or groups have changed"
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


def _moved(rows: Sequence[SplitRecord], kept: Kept) -> list[str]:
    """Images whose part is another one than before."""
    parts = {(row.image, row.fold): row.part for row in kept.rows}
    return sorted({r.image for r in rows if parts.get((r.image, r.fold), r.part) != r.part})


def from_earlier_runs(rows: Sequence[SplitRecord], kept: Kept) -> str:
    """What of a split comes from earlier runs; "" for one that is new.

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
        "(to draw it again from the images of today: split.redraw)"
    )
