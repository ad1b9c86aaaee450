"""The manifest: every image of a dataset with what is known of it, and what is wrong with it.

Importing this module is light; what decodes is imported when it runs.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet.data.dataset_warnings import grouped, write_warnings
from unet.data.file_names import relative
from unet.data.label_doubts import class_table, doubts, table_line
from unet.data.layouts import find_pairs, list_files, parts_of
from unet.data.raw_changes import Hashes, fingerprint, stamp, write_inputs
from unet.data.raw_files import RawPair, RawSource
from unet.data.records import PARTS, ImageRecord, write_manifest
from unet.errors import UserError, one_line
from unet.files import digest

if TYPE_CHECKING:
    from unet.data.inspection import Wanted
    from unet.data.label_statistics import Look

__all__ = ["RawSource", "build_manifest", "fingerprint", "list_files", "manifest_stage"]

log = logging.getLogger(__name__)

PART_COLUMNS = ("part", "split")
LISTED_IMAGES = 10


@dataclass(frozen=True)
class Item:
    """One image to look at: a pair, or a page of one; with a reason it is bad already."""

    id: str
    pair: RawPair
    page: int | None = None
    reason: str = ""


def manifest_stage(
    source: RawSource,
    settings: Mapping[str, Any],
    manifest: Path,
    inputs: Path,
    threads: int,
    warnings: Path,
) -> None:
    """Writes ``manifest.csv``, ``inputs.json`` and the stage's warnings (arguments as
    ``build_manifest``)."""
    stamps = {path: stamp(path) for path in list_files(source)}
    hashes, lines, classes = Hashes(), list[str](), list[dict[str, Any]]()
    records = build_manifest(
        replace(source, warn=lines.append),
        settings,
        strict=bool(settings["strict"]),
        threads=threads,
        hashes=hashes,
        classes=classes,
    )
    lines += grouped((record.image, text) for record in records for text in record.warnings)
    write_inputs(inputs, source.root, str(settings["fingerprint"]), stamps, hashes.of)
    write_warnings(warnings, lines, classes=classes)
    write_manifest(manifest, records)


def build_manifest(
    source: RawSource,
    settings: Mapping[str, Any],
    strict: bool,
    threads: int,
    hashes: Hashes | None = None,
    classes: list[dict[str, Any]] | None = None,
) -> list[ImageRecord]:
    """Decodes every image and label once; bad ones are quarantined with a reason.

    Args:
        settings: task, classes, ignore, axes, pixel_size_um, channels, group, and (optional)
            column, the sheet's column that names each image's part.
        strict: stop at the first bad image.
        threads: images looked at at once; each holds one block of its file in memory.
        classes: gets share and mean intensity of each class
            (:func:`unet.data.label_doubts.class_table`).

    Returns:
        sorted by id.

    Raises:
        UserError: nothing found, all images bad, a bad one while ``strict``, no group for an image.
    """
    from unet.data.blocks import Progress, mapped

    hashes = hashes or Hashes()
    # Where labels are not needed, models of other datasets predict.
    learned = source.labelled and source.required
    wanted = _wanted(settings, learned)
    pairs = find_pairs(source)
    group = _grouping(settings.get("group"), pairs)
    items = [i for some in mapped(_expander(wanted.axes), pairs, threads) for i in some]
    items = _without_doubles(items)
    # What only the config or the sheet can have wrong comes before the long work.
    places = {item.id: (group(item), _part(item, settings.get("column"))) for item in items}
    progress = Progress("manifest", len(items), sum(max(0, _nbytes(p)) for p in pairs))

    stop = threading.Event()
    looks: dict[str, Look] = {}

    def work(item: Item) -> ImageRecord | None:
        if stop.is_set():
            return None
        record = ImageRecord(
            id=item.id,
            image=relative(item.pair.image, source.root),
            label=relative(item.pair.label, source.root) if item.pair.label else "",
            page=item.page,
            sha256=hashes.of(item.pair.image),
            label_sha256=hashes.of(item.pair.label) if item.pair.label else "",
            group=places[item.id][0],
            part=places[item.id][1],
        )
        record, look = _examined(item, record, wanted)
        if look is not None:
            looks[item.id] = look
        if strict and record.status != "ok":
            # Not raised here: the other threads' work would go on behind the error.
            stop.set()
        progress.advance(0 if item.page else max(0, _nbytes(item.pair)), images=1)
        return record

    records = [record for record in mapped(work, items, threads) if record is not None]
    bad = [record for record in records if record.status != "ok"]
    if strict and bad:
        raise UserError(f"{bad[0].image}: {bad[0].reason} (strict: true)")
    records = _sizes_compared(_alike(records, strict))
    _summary(records, source)
    records = sorted(records, key=lambda r: r.id)
    seen = {r.id: looks[r.id] for r in records if r.status == "ok" and r.id in looks}
    rows = class_table(seen)
    if rows:
        log.info("classes, share of the pixels: %s", table_line(rows))
    if classes is not None:
        classes += rows
    doubtful = doubts(seen, instances=wanted.task == "instances")
    return _doubles_noted([_warned(r, doubtful.get(r.id, ())) for r in records], source)


def _warned(record: ImageRecord, texts: Sequence[str]) -> ImageRecord:
    return replace(record, warnings=(*record.warnings, *texts)) if texts else record


def _wanted(settings: Mapping[str, Any], learned: bool) -> Wanted:
    from unet.data.inspection import Wanted

    def tuple_of(value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    return Wanted(
        task=settings["task"],
        values=frozenset((settings.get("classes") or {}).values()),
        classes=dict(settings.get("classes") or {}),
        binary=settings.get("label_kind") == "binary",
        ignore=settings.get("ignore"),
        axes=settings.get("axes"),
        channels=tuple_of(settings.get("channels")),
        pixel_size_um=tuple_of(settings.get("pixel_size_um")),
        learned=learned,
    )


def _nbytes(pair: RawPair) -> int:
    try:
        return sum(stamp(path)[0] for path in parts_of(pair.image))
    except UserError:
        return 0


def _expander(axes: str | None) -> Callable[[RawPair], list[Item]]:
    """Makes a function: the items of a pair, one per page where it is a stack."""

    def items(pair: RawPair) -> list[Item]:
        from unet.io.images import page_count

        if not pair.stack:
            return [Item(pair.id, pair)]
        try:
            pages = page_count(pair.image, axes=axes)
            marked = page_count(pair.label, axes=axes, label=True) if pair.label else pages
        except UserError as error:
            return [Item(pair.id, pair, reason=_reason(error, pair))]
        reason = ""
        if marked != pages:
            reason = f"{pages} pages, but its label has {marked}"
        return [Item(f"{pair.id}-p{page:03d}", pair, page, reason) for page in range(pages)]

    return items


def _without_doubles(items: Sequence[Item]) -> list[Item]:
    """Images whose id another has already are bad, and get an id of their own."""
    first: dict[str, Item] = {}
    result: list[Item] = []
    for item in items:
        # Some file systems take A and a for the same folder.
        other = first.setdefault(item.id.lower(), item)
        if other is not item:
            reason = f"its id {item.id} is also that of {other.pair.image.name}; give both an id"
            name = f"{item.id}-{digest([str(item.pair.image), item.page, len(result)])[:8]}"
            item = replace(item, id=name, reason=reason)
        result.append(item)
    return result


def _grouping(group: str | None, pairs: Sequence[RawPair]) -> Callable[[Item], str]:
    """Makes a function: an item's group, by a column, a regular expression, or the layout."""
    if group is None:
        return lambda item: item.pair.group or item.pair.columns.get("group", "")
    columns = pairs[0].columns
    if group in columns:
        # Not every image need be of a plate.
        return lambda item: item.pair.columns.get(group, "")
    try:
        expression = re.compile(group)
    except re.error as error:
        raise UserError(f"split.group: {group!r} is not a regular expression ({error})") from None
    if expression.groups != 1:
        there = f"the sheet has no such column ({', '.join(columns)})" if columns else "no sheet"
        raise UserError(
            f"split.group: {group!r}: {there}, and a regular expression must have one group, such "
            "as (plate\\d+)"
        )

    def matched(item: Item) -> str:
        match = expression.search(item.id)
        if match is None:
            raise UserError(f"split.group: {group!r} is not found in the image id {item.id}")
        return match[1] or ""

    return matched


