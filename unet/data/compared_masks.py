"""Finds the masks of another tool, says whether they changed, and matches them with a dataset's
images by name. Light: planning uses it at each start."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unet.data.dataset_warnings import Warn
from unet.data.file_names import Found
from unet.data.globs import glob_paths
from unet.data.mask_claims import Matches, Named, match_names
from unet.data.mask_pairs import find_masks, label_inside
from unet.data.raw_changes import fingerprint
from unet.errors import UserError, how_many
from unet.files import read_json
from unet.io.array_paths import split_inside, with_inside
from unet.io.channel_files import plain_name
from unet.io.formats import ARRAY_FILES, format_of, stem
from unet.io.mask_files import MASK_SUFFIXES, mask_format

if TYPE_CHECKING:
    from unet.data.records import ImageRecord

# Kinds of files in the order in which one of them is taken if a folder has several for the same
# images: first if the names say that they are masks (a_cp_masks.tif), then otherwise.
_MARKED = ("tif", "zarr", "png", "npy", "geojson", "roi")
_PLAIN = ("geojson", "roi", "npy", "zarr", "tif", "png")
_KINDS = {".tiff": "tif", ".zip": "roi"}


@dataclass(frozen=True)
class FoundMasks:
    """The mask files of a tool, sorted; ``root``: the folder that their names start from."""

    root: Path
    files: tuple[Found, ...]


def label_of(task: str) -> str:
    """The label of an OME-Zarr image that is compared, if it has several."""
    return "instances" if task == "instances" else "classes"


def find_compared(pattern: str, root: Path, key: str, label: str = "instances") -> FoundMasks:
    """The masks in a folder, of a glob, or a single file (then for all images of a stack).

    Args:
        pattern: absolute, or relative to ``root``; ``*.h5::/masks`` for an array in each file.
        key: of the config, for messages.
        label: the one to take of an OME-Zarr image with several labels.

    Raises:
        UserError: no such folder, or it holds no file of a known format.
    """
    where, inside = split_inside(root / Path(pattern).expanduser())
    if not inside and where.is_dir() and where.suffix.lower() == ".zarr":
        # An OME-Zarr image, or a collection of them.
        return FoundMasks(where.parent, tuple(find_masks(str(where), key, label=label)))
    if glob.has_magic(str(where)) and not where.exists():
        folder, paths = glob_paths(where)
    elif where.is_dir():
        folder, paths = where, sorted(where.iterdir())
    elif where.exists():
        folder, paths = where.parent, [where]
    else:
        raise UserError(f"{key}: no folder or file {where}; write a folder or a glob of masks")
    found = [
        Found(
            with_inside(path, inside) if inside else label_inside(path, label, key),
            (path.relative_to(folder).parent / _bare_file(path)).as_posix(),
        )
        for path in paths
        if (format_of(path) in ARRAY_FILES if inside else mask_format(path))
        and not path.name.startswith(".")
    ]
    if not found:
        kinds = ", ".join(sorted(MASK_SUFFIXES))
        raise UserError(
            f"{key}: {where} holds no mask ({kinds}); write a folder or a glob of masks"
        )
    return FoundMasks(folder, tuple(found))


def _bare_file(path: Path) -> str:
    return stem(path) if format_of(path) else path.stem


def masks_fingerprint(found: FoundMasks, noted: Path) -> str:
    """A hash that represents the content of the masks, from their names, sizes and times, or from
    their content if they were only touched, copied or moved.

    Args:
        noted: the file with what was there at the last comparison; need not exist.
    """
    stored = read_json(noted) if noted.is_file() else None
    seen = None if stored is None else noted.with_name(f".{noted.stem}-seen.json")
    files = (split_inside(item.path)[0] for item in found.files)
    return fingerprint(files, found.root, stored, seen)


def match_masks(
    found: FoundMasks, images: Sequence[Named], wanted: Collection[str], key: str, warn: Warn
) -> dict[str, Path]:
    """The mask of each image that has one, by :func:`match_names`, of one kind of files.

    Args:
        images: all images of the dataset, also those that cannot be used, so that no image gets
            the mask of another one.
        wanted: ids of the images that are compared.
        warn: receives a warning about files that are not used, and about unclear names.

    Raises:
        UserError: no wanted image has a mask.
    """
    own = {image.path.resolve() for image in images}
    files = [item for item in found.files if item.path.resolve() not in own]
    kinds: dict[str, list[Found]] = {}
    for item in files:
        kinds.setdefault(_kind(item.path), []).append(item)
    matched = {kind: match_names(items, images) for kind, items in kinds.items()}

    def rank(kind: str) -> tuple[int, bool, int]:
        pairs = {k: v for k, v in matched[kind].pairs.items() if k in wanted}
        marked = bool(pairs) and matched[kind].marked
        order = _MARKED if marked else _PLAIN
        return len(pairs), marked, -order.index(kind) if kind in order else -len(order)

    best = max(kinds, key=rank) if kinds else ""
    if not best or not rank(best)[0]:
        if doubts := [line for one in matched.values() for line in _doubts(one, wanted)]:
            raise UserError(f"{key}: no mask can be used: {doubts[0]}")
        raise UserError(_no_match(found, files, images, wanted, key))
    _warn_of_kinds(kinds, best, matched, wanted, warn)
    for line in _doubts(matched[best], wanted):
        warn(line)
    if line := _unclaimed(matched[best], wanted):
        warn(line)
    for line in _guesses(matched[best], wanted):
        warn(line)
    return matched[best].pairs


def _doubts(matches: Matches, wanted: Collection[str]) -> Iterator[str]:
    """Lines about files that could be masks of the wanted images but are not used."""
    if unclear := [one for one in matches.unclear if one[0] in wanted]:
        yield _unclear(unclear)
    if matches.shared:
        yield (
            f"{how_many(len(matches.shared), 'file')} not used because several images have the "
            f"name (such as {matches.shared[0].name}); put the masks into folders named like those "
            "of the images"
        )


def _unclaimed(matches: Matches, wanted: Collection[str]) -> str:
    """A line about files of no image, if they could be the masks that wanted images lack; ""."""
    lacking = set(wanted) - matches.pairs.keys() - {image for image, _ in matches.unclear}
    if not lacking or not matches.alone:
        return ""
    number = len(matches.alone)
    return (
        f"{how_many(number, 'file')} {'belongs' if number == 1 else 'belong'} to no image, such as "
        f"{matches.alone[0].name}; name the mask of a test image like the image"
    )


def _guesses(matches: Matches, wanted: Collection[str]) -> Iterator[str]:
    """Lines about masks of the wanted images that were taken although the names leave a doubt."""
    if begun := [one for one in matches.begun if one[0] in wanted]:
        image, path = begun[0]
        yield (
            f"{how_many(len(begun), 'mask')} matched by the beginning of the name, such as "
            f"{path.name} with {image}"
        )
    pairs = matches.pairs
    if beside := [one for one in matches.beside if one[0] in wanted and pairs.get(one[0])]:
        image, other, mask = beside[0]
        more = f" (so for {len(beside)} images)" if len(beside) > 1 else ""
        yield f"{mask.name} is used for {image}, not {other.name} beside it{more}"


def _unclear(unclear: Sequence[tuple[str, Sequence[str]]]) -> str:
    names = "; ".join(f"{name}: {', '.join(files)}" for name, files in unclear[:3])
    return (
        f"{how_many(len(unclear), 'image')} left out because several masks could be theirs "
        f"({names}); narrow the glob"
    )


def _kind(path: Path) -> str:
    suffix = mask_format(path)
    # A label inside an OME-Zarr image has no suffix.
    return _KINDS.get(suffix, suffix[1:]) if suffix else "zarr"


def _no_match(
    found: FoundMasks,
    files: Sequence[Found],
    images: Sequence[Named],
    wanted: Collection[str],
    key: str,
) -> str:
    if not files:
        return (
            f"{key}: all {how_many(len(found.files), 'file')} in {found.root} are images of the "
            "dataset, not masks; give the folder with the masks"
        )
    image = next((i for i in images if i.id in wanted), images[0]) if images else None
    such = f" (such as {files[0].path.name} and {image.name})" if image else ""
    return (
        f"{key}: none of {how_many(len(files), 'mask')} in {found.root} is named like one of the "
        f"{how_many(len(wanted), 'test image')}{such}; name each mask like its image (endings such "
        "as _mask, _pred, _cp_masks are ignored)"
    )


def _warn_of_kinds(
    kinds: Mapping[str, Sequence[Found]],
    best: str,
    matched: Mapping[str, Matches],
    wanted: Collection[str],
    warn: Warn,
) -> None:
    """Says which files were not used because only one kind is."""
    scored = matched[best].pairs.keys() & wanted
    taken = "".join(sorted({item.path.suffix for item in kinds[best]})[:1])
    others: Counter[str] = Counter()
    alone: dict[str, str] = {}
    for kind, items in kinds.items():
        pairs = {k: v for k, v in matched[kind].pairs.items() if kind != best and k in wanted}
        if scored & pairs.keys():
            others.update(item.path.suffix for item in items)
        alone.update({image: pairs[image].suffix for image in pairs.keys() - scored})
    if others:
        listed = ", ".join(f"{number} {suffix}" for suffix, number in sorted(others.items()))
        warn(
            f"several kinds of files for the same images: {taken} is used, {listed} not; narrow "
            "the glob for another choice"
        )
    if alone:
        warn(
            f"{how_many(len(alone), 'image')} without a mask in {taken} although there is one in "
            f"{', '.join(sorted(set(alone.values())))} ({min(alone)}): only one kind of files is "
            "used; write all masks in one"
        )


def names_of(records: Iterable[ImageRecord], root: Path) -> list[Named]:
    """The names of all images in the manifest, also of those that cannot be used: their masks must
    not be given to others. ``root``: folder of its paths."""
    return [
        Named(
            record.id,
            root / record.image,
            (Path(plain_name(record.image)).parent / _file_name(record.image)).as_posix(),
            record.page,
        )
        for record in records
    ]


def _file_name(path: str) -> str:
    """A file's name without suffix; without what stands for the channels."""
    return stem(Path(plain_name(path)))
