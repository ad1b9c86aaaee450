"""Compares the images of a manifest with each other (axes, channels, pixel sizes, copies), and logs
which images are left out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from unet.data.fit_checks import IN_CONFIG, Remedies
from unet.data.raw_files import RawSource
from unet.data.records import ImageRecord
from unet.errors import UserError, how_many, one_line

log = logging.getLogger(__name__)

LISTED_IMAGES = 10


def quarantine_mixed(
    records: list[ImageRecord], strict: bool, remedies: Remedies = IN_CONFIG
) -> list[ImageRecord]:
    """Quarantines images whose number of spatial axes or channels differs from that of most images
    (in a tie, the number that comes first)."""
    axes = f"(mixed planes and volumes); {remedies.apart}"
    records = _as_most(records, strict, lambda r: len(r.shape) - 1, "spatial axes", axes)
    channels = f"(mixed channels); {remedies.same_channels}"
    return _as_most(records, strict, lambda r: r.shape[0], "channels", channels)


def _as_most(
    records: list[ImageRecord],
    strict: bool,
    number_of: Callable[[ImageRecord], int],
    what: str,
    advice: str,
) -> list[ImageRecord]:
    counts = Counter(number_of(r) for r in records if r.status == "ok")
    if len(counts) < 2:
        return records
    usual, number = counts.most_common(1)[0]
    result = []
    for record in records:
        if record.status == "ok" and number_of(record) != usual:
            reason = f"{number_of(record)} {what}, but {number} images have {usual} {advice}"
            if strict:
                raise UserError(f"{record.image}: {reason} (strict: true)")
            record = replace(record, status="quarantined", reason=reason)
        result.append(record)
    return result


def warn_of_sizes(records: list[ImageRecord]) -> list[ImageRecord]:
    """Adds warnings to images whose pixel size is far from that of the others."""
    from unet.io.pixel_size import unlike_others

    usable = [record for record in records if record.status == "ok"]
    warned = zip(usable, unlike_others([r.pixel_size_um for r in usable]), strict=True)
    added = {record.id: (*record.warnings, text) for record, text in warned if text}
    return [replace(r, warnings=added.get(r.id, r.warnings)) for r in records]


def note_copies(records: list[ImageRecord], source: RawSource) -> list[ImageRecord]:
    """Notes in ``reason`` which image is a copy of an earlier one (both stay usable)."""
    same: dict[tuple[str, int | None], list[str]] = {}
    result = []
    for record in records:
        if record.status == "ok":
            names = same.setdefault((record.sha256, record.page), [])
            if names:
                record = replace(record, reason=f"same content as {names[0]}")
            names.append(record.id)
        result.append(record)
    copies = [names for names in same.values() if len(names) > 1]
    for names in copies[:LISTED_IMAGES]:
        more = f" and {len(names) - LISTED_IMAGES} more" if len(names) > LISTED_IMAGES else ""
        source.warn(f"same image under several names: {', '.join(names[:LISTED_IMAGES])}{more}")
    if len(copies) > LISTED_IMAGES:
        rest = len(copies) - LISTED_IMAGES
        source.warn(f"{rest} more images have copies: see manifest.csv, column reason")
    return result


class NoUsableImage(UserError):
    """No image can be used; ``records`` says why."""

    def __init__(self, text: str, records: Sequence[ImageRecord]) -> None:
        super().__init__(text)
        self.records = records


def summarise(records: Sequence[ImageRecord], source: RawSource, *, refuse: bool = True) -> None:
    """Logs which images are left out and why.

    Raises:
        NoUsableImage: none can be used (``refuse``).
    """
    bad = [r for r in records if r.status != "ok"]
    if bad:
        first = f"{bad[0].image}: {bad[0].reason}"
        verb = "is" if len(bad) == 1 else "are"
        total = how_many(len(records), "image")
        source.warn(f"{len(bad)} of {total} {verb} left out; the first: {first}")
    reasons: dict[str, list[str]] = {}
    for record in bad:
        page = "" if record.page is None else f" (page {record.page})"
        reasons.setdefault(record.reason, []).append(record.image + page)
    for reason, names in list(reasons.items())[:LISTED_IMAGES]:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        log.warning("left out: %s", one_line(f"{names[0]}{more}: {reason}"))
    if len(reasons) > LISTED_IMAGES:
        log.warning("left out for %d other reasons: see manifest.csv", len(reasons) - LISTED_IMAGES)
    if refuse and len(bad) == len(records):
        first = f"; the first: {bad[0].image}: {bad[0].reason}" if bad else ""
        what = f"none of {len(records)} images is usable{first}"
        if len(bad) == 1:
            what = f"its only image is not usable: {bad[0].image}: {bad[0].reason}"
        raise NoUsableImage(f"{source.images}: {what}", records)
    usable = len(records) - len(bad)
    log.info("manifest: %s, %d left out", how_many(usable, "image"), len(bad))
