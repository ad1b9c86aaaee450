"""The manifest: a list of all images of a dataset, with their properties and what is wrong.

Importing this module is light; modules that decode images are imported when they are needed.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet.config.data_settings import ManifestSettings
from unet.data.dataset_warnings import grouped, write_warnings
from unet.data.file_names import relative
from unet.data.fit_checks import IN_CONFIG, Remedies
from unet.data.label_warnings import class_table, label_warnings, sparse_notice, table_line
from unet.data.layouts import find_pairs, list_files
from unet.data.manifest_checks import note_copies, quarantine_mixed, summarise, warn_of_sizes
from unet.data.raw_changes import Hashes, fingerprint, stamp, write_inputs
from unet.data.raw_files import RawPair, RawSource
from unet.data.records import PARTS, ImageRecord, well_of, write_manifest
from unet.errors import UserError
from unet.files import digest
from unet.io.channel_files import parts_of

if TYPE_CHECKING:
    from unet.data.inspection import Expected
    from unet.data.label_statistics import LabelStatistics

__all__ = ["RawSource", "build_manifest", "fingerprint", "list_files", "manifest_stage"]

log = logging.getLogger(__name__)

PART_COLUMNS = ("part", "split")


@dataclass(frozen=True)
class Item:
    """One image to inspect: a pair, or one page of it. An image with a ``reason`` is already bad.

    ``group`` and ``part`` are for the split, from the config or the sheet; ``file_group`` is the
    group of all times of a file, if these name none.
    """

    id: str
    pair: RawPair
    page: int | None = None
    reason: str = ""
    group: str = ""
    part: str = ""
    file_group: str = ""


def manifest_stage(
    source: RawSource,
    settings: ManifestSettings,
    manifest: Path,
    inputs: Path,
    threads: int,
    warnings: Path,
    remedies: Remedies = IN_CONFIG,
) -> None:
    """Writes ``manifest.csv``, ``inputs.json`` and the stage's warnings (arguments as
    ``build_manifest``)."""
    stamps = {path: stamp(path) for path in list_files(source)}
    hashes, lines, classes = Hashes(), list[str](), list[dict[str, Any]]()
    noted = replace(source, warn=lines.append)
    records = build_manifest(noted, settings, threads, hashes, classes, remedies=remedies)
    lines += grouped((record.image, text) for record in records for text in record.warnings)
    write_inputs(inputs, source.root, settings.fingerprint, stamps, hashes.of)
    write_warnings(warnings, lines, classes=classes)
    write_manifest(manifest, records)


def build_manifest(
    source: RawSource,
    settings: ManifestSettings,
    threads: int,
    hashes: Hashes | None = None,
    classes: list[dict[str, Any]] | None = None,
    *,
    refuse: bool = True,
    remedies: Remedies = IN_CONFIG,
) -> list[ImageRecord]:
    """Decodes every image and label once; quarantines bad ones with a reason.

    Args:
        threads: images inspected at the same time; each holds one block of its file in memory.
        classes: if given, share and mean intensity of each class are appended
            (:func:`unet.data.label_warnings.class_table`).
        refuse: whether to raise an error if all images are bad.
        remedies: what reasons say to write about images that do not fit the others.

    Returns:
        sorted by id.

    Raises:
        UserError: nothing found, all images bad, a bad one with ``strict``, an image without group.
    """
    items, strict = _items(source, settings, threads), settings.strict
    found = _all_examined(items, source, settings, hashes or Hashes(), threads)
    records = [record for record, _ in found]
    bad = [record for record in records if record.status != "ok"]
    if strict and bad:
        raise UserError(f"{bad[0].image}: {bad[0].reason} (strict: true)")
    records = warn_of_sizes(quarantine_mixed(records, strict, remedies))
    summarise(records, source, refuse=refuse)
    records = sorted(records, key=lambda r: r.id)
    by_id = {record.id: label for record, label in found if label is not None}
    labels = {r.id: by_id[r.id] for r in records if r.status == "ok" and r.id in by_id}
    rows = class_table(labels)
    if rows:
        log.info("classes, share of the pixels: %s", table_line(rows))
    if classes is not None:
        classes += rows
    _check_sparse(source, settings, labels)
    texts = label_warnings(labels, instances=settings.task == "instances")
    return note_copies([_warned(r, texts.get(r.id, ())) for r in records], source)


def _check_sparse(
    source: RawSource, settings: ManifestSettings, labels: Mapping[str, LabelStatistics]
) -> None:
    """Warns of what scores on sparse labels say.

    Raises:
        UserError: no pixel says what background is, so that no network can learn it.
    """
    for line in sparse_notice(labels, instances=settings.task == "instances"):
        source.warn(line)
    if not (settings.only_marked and labels and source.required):
        return
    if not any(label.shares["background"] for label in labels.values()):
        raise UserError(
            f"background: no label has a pixel of value {settings.background}, so no network can "
            "learn what background is; mark some, or write background_px: 3 (unlabelled pixels so "
            "near a labelled object are background)"
        )


def _all_examined(
    items: Sequence[Item],
    source: RawSource,
    settings: ManifestSettings,
    hashes: Hashes,
    threads: int,
) -> list[tuple[ImageRecord, LabelStatistics | None]]:
    """Each image with the statistics of its label; with ``strict``, stops at a bad one."""
    from unet.data.blocks import Progress, mapped

    expected = _expected(source, settings)
    sizes = {item.id: 0 if item.page else max(0, _nbytes(item.pair)) for item in items}
    progress = Progress("manifest", len(items), sum(sizes.values()))
    stop = threading.Event()

    def examine(item: Item) -> tuple[ImageRecord, LabelStatistics | None] | None:
        if stop.is_set():
            return None
        found = _examined(item, source.root, expected, hashes)
        if settings.strict and found[0].status != "ok":
            # Not raised here, because the other threads would continue after the error.
            stop.set()
        progress.advance(sizes[item.id], images=1)
        return found

    return [found for found in mapped(examine, items, threads) if found is not None]


def _items(source: RawSource, settings: ManifestSettings, threads: int) -> list[Item]:
    """All images to inspect. Mistakes in the config or the sheet are found here, before the slow
    part starts."""
    from unet.data.blocks import mapped

    pairs = find_pairs(source)
    group = _grouping(settings.group, pairs)
    items = [i for some in mapped(_expander(settings.axes), pairs, threads) for i in some]
    return [
        replace(item, group=group(item), part=_part(item, settings.column))
        for item in _without_doubles(items)
    ]


def _warned(record: ImageRecord, texts: Sequence[str]) -> ImageRecord:
    return replace(record, warnings=(*record.warnings, *texts)) if texts else record


def _expected(source: RawSource, settings: ManifestSettings) -> Expected:
    from unet.data.inspection import Expected

    return Expected(
        task=settings.task,
        values=frozenset((settings.classes or {}).values()),
        classes=settings.classes or {},
        binary=settings.label_kind == "binary",
        ignore=settings.ignore,
        sparse=settings.sparse,
        background=settings.background,
        axes=settings.axes,
        channels=settings.channels,
        pixel_size_um=settings.pixel_size_um,
        # Without required labels, the images are only predicted, with models of other datasets.
        learned=source.labelled and source.required,
    )


def _nbytes(pair: RawPair) -> int:
    try:
        return sum(stamp(path)[0] for path in parts_of(pair.image))
    except UserError:
        return 0


def _expander(axes: str | None) -> Callable[[RawPair], list[Item]]:
    """Returns a function that gives the items of a pair: one per page of a stack, otherwise one."""

    def items(pair: RawPair) -> list[Item]:
        from unet.io.images import page_count, pages_in

        if not pair.stack:
            return [Item(pair.id, pair)]
        try:
            found = pages_in(pair.image, axes=axes)
            pages = len(found.names)
            marked = page_count(pair.label, axes=axes, label=True) if pair.label else pages
        except UserError as error:
            return [Item(pair.id, pair, reason=_reason(error, pair))]
        reason = ""
        if marked != pages:
            reason = f"{pages} pages, but its label has {marked}"
        # An image of a single page has nothing to stay with.
        own = pair.id if found.together and pages > 1 else ""
        return [
            Item(f"{pair.id}-{name}", pair, page, reason, file_group=own)
            for page, name in enumerate(found.names)
        ]

    return items


def _without_doubles(items: Sequence[Item]) -> list[Item]:
    """Marks images with an id that is already used as bad, and gives them a unique id."""
    first: dict[str, Item] = {}
    result: list[Item] = []
    for item in items:
        # On some file systems, A and a are the same folder.
        other = first.setdefault(item.id.lower(), item)
        if other is not item:
            reason = (
                f"its id {item.id} is also the id of {other.pair.image.name}; give each its own id"
            )
            name = f"{item.id}-{digest([str(item.pair.image), item.page, len(result)])[:8]}"
            item = replace(item, id=name, reason=reason)
        result.append(item)
    return result


def _grouping(group: str | None, pairs: Sequence[RawPair]) -> Callable[[Item], str]:
    """Returns a function that gives an item's group, from a column, a regular expression, or the
    layout."""
    if group is None:
        return lambda item: item.pair.group or item.pair.columns.get("group", "") or item.file_group
    columns = pairs[0].columns
    if group in columns:
        # Not every image has to belong to a plate.
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
    """The image's part of the split according to the sheet, or ""."""
    columns = item.pair.columns
    names = (column,) if column is not None else PART_COLUMNS
    value = next((columns[name] for name in names if columns.get(name)), "").lower()
    if value and value not in PARTS:
        raise UserError(
            f"{item.pair.image.name}: part {value!r} in the sheet; write train, val or test"
        )
    return value