def _part(item: Item, column: str | None) -> str:
    """The part that the sheet gives the image."""
    columns = item.pair.columns
    names = (column,) if column is not None else PART_COLUMNS
    value = next((columns[name] for name in names if columns.get(name)), "").lower()
    if value and value not in PARTS:
        raise UserError(
            f"{item.pair.image.name}: part {value!r} in the sheet; write train, val or test"
        )
    return value


def _examined(item: Item, record: ImageRecord, wanted: Wanted) -> tuple[ImageRecord, Look | None]:
    from unet.data.inspection import inspect

    reason = item.reason
    if not reason and wanted.learned and item.pair.label is None:
        reason = "no label"
    if not reason:
        copied = bool(record.sha256) and record.sha256 == record.label_sha256
        copy = "the label is a copy of the image; a file cannot be both"
        try:
            facts = inspect(item.pair.image, item.pair.label, item.page, wanted)
        except UserError as error:
            reason = copy if copied else _reason(error, item.pair)
        else:
            # An empty image and its empty label may well be the same bytes.
            if not copied or (facts.look is not None and not facts.look.copy):
                kept = {name: value for name, value in vars(facts).items() if name != "look"}
                return replace(record, **kept), facts.look
            reason = copy
    return replace(record, status="quarantined", reason=reason), None


