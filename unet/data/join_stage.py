"""The stage join: a dataset that stands for the images of others, without copying any.

Its tables are those of its members together, with ids ``<member>.<id>``; its store names theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unet.config.join_settings import JoinSettings
from unet.data.dataset_warnings import write_warnings
from unet.data.joined_stores import member_id
from unet.data.prepare import BINARY
from unet.data.records import (
    ImageRecord,
    SplitRecord,
    read_manifest,
    read_splits,
    write_manifest,
    write_splits,
)
from unet.data.split_checks import check_copies
from unet.data.store import join_stores
from unet.errors import UserError
from unet.files import read_json, write_sentinel
from unet.paths import Paths

# Pixel sizes that differ by less than this factor need no warning.
SAME_SIZE = 1.1


@dataclass(frozen=True)
class Member:
    """A dataset of the join.

    Attributes:
        records, splits: the rows of its tables, with its own ids.
        prepared: its sentinel.
    """

    name: str
    records: Sequence[ImageRecord]
    splits: Sequence[SplitRecord]
    prepared: Mapping[str, Any]

    @property
    def images(self) -> Mapping[str, Mapping[str, Any]]:
        """The sentinel's entries."""
        found: Mapping[str, Mapping[str, Any]] = self.prepared["images"]
        return found

    @property
    def sizes(self) -> list[tuple[float, ...] | None]:
        """The pixel sizes of its images, each once; None = unknown."""
        found = {e["pixel_size_um"] and tuple(e["pixel_size_um"]) for e in self.images.values()}
        return sorted(found, key=lambda size: size or ())


def join_stage(paths: Paths, dataset: str, settings: JoinSettings, made_by: Any) -> None:
    """Writes the tables, the store, its sentinel and the warnings of a joined dataset.

    Raises:
        UserError: the members differ in their spatial axes, channels or folds, or copies of an
            image are in different parts of a fold.
    """
    members = [_read(paths, name) for name in settings.members]
    _check_alike(dataset, members)
    records = [joined for member in members for joined in _records(member)]
    splits = [
        replace(row, image=member_id(member.name, row.image))
        for member in members
        for row in member.splits
    ]
    _check_copies(dataset, records, splits)
    write_warnings(paths.warnings(dataset, "join"), [*_size_warnings(members), *_scales(members)])
    write_manifest(paths.manifest(dataset), records)
    write_splits(paths.splits(dataset), splits)
    join_stores(paths.prepared(dataset), {m.name: paths.prepared(m.name) for m in members})
    first = members[0].prepared
    classes = settings.classes
    write_sentinel(
        paths.prepared_done(dataset),
        settings.version,
        {name: entry for member in members for name, entry in _entries(member)},
        made_by,
        task=settings.task,
        class_names=list(dict(classes or BINARY)),
        class_values=None if classes is None else [value for _, value in classes],
        # For new images, of which no member's statistics can be assumed.
        normalize={**first["normalize"], "scope": "image"},
        channels=first["channels"],
    )


def _read(paths: Paths, name: str) -> Member:
    tables = read_manifest(paths.manifest(name)), read_splits(paths.splits(name))
    return Member(name, *tables, read_json(paths.prepared_done(name)))


def _records(member: Member) -> Iterator[ImageRecord]:
    for record in member.records:
        group = record.group and member_id(member.name, record.group)
        yield replace(record, id=member_id(member.name, record.id), group=group)


def _entries(member: Member) -> Iterator[tuple[str, dict[str, Any]]]:
    for image, entry in member.images.items():
        group = entry["group"] and member_id(member.name, entry["group"])
        yield (
            member_id(member.name, image),
            {**entry, "group": group, "dataset": member.name},
        )


def _check_alike(dataset: str, members: Sequence[Member]) -> None:
    """Checks what the config does not say: the members' shapes and folds."""
    key, first = f"datasets.{dataset}.join", members[0]
    for other in members[1:]:
        one, two = _axes(first), _axes(other)
        if one != two:
            raise UserError(
                f"{key}: the images of {first.name} have {one} spatial axes, those of {other.name} "
                f"{two}; join volumes with volumes and planes with planes"
            )
        if first.prepared["channels"] != other.prepared["channels"]:
            raise UserError(
                f"{key}: the images of {first.name} have {first.prepared['channels']} channels, "
                f"those of {other.name} {other.prepared['channels']}; choose as many with channels"
            )
        if _folds(first) != _folds(other):
            raise UserError(
                f"{key}: {first.name} has {len(_folds(first))} folds, {other.name} "
                f"{len(_folds(other))}; write the same folds in both"
            )


def _check_copies(
    dataset: str, records: Sequence[ImageRecord], splits: Sequence[SplitRecord]
) -> None:
    # Files of two datasets may have the same name; their ids differ.
    usable = [replace(r, image=r.id) for r in records if r.status == "ok"]
    key, advice = f"datasets.{dataset}.join", "remove one of each from its dataset"
    check_copies(splits, usable, key, advice)


def _axes(member: Member) -> int:
    return len(next(iter(member.images.values()))["shape"]) - 1


def _folds(member: Member) -> list[int]:
    return sorted({row.fold for row in member.splits})


def _size_warnings(members: Sequence[Member]) -> list[str]:
    """A warning if the members' pixel sizes differ."""
    sizes = [size for member in members for size in member.sizes]
    known = [size for size in sizes if size is not None]
    far = any(
        max(a / b, b / a) > SAME_SIZE for size in known for a, b in zip(size, known[0], strict=True)
    )
    if not far and len(known) in (0, len(sizes)):
        return []
    named = ", ".join(f"{m.name} {' and '.join(map(_text, m.sizes[:3]))}" for m in members)
    return [
        f"join: the pixel sizes differ ({named}); the images are used as they are, and new images "
        f"are resampled to the pixel size of {members[0].name}; name another dataset first, or "
        "join images of one pixel size"
    ]


def _text(size: tuple[float, ...] | None) -> str:
    return "unknown" if size is None else " x ".join(f"{step:.4g}" for step in size) + " um"


def _scales(members: Sequence[Member]) -> list[str]:
    """A warning if new images are normalised in another way than some of the members."""
    first = members[0]
    ways = [member.prepared["normalize"] for member in members]
    if all(way == {**ways[0], "scope": "image"} for way in ways):
        return []
    return [
        f"join: new images are normalised with method {ways[0]['method']}, as {first.name}, and "
        "their own statistics; write the same prepare.normalize with scope: image in all joined "
        "datasets, if that is not wanted"
    ]