def _examined(
    item: Item, root: Path, expected: Expected, hashes: Hashes
) -> tuple[ImageRecord, LabelStatistics | None]:
    from unet.data.inspection import inspect

    image, label = item.pair.image, item.pair.label
    record = ImageRecord(
        id=item.id,
        image=relative(image, root),
        label=relative(label, root) if label else "",
        page=item.page,
        sha256=hashes.of(image),
        label_sha256=hashes.of(label) if label else "",
        group=item.group,
        part=item.part,
        well=well_of(item.pair.columns),
    )
    reason = item.reason
    if not reason and expected.learned and item.pair.label is None:
        reason = "no label"
    if not reason:
        copied = bool(record.sha256) and record.sha256 == record.label_sha256
        copy = "the label is a copy of the image; a file cannot be both"
        try:
            facts = inspect(item.pair.image, item.pair.label, item.page, expected)
        except UserError as error:
            reason = copy if copied else _reason(error, item.pair)
        else:
            # An empty image and its empty label can have the same bytes.
            if not copied or (facts.statistics is not None and not facts.statistics.copy):
                kept = {name: value for name, value in vars(facts).items() if name != "statistics"}
                return replace(record, **kept), facts.statistics
            reason = copy
    return replace(record, status="quarantined", reason=reason), None


def _reason(error: UserError, pair: RawPair) -> str:
    """The message without the path, which the manifest's row already has."""
    text = str(error).removeprefix(f"{pair.image}: ")
    return text.replace(f"{pair.label}: ", "label: ") if pair.label else text