def _reason(error: UserError, pair: RawPair) -> str:
    """The message without the path that the manifest's row has already."""
    text = str(error).removeprefix(f"{pair.image}: ")
    return text.replace(f"{pair.label}: ", "label: ") if pair.label else text


def _alike(records: list[ImageRecord], strict: bool) -> list[ImageRecord]:
    """Quarantines images that have not as many spatial axes, or not as many channels, as most (of
    equal numbers, the first)."""
    axes = "(mixed planes and volumes); make them datasets of their own"
    records = _as_most(records, strict, lambda r: len(r.shape) - 1, "spatial axes", axes)
    channels = "(mixed channels); choose the same ones with the key channels"
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


def _sizes_compared(records: list[ImageRecord]) -> list[ImageRecord]:
    """Warns of images whose pixel size is far from that of the others."""
    from unet.io.pixel_size import unlike_others

    usable = [record for record in records if record.status == "ok"]
    warned = zip(usable, unlike_others([r.pixel_size_um for r in usable]), strict=True)
    added = {record.id: (*record.warnings, text) for record, text in warned if text}
    return [replace(r, warnings=added.get(r.id, r.warnings)) for r in records]


def _doubles_noted(records: list[ImageRecord], source: RawSource) -> list[ImageRecord]:
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


def _summary(records: Sequence[ImageRecord], source: RawSource) -> None:
    bad = [r for r in records if r.status != "ok"]
    if bad:
        first = f"{bad[0].image}: {bad[0].reason}"
        source.warn(f"{len(bad)} of {len(records)} images are left out; the first: {first}")
    reasons: dict[str, list[str]] = {}
    for record in bad:
        page = "" if record.page is None else f" (page {record.page})"
        reasons.setdefault(record.reason, []).append(record.image + page)
    for reason, names in list(reasons.items())[:LISTED_IMAGES]:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        log.warning("left out: %s", one_line(f"{names[0]}{more}: {reason}"))
    if len(reasons) > LISTED_IMAGES:
        log.warning("left out for %d other reasons: see manifest.csv", len(reasons) - LISTED_IMAGES)
    if len(bad) == len(records):
        first = f"; the first: {bad[0].image}: {bad[0].reason}" if bad else ""
        raise UserError(f"{source.images}: none of {len(records)} images is usable{first}")
    log.info("manifest: %d images, %d left out", len(records) - len(bad), len(bad))
